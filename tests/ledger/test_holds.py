"""What cannot be spent: bids that wait, proceeds whose delivery may be refunded, more than a day's limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ledger_examples import HOUR_MS, Bench

from p2pmarket.crypto.signing import verify
from p2pmarket.errors import JournalDamaged, MarketError
from p2pmarket.messages import Bid, Refund, Unmatched


def refused(code: str) -> Any:
    """Expects a refusal with this code."""
    return pytest.raises(MarketError, check=lambda error: error.code == code)


def acknowledge(bench: Bench, trade: bytes) -> None:
    row = bench.ledger.trade(trade)
    assert row.delivery is not None
    bench.ledger.acknowledge_delivery(trade, row.buyer, row.delivery)


def held(bench: Bench) -> tuple[int, ...]:
    """Of buyer, seller and broker."""
    return tuple([bench.ledger.held(peer.peer_id) for peer in (bench.buyer, bench.seller, bench.broker)])


def balances(bench: Bench) -> tuple[int, ...]:
    return tuple([bench.ledger.balance(peer.peer_id) for peer in (bench.buyer, bench.seller, bench.broker)])


# ---- bids ------------------------------------------------------------------------------------------------------------


def test_a_bid_is_held_until_it_is_settled(bench: Bench) -> None:
    bench.fund(100)
    trade, _ = bench.quoted(bid=60, ask=40)
    assert held(bench) == (60, 0, 0) and balances(bench) == (100, 100, 0)
    bench.settle(trade, 50, 5)
    assert held(bench) == (0, 45, 5) and balances(bench) == (50, 145, 5)
    acknowledge(bench, trade)
    assert held(bench) == (0, 0, 0) and balances(bench) == (50, 145, 5)
    row = next(row for row in bench.ledger.accounts() if row.peer == bench.seller.peer_id)
    assert (row.balance, row.held, row.day_limit) == (145, 0, None)
    assert bench.ledger.verify().problems == ()


def test_a_bid_above_what_is_free_is_refused_and_changes_nothing(bench: Bench) -> None:
    bench.fund(100)
    bench.quoted(60, 60)
    trade = bench.appraised()
    with refused("insufficient-balance"):
        bench.ledger.place_bid(bench.bid(trade, 41))
    assert bench.ledger.trade(trade).state == "appraised" and held(bench) == (60, 0, 0)
    bench.ledger.place_bid(bench.bid(trade, 40))
    assert held(bench) == (100, 0, 0)
    stranger = bench.appraised(bench.seller, bench.buyer)
    with refused("insufficient-balance"):
        bench.ledger.place_bid(bench.bid(stranger, 101, bench.seller))


def test_without_an_account_only_nothing_can_be_bid(bench: Bench) -> None:
    trade = bench.appraised()
    with refused("insufficient-balance"):
        bench.ledger.place_bid(bench.bid(trade, 1))
    bench.ledger.place_bid(bench.bid(trade, 0))
    bench.ledger.record_ask(trade, bench.ask(trade, 0))
    bench.settle(trade, 0)
    assert held(bench) == balances(bench) == (0, 0, 0)
    acknowledge(bench, trade)
    assert bench.ledger.verify().problems == ()


def expire(bench: Bench, trade: bytes) -> None:
    bench.clock.ms += HOUR_MS
    assert bench.ledger.expire() == [trade]


ENDINGS: dict[str, Callable[[Bench, bytes], object]] = {
    "no-deal": lambda bench, trade: bench.ledger.no_deal(trade, "no-ask", "none came"),
    "void": lambda bench, trade: bench.ledger.fail(trade, "failed"),
    "unmatched": lambda bench, trade: bench.ledger.unmatched(trade, 1),
    "expired": expire,
}


@pytest.mark.parametrize("state", list(ENDINGS))
def test_every_other_answer_frees_the_bid(bench: Bench, state: str) -> None:
    bench.fund(100)
    trade, _ = bench.quoted(60, 60)
    ENDINGS[state](bench, trade)
    assert bench.ledger.trade(trade).state == state
    assert held(bench) == (0, 0, 0) and balances(bench) == (100, 100, 0)
    assert bench.ledger.verify().problems == ()


def test_a_bid_that_runs_out_while_it_is_settled_is_freed(bench: Bench) -> None:
    bench.fund(100)
    trade, _ = bench.quoted(60, 60)
    bench.ledger.record_ask(trade, bench.ask(trade, 60, expires_ms=bench.clock() + 9 * HOUR_MS))
    bench.clock.ms += HOUR_MS
    with refused("expired"):
        bench.settle(trade, 60)
    assert bench.ledger.trade(trade).state == "expired" and held(bench) == (0, 0, 0)


# ---- revisions -------------------------------------------------------------------------------------------------------


def test_a_bid_below_the_ask_may_be_raised(bench: Bench) -> None:
    bench.fund(100)
    trade, first = bench.quoted(bid=30, ask=50)
    reply = bench.ledger.unmatched(trade, 2)
    said = verify(reply, Unmatched, signer=bench.broker.peer_id)
    assert (said.trade, said.revision, said.revisions_left) == (trade, 0, 2)
    assert said.until_ms == bench.ledger.trade(trade).expires_ms == bench.clock() + HOUR_MS
    message_id = verify(first, Bid, signer=None).message_id
    assert bench.ledger.seen_reply(bench.buyer.peer_id, message_id) == reply
    assert bench.ledger.place_bid(first).state == "unmatched", "the same bytes again change nothing"

    for expected, data in (
        ("lower-bid", bench.bid(trade, 30)),
        ("lower-bid", bench.bid(trade, 29)),
        ("wrong-revision", bench.bid(trade, 40, revision=0)),
        ("wrong-revision", bench.bid(trade, 40, revision=2)),
        ("wrong-delivery", bench.bid(trade, 40, delivery=bytes(32))),
        ("insufficient-balance", bench.bid(trade, 101)),
    ):
        with refused(expected):
            bench.ledger.place_bid(data)
    assert held(bench) == (0, 0, 0)

    second = bench.bid(trade, 55)
    assert bench.ledger.place_bid(second).bids == 2
    assert held(bench) == (55, 0, 0)
    bench.settle(trade, 52, 2)  # by the ask from before
    assert balances(bench) == (48, 150, 2) and held(bench) == (0, 50, 2)
    assert bench.ledger.verify().problems == ()


def test_a_first_bid_is_no_revision(bench: Bench) -> None:
    bench.fund(100)
    trade = bench.appraised()
    with refused("wrong-revision"):
        bench.ledger.place_bid(bench.bid(trade, 5, revision=1))


def test_an_unmatched_trade_ends_with_the_reports_time(bench: Bench) -> None:
    bench.fund(100)
    trade = bench.appraised()
    first = bench.bid(trade, 30, expires_ms=bench.clock() + 99 * HOUR_MS)
    bench.ledger.place_bid(first)
    reply = bench.ledger.unmatched(trade, 2)
    late = bench.bid(trade, 40, expires_ms=bench.clock() + 99 * HOUR_MS)
    bench.clock.ms += HOUR_MS
    with refused("expired"):
        bench.ledger.place_bid(late)
    assert bench.ledger.expire() == [trade]
    message_id = verify(first, Bid, signer=None).message_id
    assert bench.ledger.seen_reply(bench.buyer.peer_id, message_id) == reply, "it was answered; no second answer"
    assert held(bench) == (0, 0, 0) and bench.ledger.verify().problems == ()


def test_an_unmatched_trade_may_be_declined(bench: Bench) -> None:
    bench.fund(100)
    trade, _ = bench.quoted(30, 50)
    bench.ledger.unmatched(trade, 0)
    assert bench.ledger.decline([trade], bench.buyer.peer_id) == [trade]
    assert held(bench) == (0, 0, 0) and bench.ledger.verify().problems == ()


# ---- proceeds --------------------------------------------------------------------------------------------------------


def test_proceeds_cannot_be_spent_before_the_delivery(bench: Bench) -> None:
    bench.ledger.open_account(bench.buyer.peer_id, 100)
    paid = bench.settled(40, fee=10)
    trade = bench.appraised(bench.seller, bench.third)
    bid = bench.bid(trade, 30, bench.seller)
    with refused("insufficient-balance"):
        bench.ledger.place_bid(bid)
    acknowledge(bench, paid)
    bench.ledger.place_bid(bid)
    assert bench.ledger.verify().problems == ()


def test_a_refund_is_always_paid_in_full_and_told_to_both(bench: Bench) -> None:
    bench.ledger.open_account(bench.buyer.peer_id, 100)
    trade = bench.settled(40, fee=10)
    assert balances(bench) == (60, 30, 10) and held(bench) == (0, 30, 10)
    assert bench.ledger.refund(trade, "lost-delivery").reason == "lost-delivery"
    assert balances(bench) == (100, 0, 0) and held(bench) == (0, 0, 0)
    [(_, told)] = bench.ledger.mail_after(bench.buyer.peer_id, 0)
    [_, (_, told_too)] = bench.ledger.mail_after(bench.seller.peer_id, 0)
    word = verify(told, Refund, signer=bench.broker.peer_id)
    assert told == told_too
    assert (word.trade, word.buyer, word.seller) == (trade, bench.buyer.peer_id, bench.seller.peer_id)
    assert (word.price, word.proceeds, word.reason, word.refunded_ms) == (40, 30, "lost-delivery", bench.clock())
    with refused("wrong-state"):
        bench.ledger.refund(trade, "lost-delivery")
    assert bench.ledger.verify().problems == ()


def test_a_refund_that_fails_tells_nobody(bench: Bench) -> None:
    """Control for the one before: mail and money are one effect."""
    bench.fund(100)
    trade = bench.settled(40, fee=10)
    with pytest.raises(ZeroDivisionError), bench.ledger.transaction():
        bench.ledger.refund(trade, "lost-delivery")
        raise ZeroDivisionError
    assert bench.ledger.mail_after(bench.buyer.peer_id, 0) == [] and held(bench) == (0, 30, 10)


# ---- the end of a delivery's term ------------------------------------------------------------------------------------


def test_what_was_never_served_is_refunded_at_its_term(bench: Bench) -> None:
    bench.fund(100)
    trade = bench.settled(40, fee=10)
    bench.clock.ms += HOUR_MS - 1
    assert bench.ledger.expire() == []
    bench.clock.ms += 1
    with refused("expired"):
        bench.ledger.mark_served(trade)
    assert bench.ledger.expire() == [trade] and bench.ledger.expire() == []
    row = bench.ledger.trade(trade)
    assert (row.state, row.reason, row.expires_ms) == ("refunded", "not-fetched", None)
    assert balances(bench) == (100, 100, 0) and held(bench) == (0, 0, 0)
    [(_, told)] = bench.ledger.mail_after(bench.buyer.peer_id, 0)
    assert verify(told, Refund, signer=bench.broker.peer_id).reason == "not-fetched"
    assert bench.ledger.verify().problems == ()


def test_what_was_served_and_never_acknowledged_stays_paid(bench: Bench) -> None:
    bench.fund(100)
    trade = bench.settled(40, fee=10)
    served = bench.ledger.mark_served(trade)
    assert served.served_ms == bench.clock() and served.state == "settled"
    bench.clock.ms += HOUR_MS
    assert bench.ledger.mark_served(trade) == served, "again: no change"
    bench.reopen()
    assert bench.ledger.expire() == [trade]
    row = bench.ledger.trade(trade)
    assert (row.state, row.price, row.expires_ms) == ("lapsed", 40, None)
    assert balances(bench) == (60, 130, 10) and held(bench) == (0, 0, 0)
    assert bench.ledger.mail_after(bench.buyer.peer_id, 0) == []
    assert bench.ledger.verify().problems == ()


# ---- spending limits -------------------------------------------------------------------------------------------------


def test_the_terms_limit_a_days_spending(bench: Bench) -> None:
    bench.fund(1000)
    paid = bench.appraised()
    bench.ledger.place_bid(bench.bid(paid, 60), spend_per_day=100)
    bench.ledger.record_ask(paid, bench.ask(paid, 50))
    bench.settle(paid, 50)
    waiting, trade = bench.appraised(), bench.appraised()
    bench.ledger.place_bid(bench.bid(waiting, 30), spend_per_day=100)
    with refused("spending-limit"):
        bench.ledger.place_bid(bench.bid(trade, 21), spend_per_day=100)
    assert held(bench)[0] == 30 and bench.ledger.trade(trade).state == "appraised"
    bench.ledger.place_bid(bench.bid(trade, 20), spend_per_day=100)
    other = bench.appraised(bench.seller, bench.third)
    bench.ledger.place_bid(bench.bid(other, 100, bench.seller), spend_per_day=100)
    assert bench.ledger.place_bid(bench.bid(bench.appraised(), 900)).state == "quoted", "0 is no limit"


def test_what_is_a_day_old_or_refunded_is_not_spent(bench: Bench) -> None:
    bench.fund(1000)
    old, lost = bench.settled(60), bench.settled(30)
    acknowledge(bench, old)
    bench.ledger.refund(lost, "lost-delivery")
    with refused("spending-limit"):
        bench.ledger.place_bid(bench.bid(bench.appraised(), 41), spend_per_day=100)
    bench.clock.ms += 24 * HOUR_MS - 1
    with refused("spending-limit"):
        bench.ledger.place_bid(bench.bid(bench.appraised(), 41), spend_per_day=100)
    bench.clock.ms += 1
    bench.ledger.place_bid(bench.bid(bench.appraised(), 100), spend_per_day=100)


@pytest.mark.parametrize(
    "own, terms, allowed", [(None, 50, 50), (20, 50, 20), (70, 50, 50), (20, 0, 20), (0, 0, 0), (0, 50, 0)]
)
def test_the_smaller_limit_counts(bench: Bench, own: int | None, terms: int, allowed: int) -> None:
    bench.fund(1000)
    bench.ledger.set_day_limit(bench.buyer.peer_id, own)
    trade = bench.appraised()
    with refused("spending-limit"):
        bench.ledger.place_bid(bench.bid(trade, allowed + 1), spend_per_day=terms)
    bench.ledger.place_bid(bench.bid(trade, allowed), spend_per_day=terms)


def test_a_limit_is_set_lifted_and_kept(bench: Bench) -> None:
    peer = bench.buyer.peer_id
    bench.ledger.set_day_limit(peer, 5)
    bench.fund(100)
    bench.reopen()
    assert {row.peer: row.day_limit for row in bench.ledger.accounts()}[peer] == 5
    bench.ledger.set_day_limit(peer, None)
    assert bench.ledger.place_bid(bench.bid(bench.appraised(), 100)).state == "quoted"
    assert bench.ledger.verify().problems == ()
    with pytest.raises(JournalDamaged, match="CHECK"):
        bench.ledger.set_day_limit(peer, -1)


# ---- what others may know --------------------------------------------------------------------------------------------


def test_bids_since_a_time(bench: Bench) -> None:
    bench.fund(1000)
    peer = bench.buyer.peer_id

    def bid(task: str, amount: int) -> bytes:
        trade = bench.appraised(task=task)
        bench.ledger.place_bid(bench.bid(trade, amount))
        return trade

    early, start = bid("digits", 1), bench.clock()
    bench.clock.ms += 5
    paid, refunded, _ = bid("digits", 20), bid("digits", 30), bid("letters", 40)
    for trade in (paid, refunded):
        bench.ledger.record_ask(trade, bench.ask(trade, 10))
        bench.settle(trade, 15)
    bench.ledger.refund(refunded, "lost-delivery")
    bench.ledger.create_trade(bench.id(), peer, bench.seller.peer_id, bytes(32), bytes(32), bytes(16), task="digits")
    late = bench.clock()
    assert sorted(bench.ledger.bids_since(start, "digits")) == [
        (peer, 20, 15, late),
        (peer, 30, None, late),
    ], "a bid that waits is told to nobody"
    bench.ledger.unmatched(early, 1)
    assert len(bench.ledger.bids_since(0, "digits")) == 2, "nor one that may be raised"
    bench.ledger.decline([early], peer)
    assert (peer, 1, None, late) in bench.ledger.bids_since(start + 1, "digits")
    assert len(bench.ledger.bids_since(late + 1, "digits")) == 0
