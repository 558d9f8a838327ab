"""What an agent keeps, what it refuses to keep, and what it knows after a kill."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_examples import HOUR_MS, Bench

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import BadSignature, MalformedMessage, RuleBroken, SettingsError
from p2pmarket.ledger import agent_trades
from p2pmarket.ledger.agent_journal import UNMATCHED, AgentJournal
from p2pmarket.ledger.heads import Head, continues, head_of
from p2pmarket.ledger.leaves import pack, settlement_of
from p2pmarket.ledger.log import leaf_hash
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.messages import Bid, GainReport, Receipt, Refund, Sold, TradeStatus


@pytest.fixture
def journal(bench: Bench, tmp_path: Path) -> Iterator[AgentJournal]:
    with AgentJournal.open(tmp_path / "agent.sqlite", bench.buyer.peer_id, bench.clock) as opened:
        yield opened


def refused(code: str) -> Any:
    return pytest.raises(RuleBroken, check=lambda error: error.code == code)


def report_on(bench: Bench, trade: bytes, **changes: object) -> bytes:
    """The broker's signed gain report on a trade of the ledger."""
    row = bench.ledger.trade(trade)
    report = GainReport(
        trade, "digits", row.buyer, row.seller, "digits", row.buyer_snapshot, row.seller_snapshot, row.delivery,
        loss_before=0.5, loss_after=0.3, gain=0.2, gain_low=0.1, gain_high=0.3,
        merit=0.1, merit_low=0.05, merit_high=0.15, confidence=0.95,
        metric_before=0.8, metric_after=0.9, samples=100, data=b"v" * 32,
        weight=0.5, granularity="model", alignment="weights",
        after=None, left_out=(), reason="", classes=(), groups=(), tasks=(), expires_ms=bench.clock() + HOUR_MS,
    )  # fmt: skip
    return sign(bench.broker, dataclasses.replace(report, **changes))  # type: ignore[arg-type]


def bought(bench: Bench, journal: AgentJournal, bid: int, price: int) -> tuple[bytes, bytes]:
    """A trade that the journal bid for and the ledger settled: its id and receipt."""
    trade = bench.appraised()
    journal.keep_report(bench.broker.peer_id, report_on(bench, trade))
    data = bench.bid(trade, bid)
    journal.keep_bid(data)
    bench.ledger.place_bid(data)
    bench.ledger.record_ask(trade, bench.ask(trade, price))
    return trade, bench.settle(trade, price).receipt


