"""`ledger` and `trades`: a broker's accounts from the command line."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from peers import identity_of

from p2pmarket.cli import main
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.heads import head_of
from p2pmarket.ledger.journal import Ledger
from p2pmarket.messages import Ask, Bid, Checkpoint, GainReport, Receipt
from p2pmarket.units import CREDIT, now_ms

AGENT, SELLER = identity_of("agent"), identity_of("seller")
TRADE, DELIVERY, SNAPSHOT = b"t" * 16, b"d" * 32, b"s" * 32
HOUR_MS = 3_600_000

Run = Callable[..., Any]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A broker's folder: two accounts, one settled trade at 2 credits."""
    broker, later = Identity.load_or_create(tmp_path / "identity.key"), now_ms() + HOUR_MS
    report = GainReport(
        TRADE, "digits", AGENT.peer_id, SELLER.peer_id, "all", b"b" * 32, SNAPSHOT, DELIVERY,
        loss_before=1.0, loss_after=0.75, gain=0.25, gain_low=0.2, gain_high=0.3,
        merit=0.125, merit_low=0.1, merit_high=0.15, confidence=0.95,
        metric_before=50.0, metric_after=60.0, samples=100, data=b"v" * 32,
        weight=0.5, granularity="model", alignment="identity",
        after=None, left_out=(), reason="", classes=(), groups=(), tasks=(), expires_ms=later,
    )  # fmt: skip
    bid = Bid(b"1" * 16, "digits", broker.peer_id, TRADE, DELIVERY, 3 * CREDIT, later)
    ask = Ask(b"2" * 16, "digits", broker.peer_id, TRADE, SNAPSHOT, 1 * CREDIT, later)
    with Ledger.open(tmp_path / "ledger.sqlite", broker, "digits") as ledger:
        for peer in (AGENT, SELLER):
            ledger.open_account(peer.peer_id, 10 * CREDIT)
        ledger.create_trade(TRADE, AGENT.peer_id, SELLER.peer_id, b"b" * 32, SNAPSHOT, b"3" * 16)
        ledger.record_report(TRADE, sign(broker, report), DELIVERY, later)
        ledger.place_bid(sign(AGENT, bid))
        ledger.record_ask(TRADE, sign(SELLER, ask))
        ledger.settle(TRADE, 2 * CREDIT, 0, fetch_before_ms=later)
    return tmp_path


