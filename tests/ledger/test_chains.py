"""Purchases upon one another: what is served, refunded and bid for in a chain.

The delivery of a later one holds what the earlier ones brought, so the chain is one thing to have and one to pay back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ledger_examples import HOUR_MS, Bench

from p2pmarket.broker_node import negotiation
from p2pmarket.broker_node.book import Book
from p2pmarket.crypto.signing import type_of, verify
from p2pmarket.errors import MarketError
from p2pmarket.market import MarketTerms, parse_terms
from p2pmarket.messages import Bid, Deal, Message, NoDeal

TERMS: MarketTerms = parse_terms(
    {
        "market": {"name": "digits"},
        "model": {"name": "mlp", "arguments": {"inputs": 4, "hidden": [4], "outputs": 2}},
        "task": [{"name": "digits", "loss": "mse", "metric": "loss"}],
    }
)


def chain_of(bench: Bench, length: int, price: int = 10) -> list[bytes]:
    """Settled purchases, each upon the one before it, of two sellers in turn."""
    bench.fund(100)
    chain: list[bytes] = []
    for number in range(length):
        seller = (bench.seller, bench.third)[number % 2]
        trade = bench.appraised(seller=seller, after=chain[-1] if chain else None)
        bench.ledger.place_bid(bench.bid(trade, price))
        bench.ledger.record_ask(trade, bench.ask(trade, price, seller))
        bench.settle(trade, price, 1)
        chain.append(trade)
    return chain


def states(bench: Bench, trades: list[bytes]) -> list[str]:
    return [bench.ledger.trade(trade).state for trade in trades]


@pytest.mark.parametrize("served", range(4))
def test_only_what_is_upon_everything_served_is_refunded(bench: Bench, served: int) -> None:
    """`served`: how many of the chain's three are had with the one delivery that is fetched."""
    chain, alone = chain_of(bench, 3), bench.settled(5)
    if served:
        bench.ledger.mark_served(chain[served - 1])
    bench.reopen()
    bench.clock.ms += HOUR_MS
    assert set(bench.ledger.expire()) == {*chain, alone}
    assert states(bench, chain) == ["lapsed"] * served + ["refunded"] * (3 - served)
    assert bench.ledger.trade(alone).state == "refunded", "the same buyer's other purchase is no part of it"
    assert bench.ledger.balance(bench.buyer.peer_id) == 100 - 10 * served
    assert bench.ledger.held(bench.seller.peer_id) == bench.ledger.held(bench.third.peer_id) == 0
    assert bench.ledger.verify().problems == ()


def test_serving_keeps_what_was_served_or_acknowledged_before(bench: Bench) -> None:
    first, second, third = chain_of(bench, 3)
    early = bench.ledger.mark_served(first).served_ms
    row = bench.ledger.trade(second)
    bench.ledger.mark_served(second)
    bench.ledger.acknowledge_delivery(second, row.buyer, row.delivery or b"")
    bench.clock.ms += 1
    bench.ledger.mark_served(third)
    assert bench.ledger.trade(first).served_ms == early and bench.ledger.trade(second).state == "delivered"
    assert bench.ledger.trade(third).served_ms == bench.clock()


def test_no_part_is_refunded_while_a_later_one_can_be_fetched(bench: Bench) -> None:
    """Control: upon one that was served, the term is the deal's own."""
    (first,) = chain_of(bench, 1)
    until = bench.ledger.trade(first).fetch_before_ms
    bench.clock.ms += HOUR_MS // 2
    ends = []
    for _ in range(2):
        trade = bench.appraised(seller=bench.third, after=first)
        bench.ledger.place_bid(bench.bid(trade, 1))
        bench.ledger.record_ask(trade, bench.ask(trade, 1, bench.third))
        reply = verify(bench.settle(trade, 1).reply, Deal, signer=None)
        assert reply.fetch_before_ms == bench.ledger.trade(trade).fetch_before_ms
        ends.append(reply.fetch_before_ms)
        bench.ledger.mark_served(first)
    assert ends == [until, bench.clock() + HOUR_MS]
    assert bench.ledger.verify().problems == ()


# ---- bids ------------------------------------------------------------------------------------------------------------


