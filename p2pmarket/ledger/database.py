"""One SQLite file under one discipline: what is committed survives a kill, what is not leaves no trace.

Knows: how a file is opened, checked and written in transactions, and what SQLite's complaints mean in words.
Refuses to know: what the tables hold. Fails with DiskFull, JournalDamaged or MachineFault; a change that a CHECK or a
trigger of the schema refuses is JournalDamaged too: the rules above the schema let nothing of the kind pass.

The journal is a rollback journal, not a write-ahead log, so that several processes may open the file
(docs/decisions/0001-rollback-journal.md). A `Database` belongs to the thread that opened it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from p2pmarket import failpoints
from p2pmarket.errors import DiskFull, JournalDamaged, MachineFault
from p2pmarket.ledger.schema_check import schema_faults

BUSY_TIMEOUT_SECONDS = 30.0
OLDEST_SQLITE = (3, 37, 0)
"""The first SQLite with STRICT tables."""

_WRITING, _READING = "writing", "reading"

BeforeCommit = Callable[[sqlite3.Connection], None]


class Database:
    """An open file. `transaction()` is the only way to write, `reading()` gives several reads one moment."""

    def __init__(
        self,
        path: Path,
        *,
        application_id: int,
        version: int,
        schema: tuple[str, ...],
        beside: Collection[str] = (),
        before_commit: BeforeCommit | None = None,
    ) -> None:
        """Opens `path`, creating it (mode 0600) with `schema` where there is none.

        `before_commit` runs at the end of every outermost transaction, inside it.

        :param beside: tables that may be in the file though `schema` does not make them
        :raises JournalDamaged: not such a file, of a newer version, damaged, or with anything in its schema that is
            missing, altered or foreign; and then nothing was written
        :raises DiskFull: it cannot be created or written
        :raises MachineFault: another process holds it, or this SQLite is too old
        """
        self.path = path
        self._works: list[str] = []
        self._inside: str | None = None
        self._before_commit: BeforeCommit | None = None
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise MachineFault(f"SQLite {sqlite3.sqlite_version} is too old; install a Python built with 3.37 or newer")
        _create_private(path)
        with self._faults():
            self.connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
        try:
            with self._faults():
                self._prepare(application_id, version, schema, beside)
        except BaseException:
            self.connection.close()
            raise
        self._before_commit = before_commit

    @property
    def writing(self) -> bool:
        """Whether this is inside of `transaction()`."""
        return self._inside is _WRITING

    def close(self) -> None:
        """Closes the file; what was not committed is gone."""
        self.connection.close()

    @contextlib.contextmanager
    def transaction(self, work: str = "") -> Iterator[sqlite3.Connection]:
        """Everything inside is written at once or not at all. Inside another one: undone alone if it raises.

        :param work: what it is for, as fail points name it (`ledger.settle.before` is reached before the commit of
            the outermost transaction with that of `settle` in it, `ledger.settle.after` after it; what changed
            something and has no name is `commit`)
        :raises DiskFull, JournalDamaged, MachineFault: and then nothing was written
        """
        if self._inside is _WRITING:
            with self._faults(), self._nested(work):
                yield self.connection
            return
        if self._inside is _READING:
            raise RuntimeError("a transaction inside of reading() would be undone with it")
        with self._faults(), self._begun("BEGIN IMMEDIATE", _WRITING):
            before = self.connection.total_changes
            yield self.connection
            self._check_whole()
            if work:
                self._works.append(work)
            if self._before_commit is not None:
                self._before_commit(self.connection)
            places = self._works or ["commit"] * (self.connection.total_changes != before)
            self._reach(places, "before")
            self.connection.execute("COMMIT")
            self._reach(places, "after")

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Every read inside sees the file at one moment."""
        with self._faults():
            if self._inside is not None:
                self._check_whole()
                yield self.connection
                return
            with self._begun("BEGIN", _READING):
                yield self.connection

    @contextlib.contextmanager
    def _begun(self, how: str, inside: str) -> Iterator[None]:
        """What is inside of an outermost transaction; undone at its end unless it was committed."""
        if self.connection.in_transaction:  # a failing disk did not let the last one be undone
            self.connection.execute("ROLLBACK")
        self.connection.execute(how)
        self._inside = inside
        try:
            yield
        finally:
            self._inside = None
            self._works = []
            # SQLite may have rolled back by itself. Where it cannot now, why it came to that says more.
            with contextlib.suppress(sqlite3.Error):
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _nested(self, work: str) -> Iterator[None]:
        self._check_whole()  # a savepoint outside of a transaction would be one of its own
        works = len(self._works)
        self.connection.execute("SAVEPOINT nested")
        try:
            yield
            self._check_whole()
            self.connection.execute("RELEASE nested")
        except BaseException:
            del self._works[works:]
            # Where this cannot be undone alone, the disk's error goes up in place of the first one and undoes it all.
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK TO nested")
                self.connection.execute("RELEASE nested")
            raise
        if work:
            self._works.append(work)

    def _check_whole(self) -> None:
        """Inside a transaction: where the disk is full or fails, SQLite may undo all of it by itself.

        :raises DiskFull: it has
        """
        if not self.connection.in_transaction:
            raise DiskFull(
                f"what was being written to {self.path} was undone as a whole; check the disk, then try again"
            )

    def _reach(self, places: Sequence[str], moment: str) -> None:
        for work in places:
            failpoints.reach(f"{self.path.stem}.{work}.{moment}")

    def _prepare(self, application_id: int, version: int, schema: tuple[str, ...], beside: Collection[str]) -> None:
        for pragma in (
            "trusted_schema = OFF",
            "journal_mode = TRUNCATE",
            "synchronous = FULL",
            "foreign_keys = ON",
            "cell_size_check = ON",
        ):
            self.connection.execute(f"PRAGMA {pragma}").fetchall()
        with self.transaction() as connection:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
                for statement in schema:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {application_id}")
                connection.execute(f"PRAGMA user_version = {version}")
        (found_id,) = self.connection.execute("PRAGMA application_id").fetchone()
        (found_version,) = self.connection.execute("PRAGMA user_version").fetchone()
        if found_id != application_id:
            raise JournalDamaged(f"{self.path} is another program's database; name another path, it was left alone")
        if found_version != version:
            raise JournalDamaged(
                f"{self.path} is of version {found_version} and this program writes version {version}; "
                "upgrade p2pmarket to open it"
            )
        problems = [text for (text,) in self.connection.execute("PRAGMA quick_check(4)")]
        if problems != ["ok"]:
            raise JournalDamaged(f"{self.path} is damaged ({problems[0]}); restore it from a backup")
        for fault in schema_faults(self.connection, schema, beside):
            raise JournalDamaged(
                f"{self.path} is not as this program makes it: {fault.sentence}, and nothing was written; "
                + ("remove it, or " if fault.foreign else "")
                + "restore the file from a backup"
            )

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """SQLite's complaints as errors of ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise _operational(self.path, str(error)) from error
        except UnicodeDecodeError as error:  # a name in the schema: SQLite's own message cannot be read
            raise JournalDamaged(f"{self.path} is damaged ({error.reason}); restore it from a backup") from error
        except sqlite3.IntegrityError as error:
            raise JournalDamaged(
                f"{self.path} refused a change that breaks its own rules ({error}), and nothing was written; "
                "it does not add up any more: check it, and restore it from a backup where it is wrong"
            ) from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.ProgrammingError):
                raise
            raise JournalDamaged(f"{self.path} is damaged ({error}); restore it from a backup") from error


def _create_private(path: Path) -> None:
    """Makes the file readable by its owner alone before SQLite sees it; its journal inherits the mode.

    A file that exists is not opened: closing it again would drop the locks this process holds on it through SQLite
    (sqlite.org/howtocorrupt.html, section 2.2).
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise DiskFull(f"{path} cannot be written ({error.strerror}); check its folder and the disk") from error


def _operational(path: Path, problem: str) -> MachineFault | sqlite3.OperationalError:
    """What a message of SQLite means; its codes are not in Python 3.10."""
    if "full" in problem:
        return DiskFull(f"no room to write {path}; free some space and start again, nothing was lost")
    if "locked" in problem:
        return MachineFault(f"another process has held {path} for {BUSY_TIMEOUT_SECONDS:.0f} s; stop it and try again")
    if "readonly" in problem or "unable to open" in problem:
        return DiskFull(f"{path} cannot be written ({problem}); check its owner and mode and those of its folder")
    if "I/O error" in problem:
        return DiskFull(f"the disk failed under {path} ({problem}); check the disk, then start again")
    if any(word in problem for word in ("no such", "malformed", "decode")):
        return JournalDamaged(f"{path} is damaged ({problem}); restore it from a backup")
    return sqlite3.OperationalError(problem)
