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
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.leaves import pack, settlement_of
from p2pmarket.ledger.log import leaf_hash
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.messages import Bid, GainReport, Receipt


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
