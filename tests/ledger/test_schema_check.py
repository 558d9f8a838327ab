"""No file is opened, let alone written, whose schema is not to the last word the one that this program makes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from ledger_examples import MARKET, Bench

from p2pmarket.broker_node.book import Book
from p2pmarket.errors import JournalDamaged
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.schema import BOOK_TABLES, SCHEMA
from p2pmarket.ledger.schema_check import schema_faults

EVIL = "CREATE TRIGGER evil AFTER INSERT ON postings BEGIN UPDATE accounts SET balance = balance + 1; END"
CHANGES = {
    "the trigger evil on postings is not": [EVIL],
    "the trigger evil on members is not": [EVIL.replace("INSERT ON postings", "INSERT ON members")],
    "the table more is not": ["CREATE TABLE more (x)"],
    "the view more is not": ["CREATE VIEW more AS SELECT * FROM accounts"],
    "the view told is not": ["DROP TABLE told", "CREATE VIEW told AS SELECT * FROM accounts"],
    "the index more on trades is not": ["CREATE UNIQUE INDEX more ON trades (task)"],
    r"the view a\?b is not": ['CREATE VIEW "a\nb" AS SELECT 1'],
    "the trigger leaves_stay is missing": ["DROP TRIGGER leaves_stay"],
    "the index purchases is missing": ["DROP INDEX purchases"],
    "the table mail is missing": ["DROP TABLE mail"],
    "the trigger leaves_rest is not as": [
        "DROP TRIGGER leaves_rest",
        "CREATE TRIGGER leaves_rest BEFORE UPDATE ON leaves BEGIN SELECT 1; END",
    ],
    "the table accounts is not as": ["ALTER TABLE accounts ADD COLUMN more TEXT"],
}
"""What is said of a ledger's file, and what was done to it."""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A ledger with credit and the broker's book in it; closed."""
    bench = Bench(tmp_path / "ledger.sqlite")
    bench.fund()
    with bench.ledger.transaction() as connection:
        Book(tmp_path).create_tables(connection)
    bench.ledger.close()
    return bench


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def refuses(opens: Callable[[], object], path: Path, words: str) -> None:
    before = path.read_bytes()
    with pytest.raises(JournalDamaged, match=rf"{words}.*nothing was written.*restore the file from a backup") as told:
        opens()
    assert ("remove it" in str(told.value)) == ("is not this program's" in str(told.value))
    assert path.read_bytes() == before


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("words", CHANGES)
def test_a_ledger_is_not_opened(words: str, check: bool, bench: Bench) -> None:
    change(bench.path, *CHANGES[words])
    refuses(lambda: Ledger.open(bench.path, bench.broker, None, bench.clock, check=check), bench.path, words)


def test_what_is_foreign_can_be_removed_and_what_it_did_is_found(bench: Bench) -> None:
    change(bench.path, EVIL)
    refuses(lambda: Ledger.open(bench.path, bench.broker, None, bench.clock), bench.path, "the trigger evil")
    change(bench.path, "DROP TRIGGER evil")
    Ledger.open(bench.path, bench.broker, None, bench.clock).close()
    change(bench.path, EVIL, "INSERT INTO postings SELECT * FROM postings LIMIT 1", "DROP TRIGGER evil")
    with pytest.raises(JournalDamaged, match="does not verify"):
        Ledger.open(bench.path, bench.broker, None, bench.clock)


@pytest.mark.parametrize(
    "words, statement",
    [
        ("the trigger evil on trades is not", "CREATE TRIGGER evil DELETE ON trades BEGIN DELETE FROM asks; END"),
        ("the table told is not", "CREATE TABLE told (x)"),
        ("the index intents_open is missing", "DROP INDEX intents_open"),
    ],
)
def test_a_journal_is_not_opened(words: str, statement: str, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    AgentJournal.open(path, bench.buyer.peer_id).close()
    AgentJournal.open(path, bench.buyer.peer_id).close()
    change(path, statement)
    refuses(lambda: AgentJournal.open(path, bench.buyer.peer_id), path, words)


def test_the_book_has_its_place_and_is_no_stranger(bench: Bench, tmp_path: Path) -> None:
    """All that book.py makes is in it: a table that it learns to make must be named in BOOK_TABLES."""
    Ledger.open(bench.path, bench.broker, MARKET, bench.clock).close()
    with closing(sqlite3.connect(bench.path)) as connection:
        made = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        assert made >= BOOK_TABLES
        assert list(schema_faults(connection, SCHEMA, BOOK_TABLES)) == []
        named = {fault.sentence.split()[2] for fault in schema_faults(connection, SCHEMA) if "table" in fault.sentence}
    assert named == BOOK_TABLES


def test_white_space_is_no_difference_and_a_word_is() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (x\n\t  INTEGER)")
        assert list(schema_faults(connection, ["CREATE TABLE t (x INTEGER)"])) == []
        (fault,) = schema_faults(connection, ["CREATE TABLE t (x TEXT)"])
    assert (fault.foreign, fault.unreadable) == (False, True)


def test_names_that_sqlite_keeps_for_itself_are_no_hiding_place(bench: Bench) -> None:
    change(
        bench.path,
        EVIL,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET name = 'sqlite_evil', sql = replace(sql, 'evil', 'sqlite_evil') WHERE name = 'evil'",
    )
    refuses(lambda: Ledger.open(bench.path, bench.broker, None), bench.path, "trigger sqlite_evil on postings")


def test_a_trigger_that_calls_itself_a_table_of_the_book_is_one() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("CREATE TRIGGER evil DELETE ON t BEGIN DELETE FROM t; END")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET type = 'index', tbl_name = 'told' WHERE name = 'evil'")
        (fault,) = schema_faults(connection, ["CREATE TABLE t (x)"], BOOK_TABLES)
    assert fault.foreign
