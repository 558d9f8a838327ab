"""Markets of honest agents: rounds, live asks, strategies, interruptions; the broker answers while it works."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from market_examples import CREDIT, OpenMarket, accuracy, left, right, trained, untrained
from peers import eventually, identity_of

from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import BrokerChanged, ConnectionLost, DiskFull, MarketNotFound, ModelError, Refused
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.messages import AskRequest, Balance, BalanceRequest, Delivered, Fetch, GainReport
from p2pmarket.network.memory import Fault
from p2pmarket.network.session import Session
from p2pmarket.node.agent import AsyncAgent
from p2pmarket.node.buyer import Buyer
from p2pmarket.node.link import again
from p2pmarket.node.strategy import Strategy, Wallet
from p2pmarket.node.welcome import Joined
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.units import now_ms

SELL, BUY = Strategy(buy=False), Strategy(sell=False)


@dataclasses.dataclass(frozen=True)
class LiveAsk(Strategy):
    """Sells without a standing ask: is asked at every bid, and answers `price`, or nothing."""

    buy: bool = False
    price: int | None = CREDIT

    def standing_ask(self) -> int | None:
        return None

    def ask(self, request: AskRequest) -> int | None:
        return self.price


async def states(market: MarketInMemory) -> dict[str, int]:
    """How many trades are in each state."""
    found: dict[str, int] = {}
    for trade in await market.running.ledger.run(Ledger.trades):
        found[trade.state] = found.get(trade.state, 0) + 1
    return found


async def in_order(market: MarketInMemory, agents: int) -> None:
    assert await market.problems() == ()
    assert sum((await market.balances()).values()) == agents * 10 * CREDIT


async def seller_and_buyer(
    market: MarketInMemory, seller: Strategy = SELL, buyer: Strategy = BUY
) -> tuple[AsyncAgent, AsyncAgent]:
    """Agents of a continuous market; the seller's snapshot is in the book."""
    selling = await market.start_agent("seller", seller)
    assert (await selling.trade(right())).problem == ""
    await eventually(lambda: booked(market, 1))
    return selling, await market.start_agent("buyer", buyer)


async def booked(market: MarketInMemory, count: int) -> bool:
    offers = await market.running.ledger.inside(market.running.broker._book.offers)
    return len(offers) == count


# ---- rounds ---------------------------------------------------------------------------------------------------------


