"""What `ledger audit` prints of a file that was tampered with: no figure that it did not find."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from ledger_examples import Bench

from p2pmarket.cli import main


def audit(capsys: pytest.CaptureFixture[str], path: Path, *options: str) -> tuple[int, str]:
    code = main(["ledger", "audit", "--file", str(path), *options])
    return code, capsys.readouterr().out


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of one leaf."""
    bench = Bench(tmp_path / "ledger.sqlite")
    bench.ledger.open_account(bench.buyer.peer_id, 5)
    bench.ledger.close()
    return bench.path


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


FIGURES = ("leaves", "trades", "accounts", "issued", "root")


def test_where_nothing_was_examined_no_figures_are_given(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(path, "ALTER TABLE accounts ADD COLUMN more TEXT")
    code, words = audit(capsys, path)
    assert code == 1 and words.splitlines() == [
        "schema: the table accounts is not as this program makes it",
        "nothing further was examined: 1 problem",
    ]
    code, words = audit(capsys, path, "--json")
    told = json.loads(words)
    assert code == 1 and {told[name] for name in (*FIGURES, "market", "broker")} == {None}


@pytest.mark.parametrize(
    "statement", ["DROP TRIGGER leaves_stay", "CREATE TABLE more (x)", "CREATE VIEW v AS SELECT 1"]
)
def test_where_the_rest_was_examined_it_is_told(statement: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(path, statement)
    code, words = audit(capsys, path)
    assert code == 1 and words.splitlines()[-1] == "1 leaf, 0 trades, 1 account, 0 shown from outside: 1 problem"
    code, words = audit(capsys, path, "--json")
    told = json.loads(words)
    assert code == 1 and (told["leaves"], len(told["root"]), told["problems"][0]["kind"]) == (1, 64, "schema")
