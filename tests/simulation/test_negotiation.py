"""Bids that rise and asks that fall, over the wire: who is asked, what settles at what price, what moves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hostile import NEW, Client, a_report, appraisal_of, bid_on, refused, tensors_of
from market_examples import CREDIT, OpenMarket, left, right, specialist, untrained
from peers import eventually

from p2pmarket.broker_node.clearing import Clearing
from p2pmarket.crypto.header import Expectation
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import (
    Appraisal,
    Ask,
    AskRequest,
    Balance,
    BalanceRequest,
    Bid,
    Deal,
    Decline,
    Delivered,
    Done,
    Fetch,
    GainReport,
    NoDeal,
    Refusal,
    Statistics,
    StatisticsRequest,
    Status,
    StatusRequest,
    Unmatched,
)
from p2pmarket.network.spool import Incoming
from p2pmarket.network.transfer import receive_parcel
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.tasks import end_tasks
from p2pmarket.units import now_ms


@dataclasses.dataclass
class Table:
    """A market with one report on which `buyer` may bid, for a snapshot of `seller`."""

    market: MarketInMemory
    buyer: Client
    seller: Client
    report: GainReport

    def bid(self, credits: float, revision: int = 0, **changes: Any) -> Bid:
        return bid_on(self.buyer, self.report, amount=round(credits * CREDIT), revision=revision, **changes)

    def ask(self, request: AskRequest, credits: float, **changes: Any) -> Ask:
        fields = {
            "message_id": NEW(16), "market": request.market, "broker": self.seller.broker, "trade": request.trade,
            "snapshot": request.snapshot, "amount": round(credits * CREDIT), "expires_ms": now_ms() + 60_000,
            "revision": request.revision, **changes,
        }  # fmt: skip
        return Ask(**fields)

    async def asked(self) -> AskRequest:
        """The next request that the seller gets."""
        while not isinstance(mail := await self.seller.next_mail(), AskRequest):
            pass
        return mail

    async def requests(self) -> list[int]:
        """The revisions for which the seller was or will be asked."""
        waiting = await self.market.running.ledger.run(Ledger.mail_after, self.seller.peer_id, len(self.seller.mail))
        mail = [*self.seller.mail, *(self.seller.opened(body) for _, body in waiting)]
        return [one.revision for one in mail if isinstance(one, AskRequest)]

    async def row(self) -> TradeRow:
        return await self.market.running.ledger.run(Ledger.trade, self.report.trade)

    async def held(self) -> int:
        return await self.market.running.ledger.run(Ledger.held, self.buyer.peer_id)

    async def moved(self) -> bool:
        """Whether any balance is not what it began with."""
        balances = await self.market.balances()
        return any(balances[client.peer_id] != 10 * CREDIT for client in (self.buyer, self.seller))


Sit = Callable[..., contextlib.AbstractAsyncContextManager[Table]]


@pytest.fixture
def sit(open_market: OpenMarket, tmp_path: Path) -> Sit:
    """`async with sit(ask=..., **terms) as table`; at the end the books are in order."""

    @contextlib.asynccontextmanager
    async def at_a_table(ask: float | None = 4, **terms: Any) -> AsyncIterator[Table]:
        async with open_market(rounds="continuous", **{"fee_percent": "2", **terms}) as market:
            clients: list[Client] = []

            async def join(name: str) -> Client:
                clients.append(Client(market, name, tmp_path))
                await clients[-1].hello()
                return clients[-1]

            buyer, seller, report, _ = await a_report(join, None if ask is None else round(ask * CREDIT))
            yield Table(market, buyer, seller, report)
            for client in clients:
                await client.close()
            assert await market.problems() == ()
            balances = await market.balances()
            assert sum(balances.values()) == 10 * CREDIT * len(balances.keys() - {market.running.peer_id})

    return at_a_table


async def killed(self: Clearing) -> None:
    """As `Clearing.close`, without a last word: what a kill leaves."""
    await end_tasks(self._clearing.values())


# ---- the first overlap ----------------------------------------------------------------------------------------------


async def test_the_first_overlap_of_rising_bids_and_falling_asks_settles(sit: Sit) -> None:
    async with sit(max_revisions=3) as table:
        first = await table.buyer.ask(table.bid(1))
        assert isinstance(first, Unmatched)
        assert (first.trade, first.revision, first.revisions_left) == (table.report.trade, 0, 3)
        assert first.until_ms == table.report.expires_ms
        assert (await table.row()).state == "unmatched" and await table.held() == 0, "it binds no longer"

        raising = asyncio.create_task(table.buyer.ask(table.bid(2, 1)))
        request = await table.asked()
        assert request.revision == 1, "the seller is asked, although it has a standing ask"
        assert (await table.row()).state == "quoted" and await table.held() == 2 * CREDIT
        assert isinstance(await table.seller.ask(table.ask(request, 3)), Done)
        second = await raising
        assert isinstance(second, Unmatched) and (second.revision, second.revisions_left) == (1, 2)

        deal = await table.buyer.ask(table.bid(3.5, 2))  # above the 3 asked last: nobody is asked again
        assert isinstance(deal, Deal) and deal.price == round(3.25 * CREDIT)
        assert deal.balance == 10 * CREDIT - deal.price
        balances = await table.market.balances()
        assert balances[table.seller.peer_id] == 10 * CREDIT + deal.price - deal.price * 2 // 100
        assert await table.held() == 0
        assert await table.requests() == [1]


async def test_a_seller_that_falls_to_the_bid_settles_at_it(sit: Sit) -> None:
    async with sit(ask=None, max_revisions=2) as table:
        bidding = asyncio.create_task(table.buyer.ask(table.bid(1)))
        request = await table.asked()
        assert request.revision == 0
        await table.seller.ask(table.ask(request, 5))
        assert isinstance(await bidding, Unmatched)
        raising = asyncio.create_task(table.buyer.ask(table.bid(2, 1)))
        await table.seller.ask(table.ask(await table.asked(), 2))
        deal = await raising
        assert isinstance(deal, Deal) and deal.price == 2 * CREDIT


@pytest.mark.parametrize(
    ("rule", "price"),
    [
        ({"rule": "posted"}, 4.0),
        ({"rule": "midpoint"}, 5.0),
        ({"rule": "k", "k_percent": "25"}, 4.5),
        ({"rule": "k", "k_percent": "0.0001"}, 4.000002),
        ({"rule": "k", "k_percent": "100"}, 6.0),
    ],
    ids=["posted", "midpoint", "a quarter", "a millionth", "all"],
)
async def test_the_rule_of_the_terms_says_what_is_paid(sit: Sit, rule: dict[str, str], price: float) -> None:
    async with sit(**rule) as table:
        deal = await table.buyer.ask(table.bid(6))
        assert isinstance(deal, Deal) and deal.price == round(price * CREDIT)


# ---- no deal --------------------------------------------------------------------------------------------------------


async def test_after_the_last_revision_there_is_no_deal(sit: Sit) -> None:
    async with sit(max_revisions=1, ask_seconds=0.2) as table:
        assert isinstance(await table.buyer.ask(table.bid(1)), Unmatched)
        end = await table.buyer.ask(table.bid(3, 1))  # the seller says nothing: its 4 stand
        assert isinstance(end, NoDeal) and end.reason == "no-overlap"
        assert (await table.row()).state == "no-deal" and await table.held() == 0
        assert await refused(table.buyer, table.bid(5, 2)) == "wrong-state"
        assert not await table.moved()


async def test_without_revisions_one_bid_decides(sit: Sit) -> None:
    async with sit() as table:
        end = await table.buyer.ask(table.bid(1))
        assert isinstance(end, NoDeal) and end.reason == "no-overlap"


async def test_a_buyer_that_has_enough_declines(sit: Sit) -> None:
    async with sit(max_revisions=3) as table:
        await table.buyer.ask(table.bid(1))
        assert isinstance(await table.buyer.ask(Decline(NEW(16), (table.report.trade,))), Done)
        assert (await table.row()).state == "declined"
        assert await refused(table.buyer, table.bid(5, 1)) == "wrong-state"
        assert not list((table.market.folder / "broker" / "deliveries").iterdir())


async def test_an_unmatched_trade_expires(sit: Sit) -> None:
    async with sit(max_revisions=3, bid_seconds=0.5) as table:
        await table.buyer.ask(table.bid(1, expires_ms=table.report.expires_ms))

        async def over() -> bool:
            return (await table.row()).state == "expired"

        await eventually(over)
        assert await refused(table.buyer, table.bid(5, 1)) in ("wrong-state", "expired")
        assert not await table.moved() and await table.held() == 0


async def test_a_seller_that_is_away_is_not_waited_for(sit: Sit) -> None:
    """Its standing ask stands; the control is the seller above that is there and says nothing."""
    async with sit(max_revisions=1, ask_seconds=3600) as table:
        await table.buyer.ask(table.bid(1))
        await table.seller.close()

        async def away() -> bool:
            return table.market.running.broker.agents == 1

        await eventually(away)
        end = await asyncio.wait_for(table.buyer.ask(table.bid(3, 1)), 20)
        assert isinstance(end, NoDeal) and end.reason == "no-overlap"


# ---- bids that are not the next one ---------------------------------------------------------------------------------


async def test_bids_that_are_not_the_next_one_move_nothing(sit: Sit) -> None:
    async with sit(max_revisions=5) as table:
        buyer = table.buyer
        assert await refused(buyer, table.bid(1, 1)) == "wrong-revision", "there was none before"
        first = sign(buyer.identity, table.bid(2))
        reply = await buyer.ask_bytes(first)
        assert isinstance(buyer.opened(reply), Unmatched)
        before = await table.row()

        assert await buyer.ask_bytes(first) == reply, "replayed: its stored answer"
        assert await refused(buyer, table.bid(3, 0)) == "wrong-revision"
        assert await refused(buyer, table.bid(3, 2)) == "wrong-revision", "one that overtook another"
        assert await refused(buyer, table.bid(2, 1)) == "lower-bid"
        assert await refused(buyer, table.bid(1, 1)) == "lower-bid"
        assert await refused(buyer, table.bid(3, 1, expires_ms=now_ms() - 1)) == "expired"
        assert await refused(buyer, table.bid(3, 1, delivery=bytes(31) + b"1")) == "wrong-delivery"
        assert await refused(table.seller, table.bid(3, 1)) == "not-yours"
        forged = buyer.opened(await buyer.ask_bytes(sign(table.seller.identity, table.bid(5, 1))))
        assert isinstance(forged, Refusal) and forged.code == "bad-signature"
        assert await table.row() == before and await table.held() == 0 and not await table.moved()

        assert isinstance(await buyer.ask(table.bid(5, 1)), Deal), "the next one is taken"
        assert await buyer.ask_bytes(first) == reply, "and the first still has its answer"


async def test_a_raise_that_overtakes_the_answer_is_not_answered_with_it(
    sit: Sit, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, forget = asyncio.Event(), Clearing.forget

    async def held(self: Clearing, trades: Any) -> None:
        await told.wait()
        await forget(self, trades)

    async with sit(max_revisions=2) as table:
        monkeypatch.setattr(Clearing, "forget", held)  # the first bid is decided, and its buyer does not know yet
        clearing = table.market.running.broker._clearing

        def sent(bid: Bid) -> asyncio.Task[bytes]:
            return asyncio.create_task(clearing.bid(table.buyer.peer_id, bid, sign(table.buyer.identity, bid)))

        async def decided() -> bool:
            return (await table.row()).state == "unmatched"

        async def settled() -> bool:
            return (await table.row()).state == "settled"

        first = sent(table.bid(1))
        await eventually(decided)
        second = sent(table.bid(5, 1))
        await eventually(settled)
        told.set()
        assert isinstance(table.buyer.opened(await first), Unmatched)
        assert isinstance(table.buyer.opened(await second), Deal)


# ---- asks that are not the answer -----------------------------------------------------------------------------------


async def test_an_ask_may_fall_and_not_rise(sit: Sit) -> None:
    async with sit(max_revisions=3) as table:
        await table.buyer.ask(table.bid(1))
        raising = asyncio.create_task(table.buyer.ask(table.bid(2, 1)))
        request = await table.asked()
        assert await refused(table.seller, table.ask(request, 4.5)) == "higher-ask"
        assert await refused(table.seller, table.ask(request, 3, revision=0)) == "wrong-revision"
        assert await refused(table.seller, table.ask(request, 3, revision=2)) == "wrong-revision"
        assert await refused(table.seller, table.ask(request, 3, snapshot=bytes(32))) == "wrong-snapshot"
        assert await refused(table.seller, table.ask(request, 3, trade=NEW(16))) == "no-bid"
        assert await refused(table.seller, table.ask(request, 3, expires_ms=now_ms() - 1)) == "expired"
        stranger = Client(table.market, "stranger", table.seller.folder.parent)
        await stranger.hello()
        assert await refused(stranger, table.ask(request, 0)) == "no-bid"
        await stranger.close()
        assert (await table.row()).state == "quoted", "none of them was the answer"
        assert isinstance(await table.seller.ask(table.ask(request, 4)), Done), "the same again is one"
        assert isinstance(await raising, Unmatched)
        assert await refused(table.seller, table.ask(request, 0)) == "no-bid", "a bid is answered once"
        deal = await table.buyer.ask(table.bid(4, 2))
        assert isinstance(deal, Deal) and deal.price == 4 * CREDIT, "the 4 asked before stand"


async def test_an_ask_that_ran_out_stands_no_longer(sit: Sit) -> None:
    async with sit(ask=None, max_revisions=3, ask_seconds=0.3) as table:
        bidding = asyncio.create_task(table.buyer.ask(table.bid(1)))
        request = await table.asked()
        ask = table.ask(request, 5, expires_ms=now_ms() + 400)
        await table.seller.ask(ask)
        assert isinstance(await bidding, Unmatched)
        while now_ms() <= ask.expires_ms:  # noqa: ASYNC110 - the broker's clock is this machine's
            await asyncio.sleep(0.02)
        end = await table.buyer.ask(table.bid(6, 1))
        assert isinstance(end, NoDeal) and end.reason == "no-ask"
        assert not await table.moved()


# ---- what a buyer may bid -------------------------------------------------------------------------------------------


async def test_a_bid_above_the_balance_or_the_days_limit_is_refused(sit: Sit) -> None:
    async with sit(spend_per_day="8") as table:
        before = await table.row()
        assert await refused(table.buyer, table.bid(10.000001)) in ("insufficient-balance", "spending-limit")
        assert await refused(table.buyer, table.bid(8.000001)) == "spending-limit"
        assert await table.row() == before and await table.held() == 0
        assert isinstance(await table.buyer.ask(table.bid(8)), Deal)
    async with sit(folder="without-limit") as table:
        assert await refused(table.buyer, table.bid(10.000001)) == "insufficient-balance"
        assert isinstance(await table.buyer.ask(table.bid(10)), Deal)


async def test_two_bids_on_one_balance(open_market: OpenMarket, tmp_path: Path) -> None:
    """What one bid holds another cannot have; what was unmatched is free again."""
    async with open_market(rounds="continuous", max_revisions=1, max_chain=1) as market:
        sellers = [Client(market, name, tmp_path) for name in ("one", "other")]
        for seller, model in zip(sellers, (right(), left()), strict=True):
            await seller.hello()
            await seller.submitted(tensors_of(model), ask=None, buy=False)
        buyer = Client(market, "buyer", tmp_path)
        await buyer.hello()
        await buyer.submitted(tensors_of(untrained(5)))
        while not isinstance(mail := await buyer.next_mail(), Appraisal):
            pass
        reports = [verify(data, GainReport, signer=buyer.broker) for data in mail.reports]
        assert len(reports) == 2
        held = asyncio.create_task(buyer.ask(bid_on(buyer, reports[0], amount=6 * CREDIT)))
        seller = next(one for one in sellers if one.peer_id == reports[0].seller)
        while not isinstance(request := await seller.next_mail(), AskRequest):
            pass

        second = bid_on(buyer, reports[1], amount=6 * CREDIT)
        clearing = market.running.broker._clearing
        with pytest.raises(Exception, match="are free") as caught:
            await clearing.bid(buyer.peer_id, second, sign(buyer.identity, second))
        assert getattr(caught.value, "code", "") == "insufficient-balance"
        assert await market.running.ledger.run(Ledger.held, buyer.peer_id) == 6 * CREDIT

        ask = Ask(NEW(16), request.market, seller.broker, request.trade, request.snapshot, 7 * CREDIT, now_ms() + 9999)
        await seller.ask(ask)
        assert isinstance(await held, Unmatched)
        balance = await buyer.ask(BalanceRequest(NEW(16)))
        assert isinstance(balance, Balance) and (balance.balance, balance.held) == (10 * CREDIT, 0)
        again = asyncio.create_task(buyer.ask(second))  # the very bytes that were refused
        other = next(one for one in sellers if one.peer_id == reports[1].seller)
        while not isinstance(request := await other.next_mail(), AskRequest):
            pass
        await other.ask(dataclasses.replace(ask, trade=request.trade, snapshot=request.snapshot, amount=6 * CREDIT))
        assert isinstance(await again, Deal)
        for client in (*sellers, buyer):
            await client.close()
        assert await market.problems() == ()


# ---- a broker that is started anew ----------------------------------------------------------------------------------


async def restarted(table: Table) -> None:
    await table.market.stop_broker()
    await table.market.start_broker()
    await table.buyer.hello()
    await table.seller.hello(last_mail=len(table.seller.mail))


@pytest.mark.parametrize("gently", [True, False], ids=["closed", "killed"])
async def test_a_broker_may_stop_between_any_two_words(sit: Sit, monkeypatch: pytest.MonkeyPatch, gently: bool) -> None:
    if not gently:
        monkeypatch.setattr(Clearing, "close", killed)
    async with sit(max_revisions=3) as table:
        await table.buyer.ask(table.bid(1))
        await restarted(table)
        raising = asyncio.create_task(table.buyer.ask(table.bid(2, 1)))
        await table.seller.ask(table.ask(await table.asked(), 3))
        assert isinstance(await raising, Unmatched)
        await restarted(table)
        deal = await table.buyer.ask(table.bid(3, 2))
        assert isinstance(deal, Deal) and deal.price == 3 * CREDIT, "the 3 asked before the stop stand"


async def test_an_ask_that_comes_while_nobody_clears_its_bid_is_kept(sit: Sit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker is killed after it asked the seller; its answer comes before the buyer's bid comes again."""
    monkeypatch.setattr(Clearing, "close", killed)
    async with sit(max_revisions=3) as table:
        await table.buyer.ask(table.bid(1))
        data = sign(table.buyer.identity, table.bid(2, 1))
        raising = asyncio.create_task(table.buyer.ask_bytes(data))
        request = await table.asked()
        await table.market.stop_broker()
        await asyncio.gather(raising, return_exceptions=True)
        await table.market.start_broker()
        await table.buyer.hello()
        await table.seller.hello(last_mail=len(table.seller.mail))
        assert (await table.row()).state == "quoted" and await table.held() == 2 * CREDIT, "the bid still binds"
        assert isinstance(await table.seller.ask(table.ask(request, 3)), Done)
        assert isinstance(table.buyer.opened(await table.buyer.ask_bytes(data)), Unmatched)
        assert await table.requests() == [1], "it was not asked again"
        deal = await table.buyer.ask(table.bid(3, 2))
        assert isinstance(deal, Deal) and deal.price == 3 * CREDIT


