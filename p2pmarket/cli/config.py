"""`config show ROLE`: every setting, its value and where it came from."""

from __future__ import annotations

import argparse
import os

from p2pmarket.cli.show import print_rows
from p2pmarket.options import resolve
from p2pmarket.settings import BrokerSettings, NodeSettings


def show(given: argparse.Namespace) -> int:
    """Prints the settings that `node` or `broker` would run with."""
    kind: type[NodeSettings] | type[BrokerSettings] = NodeSettings if given.role == "node" else BrokerSettings
    settings, origins = resolve(kind, vars(given), os.environ, getattr(given, "config", None))
    rows = [
        {"setting": name, "value": _plain(getattr(settings, name)), "origin": origin}
        for name, origin in origins.items()
    ]
    print_rows(rows, as_json=settings.json, title=f"settings of the {given.role}", empty="none")
    return 0


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return value if isinstance(value, (int, float, str, type(None))) else str(value)
