"""Agents with strategies: who pays what to whom, who hears of refunds, what an interrupted negotiation leaves."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from market_examples import CREDIT, OpenMarket, left, right
from peers import eventually
from test_markets import in_order, seller_and_buyer, states

from p2pmarket.broker_node import parcels
from p2pmarket.broker_node.parcels import Parcels
from p2pmarket.crypto.signing import type_of, verify
from p2pmarket.errors import ConnectionLost, Refused
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.messages import Ask, AskRequest, Bid, GainReport, Unmatched
from p2pmarket.node.buyer import Buyer
from p2pmarket.node.link import BrokerLink
from p2pmarket.node.strategies.budgeted import Budgeted
from p2pmarket.node.strategies.collaborative import Collaborative
from p2pmarket.node.strategies.competitive import Competitive
from p2pmarket.node.strategies.paper import PaperSeller
from p2pmarket.node.strategy import Strategy, Wallet
from p2pmarket.simulation.market import MarketInMemory


@dataclasses.dataclass(frozen=True)
class Steps(Strategy):
    """Bids, and asks, these micro-credits one after the other."""

    amounts: tuple[int, ...] = ()

    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        return self.amounts[0]

    def raise_bid(self, report: GainReport, unmatched: Unmatched, last_bid: int, wallet: Wallet) -> int | None:
        assert wallet.balance == 10 * CREDIT and wallet.spent == 0, "a bid that was unmatched binds no longer"
        return self.amounts[unmatched.revision + 1] if unmatched.revision + 1 < len(self.amounts) else None

    def standing_ask(self) -> int | None:
        return self.amounts[0]

    def lower_ask(self, request: AskRequest, last_ask: int) -> int | None:
        assert last_ask == self.amounts[request.revision - 1]
        return self.amounts[request.revision]


def selling(*credits: float) -> Steps:
    return Steps(buy=False, amounts=tuple(round(amount * CREDIT) for amount in credits))


def buying(*credits: float) -> Steps:
    return Steps(sell=False, amounts=tuple(round(amount * CREDIT) for amount in credits))


# ---- negotiations ---------------------------------------------------------------------------------------------------


async def test_agents_meet_at_the_first_overlap(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous", max_revisions=3) as market:
        seller, buyer = await seller_and_buyer(market, selling(6, 5, 4), buying(1, 2, 4.5))
        (purchase,) = (await buyer.trade(left())).bought
        assert purchase.price == round(4.25 * CREDIT)
        (sale,) = (await seller.trade(right())).sold
        assert sale.price == purchase.price
        await in_order(market, 2)


@pytest.mark.parametrize("max_revisions", [0, 1])
async def test_an_ask_binds_as_long_as_its_bid_may_be_raised(open_market: OpenMarket, max_revisions: int) -> None:
    async with open_market(rounds="continuous", max_revisions=max_revisions, ask_seconds=5) as market:
        seller, buyer = await seller_and_buyer(market, Competitive(buy=False, highest_value=50 * CREDIT))
        (report,) = (await buyer.trade(left())).reports
        word = await seller._journal.run(
            AgentJournal.asked, market.running.peer_id, report.seller_snapshot, report.trade
        )
        assert word is not None
        assert (verify(word, Ask, signer=None).expires_ms >= report.expires_ms) is (max_revisions > 0)


async def test_a_buyer_that_stops_raising_declines_and_owes_nothing(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous", max_revisions=5) as market:
        _, buyer = await seller_and_buyer(market, selling(6, 6), buying(1, 2))
        result = await buyer.trade(left())
        assert result.bought == ()
        assert result.note == (
            "no deal: the seller asks more than this bid of 2.00; it may be raised 4 more times, this strategy does not"
        )
        assert await states(market) == {"declined": 1}
        assert await buyer._journal.run(lambda journal: journal.spent(0)) == 0
        await in_order(market, 2)


async def test_a_revision_beyond_a_limit_ends_the_trade_at_once(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous", max_revisions=3, spend_per_day="2") as market:
        _, buyer = await seller_and_buyer(market, selling(6, 6, 6), buying(1, 3))
        result = await buyer.trade(left())
        assert result.bought == () and "refused" in result.note
        assert await states(market) == {"declined": 1}
        assert await buyer._journal.run(lambda journal: journal.spent(0)) == 0
        await in_order(market, 2)


async def test_default_agents_do_not_haggle_whatever_the_terms_allow(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous", max_revisions=5, ask_seconds=3600) as market:
        _, buyer = await seller_and_buyer(market, Strategy(buy=False, reserve=9 * CREDIT), Strategy(sell=False))
        assert "asks more" in (await buyer.trade(left())).note
        assert await states(market) == {"declined": 1}


async def test_a_seller_that_does_not_lower_says_so_at_once(open_market: OpenMarket) -> None:
    """Its ask again is an answer: nobody waits for the hour that it has."""
    async with open_market(rounds="continuous", max_revisions=2, ask_seconds=3600, bid_seconds=7200) as market:
        _, buyer = await seller_and_buyer(market, Strategy(buy=False, reserve=9 * CREDIT), buying(1, 2, 3))
        result = await asyncio.wait_for(buyer.trade(left()), 30)
        assert "asks more" in result.note
        assert await states(market) == {"no-deal": 1}


async def test_a_seller_that_was_started_anew_knows_what_it_asked(open_market: OpenMarket) -> None:
    class Restarts(Steps):
        def raise_bid(self, report: GainReport, unmatched: Unmatched, last_bid: int, wallet: Wallet) -> int | None:
            between.set()
            return super().raise_bid(report, unmatched, last_bid, wallet)

    between = asyncio.Event()
    send = Buyer._send_bid

    async def held(self: Buyer, joined: Any, bid: Bid, data: bytes) -> Any:
        if bid.revision == 1:
            await market.stop_agent("seller")
            again = await market.start_agent("seller", selling(6, 3))
            await again.ready()
        return await send(self, joined, bid, data)

    async with open_market(rounds="continuous", max_revisions=1) as market:
        _, buyer = await seller_and_buyer(market, selling(6, 3), Restarts(sell=False, amounts=(CREDIT, 4 * CREDIT)))
        Buyer._send_bid = held  # type: ignore[method-assign, assignment]
        try:
            (purchase,) = (await buyer.trade(left())).bought
        finally:
            Buyer._send_bid = send  # type: ignore[method-assign]
        assert between.is_set() and purchase.price == round(3.5 * CREDIT)


async def test_a_buyer_killed_between_two_bids_declines_at_its_next_visit(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = BrokerLink.exchange

    async def lost(self: BrokerLink, data: bytes, *more: Any) -> bytes:
        reply = await exchange(self, data, *more)
        if type_of(reply) == Unmatched.TYPE:
            raise ConnectionLost("killed before it heard the answer")
        return reply

    async with open_market(rounds="continuous", max_revisions=5) as market:
        _, buyer = await seller_and_buyer(market, selling(6, 5, 4), buying(1, 4.5))
        with monkeypatch.context() as patch:
            patch.setattr(BrokerLink, "exchange", lost)
            assert "killed" in (await buyer.trade(left())).problem
        assert await states(market) == {"unmatched": 1}
        await market.stop_agent("buyer")
        buyer = await market.start_agent("buyer", Strategy(sell=False, minimum_gain=1000))
        assert (await buyer.trade(left())).problem == ""
        assert await states(market) == {"declined": 2}
        assert await buyer._journal.run(lambda journal: journal.spent(0)) == 0
        assert await buyer._journal.run(AgentJournal.unanswered, market.running.peer_id) == []
        await in_order(market, 2)


@pytest.mark.parametrize("code", ["insufficient-balance", "spending-limit", "lower-bid", "wrong-revision"])
async def test_refusals_that_are_final_for_a_bid(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    exchange = BrokerLink.exchange

    async def refusing(self: BrokerLink, data: bytes, *more: Any) -> bytes:
        if type_of(data) == Bid.TYPE:
            raise Refused("no", code=code)
        return await exchange(self, data, *more)

    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        with monkeypatch.context() as patch:
            patch.setattr(BrokerLink, "exchange", refusing)
            result = await buyer.trade(left())
        assert (result.problem, result.note) == ("", "no")
        assert await buyer._journal.run(AgentJournal.unanswered, market.running.peer_id) == []
        assert len((await buyer.trade(left())).bought) == 1


# ---- the ready strategies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["posted", "midpoint"])
async def test_collaborators_give_for_nothing_under_posted_prices(open_market: OpenMarket, rule: str) -> None:
    async with open_market(rule=rule) as market:
        agents = [await market.start_agent(name, Collaborative()) for name in ("left", "right")]
        results = await asyncio.gather(agents[0].trade(left()), agents[1].trade(right()))
        prices = [result.bought[0].price for result in results]
        assert all(price == 0 for price in prices) if rule == "posted" else all(price > 0 for price in prices)
        await in_order(market, 2)


async def test_a_competitor_learns_from_others_and_nobody_makes_its_own_price(open_market: OpenMarket) -> None:
    """One buyer is refused at every visit, and asked the same again; for the other one the ask has come down."""
    now = [1_000_000_000_000]
    async with open_market(rounds="continuous", rule="posted", clock=lambda: now[0]) as market:
        seller = await market.start_agent("seller", Competitive(buy=False, highest_value=18 * CREDIT))
        buyer = await market.start_agent("buyer", Strategy(sell=False, credits_per_gain=CREDIT))
        other = await market.start_agent("other", Strategy(sell=False, credits_per_gain=1000 * CREDIT))
        await other.ready()
        for visit in range(13):
            if visit == 6:  # who bids is the same one to the broker's next process
                await market.stop_broker()
                await market.start_broker()
            await seller.trade(right())
            assert (await buyer.trade(left())).bought == ()
            now[0] += 200_000
        asks = await seller._journal.run(AgentJournal.asks, market.running.peer_id)
        assert [ask.amount for ask in asks] == [9 * CREDIT] * 13 and len({ask.buyer for ask in asks}) == 1
        await seller.trade(right())
        (purchase,) = (await other.trade(left())).bought
        assert purchase.price < 8 * CREDIT, "posted: it pays the ask"
        await seller.trade(right())
        known = seller._seller._strategy.known  # type: ignore[attr-defined]
        (sale,) = [past for past in known.past if past.price is not None]
        word = await seller._journal.run(AgentJournal.buyers, market.running.peer_id)
        assert sale.buyer == word[other.peer_id].hex(), "refused or sold, a buyer has one name"
        assert [past.buyer for past in known.past if past.price is None] == [(asks[0].buyer or b"").hex()] * 13
        await in_order(market, 3)


async def test_hagglers_agree_within_the_revisions_of_the_terms(open_market: OpenMarket) -> None:
    seller = Competitive(buy=False, highest_value=2 * CREDIT, haggle=0.5)
    async with open_market(rounds="continuous", max_revisions=4) as market:
        _, buyer = await seller_and_buyer(market, seller, Competitive(sell=False, haggle=0.8))
        (purchase,) = (await buyer.trade(left())).bought
        assert purchase.report is not None
        value = Strategy().bid(purchase.report, Wallet(10 * CREDIT, 0)) or 0
        assert CREDIT <= purchase.price < value
        assert (await market.running.ledger.run(Ledger.trades))[0].bids > 1
        await in_order(market, 2)


async def test_a_budgeted_buyer_paces_its_visits(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous") as market:
        buying = Budgeted(sell=False, budget=4 * CREDIT, visits=4, credits_per_gain=100 * CREDIT)
        _, buyer = await seller_and_buyer(market, buyer=buying)
        spent = []
        for _ in range(3):
            result = await buyer.trade(left())
            spent.append(sum(purchase.price for purchase in result.bought))
        assert spent[0] == CREDIT // 2, "the midpoint of a bid of one visit's share and an ask of 0"
        assert spent[1] == (4 * CREDIT - spent[0]) // 3 // 2
        assert sum(spent) < 4 * CREDIT
        await in_order(market, 2)


@dataclasses.dataclass(frozen=True)
class Told(PaperSeller):
    """Keeps what it was told."""

    heard: list[AskRequest] = dataclasses.field(default_factory=list)

    def ask(self, request: AskRequest) -> int | None:
        self.heard.append(request)
        return super().ask(request)


@pytest.mark.parametrize("disclosure", ["none", "paper"])
async def test_a_seller_is_told_its_own_gain_and_asks_by_it(open_market: OpenMarket, disclosure: str) -> None:
    async with open_market(rounds="barrier", rule="posted", disclosure=disclosure) as market:
        seller, buyer = (Told(reserve=CREDIT // 10, credits_per_loss=4 * CREDIT) for _ in range(2))
        one, other = await market.start_agent("one", seller), await market.start_agent("other", buyer)
        results = await asyncio.gather(one.trade(left()), other.trade(right()))
        for result, other_result, partner in ((*results, buyer), (*results[::-1], seller)):
            (request,) = partner.heard
            mine, theirs = result.reports[0], other_result.reports[0]
            if disclosure == "none":
                assert (request.weight, request.own_weight, request.own_ratio) == (None, None, None)
                assert [purchase.price for purchase in result.bought] == [CREDIT // 10]
                continue
            assert (request.weight, request.own_weight) == (mine.weight, theirs.weight)
            assert request.own_ratio == theirs.loss_before / theirs.loss_after
            for purchase in result.bought:
                assert purchase.price == PaperSeller(reserve=CREDIT // 10, credits_per_loss=4 * CREDIT).ask(request)


async def test_an_agent_asks_for_statistics_and_a_visit_does_not_need_them(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous", publish_prices=True) as market:
        seller, buyer = await seller_and_buyer(market, Competitive(buy=False, highest_value=2 * CREDIT))
        assert len((await buyer.trade(left())).bought) == 1
        assert (await seller.statistics()).bids == 0, "one buyer is nobody's statistics"
        assert (await seller.trade(right())).problem == ""
    async with open_market("silent", rounds="continuous") as market:
        agent = await market.start_agent("agent")
        with pytest.raises(Refused, match="do not publish"):
            await agent.statistics()


# ---- refunds and deliveries -----------------------------------------------------------------------------------------


async def test_a_delivery_is_marked_before_its_first_byte(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks: list[int | None] = []
    send = parcels.send_parcel

    async def watched(*args: Any) -> None:
        (trade,) = await market.running.ledger.run(Ledger.trades, None, "settled")
        marks.append(trade.served_ms)
        await send(*args)

    async with open_market(rounds="continuous") as market:
        _, buyer = await seller_and_buyer(market)
        with monkeypatch.context() as patch:
            patch.setattr(parcels, "send_parcel", watched)
            assert len((await buyer.trade(left())).bought) == 1
        assert len(marks) == 1 and marks[0] is not None


async def never_fetches(*_: Any) -> None:
    raise ConnectionLost("killed before it fetched")


async def silent(self: Buyer, broker: str, message_id: bytes, data: bytes) -> None:
    """Has the delivery and does not say so."""


async def ended(market: MarketInMemory, state: str) -> None:
    async def reached() -> bool:
        return state in await states(market)

    await eventually(reached)


async def test_what_was_never_served_is_refunded_and_both_sides_hear_of_it(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_market(rounds="continuous", delivery_hours=0.0002) as market:
        seller, buyer = await seller_and_buyer(market)
        with monkeypatch.context() as patch:
            patch.setattr(Buyer, "_fetch", never_fetches)
            assert "killed" in (await buyer.trade(left())).problem
        await ended(market, "refunded")
        assert (await market.balances())[buyer.peer_id] == 10 * CREDIT

        async def told() -> bool:
            rows = [await one._journal.run(AgentJournal.trades) for one in (seller, buyer)]
            return all(row.refunded_ms for each in rows for row in each)

        await eventually(told)
        result = await seller.trade(right())
        (given,), (got,) = result.repaid, (await buyer.trade(left())).repaid
        assert (given.bought, got.bought, given.reason, got.reason) == (False, True, "not-fetched", "not-fetched")
        assert 0 < given.amount < got.amount, "the fee is the broker's to give back"
        assert "got back" in str(got) and "gave back" in str(result)
        assert await market.problems() == ()


@pytest.mark.parametrize("marked", [True, False], ids=["marked", "control: not marked"])
async def test_who_fetches_and_keeps_silent_has_paid(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, marked: bool
) -> None:
    async with open_market(rounds="continuous", delivery_hours=0.0003) as market:
        _, buyer = await seller_and_buyer(market)
        monkeypatch.setattr(Buyer, "_acknowledge", silent)
        if not marked:
            monkeypatch.setattr(Parcels, "_mark_served", lambda *_: None)
        (purchase,) = (await buyer.trade(left())).bought
        await ended(market, "lapsed" if marked else "refunded")
        assert (await market.balances())[buyer.peer_id] == 10 * CREDIT - (purchase.price if marked else 0)
        assert await market.problems() == ()
