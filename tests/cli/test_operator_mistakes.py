"""What an operator gives wrongly: nothing is changed, nothing is overwritten, one sentence says it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import identity_of

from p2pmarket.cli import main
from p2pmarket.crypto.keys import Identity, peer_id_of
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.units import CREDIT

AGENT, STRANGER = identity_of("agent"), identity_of("stranger")

Run = Callable[..., Any]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A broker's folder with one account."""
    folder = tmp_path / "broker"
    broker = Identity.load_or_create(folder / "identity.key")
    with Ledger.open(folder / "ledger.sqlite", broker, "digits") as ledger:
        ledger.open_account(AGENT.peer_id, 10 * CREDIT)
    return folder


@pytest.fixture
def refused(state: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must be refused, with the ledger as it was; the sentence."""

    def command(*arguments: object, code: int = 2) -> str:
        before = (state / "ledger.sqlite").read_bytes()
        assert main([*map(str, arguments), "--state", str(state)]) == code
        assert (state / "ledger.sqlite").read_bytes() == before
        told = capsys.readouterr()
        assert told.err.count("\n") == 1 and told.out == "" and "sender" not in told.err
        return told.err

    return command


def test_an_export_overwrites_nothing_and_makes_no_folder(refused: Run, state: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_text("mine")
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    for command in (["ledger", "export", "--format", "csv"], ["trades", "--export", "csv"]):
        for taken in (state / "ledger.sqlite", here, dangling, tmp_path):
            assert "exists and is left as it is" in refused(*command, "--out", taken)
        assert "there is no folder" in refused(*command, "--out", tmp_path / "new" / "out")
    assert here.read_text() == "mine" and not (tmp_path / "new").exists() and not (tmp_path / "nowhere").exists()


def test_an_agents_export_overwrites_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "agent"
    peer = Identity.load_or_create(folder / "identity.key").peer_id
    AgentJournal.open(folder / "journal.sqlite", peer).close()
    before = (folder / "journal.sqlite").read_bytes()
    out = str(folder / "journal.sqlite")
    assert main(["trades", "--export", "csv", "--out", out, "--state", str(folder)]) == 2
    assert "exists" in capsys.readouterr().err and (folder / "journal.sqlite").read_bytes() == before


def test_flags_that_would_do_nothing(
    refused: Run, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--export csv" in refused("trades", "--out", tmp_path / "out")
    assert main(["trades", "--export", "csv", "--json", "--state", str(state)]) == 2
    assert "no JSON" in json.loads(capsys.readouterr().out)["sentence"]
    assert "one of them" in refused("trades", "--export", "csv", "--receipts", tmp_path / "receipts")
    assert not (tmp_path / "out").exists() and not (tmp_path / "receipts").exists()


def test_too_much_credit_and_too_long_a_memo_are_the_operators(refused: Run) -> None:
    assert "10.00 are issued" in refused("ledger", "grant", AGENT.peer_id, "9007199254")
    assert "has 1025 characters; at most 1024" in refused("ledger", "grant", AGENT.peer_id, "1", "--memo", "m" * 1025)
    assert "UTF-8" in refused("ledger", "grant", AGENT.peer_id, "1", "--memo", "\udcff")
    assert "above 0" in refused("ledger", "grant", AGENT.peer_id, "0")


def test_a_new_account_is_said(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for new in (True, False):
        assert main(["ledger", "grant", STRANGER.peer_id, "1", "--state", str(state), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["new_account"] is new
    another = identity_of("another").peer_id
    for new in (True, False):
        assert main(["ledger", "grant", another, "1", "--state", str(state)]) == 0
        assert (f"{another}, a new account; it has" in capsys.readouterr().out) is new


def test_nothing_is_granted_to_what_is_no_key(refused: Run) -> None:
    assert "nobody can ever spend" in refused("ledger", "grant", peer_id_of(bytes(32)), "1")
    assert "nobody can ever spend" in refused("ledger", "grant", peer_id_of(bytes([2, *bytes(31)])), "1")


def test_an_account_that_is_not_there(refused: Run) -> None:
    assert f"no account of {STRANGER.peer_id}" in refused("ledger", "limit", STRANGER.peer_id, "5")
    assert f"no account of {STRANGER.peer_id}" in refused("ledger", "history", "--peer", STRANGER.peer_id)
    assert "is not the peer id" in refused("ledger", "history", "--peer", "nonsense")


def test_receipts_that_are_none_of_this_broker(refused: Run, state: Path, tmp_path: Path) -> None:
    folder = tmp_path / "held"
    folder.mkdir()
    assert "holds no *.receipt" in refused("ledger", "audit", "--receipts", folder)
    (folder / "a.receipt").write_bytes(b"rubbish")
    assert "so nothing was compared" in refused("ledger", "audit", "--receipts", folder)
    assert "there is no receipt of broker" in refused("ledger", "salvage", folder)
    with Ledger.open(state / "ledger.sqlite", Identity.load(state / "identity.key"), "digits") as ledger:
        (folder / "b.checkpoint").write_bytes(ledger.checkpoint())
    assert main(["ledger", "audit", "--receipts", str(folder), "--state", str(state)]) == 0, "a checkpoint is enough"


def test_another_brokers_ledger_is_not_salvaged(refused: Run, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    sentence = refused("ledger", "salvage", tmp_path / "held", "--broker", STRANGER.peer_id)
    assert f"not the ledger of broker {STRANGER.peer_id}" in sentence


def test_a_ledger_without_the_right_to_read_it(refused: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for command in (["balances"], ["audit"]):
        assert "cannot be read (Permission denied)" in refused("ledger", *command, code=3)


def test_receipts_where_none_can_be_written(refused: Run, tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"")
    assert str(place / "inside") in refused("trades", "--receipts", place / "inside", code=3)


def test_a_rolled_back_folder_is_said_with_every_figure(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = (["balances"], ["history"], ["export", "--format", "csv"], ["audit"], ["audit", "--json"])
    for found in (False, True):
        for command in commands:
            assert main(["ledger", *command, "--state", str(state)]) == 0
            told = capsys.readouterr()
            assert ("rolled-back.json" in told.err) is found and told.out
        (state / "rolled-back.json").write_text("{}")
    shutil.copy(state / "ledger.sqlite", tmp_path / "copy")
    assert main(["ledger", "audit", "--file", str(tmp_path / "copy")]) == 0
    assert capsys.readouterr().err == ""
