"""Broker, buyer and seller killed at every step of one round, restarted from their folders: nothing is lost or doubled.

The steps of a round are counted in a run without a crash. Which thread comes first may differ from run to run, so a
step near the end may not come; then nobody is killed and the checks hold all the more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from crashes import Crash, Killer
from market_examples import CREDIT, OpenMarket, left, right

from p2pmarket.crypto.signing import verify
from p2pmarket.ledger.agent_journal import AgentJournal, AgentTrade
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.ledger.trade import ENDS, PAID
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import GainReport
from p2pmarket.node.results import TradeResult
from p2pmarket.simulation.market import MarketInMemory

AGENTS = ("left", "right")
PARTIES = ("broker", *AGENTS)
MOST_STEPS = {("broker", "write"): 36, ("broker", "commit"): 52, ("agent", "write"): 19, ("agent", "commit"): 34}
"""Steps of a round with two purchases; a test holds them against a run that counts."""


async def a_round(market: MarketInMemory, killer: Killer) -> dict[str, TradeResult]:
    """One visit of both agents, in which the party of the crash is killed and started again."""
    killer.names = {market.identity(party).peer_id: party for party in PARTIES}
    killer.watch(market.network)
    for name in AGENTS:
        await market.start_agent(name, timeout_seconds=20)
    visits = {name: visit(market, name) for name in AGENTS}
    dying = asyncio.create_task(killer.happened.wait())
    both = asyncio.ensure_future(asyncio.wait(visits.values()))
    await asyncio.wait({dying, both}, return_when=asyncio.FIRST_COMPLETED)
    both.cancel()
    dying.cancel()
    if killer.happened.is_set() and killer.crash is not None:
        party = killer.crash.party
        if party == "broker":
            await market.stop_broker()
            await market.start_broker()
        else:
            visits[party].cancel()
            await market.stop_agent(party)
            await market.start_agent(party, timeout_seconds=20)
            visits[party] = visit(market, party)
            # The other one may have had its round before the crash: it comes again, or both wait for the timeout.
            other = next(name for name in AGENTS if name != party)
            while not visits[party].done():
                await asyncio.wait({visits[party], visits[other]}, return_when=asyncio.FIRST_COMPLETED)
                if visits[other].done() and not visits[party].done():
                    visits[other] = visit(market, other)
    results = {name: await visits[name] for name in AGENTS}
    killer.crash = None
    return results


def visit(market: MarketInMemory, name: str) -> asyncio.Task[TradeResult]:
    return asyncio.create_task(market.agent(name).trade({"left": left, "right": right}[name]()))


async def settle(market: MarketInMemory) -> None:
    """Both visit again, with untouched models, until a round went well for both: the market is alive."""
    for _ in range(4):
        results = await asyncio.gather(*(visit(market, name) for name in AGENTS))
        if all(result.problem == "" and len(result.reports) == 1 for result in results):
            return
    raise AssertionError(f"the market does not come back: {results}")


async def check(market: MarketInMemory, folder: Path) -> None:
    """Money is conserved, every trade ended at most once, paid for exactly what was delivered, and all books agree."""
    ledger = market.running.ledger
    broker = market.running.peer_id
    assert await market.problems() == ()
    balances = await market.balances()
    assert sum(balances.values()) == 2 * 10 * CREDIT
    trades = {trade.trade: trade for trade in await ledger.run(Ledger.trades)}
    expected = Counter({market.identity(name).peer_id: 10 * CREDIT for name in AGENTS})
    for trade in trades.values():
        assert (trade.receipt is not None) == (trade.state in PAID)
        if trade.state in PAID:
            expected[trade.buyer] -= trade.price
            expected[trade.seller] += trade.price - trade.fee
            expected[broker] += trade.fee
            if trade.state not in ENDS:
                assert any((folder / "broker" / "deliveries" / trade.trade.hex()).rglob("*"))
    assert +expected == +Counter(balances)
    for name in AGENTS:
        peer = market.identity(name).peer_id
        with AgentJournal.open(folder / name / "journal.sqlite", peer) as journal:
            check_journal(peer, broker, journal.trades(), trades)
            assert journal.unanswered(broker) == []


def check_journal(peer: str, broker: str, rows: Sequence[AgentTrade], trades: dict[bytes, TradeRow]) -> None:
    """An agent's own books against the broker's, after everything that was open has been taken up."""
    known = {row.trade: row for row in rows}
    for trade in trades.values():
        if trade.state in PAID and peer in (trade.buyer, trade.seller):
            assert known[trade.trade].receipt == trade.receipt, "paid, and this side does not know"
    for row in rows:
        trade = trades[row.trade]
        if row.receipt is None:
            assert trade.state not in PAID
            continue
        receipt = verify_receipt(row.receipt, broker)
        assert (receipt.price, receipt.fee) == (trade.price, trade.fee)
        if row.role == "buyer":
            assert row.stage in ("loaded", "over", "fetched")
            assert row.report is not None
            assert verify(row.report, GainReport, signer=broker).delivery == receipt.delivery


async def test_the_steps_of_a_round_are_those_that_are_tried(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = Killer(monkeypatch, None)
    async with open_market(round_timeout_seconds=1) as market:
        results = await a_round(market, killer)
        assert all(len(result.bought) == 1 for result in results.values())
    for (party, kind), steps in killer.steps.items():
        assert 0.5 * (most := MOST_STEPS["broker" if party == "broker" else "agent", kind]) < steps <= most


def every_crash() -> Iterator[object]:
    """Every write, every third commit of an agent and every second of the broker; those between are marked slow."""
    for kind in ("write", "commit"):
        for party in PARTIES:
            for step in range(1, MOST_STEPS["broker" if party == "broker" else "agent", kind] + 1):
                marks = [pytest.mark.slow] if kind == "commit" and step % (2 if party == "broker" else 3) else []
                yield pytest.param(Crash(party, kind, step), id=f"{party}-{kind}-{step}", marks=marks)


@pytest.mark.parametrize("crash", list(every_crash()))
async def test_killed_and_restarted(
    crash: Crash, open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killer = Killer(monkeypatch, crash)
    async with open_market(round_timeout_seconds=0.5) as market:
        await a_round(market, killer)
        await settle(market)
        await check(market, tmp_path / "market")
