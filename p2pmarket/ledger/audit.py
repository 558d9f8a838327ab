"""Checking a ledger by what its leaves imply, and naming everything that does not agree.

Knows: the order of the checks, and how a file is opened that nobody is trusted with. Refuses to trust: any table but
the leaves; and to share arithmetic with the running ledger (fold.py). It shares the records' decoding and Ed25519,
which frozen vectors pin down. Nothing raises for a ledger that is wrong: what is wrong is a list of `Problem`s. A file
that cannot be read at all raises JournalDamaged.

What no check of one file can see: an older copy of the whole file, and what somebody with the broker's key writes anew
from the first leaf on. Receipts and checkpoints that agents hold show both (outside.py). Docs: docs/settlement.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from p2pmarket.errors import JournalDamaged, SettingsError
from p2pmarket.ledger.audit_tables import BROKEN_RULE, TABLE_CHECKS, check_nodes, check_rules, trade_rows
from p2pmarket.ledger.audit_words import FILE_CHECKS, SETTLED_CHECKS, WORD_CHECKS, Words, findings
from p2pmarket.ledger.fold import Fold, Problem
from p2pmarket.ledger.outside import Outside, Salvage, compare, read_outside, salvage
from p2pmarket.ledger.schema import APPLICATION_ID, BOOK_TABLES, SCHEMA, VERSION
from p2pmarket.ledger.schema_check import schema_faults

MAX_PROBLEMS = 100


@dataclasses.dataclass(frozen=True)
class VerifyReport:
    """What a ledger was found to hold."""

    leaves: int
    accounts: int
    trades: int
    minted: int
    """Micro-credits issued: opening credits and grants."""
    root: bytes
    """Merkle tree head, computed from the leaves."""
    found: tuple[Problem, ...]
    """What is wrong; empty for a ledger that verifies. At most MAX_PROBLEMS."""
    broker: str = ""
    market: str = ""
    notes: tuple[str, ...] = ()
    """What was shown and proves nothing, such as another broker's receipt."""
    examined: bool = True
    """False where the tables are not the ledger's: then leaves, accounts, trades, minted and root say nothing."""

    @property
    def figures(self) -> dict[str, int | str | None]:
        """How much there is and its root, in hexadecimal; None of each where nothing was examined."""
        figures: dict[str, int | str | None] = {
            "leaves": self.leaves, "accounts": self.accounts, "trades": self.trades, "issued": self.minted,
            "root": self.root.hex(),
        }  # fmt: skip
        return figures if self.examined else dict.fromkeys(figures)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, in words."""
        return tuple(problem.sentence for problem in self.found)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.found


class Audit:
    """One audit, in parts so that a running broker is not kept waiting by the slow ones.

    `read` compares the tables with the leaves, at one moment; `check_signatures` then takes the settled trades, whose
    words no longer change, a few at a time. `check_words` is everything that anybody signed, of a file at rest.
    """

    def __init__(self, broker: str, market: str, outside: Sequence[Outside] = ()) -> None:
        self.fold = Fold(
            broker,
            market,
            sizes=[held.size for held in outside],
            numbers=[held.receipt.index for held in outside if held.receipt is not None],
        )
        self._trades = 0

    def read(self, connection: sqlite3.Connection) -> None:
        """Refolds every leaf and compares every table."""
        fold = self.fold
        for place, (number, data) in enumerate(connection.execute("SELECT number, data FROM leaves ORDER BY number")):
            if number != place:
                fold.problem("leaf", f"leaf {place} is missing")
                break
            fold.add(number, data)
            fold.problems += findings("node", check_nodes(connection, fold))
        for kind, check in TABLE_CHECKS.items():
            fold.problems += findings(kind, check(connection, fold))
        (self._trades,) = connection.execute("SELECT count(*) FROM trades").fetchone()

    def settled(self, size: int) -> Iterator[list[bytes]]:
        """The settled trades in lists of `size`."""
        trades = iter(self.fold.settled)
        while batch := list(itertools.islice(trades, size)):
            yield batch

    def check_signatures(self, connection: sqlite3.Connection, trades: Sequence[bytes]) -> None:
        """Checks what broker, buyer and seller signed for these settled trades."""
        for trade in trades:
            for row in trade_rows(connection, trade):
                words = Words(connection, self.fold, row)
                for kind in SETTLED_CHECKS:
                    self.fold.problems += findings(kind, WORD_CHECKS[kind](words))

    def check_words(self, connection: sqlite3.Connection) -> None:
        """Checks all that is signed: reports, bids, asks, receipts, the replies to bids and the mail."""
        for row in trade_rows(connection):
            words = Words(connection, self.fold, row)
            for kind, check in WORD_CHECKS.items():
                self.fold.problems += findings(kind, check(words))
        for kind, check_file in FILE_CHECKS.items():
            self.fold.problems += findings(kind, check_file(connection, self.fold))

    def report(self, notes: Sequence[str] = (), *, examined: bool = True) -> VerifyReport:
        """What was found; `examined` is False where `read` was not called."""
        fold = self.fold
        found = tuple(fold.problems[:MAX_PROBLEMS])
        return VerifyReport(
            fold.size, len(fold.balances), self._trades, fold.minted, fold.root, found, fold.broker, fold.market,
            tuple(notes), examined,
        )  # fmt: skip


def audit_file(path: Path, broker: str | None = None, shown: Sequence[tuple[str, bytes]] = ()) -> VerifyReport:
    """Audits a ledger's file, which is only read; no key is needed.

    :param broker: peer id whose ledger it should be; None: whose it says it is
    :param shown: what others hold: names and bytes of signed receipts and checkpoints
    :raises SettingsError: no such file, or of no market yet
    :raises JournalDamaged: it is no ledger, or too damaged to be read
    """
    with copy_of(path) as connection:
        faults = list(schema_faults(connection, SCHEMA, BOOK_TABLES))
        examined = not any(fault.unreadable for fault in faults)
        market, claimed = _owner(connection) if examined else ("", "")
        whose = broker or claimed
        outside, notes = read_outside(shown if examined else (), whose, market or None)
        audit = Audit(whose, market, outside)
        audit.fold.problems += [Problem("schema", fault.sentence) for fault in faults]
        audit.fold.problems += findings("rule", check_rules(connection))
        if examined:
            if claimed != whose:
                audit.fold.problem("owner", f"the file says that it is of broker {claimed or 'nobody'}, not {whose}")
            audit.read(connection)
            audit.check_words(connection)
            audit.fold.problems += compare(audit.fold, outside)
        return audit.report(notes, examined=examined)


def salvage_file(path: Path, broker: str | None, shown: Sequence[tuple[str, bytes]]) -> tuple[Salvage, VerifyReport]:
    """What receipts tell that a ledger has forgotten, and its audit without them.

    :param shown: names and bytes of receipts that others hold
    :raises SettingsError, JournalDamaged: as `audit_file` says; the second also where nothing could be examined
    """
    report = audit_file(path, broker)
    if not report.examined:
        raise JournalDamaged(f"{path} cannot be read as a ledger: {report.problems[0]}; look for a good copy")
    outside, notes = read_outside(shown, report.broker, report.market)
    fold = Fold(report.broker, report.market)
    with copy_of(path) as connection:
        for number, data in connection.execute("SELECT number, data FROM leaves ORDER BY number"):
            fold.add(number, data)
    receipts = [held.receipt for held in outside if held.receipt is not None]
    return salvage(fold, receipts), dataclasses.replace(report, notes=tuple(notes))


@contextlib.contextmanager
def copy_of(path: Path) -> Iterator[sqlite3.Connection]:
    """A private copy of a ledger's file as it is at one moment; the file is opened read-only and let go at once.

    :raises SettingsError: no such file
    :raises JournalDamaged: it is no ledger of this version, or cannot be read
    """
    if not path.is_file():
        raise SettingsError(f"there is no file {path}; name a broker's ledger")
    source = copy = None
    try:
        source = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
        copy = sqlite3.connect("", isolation_level=None)
        copy.text_factory = lambda data: data.decode("utf-8", "replace")
        copy.execute("PRAGMA trusted_schema = OFF")
        source.backup(copy)
        _check_kind(path, copy)
        yield copy
    except sqlite3.OperationalError as error:
        if "readonly" in str(error):
            raise JournalDamaged(
                f"{path} was left in the middle of a write; start its broker once, which undoes that, and audit then"
            ) from error
        raise JournalDamaged(f"{path} cannot be read as a ledger ({error})") from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite's complaint may quote the damage itself
        raise JournalDamaged(f"{path} is damaged or no ledger ({error})") from error
    finally:
        for connection in (source, copy):
            if connection is not None:
                connection.close()


def _owner(connection: sqlite3.Connection) -> tuple[str, str]:
    """The market and the broker that the file says it is of."""
    return connection.execute("SELECT market, broker FROM head").fetchone() or ("", "")


def _check_kind(path: Path, connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if found != APPLICATION_ID:
        raise JournalDamaged(f"{path} is another program's file, not a broker's ledger")
    if version != VERSION:
        raise JournalDamaged(
            f"{path} is a ledger of version {version} and this program reads version {VERSION}"
            + ("; upgrade p2pmarket to open it" if version > VERSION else "")
        )
    for (problem,) in connection.execute("PRAGMA integrity_check"):
        if problem != "ok" and not problem.startswith(BROKEN_RULE):
            raise JournalDamaged(f"{path} is damaged ({problem}); keep it, and look for a good copy")
