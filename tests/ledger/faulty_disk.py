"""A disk that fails on demand, below a ledger or a journal, and two books to try it on.

Knows: how to fail SQLite's statements without touching C (`FaultyConnection`), what a file holds in all tables, and for
each book a few operations whose effects take several statements. Refuses to know: what is right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
from ledger_examples import HOUR_MS, MARKET, Bench
from test_agent_journal import report_on

from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.units import CREDIT

FULL, BROKEN, READ_ONLY = "database or disk is full", "disk I/O error", "attempt to write a readonly database"


class FaultyConnection(sqlite3.Connection):
    """Fails at the nth statement from `arm` on: that one alone, or all that follow too, the rollback among them."""

    left = 0
    problem = ""
    lasting = False
    count = 0

    def arm(self, nth: int, problem: str, *, lasting: bool) -> None:
        """0: never."""
        self.left, self.problem, self.lasting, self.count = nth, problem, lasting, 0

    def execute(self, *args: Any) -> sqlite3.Cursor:
        self._step()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        self._step()
        return super().executemany(*args)

    def _step(self) -> None:
        self.count += 1
        if self.left and (self.count == self.left or (self.lasting and self.count > self.left)):
            raise sqlite3.OperationalError(self.problem)


class Book(Protocol):
    """A ledger or a journal."""

    _database: Any

    def close(self) -> None: ...


Operation = Callable[[Any], object]


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of book: a file that was closed well, how it is opened, and what is tried on it."""

    path: Path
    open: Callable[[Path], Any]
    operations: Mapping[str, Operation]
    fill: Operation
    """May be done any number of times, and takes some room each time."""

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[Any]:
        """The book at `path`."""
        book = self.open(path)
        try:
            yield book
        finally:
            book.close()

    def copy(self, folder: Path) -> Path:
        """The file, to be spoilt, under its own name in another folder."""
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(self.path, folder / self.path.name))


def fault_of(book: Book) -> FaultyConnection:
    """The connection of a book that was opened under `faulty`."""
    connection = book._database.connection
    assert isinstance(connection, FaultyConnection)
    return connection


def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Books that are opened from now on can fail."""
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **named: connect(*args, **{"factory": FaultyConnection, **named})
    )


def dump(path: Path) -> Sequence[str]:
    """Everything that is committed in a file, as SQL, read by a connection of its own that never fails."""
    connection = sqlite3.connect(path, factory=sqlite3.Connection)
    try:
        return tuple(connection.iterdump())
    finally:
        connection.close()


def ledger_case(folder: Path) -> Case:
    """A ledger with trades in several states."""
    bench = Bench(folder / "ledger.sqlite")
    bench.fund(100 * CREDIT)
    bench.settled(3 * CREDIT, 1000)
    delivered = bench.settled(CREDIT)
    digest = bench.ledger.trade(delivered).delivery
    assert digest is not None
    bench.ledger.acknowledge_delivery(delivered, bench.buyer.peer_id, digest)
    quoted, _ = bench.quoted(5 * CREDIT, 4 * CREDIT)
    appraised, settled = bench.appraised(), bench.settled(2 * CREDIT, 500)
    bid = bench.bid(appraised, CREDIT)
    bench.ledger.close()
    fetch_before_ms = bench.clock() + HOUR_MS
    return Case(
        bench.path,
        lambda path: Ledger.open(path, bench.broker, MARKET, bench.clock),
        {
            "settle": lambda ledger: ledger.settle(quoted, 4 * CREDIT, 2000, fetch_before_ms=fetch_before_ms),
            "no-deal": lambda ledger: ledger.no_deal(quoted, "no-overlap", "too little"),
            "bid": lambda ledger: ledger.place_bid(bid),
            "refund": lambda ledger: ledger.refund(settled, "lost-delivery"),
            "grant": lambda ledger: ledger.grant(bench.third.peer_id, CREDIT, "a memo", b"g" * 16),
            "mail": lambda ledger: ledger.queue_mail(bench.third.peer_id, b"a word"),
        },
        lambda ledger: ledger.queue_mail(bench.third.peer_id, bytes(1500)),
    )


def journal_case(folder: Path) -> Case:
    """An agent's journal with a purchase and a bid that waits."""
    bench = Bench(folder / "broker" / "ledger.sqlite")
    bench.fund()
    broker = bench.broker.peer_id
    path = folder / "journal.sqlite"
    with AgentJournal.open(path, bench.buyer.peer_id, bench.clock) as journal:
        receipts = {}
        for name in ("bought", "waits"):
            trade = bench.appraised()
            journal.keep_report(broker, report_on(bench, trade))
            data = bench.bid(trade, 10)
            journal.keep_bid(data)
            bench.ledger.place_bid(data)
            bench.ledger.record_ask(trade, bench.ask(trade, 7))
            receipts[name] = (trade, bench.settle(trade, 7).receipt)
        journal.keep_receipt(broker, receipts["bought"][1])
        new = bench.appraised()
        report, another = report_on(bench, new), report_on(bench, bench.appraised())
        journal.keep_report(broker, report)
        bid = bench.bid(new, 5)
    bench.ledger.close()
    return Case(
        path,
        lambda path: AgentJournal.open(path, bench.buyer.peer_id, bench.clock),
        {
            "bid": lambda journal: journal.keep_bid(bid),
            "receipt": lambda journal: journal.keep_receipt(broker, receipts["waits"][1]),
            "report": lambda journal: journal.keep_report(broker, another),
            "fetched": lambda journal: journal.fetched(broker, receipts["bought"][0]),
            "mail": lambda journal: journal.keep_mail(broker, 1),
        },
        lambda journal: journal.intend(broker, bench.id(), bytes(1500)),
    )


CASES: Mapping[str, Callable[[Path], Case]] = {"ledger": ledger_case, "journal": journal_case}
