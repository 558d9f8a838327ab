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

from p2pmarket.cli.ledger import brief, moment, open_ledger, write_text
from p2pmarket.cli.ledger import export as export_ledger
from p2pmarket.cli.roles import settings_from
from p2pmarket.cli.show import print_rows, short
from p2pmarket.errors import SettingsError
from p2pmarket.files import private_folder
from p2pmarket.settings import MarketAccess
from p2pmarket.units import format_credits

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
    folder: Path = given.state.expanduser()
    warnings: list[str] = []
    if (folder / "ledger.sqlite").exists():
        if given.export:
            return export_ledger(argparse.Namespace(state=folder, format=given.export, out=given.out))
        rows, receipts = broker_trades(folder)
    elif (folder / "journal.sqlite").exists():
        if given.export:
            return _export_journal(folder, given.export, given.out)
        rows, receipts = _agent_trades(folder)
        warnings = _warnings(folder, given.receipts)
        if given.receipts is not None:
            _write_checkpoints(folder, private_folder(given.receipts.expanduser()), receipts.values())
    else:
        raise SettingsError(f"{folder} holds neither an agent's journal nor a broker's ledger; name it with --state")
    if given.receipts is not None:
        target = private_folder(given.receipts.expanduser())
        for trade, receipt in receipts.items():
            (target / f"{trade}.receipt").write_bytes(receipt)
    if not given.json:
        rows = [_shortened(row) for row in rows]
    print_rows(rows, as_json=given.json, title="trades", empty="no trades yet")
    for warning in warnings:
        print(warning, file=sys.stderr)
    return 0


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


def _write_checkpoints(folder: Path, target: Path, receipts: Iterable[bytes]) -> None:
    """Beside an agent's receipts the largest checkpoint that it holds of each log they are of."""
    from p2pmarket.crypto.keys import Identity
    from p2pmarket.crypto.signing import verify
    from p2pmarket.ledger.agent_journal import AgentJournal
    from p2pmarket.messages import Receipt

    markets = sorted({verify(data, Receipt, signer=None).market for data in receipts})
    with AgentJournal.open(folder / "journal.sqlite", Identity.load(folder / "identity.key").peer_id) as journal:
        heads = [found for market in markets for found in journal.shareable_heads(market, limit=1000)]
    for broker, head in heads:
        (target / f"{broker}-{head.size}.checkpoint").write_bytes(head.body)


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
            "price": format_credits(row.price) if row.receipt else None,
            "stage": row.stage,
            "reason": row.reason,
        }
        for row in found
    ]
    return rows, {row.trade.hex(): row.receipt for row in found if row.receipt}


def _warnings(folder: Path, target: Path | None) -> list[str]:
    """Whom the agent does not trade with any more, and why; what shows it goes into files of `target`, where named."""
    from p2pmarket.crypto.keys import Identity
    from p2pmarket.crypto.signing import type_of
    from p2pmarket.ledger.agent_book import distrust_sentence
    from p2pmarket.ledger.agent_journal import AgentJournal

    identity = Identity.load(folder / "identity.key")
    with AgentJournal.open(folder / "journal.sqlite", identity.peer_id) as journal:
        distrusted, evidence = journal.distrusted(), journal.evidence()
    if target is not None:
        place = private_folder(target.expanduser())
        for number, case in enumerate(evidence, 1):
            for part, body in enumerate(case.bodies, 1):
                (place / f"evidence-{number}-{part}.{type_of(body)}").write_bytes(body)
    return [f"warning: {distrust_sentence(broker, reason)}" for broker, reason in distrusted.items()]


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
                "price": format_credits(row.price) if row.receipt else None,
                "fee": format_credits(row.fee) if row.receipt else None,
                "state": row.state,
                "reason": row.reason,
            }
        )
    return rows, {row.trade.hex(): row.receipt for row in found if row.receipt}
