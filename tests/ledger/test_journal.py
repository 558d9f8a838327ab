"""What a ledger allows and what it writes down, one trade at a time."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from ledger_examples import HOUR_MS, Bench

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import verify
from p2pmarket.errors import BadSignature, Expired, JournalDamaged, MarketError, RuleBroken, SettingsError
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.messages import Bid, Deal, NoDeal, Sold
from p2pmarket.units import CREDIT


def refused(code: str) -> Any:
    """Expects a refusal with this code."""
    return pytest.raises(MarketError, check=lambda error: error.code == code)


# ---- accounts ------------------------------------------------------------------------------------------------------


def test_opening_credit_is_minted_once(bench: Bench) -> None:
    peer = bench.buyer.peer_id
    assert bench.ledger.balance(peer) == 0
    assert bench.ledger.open_account(peer, 5 * CREDIT) == 5 * CREDIT
    assert bench.ledger.open_account(peer, 7 * CREDIT) == 5 * CREDIT
    bench.reopen()
    assert bench.ledger.open_account(peer, 7 * CREDIT) == 5 * CREDIT
    assert bench.ledger.verify().minted == 5 * CREDIT


def test_a_grant_counts_once_for_each_message_id(bench: Bench) -> None:
    peer, message = bench.buyer.peer_id, bench.id()
    assert bench.ledger.grant(peer, 3, "prize", message) == 3
    assert bench.ledger.grant(peer, 3, "prize", message) == 3
    assert bench.ledger.grant(peer, 3, "prize", bench.id()) == 6
    assert bench.ledger.open_account(peer, 10) == 16, "a grant before the first visit does not cost the opening credit"
    assert [(row.kind, row.change, row.balance, row.memo) for row in bench.ledger.history(peer)] == [
        ("granted", 3, 3, "prize"),
        ("granted", 3, 6, "prize"),
        ("opened", 10, 16, ""),
    ]


def test_credit_has_a_ceiling(bench: Bench) -> None:
    bench.ledger.grant(bench.buyer.peer_id, MAX_AMOUNT, "all", bench.id())
    with refused("too-much-credit"):
        bench.ledger.grant(bench.seller.peer_id, 1, "more", bench.id())
    with refused("too-much-credit"):
        bench.ledger.open_account(bench.seller.peer_id, 1)
    assert bench.ledger.verify().ok


# ---- a trade that goes well ----------------------------------------------------------------------------------------


def test_a_whole_trade(bench: Bench) -> None:
    bench.fund(10 * CREDIT)
    trade, bid = bench.quoted(bid=4 * CREDIT, ask=2 * CREDIT)
    settlement = bench.settle(trade, 3 * CREDIT, 60_000)
    buyer, seller, broker = bench.buyer.peer_id, bench.seller.peer_id, bench.broker.peer_id

    assert bench.ledger.balance(buyer) == 7 * CREDIT
    assert bench.ledger.balance(seller) == 13 * CREDIT - 60_000
    assert bench.ledger.balance(broker) == 60_000

    receipt = verify_receipt(settlement.receipt, broker)
    row = bench.ledger.trade(trade)
    assert (receipt.trade, receipt.buyer, receipt.seller, receipt.price) == (trade, buyer, seller, 3 * CREDIT)
    assert (receipt.fee, receipt.delivery, receipt.settled_ms) == (60_000, row.delivery, bench.clock())
    assert row.receipt == settlement.receipt and row.state == "settled" and row.settled_ms == bench.clock()
    assert row.expires_ms == row.fetch_before_ms == bench.clock() + HOUR_MS

    deal = verify(settlement.reply, Deal, signer=broker)
    assert (deal.price, deal.balance, deal.receipt) == (3 * CREDIT, 7 * CREDIT, settlement.receipt)
    [(number, mail)] = bench.ledger.mail_after(seller, 0)
    sold = verify(mail, Sold, signer=broker)
    assert number == settlement.mail_number == 1
    assert (sold.trade, sold.price, sold.fee, sold.balance) == (trade, 3 * CREDIT, 60_000, 13 * CREDIT - 60_000)

    assert bench.ledger.deliveries_owed(buyer) == [row] == bench.ledger.deliveries_owed()
    assert bench.ledger.deliveries_owed(seller) == []
    assert bench.ledger.acknowledge_delivery(trade, buyer, row.delivery).state == "delivered"
    assert bench.ledger.acknowledge_delivery(trade, buyer, row.delivery).state == "delivered"
    assert bench.ledger.deliveries_owed() == []
    assert bench.ledger.verify().problems == ()
    assert bench.reopen().trade(trade).state == "delivered"


def test_a_standing_ask_settles_a_trade(bench: Bench) -> None:
    bench.fund()
    trade = bench.appraised()
    bench.ledger.place_bid(bench.bid(trade, 10))
    bench.ledger.record_ask(trade, bench.submit(trade, 6))
    with refused("price-outside"):
        bench.settle(trade, 5)
    bench.settle(trade, 6)
    assert bench.ledger.verify().ok


def test_a_replayed_bid_gets_the_stored_bytes_and_moves_nothing(bench: Bench) -> None:
    bench.fund()
    trade, bid = bench.quoted(10, 10)
    assert bench.ledger.place_bid(bid).state == "quoted"
    reply = bench.settle(trade, 10).reply
    balance = bench.ledger.balance(bench.buyer.peer_id)
    message_id = verify(bid, Bid, signer=None).message_id
    bench.reopen()
    assert bench.ledger.seen_reply(bench.buyer.peer_id, message_id) == reply
    assert bench.ledger.place_bid(bid).state == "settled"
    with refused("wrong-state"):
        bench.settle(trade, 10)
    assert bench.ledger.balance(bench.buyer.peer_id) == balance
    assert bench.ledger.seen_reply(bench.seller.peer_id, message_id) is None


# ---- trades that do not --------------------------------------------------------------------------------------------


def test_a_bid_that_ran_out_ends_the_trade(bench: Bench) -> None:
    bench.fund()
    trade, bid = bench.quoted(10, 10)
    bench.ledger.record_ask(trade, bench.ask(trade, 10, expires_ms=bench.clock() + 9 * HOUR_MS))
    bench.clock.ms += HOUR_MS
    with refused("expired"):
        bench.settle(trade, 10)
    assert bench.ledger.trade(trade).state == "expired" and bench.ledger.verify().ok
    message_id = verify(bid, Bid, signer=None).message_id
    assert verify(bench.ledger.seen_reply(bench.buyer.peer_id, message_id), NoDeal, signer=None).reason == "expired"


def test_an_ask_that_ran_out_leaves_the_trade_open(bench: Bench) -> None:
    bench.fund()
    trade, _ = bench.quoted(10, 10)
    bench.ledger.record_ask(trade, bench.ask(trade, 9, expires_ms=bench.clock() + 1))
    bench.clock.ms += 1
    with refused("expired"):
        bench.settle(trade, 10)
    assert bench.ledger.trade(trade).state == "quoted"
    bench.ledger.record_ask(trade, bench.ask(trade, 9))
    bench.settle(trade, 10)


@pytest.mark.parametrize("price, fee", [(3, 0), (11, 0), (5, 6), (5, -1), (-1, 0)])
def test_prices_outside_bid_and_ask_are_refused(bench: Bench, price: int, fee: int) -> None:
    bench.fund()
    trade, _ = bench.quoted(bid=10, ask=4)
    with refused("price-outside"):
        bench.settle(trade, price, fee)
    assert bench.ledger.trade(trade).state == "quoted" and bench.ledger.verify().ok


def test_bids_that_do_not_bind_are_refused(bench: Bench) -> None:
    bench.fund()
    trade = bench.appraised()
    for expected, data in (
        ("bad-signature", bench.bid(trade, 10, bench.third)),
        ("bad-signature", bench.bid(trade, 10, bench.seller)),
        ("wrong-broker", bench.bid(trade, 10, broker=bench.third.peer_id)),
        ("wrong-broker", bench.bid(trade, 10, market="letters")),
        ("wrong-delivery", bench.bid(trade, 10, delivery=bytes(32))),
        ("unknown-trade", bench.bid(trade, 10, trade=bytes(16))),
        ("expired", bench.bid(trade, 10, expires_ms=bench.clock())),
        ("malformed", bench.ask(trade, 10, bench.buyer)),
    ):
        with refused(expected):
            bench.ledger.place_bid(data)
    bent = bytearray(bench.bid(trade, 10))
    bent[-1] ^= 1
    with pytest.raises(BadSignature):
        bench.ledger.place_bid(bytes(bent))
    assert bench.ledger.trade(trade).state == "appraised"
    bench.ledger.place_bid(bench.bid(trade, 10))
    with refused("wrong-state"):
        bench.ledger.place_bid(bench.bid(trade, 11))


def test_a_bid_after_the_report_ran_out_is_refused(bench: Bench) -> None:
    trade = bench.appraised()
    bid = bench.bid(trade, 10, expires_ms=bench.clock() + 9 * HOUR_MS)
    bench.clock.ms += HOUR_MS
    with pytest.raises(Expired, match="report"):
        bench.ledger.place_bid(bid)


def test_asks_that_do_not_bind_are_refused(bench: Bench) -> None:
    bench.fund()
    trade = bench.appraised()
    bench.ledger.place_bid(bench.bid(trade, 10))
    for expected, data in (
        ("bad-signature", bench.ask(trade, 1, bench.buyer)),
        ("bad-signature", bench.submit(trade, 1, bench.third)),
        ("wrong-broker", bench.ask(trade, 1, broker=bench.third.peer_id)),
        ("wrong-snapshot", bench.ask(trade, 1, snapshot=bytes(32))),
        ("wrong-snapshot", bench.ask(trade, 1, trade=bytes(16))),
        ("wrong-snapshot", bench.submit(trade, 1, snapshot=bytes(32))),
        ("wrong-snapshot", bench.submit(trade, 1, market="letters")),
        ("no-ask", bench.submit(trade, None)),
        ("no-ask", bench.submit(trade, 1, sell=False)),
        ("expired", bench.ask(trade, 1, expires_ms=bench.clock())),
        ("malformed", bench.bid(trade, 1, bench.seller)),
    ):
        with refused(expected):
            bench.ledger.record_ask(trade, data)
    with refused("no-ask"):
        bench.settle(trade, 10)


def test_only_the_buyer_declines_and_acknowledges(bench: Bench) -> None:
    bench.fund()
    first, second, quoted = bench.appraised(), bench.appraised(), bench.quoted(5, 5)[0]
    with refused("not-yours"):
        bench.ledger.decline([first], bench.seller.peer_id)
    with refused("wrong-state"):
        bench.ledger.decline([first, quoted], bench.buyer.peer_id)
    assert bench.ledger.trade(first).state == "appraised", "all or nothing"
    assert bench.ledger.decline([first, second], bench.buyer.peer_id) == [first, second]
    assert bench.ledger.decline([first], bench.buyer.peer_id) == []
    paid = bench.settled(5)
    digest = bench.ledger.trade(paid).delivery
    with refused("not-yours"):
        bench.ledger.acknowledge_delivery(paid, bench.seller.peer_id, digest)
    with refused("wrong-delivery"):
        bench.ledger.acknowledge_delivery(paid, bench.buyer.peer_id, bytes(32))
    with refused("wrong-state"):
        bench.ledger.acknowledge_delivery(quoted, bench.buyer.peer_id, bench.ledger.trade(quoted).delivery)
    assert bench.ledger.verify().ok


def test_expiry_and_failure_end_what_is_open_and_nothing_else(bench: Bench) -> None:
    bench.fund()
    submitted = bench.id()
    bench.ledger.create_trade(
        submitted,
        bench.buyer.peer_id,
        bench.seller.peer_id,
        bytes(32),
        bytes(32),
        bytes(16),
        expires_ms=bench.clock() + 1,
    )
    appraised, (quoted, _), failed = bench.appraised(), bench.quoted(5, 5), bench.appraised()
    settled, _ = bench.quoted(5, 5)
    bench.ledger.settle(settled, 5, 0, fetch_before_ms=bench.clock() + 2 * HOUR_MS)
    assert bench.ledger.fail(failed, "bad-snapshot").state == "void"
    assert bench.ledger.expire() == []
    bench.clock.ms += HOUR_MS
    assert set(bench.ledger.expire()) == {submitted, appraised, quoted}
    assert bench.ledger.expire() == []
    states = [bench.ledger.trade(trade).state for trade in (submitted, appraised, quoted, settled, failed)]
    assert states == ["expired", "expired", "expired", "settled", "void"]
    with refused("wrong-state"):
        bench.ledger.fail(settled, "too-late")
    assert bench.ledger.held(bench.buyer.peer_id) == 0
    assert bench.ledger.verify().ok


def test_no_deal_answers_the_bid(bench: Bench) -> None:
    bench.fund()
    trade = bench.appraised()
    bench.ledger.place_bid(bench.bid(trade, 4, message_id=b"m" * 16))
    reply = bench.ledger.no_deal(trade, "no-overlap", "the bid is below the ask")
    assert bench.ledger.seen_reply(bench.buyer.peer_id, b"m" * 16) == reply
    assert bench.ledger.trade(trade).state == "no-deal"
    with refused("wrong-state"):
        bench.ledger.no_deal(trade, "no-overlap", "again")


def test_a_message_id_used_twice_does_not_stop_a_trade(bench: Bench) -> None:
    bench.fund()
    trade = bench.appraised()
    bench.ledger.place_bid(bench.bid(trade, 4, message_id=b"m" * 16))
    bench.ledger.remember(bench.buyer.peer_id, b"m" * 16, b"done")
    bench.clock.ms += HOUR_MS
    assert bench.ledger.expire() == [trade]
    assert bench.ledger.seen_reply(bench.buyer.peer_id, b"m" * 16) == b"done"


def test_trades_are_unique_and_between_two(bench: Bench) -> None:
    trade = bench.appraised()
    with refused("duplicate-trade"):
        bench.ledger.create_trade(trade, bench.buyer.peer_id, bench.seller.peer_id, bytes(32), bytes(32), bytes(16))
    with refused("self-trade"):
        bench.ledger.create_trade(bench.id(), bench.buyer.peer_id, bench.buyer.peer_id, bytes(32), bytes(32), bytes(16))
    with refused("unknown-trade"):
        bench.ledger.trade(bytes(16))


def test_trades_are_listed_by_peer_and_state(bench: Bench) -> None:
    bench.fund()
    first, second = bench.appraised(), bench.settled(5)
    other = bench.appraised(bench.third, bench.buyer)
    ledger = bench.ledger
    assert {row.trade for row in ledger.trades()} == {first, second, other}
    assert {row.trade for row in ledger.trades(bench.seller.peer_id)} == {first, second}
    assert [row.trade for row in ledger.trades(bench.buyer.peer_id, "settled")] == [second]
    assert [row.trade for row in ledger.trades(limit=1)] == [other]
    assert ledger.trades(bench.broker.peer_id) == []


def test_what_binds_money_is_listed_first_and_purchases_before_sales(bench: Bench) -> None:
    bench.fund()
    me, other = bench.buyer, bench.seller
    quoted, _ = bench.quoted(5, 5)
    unmatched, _ = bench.quoted(5, 9)
    bench.ledger.unmatched(unmatched, 1)
    paid = bench.settled(5)
    sale, _ = bench.quoted(5, 5, other, me)
    appraised = bench.appraised()
    ended = bench.appraised()
    bench.ledger.decline([ended], me.peer_id)
    sales = [bench.appraised(other, me) for _ in range(9)]
    assert [row.trade for row in bench.ledger.open_trades(me.peer_id, 6)] == [
        quoted, paid, unmatched, sale, appraised, sales[-1],
    ]  # fmt: skip
    assert len(bench.ledger.open_trades(me.peer_id, 99)) == 14
    assert bench.ledger.open_trades(bench.third.peer_id, 99) == []


# ---- refunds -------------------------------------------------------------------------------------------------------


def test_a_refund_gives_everything_back(bench: Bench) -> None:
    bench.fund(100)
    trade = bench.settled(40, fee=10)
    assert bench.ledger.refund(trade, "delivery-lost").state == "refunded"
    peers = (bench.buyer, bench.seller, bench.broker)
    assert [bench.ledger.balance(peer.peer_id) for peer in peers] == [100, 100, 0]
    with refused("wrong-state"):
        bench.ledger.refund(trade, "delivery-lost")
    assert bench.ledger.verify().ok


# ---- replies, mail, transactions -----------------------------------------------------------------------------------


def test_an_effect_and_its_reply_are_one(bench: Bench) -> None:
    peer, message = bench.buyer.peer_id, bench.id()
    for _ in range(2):
        try:
            with bench.ledger.transaction():
                bench.ledger.grant(peer, 5, "", bench.id())
                bench.ledger.remember(peer, message, b"granted")
        except RuleBroken as error:
            assert error.code == "replayed"
    assert bench.ledger.balance(peer) == 5
    assert bench.ledger.seen_reply(peer, message) == b"granted"


def test_a_failed_part_undoes_itself_alone(bench: Bench) -> None:
    with bench.ledger.transaction() as connection:
        connection.execute("CREATE TABLE told (text TEXT) STRICT")
        bench.ledger.grant(bench.buyer.peer_id, 5, "", bench.id())
        with pytest.raises(ZeroDivisionError), bench.ledger.transaction():
            bench.ledger.grant(bench.buyer.peer_id, 7, "", bench.id())
            raise ZeroDivisionError
        connection.execute("INSERT INTO told VALUES ('kept')")
    assert bench.ledger.balance(bench.buyer.peer_id) == 5
    assert bench.reopen().verify().ok


def test_mail_is_numbered_for_each_peer_and_numbers_are_not_used_again(bench: Bench) -> None:
    one, other = bench.buyer.peer_id, bench.seller.peer_id
    assert [bench.ledger.queue_mail(one, body) for body in (b"a", b"b", b"c")] == [1, 2, 3]
    assert bench.ledger.queue_mail(other, b"z") == 1
    assert bench.ledger.mail_after(one, 1) == [(2, b"b"), (3, b"c")]
    bench.ledger.drop_mail(one, 3)
    bench.reopen()
    assert bench.ledger.mail_after(one, 0) == []
    assert bench.ledger.queue_mail(one, b"d") == 4
    assert bench.ledger.mail_after(other, 0) == [(1, b"z")]


# ---- the file ------------------------------------------------------------------------------------------------------


def test_a_file_belongs_to_one_broker_and_market(bench: Bench) -> None:
    with pytest.raises(SettingsError, match="belongs to broker"):
        Ledger.open(bench.path, Identity.generate(), "digits", bench.clock)
    with pytest.raises(SettingsError, match="of market digits"):
        Ledger.open(bench.path, bench.broker, "letters", bench.clock)


def test_a_newer_file_is_left_alone(bench: Bench) -> None:
    bench.ledger.close()
    with sqlite3.connect(bench.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalDamaged, match="upgrade"):
        Ledger.open(bench.path, bench.broker, "digits", bench.clock)


def test_other_files_are_refused(bench: Bench, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, and long enough to be taken for one " * 50)
    with pytest.raises(JournalDamaged, match="damaged"):
        Ledger.open(text, bench.broker, "digits", bench.clock)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE anything (x)")
    connection.close()
    with pytest.raises(JournalDamaged, match="another program"):
        Ledger.open(foreign, bench.broker, "digits", bench.clock)


def test_the_file_is_its_owners_alone(bench: Bench) -> None:
    assert bench.path.stat().st_mode & 0o077 == 0


def test_leaves_cannot_be_changed_or_deleted(bench: Bench) -> None:
    bench.fund()
    for statement in ("DELETE FROM leaves", "UPDATE leaves SET data = x''"):
        with (
            pytest.raises(JournalDamaged, match="never.*nothing was written"),
            bench.ledger.transaction() as connection,
        ):
            connection.execute(statement)
    assert bench.ledger.verify().ok


def test_the_schema_itself_refuses_what_no_account_can_hold(bench: Bench) -> None:
    bench.fund()
    for statement in (
        "UPDATE accounts SET balance = -1",
        "UPDATE accounts SET held = -1",
        "UPDATE accounts SET held = balance + 1",
    ):
        with pytest.raises(JournalDamaged, match="CHECK"), bench.ledger.transaction() as connection:
            connection.execute(statement)
    assert bench.ledger.verify().ok
