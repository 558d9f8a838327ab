"""`config show ROLE`: every setting, its value and where it came from."""

from __future__ import annotations

import argparse
import dataclasses
import os

from p2pmarket.cli.show import print_rows
from p2pmarket.options import resolve, written
from p2pmarket.settings import BrokerSettings, NodeSettings


def show(given: argparse.Namespace) -> int:
    """Prints the settings that `node` or `broker` would run with."""
    kind: type[NodeSettings] | type[BrokerSettings] = NodeSettings if given.role == "node" else BrokerSettings
    settings, origins = resolve(kind, vars(given), os.environ, getattr(given, "config", None))
    rows = [
        {"setting": field.name, "value": written(field, getattr(settings, field.name)), "origin": origins[field.name]}
        for field in dataclasses.fields(kind)
    ]
    print_rows(rows, as_json=settings.json, title=f"settings of the {given.role}", empty="none")
    return 0
