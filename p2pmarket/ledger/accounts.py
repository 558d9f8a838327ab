"""The ledger's accounts, replies and mail: everything of `Ledger` that needs no trade.

Knows: how credit comes into being, what a peer owns, and what it was told. Refuses to know: trades (bids.py,
journal.py), the file (ledger_file.py). Fails with RuleBroken on what the rules forbid.
"""

from __future__ import annotations

from p2pmarket.ledger import holds, mailbox
from p2pmarket.ledger.balances import AccountRow, Change, HistoryRow, append, balance_of, history_of, mint
from p2pmarket.ledger.leaves import Granted, Opened
from p2pmarket.ledger.ledger_file import LedgerFile


class AccountBook(LedgerFile):
    """The part of a `Ledger` (journal.py) that lies below trades."""

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
