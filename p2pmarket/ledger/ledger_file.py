"""The broker's ledger as a file: whose it is, its transactions, the signed head of its log and proofs under it.

Knows: how the file is opened, checked and claimed, and that each transaction in which the log grew ends with one
signature over its head. Refuses to know: accounts and trades (accounts.py, bids.py, journal.py). Fails with
SettingsError for another's file and with MachineFault for one that cannot be used.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import JournalDamaged, SettingsError
from p2pmarket.ledger import proofs
from p2pmarket.ledger.audit import Audit, VerifyReport
from p2pmarket.ledger.balances import unpack_peaks
from p2pmarket.ledger.database import Database
from p2pmarket.ledger.log import root_of_peaks
from p2pmarket.ledger.schema import APPLICATION_ID, BOOK_TABLES, SCHEMA, VERSION
from p2pmarket.messages import Checkpoint
from p2pmarket.units import Clock, now_ms

F = TypeVar("F", bound="LedgerFile")

SIGNATURES_AT_ONCE = 200
"""Settled trades that `verify` checks under one lock: some 0.1 s."""


class LedgerFile:
    """An open ledger file. Use `Ledger` (journal.py), which adds accounts and trades."""

    def __init__(
        self,
        path: Path,
        identity: Identity,
        market: str,
        clock: Clock,
        token_bytes: Callable[[int], bytes],
    ) -> None:
        self._identity = identity
        self.market = market
        self._clock = clock
        self._token_bytes = token_bytes
        self._database = Database(
            path, application_id=APPLICATION_ID, version=VERSION, schema=SCHEMA, beside=BOOK_TABLES,
            before_commit=self._sign_head,
        )  # fmt: skip

    @classmethod
    def open(
        cls: type[F],
        path: Path,
        identity: Identity,
        market: str | None,
        clock: Clock = now_ms,
        *,
        check: bool = True,
        token_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> F:
        """The ledger of `identity`'s market in the file `path`, which is made if missing.

        `market` None: whatever market an existing file is of.

        `check` refolds every leaf first (without the receipts' signatures, see `verify`).

        :raises SettingsError: the file belongs to another broker or market
        :raises JournalDamaged: it does not verify; `verify` on a ledger opened with check=False tells all. Its schema
            is checked either way, before anything is written
        :raises DiskFull, MachineFault: it cannot be opened
        """
        ledger = cls(path, identity, market or "", clock, token_bytes)
        try:
            ledger._claim()
            problems = ledger.verify(signatures=False).problems if check else ()
        except BaseException:
            ledger.close()
            raise
        if problems:
            ledger.close()
            raise JournalDamaged(
                f"the ledger {path} does not verify: {problems[0]}; "
                "run `p2pmarket ledger audit`, then restore the file from a backup"
            )
        return ledger

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def __enter__(self: F) -> F:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self, work: str = "") -> Iterator[sqlite3.Connection]:
        """Everything called inside is one durable effect; the connection is for the caller's own tables.

        :param work: what fail points call it
        :raises DiskFull, MachineFault: and then nothing was written
        """
        with self._database.transaction(work) as connection:
            yield connection

    # ---- proof ---------------------------------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """The signed Checkpoint over the whole log."""
        with self._signed() as connection:
            return bytes(connection.execute("SELECT checkpoint FROM head").fetchone()[0])

    def size(self) -> int:
        """Leaves of the log."""
        with self._database.reading() as connection:
            return proofs.size_of(connection)

    def root_at(self, size: int) -> bytes:
        """Merkle tree head of the log's first `size` leaves (RFC 6962, section 2.1).

        :raises RuleBroken: code beyond-log
        """
        with self._database.reading() as connection:
            return proofs.root_at(connection, size)

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """Audit path of leaf `index` under the head of the first `size` leaves (RFC 6962, section 2.1.1).

        :raises RuleBroken: code beyond-log
        """
        with self._database.reading() as connection:
            return proofs.inclusion(connection, index, size)

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """Proof that the log of `second` leaves continues that of `first` (RFC 6962, section 2.1.2).

        :raises RuleBroken: code beyond-log, unless 0 <= first <= second <= the log's size
        """
        with self._database.reading() as connection:
            return proofs.consistency(connection, first, second)

    def verify(self, *, signatures: bool = True) -> VerifyReport:
        """Refolds the log from nothing and compares everything with it (audit.py).

        With `signatures`, which takes ten times as long but keeps no other process waiting for it, also every
        settled trade's receipt, bid and ask.
        """
        audit = Audit(self._identity.peer_id, self.market)
        with self._signed() as connection:
            audit.read(connection)
        if signatures:
            for trades in audit.settled(SIGNATURES_AT_ONCE):
                with self._database.reading() as connection:
                    audit.check_signatures(connection, trades)
        return audit.report()

    @contextlib.contextmanager
    def _signed(self) -> Iterator[sqlite3.Connection]:
        """Reads with the head signed, also in the middle of a transaction that let the log grow."""
        with self._database.reading() as connection:
            if self._database.writing:
                self._sign_head(connection)
            yield connection

    def _claim(self) -> None:
        """Makes a new file this broker's, and refuses another's."""
        broker = self._identity.peer_id
        with self.transaction("claim") as connection:
            if self.market:
                connection.execute(
                    "INSERT INTO head VALUES (1, ?, ?, 0, x'', 0, -1, x'') ON CONFLICT DO NOTHING",
                    (self.market, broker),
                )
            row = connection.execute("SELECT market, broker FROM head").fetchone()
            if row is None:
                raise SettingsError(f"{self._database.path} is of no market yet; start its broker first")
            market, owner = row
            self.market = self.market or market
            if (market, owner) != (self.market, broker):
                raise SettingsError(
                    f"the ledger {self._database.path} belongs to broker {owner} of market {market}; "
                    f"name another path for broker {broker} of market {self.market}"
                )

    def _sign_head(self, connection: sqlite3.Connection) -> None:
        """Signs the log once at the end of each transaction in which it grew."""
        row = connection.execute("SELECT size, peaks FROM head WHERE size <> checkpoint_size").fetchone()
        if row is None:
            return
        size, peaks = row
        root = root_of_peaks(unpack_peaks(peaks))
        checkpoint = Checkpoint(self.market, self._identity.peer_id, size, root, self._clock())
        connection.execute(
            "UPDATE head SET checkpoint = ?, checkpoint_size = ?", (sign(self._identity, checkpoint), size)
        )