# ---- what is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disclosure", ["none", "paper"])
async def test_a_seller_is_told_of_the_gain_only_where_the_terms_say_so(sit: Sit, disclosure: str) -> None:
    async with sit(ask=None, disclosure=disclosure, ask_seconds=0.3) as table:
        bidding = asyncio.create_task(table.buyer.ask(table.bid(1)))
        request = await table.asked()
        report = table.report
        assert request.weight == (report.weight if disclosure == "paper" else None)
        assert (request.own_weight, request.own_ratio) == (None, None), "the seller does not buy, so has no own gain"
        assert isinstance(await bidding, NoDeal)


async def test_statistics_are_told_where_the_terms_say_so_and_hide_small_counts(sit: Sit) -> None:
    async with sit() as table:
        assert await refused(table.buyer, StatisticsRequest(NEW(16), "blobs")) == "not-published"
    async with sit(folder="open", publish_prices=True) as table:
        await table.buyer.ask(table.bid(5))
        for client in (table.buyer, table.seller):
            told = await client.ask(StatisticsRequest(NEW(16), "blobs"))
            assert told == Statistics("blobs", 0, 0, 0, (), ()), "one buyer is nobody's statistics"
        assert await refused(table.buyer, StatisticsRequest(NEW(16), "chess")) == "unknown-task"


