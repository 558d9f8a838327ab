"""The book's questions are answered by an index, however many submissions there were."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from p2pmarket.broker_node.book import Book


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    """What the database answers when the book looks for a snapshot: how it goes about it."""
    asked: list[str] = []
    book, db = Book(tmp_path), sqlite3.connect(":memory:")
    book.create_tables(db)
    db.set_trace_callback(asked.append)
    book.by_snapshot(db, "agent", bytes(32))
    db.set_trace_callback(None)
    (query,) = asked
    plan = [str(row[3]) for row in db.execute(f"EXPLAIN QUERY PLAN {query}")]
    db.close()
    return plan


def test_the_last_submission_of_a_snapshot_is_found_by_both(asked: list[str]) -> None:
    (step,) = asked
    assert step.startswith("SEARCH") and "agent=? AND snapshot=?" in step