class Counter:
    """A broker's counter: bids in, replies out, without waiting for sellers."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.book = bench, Book(folder)
        with bench.ledger.transaction() as connection:
            self.book.create_tables(connection)

    def place(self, data: bytes) -> Any:
        bench, bid = self.bench, verify(data, Bid, signer=None)
        return negotiation.place_bid(bench.ledger, self.book, TERMS, bench.buyer.peer_id, bid, data, bench.clock())

    def conclude(self, data: bytes) -> bytes:
        bench, bid = self.bench, verify(data, Bid, signer=None)
        return negotiation.conclude(bench.ledger, TERMS, bid, bench.clock()).reply


@pytest.fixture
def counter(bench: Bench, tmp_path: Path) -> Counter:
    return Counter(bench, tmp_path / "book")


def out_of_order(counter: Counter, data: bytes) -> bool:
    try:
        counter.place(data)
    except MarketError as error:
        return error.code == "out-of-order"
    return False


def test_a_bid_upon_what_was_paid_back_meanwhile_ends_and_never_settles(counter: Counter) -> None:
    bench = counter.bench
    (first,) = chain_of(bench, 1)
    trade = bench.appraised(after=first)
    data = bench.bid(trade, 20)
    assert counter.place(data) is None
    bench.ledger.refund(first, "lost-delivery")
    assert counter.place(data) is None, "it binds, so it is not refused"
    bench.ledger.record_ask(trade, bench.ask(trade, 15))
    reply = counter.conclude(data)
    assert verify(reply, NoDeal, signer=bench.broker.peer_id).reason == "out-of-order"
    assert bench.ledger.trade(trade).state == "no-deal" and bench.ledger.held(bench.buyer.peer_id) == 0
    assert counter.place(data).reply == counter.conclude(data) == reply
    new = bench.appraised(after=first)
    assert out_of_order(counter, bench.bid(new, 20)), "a new one is refused"
    assert bench.ledger.trade(new).state == "appraised"
    assert bench.ledger.verify().problems == ()


@pytest.mark.parametrize("served", [True, False])
def test_what_can_no_longer_be_fetched_is_nothing_to_buy_upon(counter: Counter, served: bool) -> None:
    bench = counter.bench
    (first,) = chain_of(bench, 1)
    if served:
        bench.ledger.mark_served(first)
    bench.clock.ms += HOUR_MS
    assert bench.ledger.trade(first).state == "settled", "the broker did not look at its deadlines yet"
    assert out_of_order(counter, bench.bid(bench.appraised(after=first), 20)) is not served


def test_a_reply_to_another_message_of_the_bids_id_is_not_its_answer(counter: Counter) -> None:
    bench = counter.bench
    bench.fund(100)
    peer = bench.buyer.peer_id
    ways: tuple[tuple[int | None, type[Message], str], ...] = (
        (10, Deal, "settled"),
        (30, NoDeal, "no-deal"),
        (None, NoDeal, "no-deal"),
    )
    for ask, kind, state in ways:
        trade = bench.appraised()
        data = bench.bid(trade, 20)
        assert counter.place(data) is None
        bench.ledger.remember(peer, verify(data, Bid, signer=None).message_id, b"accepted")
        if ask is not None:
            bench.ledger.record_ask(trade, bench.ask(trade, ask))
        assert type_of(counter.conclude(data)) == kind.TYPE
        assert bench.ledger.trade(trade).state == state and bench.ledger.held(peer) == 0


def test_a_bid_that_nobody_clears_ends_soon_after_the_reports_time(counter: Counter) -> None:
    """The broker was killed while it cleared; the buyer had given its bid a thousand years and does not come back."""
    bench = counter.bench
    bench.fund(100)
    trade = bench.appraised()
    data = bench.bid(trade, 20, expires_ms=bench.clock() + 1000 * 365 * 24 * HOUR_MS)
    counter.place(data)
    bench.clock.ms += HOUR_MS + TERMS.ask_ms - 1
    assert bench.ledger.expire() == [] and bench.ledger.verify().problems == ()
    bench.clock.ms += 1
    bench.ledger.record_ask(trade, bench.ask(trade, 20))
    assert verify(counter.conclude(data), NoDeal, signer=None).reason == "expired", "nor does it settle then"
    assert bench.ledger.trade(trade).state == "expired" and bench.ledger.held(bench.buyer.peer_id) == 0
    assert bench.ledger.verify().problems == ()