# ---- what a buyer would get for nothing ------------------------------------------------------------------------------


class Clock:
    """This machine's, put forward."""

    ahead_ms = 0

    def __call__(self) -> int:
        return now_ms() + self.ahead_ms


async def fetched(buyer: Client, report: GainReport, folder: Path) -> None:
    """Takes a delivery and does not acknowledge it."""
    stream = await buyer.parcel_stream(Fetch(NEW(16), report.trade))
    expected = Expectation(
        market=report.market, broker=buyer.broker, purpose="delivery", trade=report.trade, sender=buyer.broker,
        receiver=buyer.peer_id, manifest_digest=report.delivery, max_plain_bytes=1 << 21,
    )  # fmt: skip
    incoming = Incoming.open(folder)
    await receive_parcel(stream, incoming, expected, buyer.keyring, now_ms, check=lambda path, _: None)
    await stream.close()
    assert incoming.plain_path.exists()


@pytest.mark.parametrize(("taken", "paid"), [(None, 0), (0, 1), (1, 2)], ids=["nothing", "the first", "the last"])
async def test_who_has_the_last_of_a_chain_pays_for_all_of_it(
    open_market: OpenMarket, tmp_path: Path, taken: int | None, paid: int
) -> None:
    """The delivery of the last is all that was bought, merged: the first need not be fetched to have it."""
    clock = Clock()
    async with open_market(round_agents=3, rounds="barrier", delivery_hours=1, clock=clock) as market:
        clients = [Client(market, name, tmp_path) for name in ("two", "three", "buyer")]
        models = (specialist(2, seed=2), specialist(3, seed=3), specialist(0, 1, seed=1))
        for client, model in zip(clients, models, strict=True):
            await client.hello()
            sells = client is not clients[-1]
            await client.submitted(tensors_of(model), sell=sells, buy=not sells, ask=CREDIT if sells else None)
        buyer = clients[-1]
        reports = await appraisal_of(buyer)
        last = next(report for report in reports if report.after is not None)
        chain = [next(report for report in reports if report.trade == last.after), last]
        for report in chain:
            assert isinstance(await buyer.ask(bid_on(buyer, report, amount=CREDIT)), Deal)
        if taken is not None:
            await fetched(buyer, chain[taken], tmp_path / "in")
        clock.ahead_ms = 2 * 3600 * 1000

        async def states() -> list[str]:
            return [(await market.running.ledger.run(Ledger.trade, report.trade)).state for report in chain]

        async def over() -> bool:
            return "settled" not in await states()

        await eventually(over)
        assert await states() == ["lapsed"] * paid + ["refunded"] * (2 - paid)
        assert (await market.balances())[buyer.peer_id] == (10 - paid) * CREDIT
        for client in clients:
            await client.close()
        assert await market.problems() == ()


