"""`offers` and `trades`: what is on the market, and what became of one's own trades."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from p2pmarket.cli.books import brief, moment, open_ledger, write_text
from p2pmarket.cli.ledger import export as export_ledger
from p2pmarket.cli.roles import settings_from
from p2pmarket.cli.show import print_rows, printable, short
from p2pmarket.errors import SettingsError
from p2pmarket.files import private_folder, write_whole
from p2pmarket.settings import MarketAccess
from p2pmarket.units import counted

Row = dict[str, Any]


def offers(given: argparse.Namespace) -> int:
    """Markets and brokers that are announced, or (with --market) what is for sale in one market."""
    access = settings_from(MarketAccess, given)
    if not access.initial_peers:
        raise SettingsError("through whom? give --peers with the address that any peer of the network printed")
    rows = asyncio.run(_offers_in(access) if access.market else _markets(access))
    title = f"offers on {access.market}" if access.market else "markets"
    print_rows(rows, as_json=access.json, title=title, empty="nothing is announced")
    return 0


def trades(given: argparse.Namespace) -> int:
    """One's own trades, the newest first, and on stderr the brokers that are not traded with any more."""
    _check_flags(given)
    folder: Path = given.state.expanduser()
    files: dict[str, bytes] = {}
    warnings: list[str] = []
    if (folder / "ledger.sqlite").exists():
        if given.export:
            return export_ledger(argparse.Namespace(state=folder, format=given.export, out=given.out))
        rows, receipts = broker_trades(folder)
    elif (folder / "journal.sqlite").exists():
        if given.export:
            return _export_journal(folder, given.export, given.out)
        rows, receipts = _agent_trades(folder)
        warnings, files = _distrusted(folder)
        files |= _checkpoints(folder, receipts.values())
    else:
        raise SettingsError(f"{folder} holds neither an agent's journal nor a broker's ledger; name it with --state")
    if given.receipts is not None:
        _write_files(given.receipts, {f"{trade}.receipt": receipt for trade, receipt in receipts.items()}, files)
    if not given.json:
        rows = [_shortened(row) for row in rows]
    print_rows(rows, as_json=given.json, title="trades", empty="no trades yet", amounts=("price", "fee"))
    for warning in warnings:
        print(printable(warning), file=sys.stderr)
    return 0


def _check_flags(given: argparse.Namespace) -> None:
    """:raises SettingsError: flags that would do nothing"""
    if given.out is not None and not given.export:
        raise SettingsError("--out says where an export goes; say also --export csv or --export beancount")
    if given.export and given.json:
        raise SettingsError("--export writes CSV or beancount and no JSON; leave --json or --export out")
    if given.export and given.receipts is not None:
        raise SettingsError("--export and --receipts are two commands; give one of them at a time")


def _write_files(receipts: Path, *groups: dict[str, bytes]) -> None:
    """Writes files to a folder and says on stderr how many of which kind.

    :raises DiskFull, MachineFault: they cannot be written
    """
    target = private_folder(receipts.expanduser())
    files = {name: data for group in groups for name, data in group.items()}
    for name, data in files.items():
        write_whole(target / name, data, "what is signed")
    endings = [name.rpartition(".")[2] for name in files]
    written = [counted(endings.count(kind), kind) for kind in sorted({"receipt", *endings}, reverse=True)]
    print(f"wrote {' and '.join(written)} to {printable(str(receipts))}", file=sys.stderr)


def _export_journal(folder: Path, format: str, out: Path | None) -> int:
    """What an agent bought and sold, for other programs."""
    from p2pmarket.crypto.keys import Identity
    from p2pmarket.ledger.agent_journal import AgentJournal
    from p2pmarket.ledger.export import journal_beancount, journal_csv

    peer = Identity.load(folder / "identity.key").peer_id
    with AgentJournal.open(folder / "journal.sqlite", peer) as journal:
        found = journal.trades()
    write_text(journal_csv(found) if format == "csv" else journal_beancount(found, peer), out)
    return 0


def _checkpoints(folder: Path, receipts: Iterable[bytes]) -> dict[str, bytes]:
    """The largest checkpoint that an agent holds of each log that its receipts are of, by file name."""
    from p2pmarket.crypto.keys import Identity
    from p2pmarket.crypto.signing import verify
    from p2pmarket.ledger.agent_journal import AgentJournal
    from p2pmarket.messages import Receipt

    markets = sorted({verify(data, Receipt, signer=None).market for data in receipts})
    with AgentJournal.open(folder / "journal.sqlite", Identity.load(folder / "identity.key").peer_id) as journal:
        heads = [found for market in markets for found in journal.shareable_heads(market, limit=1000)]
    return {f"{broker}-{head.size}.checkpoint": head.body for broker, head in heads}


