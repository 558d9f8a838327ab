"""The journal's file, words given, mail, heads and evidence: everything of `AgentJournal` that needs no trade.

Knows: who owns the file, what was said and has no answer, which past each broker has signed, and whom this agent trusts
no longer. Refuses to know: trades (agent_journal), which head contradicts which (heads, node/witness).
Fails with RuleBroken on what the rules forbid and with MachineFault on a file that cannot be used.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from p2pmarket.errors import RuleBroken, SettingsError
from p2pmarket.ledger.agent_schema import APPLICATION_ID, SCHEMA, VERSION, Evidence, Intent
from p2pmarket.ledger.database import Database
from p2pmarket.ledger.heads import Head, contradict
from p2pmarket.units import Clock, now_ms

B = TypeVar("B", bound="AgentBook")

MAX_HEADS = 32
"""Heads of one log that may wait for a proof; a broker that gives none is not worth more of them."""


class AgentBook:
    """An open journal file. Use `AgentJournal`, which adds the trades."""

    def __init__(self, path: Path, peer: str, clock: Clock) -> None:
        self.peer = peer
        self._clock = clock
        self._database = Database(path, application_id=APPLICATION_ID, version=VERSION, schema=SCHEMA)

    @classmethod
    def open(cls: type[B], path: Path, peer: str, clock: Clock = now_ms) -> B:
        """The journal of the agent `peer` in the file `path`, which is made if missing.

        :raises SettingsError: the file is another agent's
        :raises JournalDamaged, DiskFull, MachineFault: it cannot be opened
        """
        journal = cls(path, peer, clock)
        with journal.transaction("open") as connection:
            connection.execute("INSERT INTO owner VALUES (1, ?) ON CONFLICT DO NOTHING", (peer,))
            (owner,) = connection.execute("SELECT peer FROM owner").fetchone()
        if owner != peer:
            journal.close()
            raise SettingsError(f"the journal {path} is of agent {owner}; name another path for agent {peer}")
        return journal

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
        """Everything called inside is one durable effect.

        :param work: what fail points call it
        :raises DiskFull, MachineFault: and then nothing was written
        """
        with self._database.transaction(work) as connection:
            yield connection

    # ---- words given ---------------------------------------------------------------------------------------------

    def intend(self, broker: str, message_id: bytes, body: bytes) -> None:
        """Writes down a signed message before it is sent. The same bytes again change nothing.

        :raises RuleBroken: code replayed, when other bytes were written under this id
        """
        with self.transaction("intend") as connection:
            row = connection.execute("SELECT broker, body FROM intents WHERE message_id = ?", (message_id,)).fetchone()
            if row is not None and row != (broker, body):
                raise RuleBroken("this message id was used for another message; take a fresh one", code="replayed")
            connection.execute(
                "INSERT INTO intents VALUES (?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
                (message_id, broker, body, self._clock()),
            )

    def answered(self, message_id: bytes, reply: bytes) -> None:
        """The broker's reply has come; the message needs no sending any more."""
        with self.transaction("answered") as connection:
            connection.execute("UPDATE intents SET reply = ? WHERE message_id = ?", (reply, message_id))

    def unanswered(self, broker: str) -> list[Intent]:
        """What was or may have been said to a broker without an answer, oldest first: send the same bytes again."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT message_id, body, made_ms FROM intents WHERE broker = ? AND reply IS NULL ORDER BY rowid",
                (broker,),
            )
            return [Intent(*row) for row in rows]

    # ---- mail ----------------------------------------------------------------------------------------------------

    def last_mail(self, broker: str) -> int:
        """The highest number of a broker's mail that was kept; 0 before the first."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT last FROM mail WHERE broker = ?", (broker,)).fetchone()
            return int(row[0]) if row else 0

    def keep_mail(self, broker: str, number: int) -> bool:
        """Counts mail as kept, in the `transaction()` of its effect; False for mail that was kept before."""
        with self.transaction("mail") as connection:
            if number <= self.last_mail(broker):
                return False
            connection.execute(
                "INSERT INTO mail (broker, last) VALUES (?, ?) ON CONFLICT (broker) DO UPDATE SET last = excluded.last",
                (broker, number),
            )
            return True

    def note_lost(self, broker: str, acknowledged: int) -> bool:
        """Whether a broker has heard of mail up to `acknowledged` that this journal never kept: it is an old copy, or a
        new one beside an old identity. That is remembered until `rebuilt`; the mail itself is gone."""
        if acknowledged <= self.last_mail(broker):
            return False
        with self.transaction("lost") as connection:
            connection.execute(
                "INSERT INTO mail (broker, last, lost) VALUES (?, ?, 1) "
                "ON CONFLICT (broker) DO UPDATE SET last = excluded.last, lost = 1",
                (broker, acknowledged),
            )
        return True

    def miss(self, broker: str) -> None:
        """Trades with this broker are missing here, whatever its mail told; remembered until `rebuilt`."""
        with self.transaction("lost") as connection:
            connection.execute(
                "INSERT INTO mail (broker, last, lost) VALUES (?, 0, 1) ON CONFLICT (broker) DO UPDATE SET lost = 1",
                (broker,),
            )

    def is_lost(self, broker: str) -> bool:
        """Whether trades with this broker are missing here and were not learnt from it yet."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT lost FROM mail WHERE broker = ?", (broker,)).fetchone()
            return row is not None and bool(row[0])

    def rebuilt(self, broker: str) -> None:
        """What the broker knows of this agent's trades is here."""
        with self.transaction("rebuilt") as connection:
            connection.execute("UPDATE mail SET lost = 0 WHERE broker = ?", (broker,))

    # ---- heads of the brokers' logs ------------------------------------------------------------------------------

    def heads(self, broker: str, market: str) -> list[Head]:
        """The heads of a broker's log that are kept, the largest first."""
        return [head for head, _ in self._heads(broker, market)]

    def proven_head(self, broker: str, market: str) -> Head | None:
        """The head that everything before was a prefix of; None before the first."""
        return next((head for head, proven in self._heads(broker, market) if proven), None)

    def shareable_heads(self, market: str, limit: int) -> list[tuple[str, Head]]:
        """Broker and largest checkpoint of each log of a market, the last kept first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT broker, size, root, body FROM heads WHERE market = ? ORDER BY kept_ms DESC", (market,)
            ).fetchall()
        largest: dict[str, Head] = {}
        for broker, *parts in rows:
            head = Head(*parts)
            if head.shareable and (broker not in largest or head.size > largest[broker].size):
                largest[broker] = head
        return list(itertools.islice(largest.items(), limit))

    def keep_head(self, broker: str, market: str, head: Head, *, at_most: int = MAX_HEADS) -> None:
        """Keeps a head that was verified (heads.head_of); it waits for a proof that it belongs to those before.

        :raises RuleBroken: code contradiction, when one of its size with another root is here (kept as evidence)
        """
        with self.transaction("head") as connection:
            kept = self._heads(broker, market)
            same = next((one for one, _ in kept if one.size == head.size), None)
            if same is None and len(kept) < at_most:
                connection.execute(
                    "INSERT INTO heads VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (broker, market, head.size, head.root, head.body, not kept, self._clock()),
                )
            elif same is not None and not contradict(same, head) and head.shareable and not same.shareable:
                connection.execute(
                    "UPDATE heads SET body = ? WHERE broker = ? AND market = ? AND size = ?",
                    (head.body, broker, market, head.size),
                )
        if same is not None and contradict(same, head):
            raise self.accuse(broker, "it signed two histories of its ledger", same.body, head.body)

    def keep_proof(self, broker: str, market: str, one: Head, other: Head) -> None:
        """Notes that the larger of two heads continues the smaller, which is then needed no longer.

        :raises RuleBroken: as `keep_head`
        """
        first, second = sorted((one, other), key=lambda head: head.size)
        if first.size == second.size:
            return
        self.keep_head(broker, market, second, at_most=MAX_HEADS + 1)
        with self.transaction("proof") as connection:
            where = "broker = ? AND market = ? AND size = ?"
            row = connection.execute(f"SELECT proven FROM heads WHERE {where}", (broker, market, first.size)).fetchone()
            if row is None:
                return
            if row[0]:
                connection.execute(f"UPDATE heads SET proven = 1 WHERE {where}", (broker, market, second.size))
            connection.execute(f"DELETE FROM heads WHERE {where}", (broker, market, first.size))

    def _heads(self, broker: str, market: str) -> list[tuple[Head, bool]]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT size, root, body, proven FROM heads WHERE broker = ? AND market = ? ORDER BY size DESC",
                (broker, market),
            )
            return [(Head(size, root, body), bool(proven)) for size, root, body, proven in rows]

    # ---- evidence ------------------------------------------------------------------------------------------------

    def accuse(self, broker: str, reason: str, *bodies: bytes) -> RuleBroken:
        """Keeps signed bytes that show how a broker contradicts itself or this agent, and trusts it no longer; what to
        raise. Not inside a `transaction()` of the caller's, which that error would undo."""
        now = self._clock()
        with self.transaction("accuse") as connection:
            (number,) = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM evidence").fetchone()
            connection.executemany(
                "INSERT INTO evidence VALUES (?, ?, ?, ?, ?)", [(number, broker, reason, body, now) for body in bodies]
            )
            connection.execute("INSERT INTO distrusted VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (broker, reason, now))
        return RuleBroken(distrust_sentence(broker, reason), code="contradiction")

    def evidence(self) -> list[Evidence]:
        """Everything that was kept against brokers, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT number, broker, reason, kept_ms, body FROM evidence ORDER BY number, rowid"
            ).fetchall()
        cases = []
        for (_, broker, reason, kept_ms), case in itertools.groupby(rows, key=lambda row: row[:4]):
            cases.append(Evidence(broker, reason, tuple(row[4] for row in case), kept_ms))
        return cases

    def distrusted(self) -> dict[str, str]:
        """Brokers that this agent has nothing more to do with, and why."""
        with self._database.reading() as connection:
            return dict(connection.execute("SELECT broker, reason FROM distrusted").fetchall())

    def trust_again(self, broker: str) -> None:
        """An operator's own decision: the broker is traded with again, and its past begins anew with its next head. The
        evidence stays."""
        with self.transaction("trust") as connection:
            connection.execute("DELETE FROM distrusted WHERE broker = ?", (broker,))
            connection.execute("DELETE FROM heads WHERE broker = ?", (broker,))


def distrust_sentence(broker: str, reason: str) -> str:
    """What an operator is told of a broker that is not traded with any more."""
    return (
        f"{reason}: this agent stops trading with the broker {broker} and keeps what it signed as evidence; look for "
        "another broker of the market, and show others what `p2pmarket trades --receipts FOLDER` writes"
    )