async def test_a_bid_whose_id_was_used_again_is_answered(sit: Sit) -> None:
    """The reply to another message of that id ends no bid: or the trade would wait, and its delivery lie, for ever."""
    async with sit(ask=None, ask_seconds=0.5) as table:
        bid = table.bid(1, expires_ms=2**48)
        bidding = asyncio.create_task(table.buyer.ask(bid))
        await table.asked()
        running = table.market.running.ledger
        await running.run(Ledger.remember, table.buyer.peer_id, bid.message_id, b"the reply to a submission")
        row = await table.row()
        assert row.state == "quoted" and row.expires_ms == table.report.expires_ms + 500
        end = await bidding
        assert isinstance(end, NoDeal) and end.reason == "no-ask"
        assert (await table.row()).state == "no-deal" and await table.held() == 0


async def test_who_repeats_itself_under_fresh_ids_fills_no_disk(sit: Sit) -> None:
    async with sit() as table:

        def rows(ledger: Ledger) -> int:
            with ledger.transaction() as connection:
                tables = ("replies", "mail", "trades", "leaves")
                return sum(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables)

        report, run = table.report, table.market.running.ledger.run
        assert isinstance(await table.buyer.ask(table.bid(5)), Deal)
        assert isinstance(await table.buyer.ask(Delivered(NEW(16), report.trade, report.delivery)), Done)
        before = await run(rows)
        for _ in range(10):
            assert isinstance(await table.buyer.ask(Delivered(NEW(16), report.trade, report.delivery)), Done)
            assert await refused(table.buyer, table.bid(6, 1)) == "wrong-state"
        assert await run(rows) == before
    async with sit(folder="declined") as table:
        decline = sign(table.buyer.identity, Decline(NEW(16), (table.report.trade,)))
        reply = await table.buyer.ask_bytes(decline)
        assert (await table.row()).state == "declined"
        before = await table.market.running.ledger.run(rows)
        for _ in range(10):
            assert isinstance(await table.buyer.ask(Decline(NEW(16), (table.report.trade,))), Done)
        assert await table.market.running.ledger.run(rows) == before
        assert await table.buyer.ask_bytes(decline) == reply, "the same request gets the same bytes"


async def test_what_binds_money_is_in_the_status_however_much_is_for_sale(sit: Sit) -> None:
    async with sit(ask=None, ask_seconds=3600) as table:
        buyer, seller = table.buyer.peer_id, table.seller.peer_id
        bidding = asyncio.create_task(table.buyer.ask(table.bid(1)))
        request = await table.asked()

        def sales(ledger: Ledger) -> None:
            for _ in range(70):
                trade = NEW(16)
                ledger.create_trade(trade, seller, buyer, bytes(32), bytes(32), NEW(16))
                ledger.record_report(trade, b"a report", bytes(32), 2**47)

        await table.market.running.ledger.run(sales)
        await table.seller.ask(table.ask(request, 1))
        await bidding
        told = await table.buyer.ask(StatusRequest(NEW(16), ()))
        assert isinstance(told, Status) and len(told.trades) == 64
        assert told.trades[0].trade == table.report.trade and told.trades[0].state == "settled"

        def ended(ledger: Ledger) -> None:
            with ledger.transaction() as connection:
                connection.execute("DELETE FROM trades WHERE report = ?", (b"a report",))

        await table.market.running.ledger.run(ended)
