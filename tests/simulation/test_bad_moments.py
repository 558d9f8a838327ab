"""A broker at bad moments: uploads that replace each other, faults beside other work, buyers that hang up."""

from __future__ import annotations

import asyncio
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from hostile import Client, a_report, appraisal_of, bid_on, tensors_of
from market_examples import CREDIT, OpenMarket, left, specialist
from peers import eventually
from torch import nn

from p2pmarket.broker_node import negotiation
from p2pmarket.broker_node.appraisals import Appraisals, Progress
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import DiskFull
from p2pmarket.ledger.holds import hold
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import VOID
from p2pmarket.messages import Appraisal, Sold
from p2pmarket.network.session import write_frame
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.units import now_ms
from p2pmarket.wire import Frame, Kind

HOUR_SECONDS = 3600


async def joined(market: MarketInMemory, name: str, folder: Path) -> Client:
    client = Client(market, name, folder)
    await client.hello()
    return client


async def booked(client: Client, model: nn.Module, **changes: Any) -> bytes:
    """Submits, uploads, and waits until it is in the book; the submission's id."""
    submission = (await client.submitted(tensors_of(model), **changes)).submission
    running = client.market.running

    async def there() -> bool:
        found = await running.ledger.inside(lambda db: running.broker._book.get(db, submission))
        return found is not None and found.state != "accepted"

    await eventually(there, every_seconds=0.001)
    return submission


async def test_an_agent_that_uploads_again_and_again_fills_no_disk(open_market: OpenMarket, tmp_path: Path) -> None:
    async with open_market(round_agents=4, round_timeout_seconds=HOUR_SECONDS) as market:
        client = await joined(market, "client", tmp_path)
        for _ in range(12):
            await booked(client, left())
        snapshots = tmp_path / "market" / "broker" / "snapshots"

        async def few() -> bool:
            return len(list(snapshots.iterdir())) <= 2

        await eventually(few)
        waiting = await market.running.ledger.inside(market.running.broker._book.waiting)
        assert [(snapshots / one.id.hex()).exists() for one in waiting] == [True]
        await client.close()


async def test_an_agent_that_submits_again_holds_up_no_round(open_market: OpenMarket, tmp_path: Path) -> None:
    """The round's time counts from when it began to wait, not from its last submission."""
    ahead = [0]
    async with open_market(round_agents=3, round_timeout_seconds=50, clock=lambda: now_ms() + ahead[0]) as market:
        client = await joined(market, "client", tmp_path)
        await booked(client, left())
        ahead[0] = 45_000
        await booked(client, left())
        ahead[0] = 55_000
        assert isinstance(await asyncio.wait_for(client.next_mail(), 20), Appraisal)
        # Those who come after that round wait for their own time.
        await booked(client, left())
        await eventually(lambda: waits(market))
        assert market.running.broker._appraisals._since_ms > now_ms() + 50_000
        await client.close()


async def waits(market: MarketInMemory) -> bool:
    return market.running.broker._appraisals._since_ms < math.inf


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "control: not known as read"])
async def test_what_a_round_reads_is_kept_though_it_is_replaced(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: bool
) -> None:
    begun, released = threading.Event(), threading.Event()
    shortlist, there = Appraiser.shortlist, []

    def held(self: Appraiser, *args: Any, **kwargs: Any) -> Any:
        begun.set()
        released.wait(30)
        there.append((snapshots / first.hex()).exists())
        return shortlist(self, *args, **kwargs)

    monkeypatch.setattr(Appraiser, "shortlist", held)
    if not kept:
        monkeypatch.setattr(
            Appraisals, "reading", property(lambda _: frozenset(), lambda _, value: None), raising=False
        )
    snapshots = tmp_path / "market" / "broker" / "snapshots"
    async with open_market(rounds="continuous") as market:
        client = await joined(market, "client", tmp_path)
        first = await booked(client, left())
        await asyncio.to_thread(begun.wait, 20)
        second = await booked(client, left())
        third = await booked(client, left())  # and a replaced one that nobody reads goes meanwhile

        async def gone() -> bool:
            return not (snapshots / second.hex()).exists()

        await eventually(gone)
        released.set()
        await appraisal_of(client)
        assert there[0] is kept and (snapshots / third.hex()).exists()
        await client.close()


