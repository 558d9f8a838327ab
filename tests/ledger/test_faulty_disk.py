"""Disks that fill up, fail, tear and forget: a book works on, or refuses with one sentence and has lost nothing.

kill -9 does not test this (tests/crash does that). Statements fail in the way of SQLite's own messages; a full disk and
files that cannot grow are real. An old copy that was put back is told by agents: tests/node and tests/broker_node.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_disk import BROKEN, CASES, FULL, READ_ONLY, Case, dump, fault_of, faulty

from p2pmarket.errors import DiskFull, JournalDamaged, MarketError
from p2pmarket.ledger.database import Database

PAGE = 4096
TWO_EFFECTS = {"receipt"}
"""An agent keeps a receipt, and then the head of the log that it names; the second may fail alone."""
CODES = {FULL: "disk-full", BROKEN: "disk-full", READ_ONLY: "disk-full"}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return CASES[request.param](tmp_path_factory.mktemp(request.param))


def statements(case: Case, name: str, folder: Path) -> tuple[int, tuple[str, ...]]:
    """How many statements an operation takes without faults, and what the file holds after it."""
    path = case.copy(folder)
    with case.opened(path) as book:
        fault_of(book).arm(0, "", lasting=False)
        case.operations[name](book)
        count = fault_of(book).count
    return count, tuple(dump(path))


def half_effects(case: Case, name: str, folder: Path, problem: str, *, lasting: bool) -> list[int]:
    """The statements at which a fault leaves a part of the effect, or one that was refused has any, or the operation
    does not come right when the fault is gone. A fault where a read ends is none: it may be answered then, in whole.
    """
    count, after = statements(case, name, folder / "well")
    assert count >= 3
    wrong = []
    for nth in range(1, count + 1):
        path = case.copy(folder / str(nth))
        before = tuple(dump(path))
        with case.opened(path) as book:
            fault_of(book).arm(nth, problem, lasting=lasting)
            answered = False
            with contextlib.suppress(DiskFull):
                case.operations[name](book)
                answered = True
            fault_of(book).arm(0, "", lasting=False)
            right = tuple(dump(path)) == (after if answered else before)
            if not answered:
                with contextlib.suppress(MarketError):
                    case.operations[name](book)
            if not right or tuple(dump(path)) != after:
                wrong.append(nth)
    return wrong


@pytest.mark.parametrize(
    ("problem", "lasting"), [(FULL, True), (BROKEN, False)], ids=["full from then on", "broken once"]
)
def test_a_fault_at_any_statement_has_no_effect(
    case: Case, problem: str, lasting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(monkeypatch)
    for name in case.operations.keys() - TWO_EFFECTS:
        assert half_effects(case, name, tmp_path / name, problem, lasting=lasting) == [], name


def test_without_transactions_that_finds_half_effects(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: every statement is its own transaction."""

    @contextlib.contextmanager
    def at_once(database: Any, work: str = "") -> Iterator[sqlite3.Connection]:
        with database._faults():
            yield database.connection
            if database._before_commit is not None:
                database._before_commit(database.connection)

    faulty(monkeypatch)
    with case.opened(case.path) as book:
        assert book is not None
    monkeypatch.setattr(Database, "transaction", at_once)
    name = {"ledger.sqlite": "settle", "journal.sqlite": "bid"}[case.path.name]
    assert half_effects(case, name, tmp_path, FULL, lasting=True) != []


