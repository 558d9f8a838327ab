"""`ledger` and `trades`: a broker's accounts from the command line."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import identity_of

from p2pmarket.cli import main
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.messages import Ask, Bid, GainReport, Receipt
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


def test_balances_and_history(run: Run) -> None:
    balances = {row["account"]: row["balance"] for row in run("ledger", "balances")}
    assert balances[AGENT.peer_id] == "8.00"
    assert balances[SELLER.peer_id] == "12.00"
    changes = [row["change"] for row in run("ledger", "history", "--peer", AGENT.peer_id)]
    assert changes == ["10.00", "-2.00"]


def test_granting_shows_in_balance_and_history(run: Run) -> None:
    assert run("ledger", "grant", AGENT.peer_id, "4.20", "--memo", "prize") == {
        "account": AGENT.peer_id,
        "granted": 4_200_000,
        "balance": 12_200_000,
    }
    assert run("ledger", "history")[-1]["memo"] == "prize"
    assert run("ledger", "verify")["verified"] is True


@pytest.mark.parametrize("amount", ["nonsense", "0.0000001", "nan", "1e40"])
def test_nonsense_is_not_granted(run: Run, amount: str) -> None:
    before = run("ledger", "history")
    assert run("ledger", "grant", AGENT.peer_id, amount, code=2)["code"] == "bad-settings"
    assert run("ledger", "history") == before


def test_nobody_else_gets_a_grant(run: Run) -> None:
    assert "12D3Koo" in run("ledger", "grant", "somebody", "5", code=2)["sentence"]


def test_another_brokers_ledger_is_refused(run: Run, state: Path) -> None:
    identity_of("another broker").save(state / "identity.key")
    assert "belongs to broker" in run("ledger", "balances", code=2)["sentence"]


def test_verify_finds_what_was_changed_behind_its_back(
    run: Run, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ledger", "verify") == {"verified": True, "leaves": run("ledger", "verify")["leaves"], "problems": []}
    with sqlite3.connect(state / "ledger.sqlite") as connection:
        connection.execute("UPDATE accounts SET balance = balance + 1 WHERE peer = ?", (AGENT.peer_id,))
    connection.close()
    told = run("ledger", "verify", code=1)
    assert told["verified"] is False
    assert told["problems"]
    assert main(["ledger", "verify", "--state", str(state)]) == 1
    assert "problem" in capsys.readouterr().out
    assert run("ledger", "balances", code=3)["code"] == "journal-damaged"


def test_trades_of_a_broker(run: Run, state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "receipts"
    (row,) = run("trades", "--receipts", str(folder))
    assert (row["trade"], row["state"], row["price"], row["gain"]) == (TRADE.hex(), "settled", "2.00", 0.25)
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