def _shortened(row: Row) -> Row:
    """Ids cut to what tells them apart, so that a table fits a terminal; --json has them whole."""
    peers: Row = {name: short(row[name]) for name in ("buyer", "seller", "partner") if name in row}
    return {**row, "trade": row["trade"][:8], "time": brief(row["time"]), **peers}


async def _markets(access: MarketAccess) -> list[Row]:
    """Looks with an identity that is thrown away: one's own may be in use by a running agent."""
    from p2pmarket.crypto.keys import Identity
    from p2pmarket.network.directory import list_markets
    from p2pmarket.network.libp2p import Libp2pTransport

    with tempfile.TemporaryDirectory(prefix="p2pmarket-look-") as folder:
        path = Path(folder) / "identity.key"
        Identity.generate().save(path)
        transport = await Libp2pTransport.create(
            dataclasses.replace(access.network(), identity_path=path, client_mode=True)
        )
        try:
            markets = await list_markets(transport)
        finally:
            await transport.close()
    return [
        {
            "market": market,
            "broker": statement.broker,
            "name": statement.public_name,
            "announced": moment(statement.issued_ms),
        }
        for market, statements in markets.items()
        for statement in statements
    ]


async def _offers_in(access: MarketAccess) -> list[Row]:
    from p2pmarket.node.joining import joined
    from p2pmarket.node.strategy import Strategy

    async with joined(access, Strategy(buy=False, sell=False)) as agent:
        return [
            {"seller": offer.seller, "task": offer.task, "step": offer.step, "submitted": moment(offer.submitted_ms)}
            for offer in await agent.offers()
        ]


def _agent_trades(folder: Path) -> tuple[list[Row], dict[str, bytes]]:
    from p2pmarket.crypto.keys import Identity
    from p2pmarket.ledger.agent_journal import AgentJournal

    identity = Identity.load(folder / "identity.key")
    with AgentJournal.open(folder / "journal.sqlite", identity.peer_id) as journal:
        found = journal.trades()
    rows = [
        {
            "trade": row.trade.hex(),
            "time": moment(row.noted_ms),
            "role": row.role,
            "partner": row.partner,
            "gain": row.gain,
            "price": row.price if row.receipt else None,
            "stage": row.stage,
            "reason": row.reason,
        }
        for row in found
    ]
    return rows, {row.trade.hex(): row.receipt for row in found if row.receipt}


def _distrusted(folder: Path) -> tuple[list[str], dict[str, bytes]]:
    """Whom the agent does not trade with any more, and why; and what shows it, by file name."""
    from p2pmarket.crypto.keys import Identity
    from p2pmarket.crypto.signing import type_of
    from p2pmarket.ledger.agent_book import distrust_sentence
    from p2pmarket.ledger.agent_journal import AgentJournal

    identity = Identity.load(folder / "identity.key")
    with AgentJournal.open(folder / "journal.sqlite", identity.peer_id) as journal:
        distrusted, evidence = journal.distrusted(), journal.evidence()
    files = {
        f"evidence-{number}-{part}.{type_of(body)}": body
        for number, case in enumerate(evidence, 1)
        for part, body in enumerate(case.bodies, 1)
    }
    return [f"warning: {distrust_sentence(broker, reason)}" for broker, reason in distrusted.items()], files


def broker_trades(folder: Path) -> tuple[list[Row], dict[str, bytes]]:
    from p2pmarket.crypto.signing import verify
    from p2pmarket.messages import GainReport

    with open_ledger(folder) as ledger:
        found = ledger.trades()
    rows = []
    for row in found:
        report = verify(row.report, GainReport, signer=None) if row.report else None
        rows.append(
            {
                "trade": row.trade.hex(),
                "time": moment(row.created_ms),
                "buyer": row.buyer,
                "seller": row.seller,
                "gain": report.gain if report else None,
                "merit": report.merit if report else None,
                "price": row.price if row.receipt else None,
                "fee": row.fee if row.receipt else None,
                "state": row.state,
                "reason": row.reason,
            }
        )
    return rows, {row.trade.hex(): row.receipt for row in found if row.receipt}
