"""The ledger's file, accounts, replies and mail: everything of `Ledger` that needs no trade.

Knows: who owns the file, how credit comes into being, how the head of the log is signed. Refuses to know: trades
(journal.py). Fails with RuleBroken on what the rules forbid and with MachineFault on a file that cannot be used.
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
from p2pmarket.ledger import holds, mailbox
from p2pmarket.ledger.audit import Audit, VerifyReport
from p2pmarket.ledger.balances import (
    AccountRow,
    Change,
    HistoryRow,
    append,
    balance_of,
    history_of,
    mint,
    unpack_peaks,
)  # fmt: skip
from p2pmarket.ledger.database import Database
from p2pmarket.ledger.leaves import Granted, Opened
from p2pmarket.ledger.log import root_of_peaks
from p2pmarket.ledger.schema import APPLICATION_ID, SCHEMA, VERSION
from p2pmarket.messages import Checkpoint
from p2pmarket.units import Clock, now_ms

B = TypeVar("B", bound="AccountBook")

SIGNATURES_AT_ONCE = 200
"""Settled trades that `verify` checks under one lock: some 0.1 s."""


class AccountBook:
    """An open ledger file. Use `Ledger` (journal.py), which adds the trades."""

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
            path, application_id=APPLICATION_ID, version=VERSION, schema=SCHEMA, before_commit=self._sign_head
        )

    @classmethod
    def open(
        cls: type[B],
        path: Path,
        identity: Identity,
        market: str | None,
        clock: Clock = now_ms,
        *,
        check: bool = True,
        token_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> B:
        """The ledger of `identity`'s market in the file `path`, which is made if missing.

        `market` None: whatever market an existing file is of.

        `check` refolds every leaf first (without the receipts' signatures, see `verify`).

        :raises SettingsError: the file belongs to another broker or market
        :raises JournalDamaged: it does not verify; `verify` on a ledger opened with check=False tells all
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
                "run `p2pmarket ledger verify`, then restore the file from a backup"
            )
        return ledger

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def __enter__(self: B) -> B:
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

    # ---- accounts ------------------------------------------------------------------------------------------------

    def open_account(self, peer: str, opening: int) -> int:
        """Opens a peer's account with `opening` micro-credits unless it is open; the balance.

        :raises RuleBroken: code too-much-credit
        """
        with self.transaction("open") as connection:
            row = connection.execute("SELECT opened_ms FROM accounts WHERE peer = ?", (peer,)).fetchone()
            if row is None or row[0] is None:
                leaf = Opened(peer, opening, self._token_bytes(16), self._clock())
                mint(connection, opening)
                append(connection, leaf, [Change(peer, opening)])
                connection.execute("UPDATE accounts SET opened_ms = ? WHERE peer = ?", (leaf.at_ms, peer))
            return balance_of(connection, peer)

    def grant(self, peer: str, amount: int, memo: str, message_id: bytes) -> int:
        """Issues credit to a peer, once for each message id; the balance.

        :raises RuleBroken: code too-much-credit
        """
        with self.transaction("grant") as connection:
            if not connection.execute("SELECT 1 FROM grants WHERE message_id = ?", (message_id,)).fetchone():
                leaf = Granted(peer, amount, memo, message_id, self._clock())
                mint(connection, amount)
                entry = append(connection, leaf, [Change(peer, amount)])
                connection.execute("INSERT INTO grants VALUES (?, ?)", (message_id, entry.index))
            return balance_of(connection, peer)

    def balance(self, peer: str) -> int:
        """A peer's micro-credits; 0 without an account."""
        with self._database.reading() as connection:
            return balance_of(connection, peer)

    def held(self, peer: str) -> int:
        """Micro-credits of a peer's balance that cannot be spent now: bids without an answer, and proceeds of what is
        neither delivered nor lapsed. 0 without an account."""
        with self._database.reading() as connection:
            return holds.held_of(connection, peer)

    def set_day_limit(self, peer: str, amount: int | None) -> None:
        """What an account may spend in 24 hours, in micro-credits, where that is less than the terms' limit; 0:
        nothing; None: as the terms say."""
        with self.transaction("limit") as connection:
            holds.set_day_limit(connection, peer, amount)

    def accounts(self) -> list[AccountRow]:
        """Every account, the richest first; the broker's own is where fees go."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT peer, balance, held, opened_ms, day_limit FROM accounts ORDER BY balance DESC, peer"
            )
            return [AccountRow(*row) for row in rows]

    def history(self, peer: str | None = None) -> list[HistoryRow]:
        """Every movement of money, of one peer or of all, oldest first."""
        with self._database.reading() as connection:
            return history_of(connection, peer)

    # ---- replies and mail ----------------------------------------------------------------------------------------

    def seen_reply(self, sender: str, message_id: bytes) -> bytes | None:
        """The reply this message got before; None when it is new."""
        with self._database.reading() as connection:
            return mailbox.seen_reply(connection, sender, message_id)

    def remember(self, sender: str, message_id: bytes, reply: bytes) -> None:
        """Binds a reply to a message: call it in the `transaction()` of the effect.

        :raises RuleBroken: code replayed, when the message has a reply already; the effect is then undone with it
        """
        with self.transaction("reply") as connection:
            mailbox.remember(connection, sender, message_id, reply, self._clock())

    def forget_replies(self, before_ms: int) -> None:
        """Drops replies from before then; the caller sees to it that nobody can still need them."""
        with self.transaction("forget") as connection:
            mailbox.forget_replies(connection, before_ms)

    def queue_mail(self, peer: str, body: bytes) -> int:
        """Keeps mail for a peer until it is dropped; its number: 1, 2, ... for each peer."""
        with self.transaction("mail") as connection:
            return mailbox.queue(connection, peer, body)

    def catch_up_mail(self, peer: str, number: int) -> bool:
        """Numbers a peer's mail on from what it has seen, where this ledger is older than that; True where it was."""
        with self.transaction("catch-up") as connection:
            return mailbox.catch_up(connection, peer, number)

    def mail_after(self, peer: str, number: int) -> list[tuple[int, bytes]]:
        """A peer's mail newer than `number`, oldest first."""
        with self._database.reading() as connection:
            return mailbox.after(connection, peer, number)

    def drop_mail(self, peer: str, up_to: int) -> None:
        """Forgets a peer's mail up to that number."""
        with self.transaction("drop") as connection:
            mailbox.drop(connection, peer, up_to)

    def acknowledged(self, peer: str) -> int:
        """The highest number of mail that a peer ever said it kept; 0 before the first."""
        with self._database.reading() as connection:
            return mailbox.acknowledged(connection, peer)

    # ---- proof ---------------------------------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """The signed Checkpoint over the whole log."""
        with self._database.reading() as connection:
            return bytes(connection.execute("SELECT checkpoint FROM head").fetchone()[0])

    def verify(self, *, signatures: bool = True) -> VerifyReport:
        """Refolds the log from nothing and compares everything with it (audit.py).

        With `signatures`, which takes ten times as long but keeps no other process waiting for it, also every
        settled trade's receipt, bid and ask.
        """
        audit = Audit(self._identity.peer_id, self.market)
        with self._database.reading() as connection:
            audit.read(connection)
        if signatures:
            for trades in audit.settled(SIGNATURES_AT_ONCE):
                with self._database.reading() as connection:
                    audit.check_signatures(connection, trades)
        return audit.report()

    def _claim(self) -> None:
        """Makes a new file this broker's, and refuses another's."""
        broker = self._identity.peer_id
        with self.transaction() as connection:
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