async def test_a_continuous_market_appraises_each_against_the_book(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        first = await market.start_agent("first")
        result = await first.trade(left())
        assert (result.round, result.reports, result.note) == (
            1,
            (),
            "nobody else offers parameters in this market now",
        )
        second = await market.start_agent("second")
        result = await second.trade(right())
        assert result.round == 2 and [purchase.seller for purchase in result.bought] == [first.peer_id]
        result = await first.trade(left())
        assert [purchase.seller for purchase in result.bought] == [second.peer_id]
        assert result.sold, "the sale to the second is told at the next visit"
        await in_order(market, 2)


async def test_a_barrier_ends_without_the_agent_that_does_not_come(open_market: OpenMarket) -> None:
    async with open_market(round_agents=3, round_timeout_seconds=0.3) as market:
        one, other = await market.start_agent("left"), await market.start_agent("right")
        await market.start_agent("absent")
        results = await asyncio.gather(one.trade(left()), other.trade(right()))
        assert all(len(result.bought) == 1 for result in results)
        alone = await one.trade(left())
        assert alone.problem == "" and alone.note == "nobody else offers parameters in this market now"


async def test_four_agents_in_one_round_align_each_pair_once(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from p2pmarket.broker_node import pairs

    aligned = []
    align = pairs.align_pair

    def counted(*args: Any, **kwargs: Any) -> Any:
        aligned.append(args)
        return align(*args, **kwargs)

    monkeypatch.setattr(pairs, "align_pair", counted)
    models = [trained(0, 1), trained(2, 2), trained(0, 3), trained(2, 4)]
    before = [accuracy(model) for model in models]
    async with open_market(round_agents=4, max_chain=1) as market:
        agents = [await market.start_agent(f"agent-{index}") for index in range(4)]
        results = await asyncio.gather(*(agent.trade(model) for agent, model in zip(agents, models, strict=True)))
        assert [len(result.reports) for result in results] == [3, 3, 3, 3]
        assert {result.round for result in results} == {1}
        assert len(aligned) == 6, "4 agents are 6 pairs, each in both directions"
        for result, model, was in zip(results, models, before, strict=True):
            gains = [report.gain for report in result.reports]
            assert gains == sorted(gains, reverse=True)
            assert len(result.bought) == 1 and accuracy(model) > was
        found = await states(market)
        assert found.pop("delivered") == 4
        assert sum(found.values()) == 8 and set(found) <= {"declined", "expired"}
        await in_order(market, 4)


# ---- who buys, who sells, for how much ------------------------------------------------------------------------------


async def test_who_only_sells_is_not_appraised_and_who_only_buys_is_not_sold(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        seller, buyer = await seller_and_buyer(market)
        result = await buyer.trade(left())
        assert [purchase.seller for purchase in result.bought] == [seller.peer_id]
        assert [offer.seller for offer in await buyer.offers()] == [seller.peer_id]
        sold = await seller.trade(right())
        assert sold.reports == () and sold.note == "this strategy does not buy"
        assert [sale.price for sale in sold.sold] == [result.bought[0].price]
        assert await states(market) == {"delivered": 1}
        await in_order(market, 2)


@pytest.mark.parametrize(
    ("strategy", "note"),
    [
        (Strategy(sell=False, minimum_gain=1000.0), "not enough for a bid"),
        (Strategy(sell=False, credits_per_gain=0), "no deal: the seller asks more than this bid of 0.00"),
    ],
    ids=["minimum gain", "no overlap"],
)
async def test_nothing_is_bought_that_is_not_worth_it(open_market: OpenMarket, strategy: Strategy, note: str) -> None:
    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market, Strategy(buy=False, reserve=CREDIT), strategy)
        model = left()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        result = await buyer.trade(model)
        assert result.bought == () and len(result.reports) == 1 and note in result.note
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert result.balance == 10 * CREDIT
        assert set(await states(market)) <= {"no-deal", "declined"}
        await in_order(market, 2)


async def test_a_budget_is_never_exceeded(open_market: OpenMarket) -> None:
    budget = 3 * CREDIT
    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(
            market, buyer=Strategy(sell=False, budget=budget, credits_per_gain=100 * CREDIT)
        )
        spent = 0
        for _ in range(3):
            result = await buyer.trade(left())
            spent += sum(purchase.price for purchase in result.bought)
            assert spent <= budget
        assert spent > 0.8 * budget
        assert (await market.balances())[buyer.peer_id] == 10 * CREDIT - spent


async def test_a_bid_above_the_balance_is_refused_and_nothing_moves(open_market: OpenMarket) -> None:
    class Spendthrift(Strategy):
        def bid(self, report: GainReport, wallet: Wallet) -> int | None:
            return 50 * CREDIT

    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market, Strategy(buy=False, reserve=20 * CREDIT), Spendthrift(sell=False))
        result = await buyer.trade(left())
        assert result.bought == () and "10.00 of the account's 10.00 are free" in result.note
        assert await states(market) == {"appraised": 1}, "it was never placed, and binds nobody"
        assert (await buyer.trade(left())).problem == "", "an answer of this kind is final: nothing is left open"
        await in_order(market, 2)


async def test_a_buyer_that_dies_on_a_refusal_has_ended_the_trade_or_sends_the_bid_again(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Spendthrift(Strategy):
        def bid(self, report: GainReport, wallet: Wallet) -> int | None:
            return 50 * CREDIT

    written: list[str] = []
    for name in ("end", "answered"):
        real = getattr(AgentJournal, name)

        def watched(
            journal: AgentJournal, *given: Any, real: Callable[..., None] = real, name: str = name, **more: Any
        ) -> None:
            written.append(name)
            real(journal, *given, **more)

        monkeypatch.setattr(AgentJournal, name, watched)
    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market, Strategy(buy=False, reserve=20 * CREDIT), Spendthrift(sell=False))
        await buyer.trade(left())
    # The bid counts as answered last: who dies before that asks again, who dies after it has nothing left to do.
    assert written == ["end", "answered"]


# ---- live asks ------------------------------------------------------------------------------------------------------


async def test_a_seller_without_a_standing_ask_is_asked(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market, LiveAsk(price=2 * CREDIT))
        result = await buyer.trade(left())
        (purchase,) = result.bought
        assert purchase.price >= 2 * CREDIT
        await in_order(market, 2)


@pytest.mark.parametrize("reason", ["refused", "too dear", "offline", "fails"])
async def test_a_seller_that_names_no_price_in_time(
    open_market: OpenMarket, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    class Broken(LiveAsk):
        def ask(self, request: AskRequest) -> int | None:
            raise ValueError("a bug in somebody's strategy")

    strategy = {"refused": LiveAsk(price=None), "too dear": LiveAsk(price=1000 * CREDIT), "fails": Broken()}
    async with open_market(rounds="continuous", ask_seconds=0.3) as market:
        seller, buyer = await seller_and_buyer(market, strategy.get(reason, LiveAsk()))
        if reason == "offline":
            await market.stop_agent("seller")
        result = await buyer.trade(left())
        sentence = "asks more" if reason == "too dear" else "named no price in time"
        assert result.bought == () and sentence in result.note
        assert await states(market) == {"no-deal": 1}
        if reason == "offline":
            seller = await market.start_agent("seller", LiveAsk())
        assert (await seller.trade(right())).problem == "", "the seller goes on, also with a request that is too late"
        await in_order(market, 2)
    if reason == "fails":
        (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert "Broken failed in ask: ValueError: a bug in somebody's strategy" in said.getMessage()
        assert said.exc_info is None, "a sentence, no traceback"
        caplog.clear()


async def test_a_broker_that_closes_while_it_asks_a_seller(open_market: OpenMarket) -> None:
    """The bid ends as no deal, and its answer is there at the next start."""
    async with open_market(rounds="continuous", ask_seconds=60) as market:
        _, buyer = await seller_and_buyer(market, LiveAsk(price=None))
        visit = asyncio.create_task(buyer.trade(left()))

        async def asked() -> bool:
            return await states(market) == {"quoted": 1}

        await eventually(asked)
        await market.stop_broker()
        await market.start_broker()
        result = await visit
        assert result.problem == "" and "named no price in time" in result.note


# ---- interruptions --------------------------------------------------------------------------------------------------


async def test_a_late_delivery_is_used_only_where_it_is_still_better(
    open_market: OpenMarket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paid and fetched, then killed before it was loaded: the next process has the delivery, and a choice."""
    from p2pmarket.node.buyer import Buyer

    async def killed(self: Buyer, joined: object, trade: bytes) -> None:
        await self._fetch(joined, await self._journal.run(AgentJournal.trade, joined.broker, trade))  # type: ignore[attr-defined, arg-type]
        raise ConnectionLost("killed")

    for model, used in ((left(), True), (None, False)):
        async with open_market(f"market-{used}", rounds="continuous") as market:
            _, buyer = await seller_and_buyer(market)
            with monkeypatch.context() as patch:
                patch.setattr(Buyer, "_collect", killed)
                assert (await buyer.trade(left())).problem == "killed"
            await market.stop_agent("buyer")
            buyer = await market.start_agent("buyer", BUY)
            if model is None:  # training went on meanwhile, past the delivery
                model = await trained_on(market)
            result = await buyer.trade(model)
            assert (result.note == "a late delivery was still better") is used
            assert result.problem == ""
            again = await buyer.trade(left())
            assert again.note != "a late delivery was still better", "once"
            owed = await buyer._journal.run(AgentJournal.owed)
            assert owed == []
            assert not list((tmp_path / f"market-{used}" / "market" / "buyer").glob("deliveries/*"))


async def trained_on(market: MarketInMemory) -> torch.nn.Module:
    """A model that knows all classes."""
    from market_examples import blobs, optimiser_of
    from torch.nn import functional

    model, data = untrained(5), blobs(2000, 50)
    optimiser = optimiser_of(model)
    for _ in range(200):
        optimiser.zero_grad()
        functional.cross_entropy(model(data.inputs), data.targets).backward()
        optimiser.step()
    return model


async def test_an_acknowledgement_that_was_lost_is_told_again(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from p2pmarket.node.link import BrokerLink

    exchange = BrokerLink.exchange

    async def lossy(self: BrokerLink, data: bytes, *more: Any) -> bytes:
        from p2pmarket.crypto.signing import type_of

        if type_of(data) == Delivered.TYPE:
            raise ConnectionLost("lost")
        return await exchange(self, data, *more)

    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        with monkeypatch.context() as patch:
            patch.setattr(BrokerLink, "exchange", lossy)
            result = await buyer.trade(left())
        assert result.bought and result.problem == "", "what is here is used"
        assert await states(market) == {"settled": 1}
        await buyer.trade(left())
        assert (await states(market))["delivered"] >= 1 and "settled" not in await states(market)


async def test_a_delivery_that_the_broker_lost_costs_one_visit(open_market: OpenMarket, tmp_path: Path) -> None:
    from p2pmarket.files import remove_tree
    from p2pmarket.node import buyer as buying

    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        collect = buying.Buyer._collect

        async def lost(self: buying.Buyer, joined: Any, trade: bytes) -> Any:
            remove_tree(tmp_path / "market" / "broker" / "deliveries" / trade.hex())
            return await collect(self, joined, trade)

        buying.Buyer._collect = lost  # type: ignore[method-assign]
        try:
            result = await buyer.trade(left())
        finally:
            buying.Buyer._collect = collect  # type: ignore[method-assign]
        assert "lost this delivery and refunds it" in result.problem and result.bought == ()
        assert (await market.balances())[buyer.peer_id] == 10 * CREDIT
        result = await buyer.trade(left())
        assert result.problem == "" and len(result.bought) == 1


async def test_a_model_that_does_not_fit_is_raised_and_nothing_is_sent(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        agent = await market.start_agent("agent")
        with pytest.raises(ModelError, match="layers"):
            await agent.trade({"layers.0.weight": torch.zeros(2, 2)})
        diverged = left()
        with torch.no_grad():
            next(diverged.parameters())[0, 0] = float("nan")
        with pytest.raises(ModelError, match="did training diverge"):
            await agent.trade(diverged)
        assert (await agent.trade(left())).problem == ""
        assert not list((market.folder / "agent" / "outbox").iterdir())


async def test_a_visit_ends_in_time_and_says_so(open_market: OpenMarket) -> None:
    async with open_market() as market:  # a barrier that waits for somebody else
        agent = await market.start_agent("agent", timeout_seconds=0.3)
        result = await agent.trade(left())
        assert "no answer within" in result.problem and result.balance == 10 * CREDIT


async def test_an_agent_that_is_closed_ends_its_visit(open_market: OpenMarket) -> None:
    async with open_market() as market:
        agent = await market.start_agent("agent")
        visit = asyncio.create_task(agent.trade(left()))

        async def submitted() -> bool:
            return await booked(market, 1)

        await eventually(submitted)
        await market.stop_agent("agent")
        assert "left the market" in (await visit).problem


async def test_an_unknown_task_is_the_callers_and_too_often_the_brokers_to_say(
    open_market: OpenMarket,
) -> None:
    async with open_market(rounds="continuous", submissions_per_hour=1) as market:
        agent = await market.start_agent("agent")
        with pytest.raises(ModelError, match="no task 'chess'; it has blobs"):
            await agent.trade(left(), task="chess")
        assert (await agent.trade(left())).problem == ""
        assert "submissions an hour" in (await agent.trade(left())).problem


async def test_a_full_market_is_told_at_once(open_market: OpenMarket) -> None:
    async with open_market(max_agents=2) as market:
        await asyncio.gather(*[(await market.start_agent(name)).ready() for name in ("one", "two")])
        with pytest.raises(Refused, match="full"):
            await (await market.start_agent("three")).ready()


async def test_a_market_that_nobody_announces_yet(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        await market.stop_broker()
        market.network._table.clear()
        agent = await market.start_agent("agent")
        with pytest.raises(MarketNotFound, match="no broker announces market blobs"):
            await agent.ready()
        assert "no broker announces" in (await agent.trade(left())).problem
        await market.start_broker()

        async def joins() -> bool:
            return (await agent.trade(left())).problem == ""

        await eventually(joins)


async def test_a_broker_that_was_of_use_stays_in_the_peer_book(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        agent = await market.start_agent("agent")
        await agent.ready()
        book = market._agents["agent"].book
        (used,) = await book.run(lambda peers: peers._database.execute("SELECT used_ms FROM brokers").fetchone())
        assert used > 0


async def test_a_broker_out_of_reach_for_a_while(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        await market.stop_broker()
        visit = asyncio.create_task(buyer.trade(left()))
        await market.start_broker()
        assert len((await visit).bought) == 1


async def test_a_new_snapshot_while_the_old_one_is_appraised(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one is not revived by its round's end: the book has one snapshot an agent."""
    async with open_market(rounds="continuous") as market:
        gate = Gate(monkeypatch)
        _, buyer = await seller_and_buyer(market, buyer=Strategy())
        visit = asyncio.create_task(buyer.trade(left()))
        await gate.reached()
        visit.cancel()
        await asyncio.gather(visit, return_exceptions=True)
        again = asyncio.create_task(buyer.trade(left()))

        async def arrived() -> bool:
            return market.running.broker.counts["parcels"] == 3

        await eventually(arrived)
        gate.open()
        assert (await again).problem == ""
        assert await booked(market, 2)


# ---- while the broker works -----------------------------------------------------------------------------------------


class Gate:
    """Holds appraisals in the worker's thread until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._in, self._go = threading.Event(), threading.Event()
        appraise = Appraiser.appraise

        def held(appraiser: Appraiser, *args: Any, **kwargs: Any) -> Any:
            self._in.set()
            assert self._go.wait(20)
            return appraise(appraiser, *args, **kwargs)

        monkeypatch.setattr(Appraiser, "appraise", held)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._in.wait, 20)

    def open(self) -> None:
        self._go.set()


async def test_the_broker_answers_while_it_appraises(open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_market(rounds="continuous") as market:
        gate = Gate(monkeypatch)
        seller, buyer = await seller_and_buyer(market)
        visit = asyncio.create_task(buyer.trade(left()))
        await gate.reached()
        assert await seller.balance() == 10 * CREDIT
        assert len(await seller.offers()) == 1
        another = await market.start_agent("another")
        await another.ready()
        assert not visit.done(), "all this while the appraisal was held"
        gate.open()
        assert len((await visit).bought) == 1


async def test_a_broker_closes_in_the_middle_of_an_appraisal(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event loop goes on meanwhile; the round is held again after the next start."""
    async with open_market(rounds="continuous") as market:
        gate = Gate(monkeypatch)
        _, buyer = await seller_and_buyer(market)
        visit = asyncio.create_task(buyer.trade(left()))
        await gate.reached()
        closing = asyncio.create_task(market.stop_broker())
        await asyncio.sleep(0)
        assert not closing.done()
        gate.open()
        await closing
        await market.start_broker()
        assert len((await visit).bought) == 1
        assert await states(market) == {"void": 1, "delivered": 1}


async def test_appraisals_that_fail_void_their_trades_and_the_market_goes_on(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        with monkeypatch.context() as patch:
            patch.setattr(Appraiser, "appraise", broken)
            result = await buyer.trade(left())
        assert (result.problem, result.reports) == ("", ())
        assert await states(market) == {"void": 1}
        assert len((await buyer.trade(left())).bought) == 1


async def test_a_fault_as_data(open_market: OpenMarket) -> None:
    """The broker vanishes at its 4th write, by a fault that was given when the market was made."""
    async with open_market(rounds="continuous") as quiet:
        peer = quiet.running.peer_id
        network = quiet.network
        network._faults = frozenset({Fault(peer, 4)})
        agent = await quiet.start_agent("agent", timeout_seconds=1)
        result = await agent.trade(left())
        assert result.problem and network.peer(peer) is None
        await quiet.stop_broker()
        await quiet.start_broker()
        assert (await agent.trade(left())).problem == ""


# ---- what a broker forgets ------------------------------------------------------------------------------------------


async def test_replies_and_old_submissions_go_when_nobody_can_need_them(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        selling, _ = await seller_and_buyer(market)
        assert (await selling.trade(right())).problem == ""  # ends the first submission

        def counts(ledger: Ledger) -> tuple[int, int]:
            with ledger.transaction() as db:
                (replies,) = db.execute("SELECT count(*) FROM replies").fetchone()
                (submissions,) = db.execute("SELECT count(*) FROM submissions").fetchone()
                return replies, submissions

        async def rounds_done() -> bool:
            return await market.running.ledger.inside(market.running.broker._book.last_round) >= 2

        await eventually(rounds_done)
        assert await market.running.ledger.run(counts) == (2, 2)

        def forget(ledger: Ledger, before_ms: int) -> None:
            with ledger.transaction() as db:
                ledger.forget_replies(before_ms)
                market.running.broker._book.forget(db, before_ms)

        await market.running.ledger.run(forget, now_ms() - 3_600_000)
        assert await market.running.ledger.run(counts) == (2, 2)
        await market.running.ledger.run(forget, now_ms() + 3_600_000)
        assert await market.running.ledger.run(counts) == (0, 1)
        assert await market.running.ledger.inside(market.running.broker._book.last_round) >= 2


async def test_a_round_that_this_machine_could_not_hold_is_held_again(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    appraise, faults = Appraiser.appraise, [DiskFull("full"), DiskFull("full")]

    def faulty(self: Appraiser, *args: Any, **kwargs: Any) -> Any:
        if faults:
            raise faults.pop()
        return appraise(self, *args, **kwargs)

    monkeypatch.setattr(Appraiser, "appraise", faulty)
    monkeypatch.setattr("p2pmarket.broker_node.broker.PAUSE_SECONDS", 0.01)
    async with open_market() as market:
        agents = [await market.start_agent(name) for name in ("a", "b")]
        results = await asyncio.gather(agents[0].trade(left()), agents[1].trade(right()))
        assert [len(result.reports) for result in results] == [1, 1]
        await in_order(market, 2)
    assert caplog.text.count("a round failed and is tried again: full") == 2  # the operator is told
    caplog.clear()


async def test_a_buyer_hears_that_the_broker_failed_not_that_nobody_offers(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Appraiser, *args: Any, **kwargs: Any) -> Any:
        raise ModelError("this pair cannot be merged")

    monkeypatch.setattr(Appraiser, "appraise", failing)
    async with open_market() as market:
        agents = [await market.start_agent(name) for name in ("a", "b")]
        results = await asyncio.gather(agents[0].trade(left()), agents[1].trade(right()))
        assert [result.note for result in results] == ["the broker could not appraise what others offer now"] * 2


# ---- what a visit leaves for the next -------------------------------------------------------------------------------


async def test_a_full_disk_after_paying_costs_neither_the_purchase_nor_the_training(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise DiskFull("the disk is full")

    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        model = left()
        before = accuracy(model)
        with monkeypatch.context() as patch:
            patch.setattr(AgentJournal, "loaded", full)
            result = await buyer.trade(model)
            assert result.problem == "the disk is full" and len(result.bought) == 1
            assert result.balance == (await market.balances())[buyer.peer_id] < 10 * CREDIT
            assert accuracy(model) > before + 0.1
            assert (await buyer.trade(model)).problem == "the disk is full", "a visit does not begin before it is noted"
        result = await buyer.trade(left())
        assert result.problem == "" and result.note != "a late delivery was still better"
        assert await buyer._journal.run(AgentJournal.owed) == []


@pytest.mark.parametrize("noted", [True, False])
async def test_tensors_by_name_are_kept_until_the_caller_has_put_them_away(
    open_market: OpenMarket, tmp_path: Path, noted: bool
) -> None:
    """A process that ends before is given them again by the next."""
    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        result = await buyer.trade(dict(left().state_dict()))
        (purchase,) = result.bought
        if noted:
            assert (await buyer.loaded(result)).problem == ""
        assert len(list((tmp_path / "market" / "buyer" / "deliveries").iterdir())) == (not noted)
        await market.stop_agent("buyer")
        buyer = await market.start_agent("buyer", BUY)
        again = await buyer.trade(dict(left().state_dict()))
        assert (again.bought[0].trade == purchase.trade) is not noted
        later = await buyer.trade(dict(left().state_dict()))
        assert purchase.trade not in [each.trade for each in later.bought], "the next visit notes it"


async def test_a_visit_that_fails_tells_the_balance_that_was_heard_of_last(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        bought = await buyer.trade(left())
        assert bought.balance == 10 * CREDIT - bought.bought[0].price
        buyer._timeout_seconds = 0.1
        await market.stop_broker()
        failed = await buyer.trade(left())
        assert failed.problem and failed.balance == bought.balance
        await market.start_broker()


async def test_a_sale_that_is_told_late_does_not_change_a_newer_balance() -> None:
    joined = object.__new__(Joined)
    joined.balance, joined._balance_ms = 7, 100
    joined.note_balance(5, 99)
    assert joined.balance == 7
    joined.note_balance(8, 100)
    assert joined.balance == 8


async def test_what_was_begun_with_one_broker_is_not_told_another(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        agent = await market.start_agent("agent")
        await agent.ready()
        link, another = agent._link, identity_of("another broker").peer_id
        delivered = sign(agent._identity, Delivered(bytes(16), bytes(16), bytes(32)))
        before = market.running.broker.counts.copy()
        with pytest.raises(BrokerChanged, match="is out of reach"):
            await link.exchange(delivered, another)
        with pytest.raises(BrokerChanged):
            await link.request(BalanceRequest(bytes(16)), Balance, broker=another)
        with pytest.raises(BrokerChanged):
            await again(lambda: link.parcel_stream(Fetch(bytes(16), bytes(16)), another))
        assert market.running.broker.counts == before, "nothing was sent"


async def test_a_bid_stays_open_while_another_broker_is_joined(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        send = Buyer._send_bid

        async def elsewhere(self: Buyer, joined: Any, bid: Any, data: bytes) -> Any:
            assert self._link.joined is not None
            with monkeypatch.context() as patch:
                patch.setattr(Session, "peer_id", identity_of("another broker").peer_id)
                return await send(self, joined, bid, data)

        with monkeypatch.context() as patch:
            patch.setattr(Buyer, "_send_bid", elsewhere)
            result = await buyer.trade(left())
        assert "was joined" in result.problem and result.bought == ()
        assert len(await buyer._journal.run(AgentJournal.unanswered, market.running.peer_id)) == 1
        assert (await states(market)).keys().isdisjoint({"settled", "delivered"})
        result = await buyer.trade(left())
        assert result.problem == "" and len(result.bought) == 1, "back with its broker it is settled once"