def test_a_purchase_from_report_to_model(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    trade, receipt = bought(bench, journal, bid=10, price=7)
    assert journal.trade(broker, trade).stage == "bid" and journal.spent(0) == 10
    [intent] = journal.unanswered(broker)
    assert verify(intent.body, Bid, signer=bench.buyer.peer_id).message_id == intent.message_id
    journal.answered(intent.message_id, b"a deal")
    assert journal.keep_receipt(broker, receipt).price == 7
    assert journal.keep_receipt(broker, receipt).price == 7
    assert journal.unanswered(broker) == []
    assert journal.trade(broker, trade).stage == "bought" and journal.spent(0) == 7
    journal.fetched(broker, trade)
    assert journal.trade(broker, trade).stage == "fetched"
    journal.loaded(broker, trade)
    journal.end(broker, trade, "too-late")
    [row] = journal.trades()
    assert (row.stage, row.price, row.partner, row.gain) == ("loaded", 7, bench.seller.peer_id, 0.2)
    assert journal.spent(bench.clock() + 1) == 0


def test_what_was_bid_on_is_not_declined(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    bid_on, other, unheard = bench.appraised(), bench.appraised(), bench.appraised()
    for trade in (bid_on, other):
        journal.keep_report(broker, report_on(bench, trade))
    journal.keep_bid(bench.bid(bid_on, 10))
    assert journal.decline(broker, [bid_on, other, unheard]) == (other,)
    assert journal.decline(broker, [other]) == (), "once"
    rows = [journal.trade(broker, trade) for trade in (bid_on, other)]
    assert [(row.stage, row.reason) for row in rows if row] == [("bid", ""), ("over", "declined")]
    assert journal.spent(0) == 10, "it may be paid yet"


def test_a_sale_is_kept_by_its_receipt(bench: Bench, tmp_path: Path) -> None:
    bench.fund()
    receipt = bench.ledger.trade(bench.settled(9, fee=1)).receipt
    with AgentJournal.open(tmp_path / "seller.sqlite", bench.seller.peer_id, bench.clock) as journal:
        journal.keep_receipt(bench.broker.peer_id, receipt)
        [row] = journal.trades()
        assert (row.stage, row.price, row.fee, row.partner) == ("sold", 9, 1, bench.buyer.peer_id)
        assert journal.spent(0) == 0


def test_forged_and_foreign_receipts_are_refused(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    for _ in range(5):
        bench.settled(1)
    _, data = bought(bench, journal, 10, 10)
    receipt = verify_receipt(data, broker)
    with pytest.raises(BadSignature):
        verify_receipt(data, bench.third.peer_id)
    with pytest.raises(BadSignature):
        verify_receipt(sign(bench.third, receipt), broker)
    with pytest.raises(BadSignature, match="names broker"):
        verify_receipt(sign(bench.third, receipt), bench.third.peer_id)
    with pytest.raises(MalformedMessage):
        verify_receipt(bench.bid(receipt.trade, 1), broker)
    for change in (
        {"price": 9}, {"fee": 1}, {"trade": bytes(16)}, {"buyer": bench.third.peer_id}, {"market": "letters"},
        {"delivery": bytes(32)}, {"settled_ms": 1}, {"leaf": bytes(32)}, {"index": 0}, {"log_size": 4},
        {"root": bytes(32)}, {"proof": ()}, {"proof": receipt.proof[:-1]}, {"proof": (bytes(32), *receipt.proof[1:])},
    ):  # fmt: skip
        with pytest.raises(BadSignature, match="keep it as evidence"):
            verify_receipt(sign(bench.broker, dataclasses.replace(receipt, **change)), broker)
    for at in range(len(data)):
        bent = bytearray(data)
        bent[at] ^= 1
        with pytest.raises((BadSignature, MalformedMessage)):
            verify_receipt(bytes(bent), broker)
    foreign, _ = bench.quoted(5, 5, buyer=bench.third)
    with refused("not-mine"):
        journal.keep_receipt(broker, bench.settle(foreign, 5).receipt)
    assert journal.spent(0) == 10
    assert journal.keep_receipt(broker, data) == receipt


def test_a_broker_that_contradicts_itself_leaves_evidence(bench: Bench, journal: AgentJournal, make_bench: Any) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    with refused("contradiction"):
        journal.keep_receipt(broker, bench.ledger.trade(bench.settled(5)).receipt)
    trade, receipt = bought(bench, journal, 10, 10)
    journal.keep_receipt(broker, receipt)
    bench.clock.ms += 1
    honest = verify(receipt, Receipt, signer=broker)
    twin = forge(bench, dataclasses.replace(honest, settled_ms=bench.clock()))
    with refused("contradiction"):
        journal.keep_receipt(broker, twin)
    assert journal.trade(broker, trade).receipt == receipt
    dearer, _ = bought(bench, journal, 10, 9)
    template = verify(bench.ledger.trade(dearer).receipt, Receipt, signer=broker)
    with refused("contradiction"):
        journal.keep_receipt(broker, forge(bench, dataclasses.replace(template, price=11)))
    assert [len(case.bodies) for case in journal.evidence()] == [1, 3, 2], "the receipt, and what it contradicts"
    assert list(journal.distrusted()) == [broker]


def forge(bench: Bench, receipt: Receipt) -> bytes:
    """A receipt that holds, for a settlement of the broker's invention in a log of its own."""
    leaf = leaf_hash(pack(settlement_of(receipt)))
    return sign(bench.broker, dataclasses.replace(receipt, leaf=leaf, index=0, log_size=1, root=leaf, proof=()))


def test_reports_and_bids_that_are_not_mine_are_refused(bench: Bench, journal: AgentJournal) -> None:
    trade = bench.appraised()
    with pytest.raises(BadSignature):
        journal.keep_report(bench.third.peer_id, report_on(bench, trade))
    with refused("not-mine"):
        journal.keep_report(bench.broker.peer_id, report_on(bench, trade, buyer=bench.third.peer_id))
    with refused("unknown-trade"):
        journal.keep_bid(bench.bid(trade, 5))
    journal.keep_report(bench.broker.peer_id, report_on(bench, trade))
    with pytest.raises(BadSignature):
        journal.keep_bid(bench.bid(trade, 5, bench.third))
    data = bench.bid(trade, 5)
    journal.keep_bid(data)
    journal.keep_bid(data)
    with refused("wrong-state"):
        journal.keep_bid(bench.bid(trade, 6))
    journal.end(bench.broker.peer_id, trade, "no-overlap")
    assert journal.trade(bench.broker.peer_id, trade).stage == "over" and journal.spent(0) == 0


def test_what_is_owed_is_what_was_paid_and_is_not_loaded(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    (kept, _), (lost, _) = bought(bench, journal, 10, 7), bought(bench, journal, 10, 7)
    broker = bench.broker.peer_id
    assert {row.trade for row in journal.owed()} == set()
    for trade in (kept, lost):
        journal.keep_receipt(broker, bench.ledger.trade(trade).receipt)
    assert {row.trade for row in journal.owed()} == {kept, lost}
    journal.give_up(broker, lost, "lost-delivery")
    given_up = journal.trade(broker, lost)
    assert given_up is not None and (given_up.stage, given_up.reason) == ("over", "lost-delivery")
    assert [row.stage for row in journal.owed()] == ["bought"]
    journal.fetched(broker, kept)
    assert [row.stage for row in journal.owed()] == ["fetched"]
    journal.loaded(broker, kept)
    assert journal.owed() == []
    journal.give_up(broker, kept, "too-late")
    loaded = journal.trade(broker, kept)
    assert loaded is not None and loaded.stage == "loaded", "what is in the model is not given up"


def test_a_message_id_stands_for_one_message(bench: Bench, journal: AgentJournal) -> None:
    journal.intend("broker", b"m" * 16, b"one")
    journal.intend("broker", b"m" * 16, b"one")
    with refused("replayed"):
        journal.intend("broker", b"m" * 16, b"two")
    assert [intent.body for intent in journal.unanswered("broker")] == [b"one"]
    assert journal.unanswered("another") == []


def test_mail_counts_once(journal: AgentJournal) -> None:
    assert journal.last_mail("broker") == 0
    assert journal.keep_mail("broker", 1) and journal.keep_mail("broker", 2)
    assert not journal.keep_mail("broker", 2) and not journal.keep_mail("broker", 1)
    with pytest.raises(ZeroDivisionError), journal.transaction():
        assert journal.keep_mail("broker", 3)
        raise ZeroDivisionError
    assert journal.last_mail("broker") == 2, "mail whose effect failed is not counted"


def test_a_journal_belongs_to_one_agent(bench: Bench, journal: AgentJournal, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is of agent"):
        AgentJournal.open(tmp_path / "agent.sqlite", Identity.generate().peer_id, bench.clock)


def test_what_was_written_survives_a_kill(bench: Bench, tmp_path: Path) -> None:
    """A child writes intents and says so; after SIGKILL every one it spoke of is there."""
    path = tmp_path / "killed.sqlite"
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from p2pmarket.ledger.agent_journal import AgentJournal
        journal = AgentJournal.open(Path({str(path)!r}), {bench.buyer.peer_id!r})
        number = len(journal.unanswered("broker"))
        while True:
            number += 1
            journal.intend("broker", number.to_bytes(16, "big"), b"x" * 500)
            print(number, flush=True)
        """
    )
    said = 0
    for wanted in (3, 30, 60):
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert child.stdout is not None
        while said < wanted:
            said = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        said = max([said, *(int(line) for line in child.stdout.read().split(b"\n")[:-1] if line)])
        child.stdout.close()
        child.wait()
        with AgentJournal.open(path, bench.buyer.peer_id) as journal:
            kept = len(journal.unanswered("broker"))
        assert said <= kept <= said + 1
        said = kept


# ---- sales, refunds, a past that is learnt from the broker ----------------------------------------------------------


def sold_mail(bench: Bench, price: int, ask: bytes | None = None, fee: int = 0) -> tuple[bytes, bytes]:
    """A settled trade and the signed Sold that tells its seller, whose ask was `ask` or the price."""
    trade = bench.appraised()
    bench.ledger.place_bid(bench.bid(trade, price))
    bench.ledger.record_ask(trade, ask or bench.ask(trade, price))
    bench.settle(trade, price, fee)
    (*_, (_, mail)) = bench.ledger.mail_after(bench.seller.peer_id, 0)
    return trade, mail


def status_of(bench: Bench, trade: bytes, word: bytes | None, state: str = "settled") -> TradeStatus:
    row = bench.ledger.trade(trade)
    return TradeStatus(trade, state, row.price, row.receipt, word)


@pytest.fixture
def sellers(bench: Bench, tmp_path: Path) -> Iterator[AgentJournal]:
    bench.fund()
    with AgentJournal.open(tmp_path / "seller.sqlite", bench.seller.peer_id, bench.clock) as opened:
        yield opened


def test_a_sale_below_the_ask_is_evidence(bench: Bench, sellers: AgentJournal) -> None:
    broker = bench.broker.peer_id
    trade, mail = sold_mail(bench, 9)
    sellers.keep_ask(broker, bench.ask(trade, 9))
    sellers.keep_sale(broker, mail)
    row = sellers.trade(broker, trade)
    assert row is not None and row.stage == "sold" and row.ask is not None and sellers.unclear(broker) == []
    for shown, reason in ((10, "below what this agent asked"), (None, "named no price for")):
        trade, mail = sold_mail(bench, 9)
        asked = bench.ask(trade, 10)
        sellers.keep_ask(broker, asked)
        sellers.keep_sale(broker, mail)
        assert [row.trade for row in sellers.unclear(broker)][0] == trade, "the broker must show a lower word"
        with refused("contradiction"):
            sellers.keep_status(broker, status_of(bench, trade, asked if shown else None))
        assert reason in sellers.evidence()[-1].reason
    assert list(sellers.distrusted()) == [broker]


def test_a_lower_ask_that_this_journal_lost_is_no_lie_of_the_brokers(bench: Bench, sellers: AgentJournal) -> None:
    broker = bench.broker.peer_id
    trade, mail = sold_mail(bench, 9)
    sellers.keep_ask(broker, bench.submit(trade, 10))
    sellers.keep_sale(broker, mail)
    assert sellers.keep_status(broker, status_of(bench, trade, bench.ledger.trade(trade).ask)) == "word"
    assert sellers.unclear(broker) == [] and sellers.distrusted() == {}
    trade, mail = sold_mail(bench, 9)
    other = bench.submit(bench.appraised(), 1)
    sellers.keep_sale(broker, mail)
    with refused("contradiction"):  # this agent's own, and low enough: but for another snapshot
        sellers.keep_status(broker, status_of(bench, trade, other))


def test_a_standing_ask_counts_for_its_snapshot_and_a_lower_word_counts_more(
    bench: Bench, sellers: AgentJournal
) -> None:
    broker = bench.broker.peer_id
    for standing, asked, price, holds in (
        (9, None, 9, True),
        (10, None, 9, False),
        (10, 8, 9, True),
        (10, 10, 9, False),
    ):
        trade, mail = sold_mail(bench, price)
        sellers.keep_ask(broker, bench.submit(trade, standing))
        sellers.keep_ask(broker, bench.submit(trade, None))
        if asked is not None:
            sellers.keep_ask(broker, bench.ask(trade, asked))
        assert sellers.keep_sale(broker, mail).price == price
        assert (trade not in [row.trade for row in sellers.unclear(broker)]) is holds
    with pytest.raises(BadSignature):
        sellers.keep_ask(broker, bench.ask(trade, 1, bench.third))


def test_a_sale_whose_ask_is_not_here_is_asked_about(bench: Bench, sellers: AgentJournal) -> None:
    broker = bench.broker.peer_id
    trade, mail = sold_mail(bench, 9)
    sellers.keep_sale(broker, mail)
    assert [row.trade for row in sellers.unclear(broker)] == [trade]
    assert sellers.keep_status(broker, status_of(bench, trade, bench.ledger.trade(trade).ask)) == "word"
    assert sellers.unclear(broker) == []
    trade, mail = sold_mail(bench, 9)
    sellers.keep_sale(broker, mail)
    for word in (None, bench.ask(trade, 1, bench.third), bench.bid(trade, 9), bench.ask(bench.appraised(), 9), b"?"):
        with refused("contradiction"):
            sellers.keep_status(broker, status_of(bench, trade, word))
    with refused("contradiction"):
        sellers.keep_status(broker, status_of(bench, trade, bench.ask(trade, 10)))


def test_asks_are_remembered_by_buyer_and_nobody_pushes_the_others_out(bench: Bench, sellers: AgentJournal) -> None:
    broker = bench.broker.peer_id
    bold, shy = b"b" * 16, b"s" * 16
    trade, mail = sold_mail(bench, 9)
    sellers.keep_ask(broker, bench.ask(trade, 9), shy)
    sellers.keep_sale(broker, mail)
    for _ in range(20):
        bench.clock.ms += 1
        sellers.keep_ask(broker, bench.ask(bench.appraised(), 9), bold)
    sellers.keep_ask(broker, bench.submit(trade, 10))
    assert [ask.buyer for ask in sellers.asks(broker, 3)] == [bold, shy, bold]
    assert len(sellers.asks(broker)) == 21 and sellers.asks(broker, 1)[0].made_ms == bench.clock()
    assert sellers.buyers(broker) == {bench.buyer.peer_id: shy} and sellers.buyers("another") == {}


def test_a_sold_that_differs_from_its_receipt_is_evidence(bench: Bench, sellers: AgentJournal) -> None:
    _, mail = sold_mail(bench, 9)
    sold = verify(mail, Sold, signer=bench.broker.peer_id)
    with refused("contradiction"):
        sellers.keep_sale(bench.broker.peer_id, sign(bench.broker, dataclasses.replace(sold, price=8)))


def refund_of(bench: Bench, trade: bytes, **changes: object) -> bytes:
    row = bench.ledger.trade(trade)
    word = Refund(
        "digits", bench.broker.peer_id, trade, row.buyer, row.seller, row.price, row.price - row.fee, "lost-delivery",
        bench.clock(),
    )  # fmt: skip
    return sign(bench.broker, dataclasses.replace(word, **changes))  # type: ignore[arg-type]


def test_a_receipt_that_is_dated_back_counts_from_when_it_came(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker, now = bench.broker.peer_id, bench.clock()
    bench.clock.ms = now - 48 * HOUR_MS
    trade, receipt = bought(bench, journal, 10, 7)
    bench.clock.ms = now
    settled = journal.keep_receipt(broker, receipt).settled_ms
    assert settled == now - 48 * HOUR_MS
    assert journal.spent(now - 24 * HOUR_MS) == 7 and journal.spent(now + 1) == 0
    bench.clock.ms = now + HOUR_MS
    journal.keep_receipt(broker, receipt)
    assert journal.spent(now + 1) == 0, "the same one again is no new purchase"


def test_a_refund_is_kept_once_and_counts_as_not_spent(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    (kept, receipt), (paid_back, other) = bought(bench, journal, 10, 7), bought(bench, journal, 10, 6)
    for data in (receipt, other):
        journal.keep_receipt(broker, data)
    data = refund_of(bench, paid_back)
    for _ in range(2):
        assert journal.keep_refund(broker, data).price == 6
        row = journal.trade(broker, paid_back)
        assert row is not None and (row.stage, row.refund) == ("refunded", data)
        assert journal.spent(0) == 7
    assert [row.trade for row in journal.owed()] == [kept]
    bench.clock.ms += 1
    journal.keep_refund(broker, refund_of(bench, paid_back))
    assert journal.trade(broker, paid_back) == row, "the first word of it stays"
    with refused("unknown-trade"):
        journal.keep_refund(broker, refund_of(bench, bench.appraised()))
    with refused("not-mine"):
        journal.keep_refund(broker, refund_of(bench, kept, buyer=bench.third.peer_id))
    with pytest.raises(BadSignature):
        journal.keep_refund(broker, sign(bench.third, verify(data, Refund, signer=broker)))
    assert journal.distrusted() == {}
    with refused("contradiction"):
        journal.keep_refund(broker, refund_of(bench, kept, price=5))
    with refused("contradiction"):
        journal.keep_refund(broker, refund_of(bench, kept, proceeds=1))
    assert journal.spent(0) == 7


def test_a_refund_that_comes_before_the_receipt_is_not_believed(bench: Bench, journal: AgentJournal) -> None:
    """A bid whose reply was lost may have been settled and paid back, or may be settled yet: the broker is asked."""
    bench.fund()
    broker = bench.broker.peer_id
    trade, _ = bought(bench, journal, 10, 7)
    with refused("unknown-trade"):
        journal.keep_refund(broker, refund_of(bench, trade))
    assert journal.spent(0) == 10 and journal.is_lost(broker) and journal.distrusted() == {}
    bid = bench.ledger.trade(trade).bid
    journal.keep_status(broker, status_of(bench, trade, bid, "refunded"))
    row = journal.trade(broker, trade)
    assert row is not None and row.stage == "refunded" and journal.spent(0) == 0 and journal.owed() == []


def test_a_settlement_after_its_refund_counts_as_spent(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    trade, receipt = bought(bench, journal, 10, 7)
    with refused("unknown-trade"):
        journal.keep_refund(broker, refund_of(bench, trade))
    journal.keep_receipt(broker, receipt)
    assert journal.spent(0) == 7 and len(journal.owed()) == 1


def test_a_receipt_after_a_refund_that_was_kept_is_evidence(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    trade, receipt = bought(bench, journal, 10, 7)
    refund = refund_of(bench, trade)
    with journal.transaction() as connection:
        agent_trades.set_refund(connection, broker, trade, refund, bench.clock())
    with refused("contradiction"):
        journal.keep_receipt(broker, receipt)
    assert {receipt, refund} <= set(journal.evidence()[0].bodies)


def test_what_was_lost_is_believed_with_ones_own_word_only(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    trade = bench.appraised()
    bid = bench.bid(trade, 10)
    bench.ledger.place_bid(bid)
    bench.ledger.record_ask(trade, bench.ask(trade, 7))
    bench.settle(trade, 7)
    assert journal.keep_status(broker, status_of(bench, trade, bid, "delivered")) == "purchase"
    assert journal.keep_status(broker, status_of(bench, trade, bid, "delivered")) == ""
    row = journal.trade(broker, trade)
    assert row is not None and (row.stage, row.reason, row.bid_amount) == ("over", "recovered", 10)
    assert journal.spent(0) == 7 and journal.owed() == [] and journal.distrusted() == {}
    other = bench.settled(5)
    for word in (None, b"?", bid, bench.bid(other, 5, bench.third), bench.bid(other, 4)):
        with refused("contradiction"):
            journal.keep_status(broker, status_of(bench, other, word))
    refunded = bench.settled(5)
    word = bench.ledger.trade(refunded).bid
    assert journal.keep_status(broker, status_of(bench, refunded, word, "refunded")) == "purchase"
    assert journal.spent(0) == 7
    assert journal.keep_status(broker, TradeStatus(bench.id(), "expired", 0, None)) == ""


def test_a_raised_bid_that_this_journal_lost_is_no_lie_of_the_brokers(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    for raised, holds in ((9, True), (6, False)):
        trade = bench.appraised()
        journal.keep_report(broker, report_on(bench, trade))
        journal.keep_bid(bench.bid(trade, 5))
        bid = bench.bid(trade, 9)
        bench.ledger.place_bid(bid)
        bench.ledger.record_ask(trade, bench.ask(trade, 7))
        bench.settle(trade, 7)
        status = status_of(bench, trade, bench.bid(trade, raised, revision=1))
        if holds:
            assert journal.keep_status(broker, status) == ""
            row = journal.trade(broker, trade)
            assert row is not None and (row.stage, row.bid_amount) == ("bought", 9)
        else:
            with refused("contradiction"):
                journal.keep_status(broker, status)


def test_a_bid_that_the_broker_holds_binds_again(bench: Bench, journal: AgentJournal) -> None:
    broker = bench.broker.peer_id
    bid = bench.bid(bench.appraised(), 10)
    assert journal.keep_open_bid(broker, bid) and not journal.keep_open_bid(broker, bid)
    assert journal.spent(0) == 10 and [intent.body for intent in journal.unanswered(broker)] == [bid]
    with pytest.raises(BadSignature):
        journal.keep_open_bid(broker, bench.bid(bench.appraised(), 10, bench.third))
    assert journal.unclear(broker) == []
    journal.answered(journal.unanswered(broker)[0].message_id, b"lost")
    assert [row.bid for row in journal.unclear(broker)] == [bid], "nothing is left to be sent again"


def test_mail_that_this_journal_never_had(journal: AgentJournal) -> None:
    journal.keep_mail("broker", 5)
    assert not journal.note_lost("broker", 5) and not journal.note_lost("broker", 0) and not journal.is_lost("broker")
    assert journal.note_lost("broker", 9) and journal.is_lost("broker") and journal.last_mail("broker") == 9
    assert not journal.note_lost("broker", 9) and journal.is_lost("broker"), "until it is rebuilt"
    assert journal.keep_mail("broker", 10) and journal.is_lost("broker")
    journal.rebuilt("broker")
    assert not journal.is_lost("broker") and journal.last_mail("broker") == 10


# ---- heads of the broker's log --------------------------------------------------------------------------------------


def head_now(bench: Bench) -> Head:
    return head_of(bench.ledger.checkpoint(), bench.broker.peer_id, "digits")


def test_heads_wait_for_proofs_and_the_largest_stands_for_all(bench: Bench, journal: AgentJournal) -> None:
    broker = bench.broker.peer_id
    heads = []
    for peer in (bench.buyer, bench.seller, bench.third):
        bench.ledger.open_account(peer.peer_id, 1)
        heads.append(head_now(bench))
    first, second, third = heads
    journal.keep_head(broker, "digits", second)
    assert journal.proven_head(broker, "digits") == second, "the first one is taken as it is"
    journal.keep_head(broker, "digits", third)
    journal.keep_head(broker, "digits", first)
    assert journal.heads(broker, "digits") == [third, second, first]
    assert journal.proven_head(broker, "digits") == second
    journal.keep_proof(broker, "digits", first, second)
    assert journal.heads(broker, "digits") == [third, second]
    journal.keep_proof(broker, "digits", third, second)
    assert journal.heads(broker, "digits") == [third] and journal.proven_head(broker, "digits") == third
    assert journal.heads(broker, "letters") == [] and journal.shareable_heads("digits", 8) == [(broker, third)]
    other = Head(third.size, bytes(32), b"other")
    with refused("contradiction"):
        journal.keep_head(broker, "digits", other)
    (case,) = journal.evidence()
    assert case.bodies == (third.body, b"other") and list(journal.distrusted()) == [broker]
    journal.trust_again(broker)
    assert journal.distrusted() == {} and journal.heads(broker, "digits") == [] and len(journal.evidence()) == 1


def test_a_receipt_is_a_head_that_is_not_shown_to_others(bench: Bench, journal: AgentJournal) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    _, receipt = bought(bench, journal, 10, 7)
    journal.keep_receipt(broker, receipt)
    (head,) = journal.heads(broker, "digits")
    assert head.body == receipt and not head.shareable and journal.shareable_heads("digits", 8) == []
    journal.keep_head(broker, "digits", head_now(bench))
    assert journal.heads(broker, "digits")[0].shareable, "the checkpoint of the same leaves takes its place"
    assert head_of(receipt, broker, "digits").root == head.root
    with refused("wrong-broker"):
        head_of(receipt, broker, "letters")


def test_a_log_that_was_forked_is_found_by_its_receipts(bench: Bench, journal: AgentJournal, tmp_path: Path) -> None:
    bench.fund()
    broker = bench.broker.peer_id
    trade, receipt = bought(bench, journal, 10, 7)
    journal.keep_receipt(broker, receipt)
    other, second = bought(bench, journal, 10, 7)
    honest = verify(second, Receipt, signer=broker)
    forked = forge(bench, honest)
    with pytest.raises(RuleBroken):  # of one leaf: another root than any checkpoint of that size
        journal.keep_head(broker, "digits", dataclasses.replace(journal.heads(broker, "digits")[0], root=bytes(32)))
    journal.keep_receipt(broker, forked)
    assert len(journal.heads(broker, "digits")) == 2, "it waits for a proof, which nobody can give"
    sizes = sorted(head.size for head in journal.heads(broker, "digits"))
    small, large = sorted(journal.heads(broker, "digits"), key=lambda head: head.size)
    assert not continues(small, large, bench.ledger.consistency(*sizes))


def test_an_unmatched_bid_may_be_raised_and_no_other(bench: Bench, journal: AgentJournal) -> None:
    broker = bench.broker.peer_id
    trade = bench.appraised()
    journal.keep_report(broker, report_on(bench, trade))
    journal.keep_bid(bench.bid(trade, 5))
    with refused("wrong-state"):
        journal.keep_bid(bench.bid(trade, 6, revision=1))
    journal.end(broker, trade, UNMATCHED)
    assert journal.spent(0) == 0
    for wrong in (bench.bid(trade, 6), bench.bid(trade, 5, revision=1), bench.bid(trade, 6, revision=2)):
        with refused("wrong-state"):
            journal.keep_bid(wrong)
    journal.keep_bid(bench.bid(trade, 6, revision=1))
    row = journal.trade(broker, trade)
    assert row is not None and row.stage == "bid" and journal.spent(0) == 6
