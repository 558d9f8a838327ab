"""`node` and `broker`: settings resolved, the role imported and run, its events shown as text or JSON lines."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
from typing import TypeVar

from p2pmarket.cli.show import emitter
from p2pmarket.options import resolve
from p2pmarket.settings import BrokerSettings, NodeSettings, PeerSettings

S = TypeVar("S")


def settings_from(kind: type[S], given: argparse.Namespace) -> S:
    """The settings of a command line, the environment and the file it names.

    :raises SettingsError: an unknown key or a value that does not parse
    """
    settings, _ = resolve(kind, vars(given), os.environ, getattr(given, "config", None))
    return settings


def run_peer(given: argparse.Namespace) -> int:
    """`p2pmarket peer`."""
    settings = settings_from(PeerSettings, given)
    from p2pmarket.node.bootstrap import run_peer as run

    asyncio.run(run(settings, emitter(settings.json)))
    return 0


def run_node(given: argparse.Namespace) -> int:
    """`p2pmarket node`."""
    settings, origins = resolve(NodeSettings, vars(given), os.environ, getattr(given, "config", None))
    from p2pmarket.node.service import run_node as run

    asyncio.run(run(settings, emitter(settings.json), origins))
    return 0


def run_broker(given: argparse.Namespace) -> int:
    """`p2pmarket broker`."""
    settings = settings_from(BrokerSettings, given)
    if settings.market is not None:
        settings = dataclasses.replace(settings, market=settings.market.expanduser())
    from p2pmarket.broker_node.service import run_broker as run

    asyncio.run(run(settings, emitter(settings.json)))
    return 0
