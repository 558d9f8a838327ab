"""Every state of a trade against everything that may be asked of the ledger about it: the table decides, all of it.

What the table allows moves the trade as it says. All else is refused as `wrong-state`, or, where repeating is harmless,
answered as before; either way every table of the file is as it was.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from ledger_examples import HOUR_MS, MARKET, Bench

from p2pmarket.crypto.signing import sign
from p2pmarket.errors import MarketError
from p2pmarket.ledger.trade import ENDS, EVENTS, STATES, TRANSITIONS
from p2pmarket.messages import Bid

SERVED = "settled and served"
STAGES = (*STATES, SERVED)
"""The states, and the one in which a delivery is out."""


def submitted(bench: Bench) -> bytes:
    trade, now = bench.id(), bench.clock()
    buyer, seller = bench.buyer.peer_id, bench.seller.peer_id
    bench.ledger.create_trade(
        trade, buyer, seller, bench.digest(), bench.digest(), bench.id(), expires_ms=now + HOUR_MS
    )
    return trade


def bring_to(bench: Bench, stage: str) -> bytes:
    """A trade in that state, come there as trades do; only `priced`, which never rests, is written by hand."""
    if stage == "submitted":
        return submitted(bench)
    if stage in ("appraised", "declined", "expired", "void"):
        trade = bench.appraised()
        if stage == "declined":
            bench.ledger.decline([trade], bench.buyer.peer_id)
        elif stage == "expired":
            bench.clock.ms += HOUR_MS
            bench.ledger.expire()
        elif stage == "void":
            bench.ledger.fail(trade, "failed")
        return trade
    trade, _ = bench.quoted(20, 10)
    if stage == "unmatched":
        bench.ledger.unmatched(trade, 1)
    elif stage == "no-deal":
        bench.ledger.no_deal(trade, "no-ask", "none came")
    elif stage == "priced":
        with bench.ledger.transaction() as connection:
            connection.execute("UPDATE trades SET state = 'priced' WHERE trade = ?", (trade,))
    elif stage != "quoted":
        bench.settle(trade, 15, 3)
        if stage in ("lapsed", SERVED):
            bench.ledger.mark_served(trade)
        if stage == "lapsed":
            bench.clock.ms += HOUR_MS
            bench.ledger.expire()
        elif stage == "delivered":
            acknowledge(bench, trade)
        elif stage == "refunded":
            bench.ledger.refund(trade, "lost-delivery")
    return trade


def acknowledge(bench: Bench, trade: bytes) -> None:
    delivery = bench.ledger.trade(trade).delivery
    bench.ledger.acknowledge_delivery(trade, bench.buyer.peer_id, delivery or bytes(32))


def bid(bench: Bench, trade: bytes) -> None:
    """The next bid: of the next number, above the one before."""
    row, now = bench.ledger.trade(trade), bench.clock()
    delivery = row.delivery or bytes(32)
    message = Bid(bench.id(), MARKET, bench.broker.peer_id, trade, delivery, 21, now + HOUR_MS, row.bids)
    bench.ledger.place_bid(sign(bench.buyer, message))


def bid_again(bench: Bench, trade: bytes) -> None:
    bench.ledger.place_bid(bench.ledger.trade(trade).bid or b"")


def ask_again(bench: Bench, trade: bytes) -> None:
    bench.ledger.record_ask(trade, bench.ledger.trade(trade).ask or b"")


def wait_and_expire(bench: Bench, trade: bytes) -> None:
    with bench.clock_moved(HOUR_MS):
        bench.ledger.expire()


class Call(NamedTuple):
    """Something asked of the ledger, and the event that it is."""

    event: str
    do: Callable[[Bench, bytes], object]
    harmless: tuple[str, ...] = ()
    """Stages in which it changes nothing and is answered all the same."""


WITH_A_BID = ("quoted", "unmatched", "priced", "settled", SERVED, "delivered", "no-deal", "lapsed", "refunded")
AT_REST = (*sorted(ENDS), "priced")

CALLS = {
    "report": Call("report", lambda b, t: b.ledger.record_report(t, b"r", bytes(32), b.clock() + HOUR_MS)),
    "bid": Call("bid", bid),
    "the same bid": Call("-", bid_again, WITH_A_BID),
    "ask": Call("ask", lambda b, t: b.ledger.record_ask(t, b.ask(t, 9))),
    "a standing ask": Call("ask", lambda b, t: b.ledger.record_ask(t, b.submit(t, 9))),
    "the same ask": Call("-", ask_again, WITH_A_BID),
    "unmatched": Call("no-overlap", lambda b, t: b.ledger.unmatched(t, 3)),
    "settle": Call("price", lambda b, t: b.settle(t, 15, 3)),
    "no deal": Call("no-deal", lambda b, t: b.ledger.no_deal(t, "no-ask", "none came")),
    "decline": Call("decline", lambda b, t: b.ledger.decline([t], b.buyer.peer_id), tuple(sorted(ENDS))),
    "serve": Call("serve", lambda b, t: b.ledger.mark_served(t), (SERVED,)),
    "acknowledge": Call("acknowledge", acknowledge, ("delivered",)),
    "refund": Call("refund", lambda b, t: b.ledger.refund(t, "lost-delivery")),
    "fail": Call("fail", lambda b, t: b.ledger.fail(t, "failed")),
    "wait": Call("expire", wait_and_expire, AT_REST),
}


def expected(stage: str, call: Call) -> str | None:
    """The state after a call, by the table; None where it takes no such event."""
    state = "settled" if stage == SERVED else stage
    if call.do is wait_and_expire and state == "settled":
        return TRANSITIONS[state, "lapse" if stage == SERVED else "refund"]
    after = TRANSITIONS.get((state, call.event))
    return TRANSITIONS[after, "settle"] if after == "priced" else after


class Waiting(Bench):
    """A bench whose clock goes on for a moment."""

    @contextlib.contextmanager
    def clock_moved(self, milliseconds: int) -> Iterator[None]:
        self.clock.ms += milliseconds
        yield
        self.clock.ms -= milliseconds


class Undo(Exception):
    """Raised to take back what a test did."""


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Waiting, bytes]]]:
    """A ledger for each stage, with the trade in it."""
    made: dict[str, tuple[Waiting, bytes]] = {}
    for number, stage in enumerate(STAGES):
        bench = Waiting(tmp_path_factory.mktemp("stages") / "ledger.sqlite", number)
        bench.fund(100)
        made[stage] = bench, bring_to(bench, stage)
    yield made
    for bench, _ in made.values():
        bench.ledger.close()


def dump(connection: sqlite3.Connection) -> list[str]:
    """Every row of every table."""
    return list(connection.iterdump())


PAIRS = [(stage, name) for stage in STAGES for name in CALLS if stage in WITH_A_BID or "same" not in name]
"""What was never said cannot be said again."""


@pytest.mark.parametrize("stage, name", PAIRS)
def test_every_pair(stages: dict[str, tuple[Waiting, bytes]], stage: str, name: str) -> None:
    (bench, trade), call = stages[stage], CALLS[name]
    before = bench.ledger.trade(trade)
    assert before.state == stage or stage == SERVED
    after = expected(stage, call)
    with contextlib.suppress(Undo), bench.ledger.transaction() as connection:
        rows = dump(connection)
        if stage in call.harmless:
            call.do(bench, trade)
            assert dump(connection) == rows
        elif after is None:
            with pytest.raises(MarketError) as refused:
                call.do(bench, trade)
            assert refused.value.code == "wrong-state"
            assert dump(connection) == rows
        else:
            call.do(bench, trade)
            assert bench.ledger.trade(trade).state == after
            assert dump(connection) != rows
            assert bench.ledger.verify(signatures=False).problems == ()
        raise Undo
    assert bench.ledger.trade(trade) == before


def test_every_event_is_among_the_calls() -> None:
    """Nothing in the table is left out; what a call brings about inside is named."""
    inside = {"settle", "lapse"}
    assert {call.event for call in CALLS.values()} - {"-"} | inside == set(EVENTS)


def test_a_trade_is_created_once_in_any_state(stages: dict[str, tuple[Waiting, bytes]]) -> None:
    for bench, trade in stages.values():
        row = bench.ledger.trade(trade)
        with pytest.raises(MarketError) as refused:
            bench.ledger.create_trade(trade, row.buyer, row.seller, bytes(32), bytes(32), bytes(16))
        assert refused.value.code == "duplicate-trade" and bench.ledger.trade(trade) == row


def test_the_dump_sees_every_table(bench: Bench) -> None:
    """Control: a change of any one table is a change of the dump."""
    bench.fund(100)
    bench.ledger.grant(bench.buyer.peer_id, 1, "", bench.id())
    bench.settled(5)
    for table in (
        "head",
        "leaves",
        "nodes",
        "accounts",
        "postings",
        "grants",
        "trades",
        "replies",
        "mailboxes",
        "mail",
    ):
        with contextlib.suppress(Undo), bench.ledger.transaction() as connection:
            connection.execute("DROP TRIGGER leaves_stay")
            connection.execute("PRAGMA defer_foreign_keys = ON")
            before = dump(connection)
            connection.execute(f"DELETE FROM {table}")
            assert dump(connection) != before, table
            raise Undo