@pytest.mark.parametrize("problem", CODES)
def test_the_sentence_says_what_to_do(
    case: Case, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(monkeypatch)
    with case.opened(case.copy(tmp_path)) as book:
        fault_of(book).arm(1, problem, lasting=False)
        with pytest.raises(MarketError) as caught:
            case.operations["bid"](book)
    assert (caught.value.code, caught.value.exit_code) == (CODES[problem], 3)
    assert case.path.name in str(caught.value)


def test_a_rollback_that_fails_leaves_no_transaction_that_later_work_falls_into(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written after it must be durable when it returns, not when some earlier transaction ends."""
    faulty(monkeypatch)
    path = case.copy(tmp_path)
    with case.opened(path) as book:
        fault_of(book).arm(3, BROKEN, lasting=True)
        with pytest.raises(DiskFull):
            case.operations["bid"](book)
        assert book._database.connection.in_transaction
        fault_of(book).arm(0, "", lasting=False)
        before = dump(path)
        case.operations["mail"](book)
        assert dump(path) != before


# ---- real ones ---------------------------------------------------------------------------------------------------


def test_a_file_that_may_not_grow(case: Case, tmp_path: Path) -> None:
    """SQLite's own limit of pages: the error is the one of a full disk, from inside of SQLite."""
    path = case.copy(tmp_path)
    with case.opened(path) as book:
        connection = book._database.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 4}").fetchall()
        states = [dump(path)]
        with pytest.raises(DiskFull, match="free some space"):
            for _ in range(100):
                case.fill(book)
                states.append(dump(path))
        assert len(states) > 1
        assert dump(path) == states[-1], "what was acknowledged, and no more"
        connection.execute(f"PRAGMA max_page_count = {10 * pages}").fetchall()
        case.fill(book)
        assert len(dump(path)) > len(states[-1])
    with case.opened(path) as book:
        assert book is not None, "it opens, with all its checks"


FILL = """
import resource, signal, sqlite3, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = int(sys.argv[2])
from p2pmarket.errors import MarketError
from p2pmarket.ledger.database import Database
book = Database(sys.argv[1], application_id=1, version=1, schema=("CREATE TABLE t (x BLOB)",))
kept = 0
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
try:
    while True:
        with book.transaction() as connection:
            connection.execute("INSERT INTO t VALUES (zeroblob(1000))")
        kept += 1
except MarketError as error:
    told = error.code
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with book.transaction() as connection:
    connection.execute("INSERT INTO t VALUES (zeroblob(1000))")
print(told, kept + 1)
"""


@pytest.mark.parametrize("size", [20_000, 40_000, 65_536])
def test_a_disk_that_is_really_full(size: int, tmp_path: Path) -> None:
    """The kernel does not let the file grow: what was acknowledged is there, and with room it is written again."""
    path = tmp_path / "book.sqlite"
    program = FILL.replace("sys.argv[1]", "__import__('pathlib').Path(sys.argv[1])")
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(size)], capture_output=True, text=True, timeout=60, check=True
    )
    told, kept = done.stdout.split()
    assert told == "disk-full"
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (int(kept),)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.skipif("os.geteuid() == 0", reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(case: Case, tmp_path: Path) -> None:
    path = case.copy(tmp_path / "fixed")
    with case.opened(path) as book:
        path.parent.chmod(0o500)
        try:
            with pytest.raises(DiskFull, match="owner and mode"):
                case.operations["bid"](book)
        finally:
            path.parent.chmod(0o700)
        case.operations["bid"](book)


# ---- damage ------------------------------------------------------------------------------------------------------

Damage = Callable[[bytearray, random.Random], None]


def cut_at_a_page(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(1, len(data) // PAGE) * PAGE :]


def cut_anywhere(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(100, len(data)) :]


def blank_a_page(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data) // PAGE) * PAGE
    data[start : start + PAGE] = bytes(PAGE)


def tear_a_page(data: bytearray, chance: random.Random) -> None:
    """The first half of one page and the second of another, as a write that was cut leaves it."""
    one, other = chance.sample(range(len(data) // PAGE), 2)
    half = PAGE // 2
    data[one * PAGE + half : (one + 1) * PAGE] = data[other * PAGE + half : (other + 1) * PAGE]


def flip_a_bit(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_many_bytes(data: bytearray, chance: random.Random) -> None:
    for _ in range(30):
        data[chance.randrange(len(data))] = chance.randrange(256)


DAMAGES = (cut_at_a_page, cut_anywhere, blank_a_page, tear_a_page, flip_a_bit, flip_many_bytes)


def money(path: Path) -> tuple[object, ...]:
    """Of a ledger, balances, holds, credit issued, and every trade's money; of a journal, what was paid."""
    questions = ["SELECT trade, price, fee, receipt FROM trades WHERE price > 0 ORDER BY trade"]
    if path.name == "ledger.sqlite":
        questions += ["SELECT peer, balance, held FROM accounts ORDER BY peer", "SELECT minted, size FROM head"]
    connection = sqlite3.connect(path)
    try:
        return tuple(tuple(connection.execute(question).fetchall()) for question in questions)
    finally:
        connection.close()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_or_its_money_is_right(damage: Damage, case: Case, tmp_path: Path) -> None:
    whole = case.path.read_bytes()
    refused = 0
    for seed in range(40):
        path = tmp_path / case.path.name
        path.with_name(path.name + "-journal").unlink(missing_ok=True)
        data = bytearray(whole)
        damage(data, random.Random(seed))
        path.write_bytes(data)
        try:
            with case.opened(path) as book:
                if case.path.name == "ledger.sqlite":
                    problems = book.verify().problems
                    if not problems:
                        assert money(path) == money(case.path), f"seed {seed}: wrong, and nobody was told"
                    refused += bool(problems)
                else:
                    book.trades()
        except MarketError as error:
            assert isinstance(error, JournalDamaged), f"seed {seed}: {error!r}"
            refused += 1
    assert refused or damage is flip_a_bit


# ---- a transaction that was cut off ------------------------------------------------------------------------------


@pytest.fixture
def cut_off(case: Case, tmp_path: Path) -> tuple[Path, Path]:
    """The file and its rollback journal as a power cut leaves them in the middle of a commit: changed pages are in the
    file, the old ones in the journal."""
    path = case.copy(tmp_path / "running")
    image = tmp_path / "image" / path.name
    image.parent.mkdir()
    with case.opened(path) as book:
        connection = book._database.connection
        with pytest.raises(KeyError), book.transaction():
            case.operations["bid" if case.path.name == "journal.sqlite" else "settle"](book)
            connection.execute("PRAGMA cache_size = 1")
            connection.execute("PRAGMA cache_spill = 1")
            connection.execute("SELECT count(*) FROM sqlite_schema a, sqlite_schema b, sqlite_schema c").fetchall()
            for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
                connection.execute(f"SELECT * FROM {table}").fetchall()
            shutil.copy(path, image)
            shutil.copy(f"{path}-journal", f"{image}-journal")
            raise KeyError
    assert image.read_bytes() != case.path.read_bytes(), "nothing was spilled: this tests nothing"
    return image, image.with_name(image.name + "-journal")


def test_a_transaction_that_was_cut_off_is_undone(case: Case, cut_off: tuple[Path, Path]) -> None:
    image, _ = cut_off
    with case.opened(image) as book:
        assert book is not None
    assert dump(image) == dump(case.path)


def test_a_torn_rollback_journal_never_leaves_half_a_payment(
    case: Case, cut_off: tuple[Path, Path], tmp_path: Path
) -> None:
    """Only a disk that loses what it has synced tears one. Words may remain of what was undone, such as a sale's mail
    or a bid without its intent; money moved as a whole, not at all, or the file is refused."""
    image, journal = cut_off
    half, pages = image.read_bytes(), journal.read_bytes()
    well = case.copy(tmp_path / "well")
    with case.opened(well) as book:
        case.operations["bid" if case.path.name == "journal.sqlite" else "settle"](book)
    whole = (money(case.path), money(well))
    outcomes = set()
    for length in (0, 20, 512, *range(513, len(pages), max(1, len(pages) // 12))):
        image.write_bytes(half)
        journal.write_bytes(pages[:length])
        try:
            with case.opened(image) as book:
                right = money(image) in whole
                if not right:
                    told = case.path.name == "ledger.sqlite" and book.verify().problems
                    assert told, f"half a payment is in the books after {length} bytes"
                outcomes.add("whole" if right else "told")
        except MarketError as error:
            assert isinstance(error, JournalDamaged)
            outcomes.add("refused")
    assert outcomes