@pytest.fixture
def run(state: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on that folder with --json; its exit code must be `code`. What it printed, parsed."""

    def command(*arguments: str, code: int = 0) -> Any:
        assert main([*arguments, "--state", str(state), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return command


def test_balances_and_history(run: Run, state: Path) -> None:
    balances = {row["account"]: row["balance"] for row in run("ledger", "balances")}
    assert balances[AGENT.peer_id] == 8 * CREDIT
    assert balances[SELLER.peer_id] == 12 * CREDIT
    rows = run("ledger", "history", "--peer", AGENT.peer_id)
    assert [row["change"] for row in rows] == [10 * CREDIT, -2 * CREDIT]
    assert [row["trade"] for row in rows] == [None, TRADE.hex()]
    assert datetime.fromisoformat(rows[1]["time"]).timestamp() * 1000 == pytest.approx(settled_ms(state), abs=0.5)


def settled_ms(state: Path) -> int:
    """When the trade was settled, as its receipt says."""
    broker = Identity.load(state / "identity.key")
    with Ledger.open(state / "ledger.sqlite", broker, "digits") as ledger:
        receipt = ledger.trade(TRADE).receipt
    assert receipt is not None
    return verify(receipt, Receipt, signer=broker.peer_id).settled_ms


def test_every_amount_for_programs_is_whole_micro_credits_under_a_name_without_spaces(
    run: Run, state: Path, tmp_path: Path
) -> None:
    run("trades", "--receipts", str(tmp_path / "held"))
    answers = [
        *run("ledger", "balances"), *run("ledger", "history"), *run("trades"),
        run("ledger", "grant", AGENT.peer_id, "1"), run("ledger", "limit", AGENT.peer_id, "1"),
        run("ledger", "audit"), run("ledger", "salvage", str(tmp_path / "held")),
    ]  # fmt: skip
    amounts = {"balance", "held", "day_limit", "change", "price", "fee", "granted", "issued"}
    seen = set()
    for answer in answers:
        assert not [name for name in answer if " " in name]
        for name in amounts & set(answer):
            assert answer[name] is None or type(answer[name]) is int
            seen.add(name)
    assert seen == amounts


def test_granting_shows_in_balance_and_history(run: Run) -> None:
    assert run("ledger", "grant", AGENT.peer_id, "4.20", "--memo", "prize") == {
        "account": AGENT.peer_id,
        "granted": 4_200_000,
        "balance": 12_200_000,
        "new_account": False,
    }
    assert run("ledger", "history")[-1]["memo"] == "prize"
    assert run("ledger", "audit")["verified"] is True


@pytest.mark.parametrize("amount", ["nonsense", "0.0000001", "nan", "inf", "1e400", "1_0", "0", "0.00"])
def test_nonsense_is_not_granted(run: Run, amount: str) -> None:
    before = run("ledger", "history")
    assert run("ledger", "grant", AGENT.peer_id, amount, code=2)["code"] == "bad-settings"
    assert run("ledger", "history") == before


def test_nobody_else_gets_a_grant(run: Run) -> None:
    assert "12D3Koo" in run("ledger", "grant", "somebody", "5", code=2)["sentence"]


@pytest.mark.parametrize("command", ["grant", "limit"])
def test_nothing_is_written_to_a_ledger_that_was_rolled_back(run: Run, state: Path, command: str) -> None:
    before = (state / "ledger.sqlite").read_bytes()
    (state / "rolled-back.json").write_text("{}")
    refused = run("ledger", command, AGENT.peer_id, "5", code=2)
    assert refused["code"] == "rolled-back" and "docs/settlement.md#recovery" in refused["sentence"]
    assert (state / "ledger.sqlite").read_bytes() == before
    (state / "rolled-back.json").unlink()
    run("ledger", command, AGENT.peer_id, "5")


def test_another_brokers_ledger_is_refused(run: Run, state: Path) -> None:
    identity_of("another broker").save(state / "identity.key")
    assert "belongs to broker" in run("ledger", "balances", code=2)["sentence"]


def test_balances_show_what_is_held_and_the_limit(run: Run) -> None:
    rows = {row["account"]: row for row in run("ledger", "balances")}
    assert (rows[SELLER.peer_id]["held"], rows[AGENT.peer_id]["held"]) == (2 * CREDIT, 0)
    assert run("ledger", "limit", AGENT.peer_id, "4.50") == {"account": AGENT.peer_id, "day_limit": 4_500_000}
    assert {row["account"]: row["day_limit"] for row in run("ledger", "balances")}[AGENT.peer_id] == 4_500_000
    assert run("ledger", "limit", AGENT.peer_id, "none")["day_limit"] is None
    assert {row["day_limit"] for row in run("ledger", "balances")} == {None}
    assert run("ledger", "audit")["verified"] is True


@pytest.mark.parametrize(("peer", "credits"), [(AGENT.peer_id, "much"), ("somebody", "5"), (AGENT.peer_id, "-1")])
def test_nonsense_is_no_limit(run: Run, peer: str, credits: str) -> None:
    assert run("ledger", "limit", peer, credits, code=2)["code"] == "bad-settings"


def test_the_audit_finds_what_was_changed_behind_its_back(
    run: Run, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run("ledger", "audit")
    assert (told["verified"], told["problems"], told["notes"], told["broker_from"]) == (True, [], [], "identity")
    assert (told["leaves"], told["trades"], told["accounts"], told["issued"]) == (3, 1, 3, 20 * CREDIT)
    with sqlite3.connect(state / "ledger.sqlite") as connection:
        connection.execute("UPDATE accounts SET balance = balance + 1 WHERE peer = ?", (AGENT.peer_id,))
    connection.close()
    told = run("ledger", "audit", code=1)
    assert told["verified"] is False
    assert {problem["kind"] for problem in told["problems"]} == {"balance"}
    assert main(["ledger", "audit", "--state", str(state)]) == 1
    assert f"balance: the balance of {AGENT.peer_id} is 8000001" in capsys.readouterr().out
    assert run("ledger", "balances", code=3)["code"] == "journal-damaged"


def test_an_auditor_needs_the_file_alone(
    run: Run, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = run("ledger", "audit")["broker"]
    alone = tmp_path / "copy" / "anything"
    alone.parent.mkdir()
    shutil.copy(state / "ledger.sqlite", alone)
    told = run("ledger", "audit", "--file", str(alone))
    assert (told["verified"], told["broker"], told["broker_from"]) == (True, broker, "file")
    assert main(["ledger", "audit", "--file", str(alone)]) == 0
    words = capsys.readouterr().out
    assert "as the file itself claims" in words and "all is well" in words
    assert run("ledger", "audit", "--file", str(alone), "--broker", broker)["broker_from"] == "given"
    told = run("ledger", "audit", "--file", str(alone), "--broker", SELLER.peer_id, code=1)
    assert "owner" in {problem["kind"] for problem in told["problems"]}
    assert run("ledger", "audit", "--broker", "nobody", code=2)["code"] == "bad-settings"
    assert [one.name for one in alone.parent.iterdir()] == ["anything"]


def test_receipts_held_outside_show_a_log_that_was_put_back(run: Run, state: Path, tmp_path: Path) -> None:
    held, older = tmp_path / "held", tmp_path / "older.sqlite"
    shutil.copy(state / "ledger.sqlite", older)
    run("trades", "--receipts", str(held))
    run("ledger", "grant", AGENT.peer_id, "1")
    with Ledger.open(state / "ledger.sqlite", Identity.load(state / "identity.key"), "digits") as ledger:
        (held / "head.checkpoint").write_bytes(ledger.checkpoint())
    (held / "rubbish.receipt").write_bytes(b"rubbish")
    (held / "notes.txt").write_bytes(b"not looked at")
    told = run("ledger", "audit", "--receipts", str(held))
    assert (told["verified"], told["shown"], len(told["notes"])) == (True, 3, 1)
    shutil.copy(older, state / "ledger.sqlite")
    assert run("ledger", "audit")["verified"] is True, "an older copy is a ledger"
    told = run("ledger", "audit", "--receipts", str(held), code=1)
    assert [problem["kind"] for problem in told["problems"]] == ["cut"]
    assert run("ledger", "audit", "--receipts", str(tmp_path / "none"), code=2)["code"] == "bad-data"


def test_what_is_no_ledger_is_a_sentence(run: Run, state: Path) -> None:
    (state / "ledger.sqlite").write_bytes(b"no ledger")
    told = run("ledger", "audit", code=3)
    assert told["code"] == "journal-damaged" and "ledger.sqlite" in told["sentence"]


def test_salvage_tells_what_an_old_copy_has_forgotten(
    run: Run, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = tmp_path / "held"
    run("trades", "--receipts", str(held))
    assert run("ledger", "salvage", str(held))["missing"] == []
    broker, path = Identity.load(state / "identity.key"), state / "ledger.sqlite"
    path.unlink()
    with Ledger.open(path, broker, "digits") as ledger:
        for peer in (AGENT, SELLER):
            ledger.open_account(peer.peer_id, 10 * CREDIT)
    before = path.read_bytes()
    told = run("ledger", "salvage", str(held), *map(str, held.iterdir()))
    assert [row["trade"] for row in told["missing"]] == [TRADE.hex()]
    assert told["balances"][AGENT.peer_id] == {"now": 10 * CREDIT, "then": 8 * CREDIT}
    assert told["balances"][SELLER.peer_id] == {"now": 10 * CREDIT, "then": 12 * CREDIT}
    assert main(["ledger", "salvage", str(held), "--state", str(state)]) == 0
    assert "begin a new market" in capsys.readouterr().out.lower()
    assert path.read_bytes() == before
    assert run("ledger", "salvage", str(held / "none"), code=2)["code"] == "bad-data"


@pytest.mark.parametrize("format", ["csv", "beancount"])
def test_export_of_a_ledger(
    run: Run, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    out = tmp_path / "out"
    run("ledger", "grant", AGENT.peer_id, "1", "--memo", "=1+1")
    assert main(["ledger", "export", "--format", format, "--state", str(state)]) == 0
    text = capsys.readouterr().out
    assert main(["ledger", "export", "--format", format, "--state", str(state), "--out", str(out)]) == 0
    assert f"wrote {len(text.splitlines())} lines to {out}" in capsys.readouterr().err
    assert main(["trades", "--export", format, "--state", str(state)]) == 0
    assert capsys.readouterr().out == text
    assert out.read_bytes().decode() == text
    assert out.stat().st_mode & 0o077 == 0
    assert ("'=1+1" in text) == (format == "csv")


def test_trades_of_a_broker(run: Run, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "receipts"
    assert main(["trades", "--receipts", str(folder), "--state", str(state)]) == 0
    assert f"wrote 1 receipt to {folder}" in capsys.readouterr().err
    (row,) = run("trades", "--receipts", str(folder))
    assert (row["trade"], row["state"], row["price"], row["gain"]) == (TRADE.hex(), "settled", 2 * CREDIT, 0.25)
    assert (row["buyer"], row["seller"]) == (AGENT.peer_id, SELLER.peer_id)
    (receipt,) = folder.iterdir()
    broker = Identity.load(state / "identity.key")
    assert verify(receipt.read_bytes(), Receipt, signer=broker.peer_id).trade == TRADE


def test_tables_for_people(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in ((["trades"], "settled"), (["ledger", "balances"], "8.00"), (["ledger", "history"], "-2.00")):
        assert main([*command, "--state", str(state)]) == 0
        assert words in capsys.readouterr().out


def test_trades_of_an_agent_that_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = Identity.load_or_create(tmp_path / "identity.key")
    AgentJournal.open(tmp_path / "journal.sqlite", agent.peer_id).close()
    assert main(["trades", "--state", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["trades", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no trades yet\n"


def test_export_and_receipts_of_an_agent(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, held = tmp_path / "agent", tmp_path / "held"
    folder.mkdir()
    SELLER.save(folder / "identity.key")
    broker = Identity.load(state / "identity.key")
    with Ledger.open(state / "ledger.sqlite", broker, "digits") as ledger:
        row, checkpoint = ledger.trade(TRADE), ledger.checkpoint()
    assert row.receipt is not None and row.ask is not None
    with AgentJournal.open(folder / "journal.sqlite", SELLER.peer_id) as journal:
        journal.keep_receipt(broker.peer_id, row.receipt, row.ask)
        journal.keep_head(broker.peer_id, "digits", head_of(checkpoint, broker.peer_id, "digits"))
    assert main(["trades", "--export", "csv", "--state", str(folder)]) == 0
    (line,) = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert (line["role"], line["change"], line["trade"]) == ("seller", "2.000000", TRADE.hex())
    assert main(["trades", "--export", "beancount", "--state", str(folder)]) == 0
    assert "Income:Parameters  -2.000000 CREDIT" in capsys.readouterr().out
    assert main(["trades", "--receipts", str(held), "--state", str(folder), "--json"]) == 0
    assert f"wrote 1 receipt and 1 checkpoint to {held}" in capsys.readouterr().err
    assert sorted(path.suffix for path in held.iterdir()) == [".checkpoint", ".receipt"]
    assert main(["ledger", "audit", "--state", str(state), "--receipts", str(held)]) == 0
    assert "2 shown from outside: all is well" in capsys.readouterr().out


def test_a_broker_that_is_not_trusted_is_named_and_the_evidence_is_written(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, held = tmp_path / "agent", tmp_path / "held"
    folder.mkdir()
    SELLER.save(folder / "identity.key")
    broker = Identity.load(state / "identity.key")
    with Ledger.open(state / "ledger.sqlite", broker, "digits") as ledger:
        genuine = ledger.checkpoint()
    other = sign(broker, dataclasses.replace(verify(genuine, Checkpoint, signer=broker.peer_id), root=bytes(32)))
    with AgentJournal.open(folder / "journal.sqlite", SELLER.peer_id) as journal:
        journal.accuse(broker.peer_id, "it signed two histories of its ledger", genuine, other)
    assert main(["trades", "--state", str(folder), "--receipts", str(held)]) == 0
    told = capsys.readouterr()
    assert "two histories" in told.err and broker.peer_id in told.err and told.out == "no trades yet\n"
    assert sorted(path.name for path in held.iterdir()) == ["evidence-1-1.checkpoint", "evidence-1-2.checkpoint"]
    assert main(["ledger", "audit", "--state", str(state), "--receipts", str(held)]) == 1
    assert "two-logs" in capsys.readouterr().out


def test_a_receipt_that_cannot_be_written_is_said_with_the_place_that_was_given(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "held" / f"{TRADE.hex()}.receipt").mkdir(parents=True)
    told = run("trades", "--receipts", "held", code=3)
    assert f" to held/{TRADE.hex()}.receipt: " in told["sentence"]
