"""`doctor`: check this machine and the way to a market; for each thing what is wrong and how to mend it."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import shutil
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from p2pmarket.cli.roles import settings_from
from p2pmarket.cli.show import print_rows
from p2pmarket.errors import MarketError
from p2pmarket.files import private_folder
from p2pmarket.limits import MAX_CLOCK_SKEW_SECONDS
from p2pmarket.settings import MarketAccess
from p2pmarket.units import format_bytes

Row = dict[str, Any]

ENOUGH_DISK_BYTES = 1024**3


def doctor(given: argparse.Namespace) -> int:
    """Exit code 0 when every check passed, 1 otherwise."""
    access = settings_from(MarketAccess, given)
    checks = {"versions": _versions, "identity": _identity, "disk": _disk, "device": _device, "brokers": _brokers}
    rows = [_try(name, check, access) for name, check in checks.items()]
    rows += asyncio.run(_network(access))
    print_rows(rows, as_json=access.json, title="doctor", empty="")
    return 0 if all(row["ok"] for row in rows) else 1


def _try(check: str, look: Callable[[MarketAccess], str], access: MarketAccess) -> Row:
    try:
        return {"check": check, "ok": True, "finding": look(access)}
    except MarketError as error:
        return {"check": check, "ok": False, "finding": str(error)}


def _versions(access: MarketAccess) -> str:
    names = ("p2pmarket", "hivemind", "torch", "cryptography")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    return ", ".join([*found, f"SQLite {sqlite3.sqlite_version}", f"Python {sys.version.split()[0]}"])


def _identity(access: MarketAccess) -> str:
    from p2pmarket.crypto.keys import Identity

    private_folder(access.folder)
    return f"{Identity.load_or_create(access.identity_file).peer_id} in {access.identity_file}"


def _disk(access: MarketAccess) -> str:
    free = shutil.disk_usage(access.folder).free
    if free < ENOUGH_DISK_BYTES:
        raise MarketError(
            f"{access.folder} has {format_bytes(free)} free; parcels need room: free some, or move it with --state"
        )
    return f"{format_bytes(free)} free at {access.folder}"


def _device(access: MarketAccess) -> str:
    import torch

    if torch.cuda.is_available():
        return f"GPU: {torch.cuda.get_device_name(0)}"
    return "CPU (torch sees no GPU; a broker appraises on the CPU, which is fine for small models)"


def _brokers(access: MarketAccess) -> str:
    """Whom the agent of this folder trades with no more."""
    from p2pmarket.crypto.keys import Identity
    from p2pmarket.ledger.agent_book import distrust_sentence
    from p2pmarket.ledger.agent_journal import AgentJournal

    path = access.folder / "journal.sqlite"
    if not path.exists():
        return "no agent has traded from here"
    with AgentJournal.open(path, Identity.load(access.identity_file).peer_id) as journal:
        distrusted = journal.distrusted()
    if distrusted:
        raise MarketError("; ".join(distrust_sentence(broker, reason) for broker, reason in distrusted.items()))
    return "none is distrusted"


async def _network(access: MarketAccess) -> list[Row]:
    """The daemon, the bootstrap, the market and its broker's clock, as far as settings name them."""
    from p2pmarket.network.libp2p import Libp2pTransport

    try:
        transport = await Libp2pTransport.create(access.network())
    except MarketError as error:
        return [{"check": "network", "ok": False, "finding": str(error)}]
    addresses = await transport.addresses()
    await transport.close()
    through = f"joined through {len(access.initial_peers)} peer(s)" if access.initial_peers else "no --peers given"
    rows: list[Row] = [{"check": "network", "ok": True, "finding": f"listens on {' '.join(addresses)}; {through}"}]
    if access.market:
        try:
            rows.append({"check": "market", "ok": True, "finding": await _market(access)})
        except MarketError as error:
            rows.append({"check": "market", "ok": False, "finding": str(error)})
    return rows


async def _market(access: MarketAccess) -> str:
    from p2pmarket.node.joining import joined
    from p2pmarket.node.strategy import Strategy

    async with joined(access, Strategy(buy=False, sell=False)) as agent:
        skew = agent.clock_skew_seconds
        if abs(skew) > MAX_CLOCK_SKEW_SECONDS:
            raise MarketError(f"the broker's clock is {skew:+.1f} s off ours; set both clocks (NTP)")
        return f"broker {agent.broker} welcomes this agent; clocks differ by {skew:+.2f} s"