async def test_a_fault_ends_the_pairs_beside_it(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Nothing is left of the round when it is held again: no pair under way, no trade, no file."""
    tried: list[int] = []

    def full(self: Appraiser, *args: Any, **kwargs: Any) -> Any:
        tried.append(1)
        raise DiskFull("full")

    async with open_market(rounds="continuous", max_chain=1) as market:
        sellers = [await joined(market, name, tmp_path) for name in ("two", "three")]
        for number, seller in enumerate(sellers):
            await booked(seller, specialist(2 + number, seed=number), buy=False)
        buyer = await joined(market, "buyer", tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr("p2pmarket.broker_node.broker.PAUSE_SECONDS", 2.0)
            patch.setattr(Appraiser, "appraise", full)
            await buyer.submitted(tensors_of(left()), sell=False, ask=None)

            async def tried_again() -> bool:
                return "tried again" in caplog.text

            await eventually(tried_again)
            assert {trade.state for trade in await market.running.ledger.run(Ledger.trades)} == {VOID}
            assert len(tried) == 1
            assert not list((tmp_path / "market" / "broker" / "deliveries").iterdir())
        caplog.clear()
        assert len(await appraisal_of(buyer)) == 2
        for client in (*sellers, buyer):
            await client.close()


async def test_an_appraisal_that_is_given_up_has_ended_when_its_task_has(open_market: OpenMarket) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(worker: int, progress: Progress) -> None:
        try:
            while True:
                begun.set()
                progress("steps", 0.5)
        finally:
            ended.set()

    async with open_market() as market:
        task = asyncio.create_task(market.running.broker._appraisals._in_worker(work))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()


@pytest.mark.parametrize("held", [0, 19 * CREDIT // 2], ids=["control: nothing held", "held"])
async def test_what_is_held_pays_for_no_chain(open_market: OpenMarket, tmp_path: Path, held: int) -> None:
    async with open_market(round_agents=3, max_chain=2) as market:
        names = {"two": specialist(2, seed=2), "three": specialist(3, seed=3)}
        buyer = await joined(market, "buyer", tmp_path)
        await market.running.ledger.inside(lambda db: hold(db, buyer.peer_id, held))
        clients = [await joined(market, name, tmp_path) for name in names]
        for client, model in zip(clients, names.values(), strict=True):
            await booked(client, model, ask=CREDIT, buy=False)
        await buyer.submitted(tensors_of(specialist(0, 1, seed=1)), sell=False, ask=None)
        reports = await appraisal_of(buyer)
        assert any(report.after is not None for report in reports) is (not held)
        for client in (*clients, buyer):
            await client.close()


# ---- a buyer that hangs up ------------------------------------------------------------------------------------------


class Between:
    """Holds what follows the commit that places a bid."""

    def __init__(self, market: MarketInMemory, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.committed, self.released = asyncio.Event(), asyncio.Event()
        run = market.running.ledger.run

        async def held(work: Any, *args: Any, **kwargs: Any) -> Any:
            result = await run(work, *args, **kwargs)
            if isinstance(result, negotiation.Outcome):
                self.committed.set()
                await self.released.wait()
                if error is not None:
                    raise error
            return result

        monkeypatch.setattr(market.running.ledger, "run", held)


async def hung_up(market: MarketInMemory, folder: Path, between: Between) -> Client:
    """The seller, whose parameters somebody bid for who was gone before it heard the answer."""

    async def join(name: str) -> Client:
        return await joined(market, name, folder)

    buyer, seller, report, _ = await a_report(join)
    bid = bid_on(buyer, report)
    await write_frame(buyer.session, Frame(Kind.REQUEST, 77, sign(buyer.identity, bid)))
    await between.committed.wait()
    await buyer.close()

    async def left_alone() -> bool:
        return buyer.peer_id not in market.running.broker._sessions

    await eventually(left_alone)
    return seller


async def test_a_seller_hears_of_a_sale_whose_buyer_hung_up(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with open_market(rounds="continuous") as market:
        between = Between(market, monkeypatch)
        seller = await hung_up(market, tmp_path, between)
        between.released.set()
        assert isinstance(await asyncio.wait_for(seller.next_mail(), 20), Sold)
        await seller.close()


async def test_what_goes_wrong_after_a_buyer_hung_up_is_logged(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async with open_market(rounds="continuous") as market:
        between = Between(market, monkeypatch, DiskFull("the disk is full"))
        seller = await hung_up(market, tmp_path, between)
        between.released.set()

        async def logged() -> bool:
            return "the disk is full" in caplog.text

        await eventually(logged)
        caplog.clear()
        await seller.close()


async def test_a_broker_that_closes_waits_for_what_follows_a_bid(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with open_market(rounds="continuous") as market:
        between = Between(market, monkeypatch)
        seller = await hung_up(market, tmp_path, between)
        clearing = market.running.broker._clearing
        closing = asyncio.create_task(clearing.close())
        await asyncio.sleep(0)
        assert not closing.done()
        between.released.set()
        await closing
        assert clearing._taking == set()
        await seller.close()
