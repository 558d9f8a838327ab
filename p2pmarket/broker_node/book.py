"""The book: each agent's submissions, where their parcels lie, and which of them may be sold.

Knows: the `submissions` and `members` tables, kept in the ledger's file so that one transaction covers an effect and
its reply, and the folder of snapshots. Refuses to know: money (ledger/), tensors (appraiser). All methods take the
connection of an open ledger transaction and are called in the ledger's thread.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sqlite3
from pathlib import Path

from p2pmarket.appraisal.ladder import Told
from p2pmarket.crypto.signing import verify
from p2pmarket.errors import RuleBroken
from p2pmarket.market import MarketTerms
from p2pmarket.messages import Offer, Submit
from p2pmarket.network.spool import Incoming

_TABLES = (
    """CREATE TABLE IF NOT EXISTS members (
    peer TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    keys BLOB NOT NULL,
    seen_ms INTEGER NOT NULL
) STRICT""",
    """CREATE TABLE IF NOT EXISTS submissions (
    id BLOB PRIMARY KEY,
    agent TEXT NOT NULL,
    snapshot BLOB NOT NULL,
    task TEXT NOT NULL,
    step INTEGER NOT NULL,
    plain_bytes INTEGER NOT NULL,
    buy INTEGER NOT NULL,
    sell INTEGER NOT NULL,
    ask INTEGER,
    signed BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('accepted', 'booked', 'appraised', 'ended')),
    submitted_ms INTEGER NOT NULL,
    round INTEGER NOT NULL DEFAULT 0
) STRICT""",
    """CREATE TABLE IF NOT EXISTS told (
    agent TEXT NOT NULL,
    task TEXT NOT NULL,
    data BLOB NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (agent, task, data)
) STRICT""",
    "CREATE INDEX IF NOT EXISTS submissions_by_agent ON submissions (agent, submitted_ms)",
    "CREATE INDEX IF NOT EXISTS submissions_by_snapshot ON submissions (agent, snapshot, submitted_ms)",
    "CREATE INDEX IF NOT EXISTS submissions_by_state ON submissions (state)",
)
_COLUMNS = "id, agent, snapshot, task, step, plain_bytes, buy, sell, ask, signed, state, submitted_ms, round"


@dataclasses.dataclass(frozen=True)
class Submission:
    """One row: accepted (parcel awaited), booked (complete), appraised, or ended (replaced, refused or too late)."""

    id: bytes
    agent: str
    snapshot: bytes
    task: str
    step: int
    plain_bytes: int
    buy: bool
    sell: bool
    ask: int | None
    signed: bytes
    """The agent's signed Submit: what binds it to a standing ask."""
    state: str
    submitted_ms: int
    round: int

    @functools.cached_property
    def request(self) -> Submit:
        """What the agent signed."""
        return verify(self.signed, Submit, signer=self.agent)


class Book:
    """Reads and writes the book's tables; holds no state but the folder's path."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def create_tables(self, db: sqlite3.Connection) -> None:
        """Makes the book's tables where they are missing."""
        for statement in _TABLES:
            db.execute(statement)

    def folder(self, submission: bytes) -> Path:
        """Where a submission's parcel lies."""
        return self._directory / submission.hex()

    def parcel(self, submission: bytes) -> Path:
        """A submission's snapshot, packed, once it has arrived."""
        return Incoming(self.folder(submission)).plain_path

    def remember_member(
        self, db: sqlite3.Connection, peer: str, epoch: int, keys: bytes, max_agents: int, now_ms: int
    ) -> None:
        """Keeps an agent's key statement unless a newer one is known.

        :raises RuleBroken: an epoch below one that was shown before, or no room for a new agent
        """
        row = db.execute("SELECT epoch FROM members WHERE peer = ?", (peer,)).fetchone()
        if row and row[0] > epoch:
            raise RuleBroken(
                "these encryption keys are older than ones this identity showed before; "
                "restore the newer keyring file, or delete the old one to make new keys",
                code="old-keys",
            )
        if not row and db.execute("SELECT count(*) FROM members").fetchone()[0] >= max_agents:
            raise RuleBroken(f"this market has room for {max_agents} agents and is full", code="market-full")
        db.execute(
            "INSERT INTO members VALUES (?, ?, ?, ?) "
            "ON CONFLICT (peer) DO UPDATE SET epoch = excluded.epoch, keys = excluded.keys, seen_ms = excluded.seen_ms",
            (peer, epoch, keys, now_ms),
        )

    def member_keys(self, db: sqlite3.Connection, peer: str) -> bytes | None:
        """An agent's signed KeyStatement as last shown."""
        row = db.execute("SELECT keys FROM members WHERE peer = ?", (peer,)).fetchone()
        return bytes(row[0]) if row else None

    def accept(
        self, db: sqlite3.Connection, submit: Submit, signed: bytes, agent: str, terms: MarketTerms, now_ms: int
    ) -> None:
        """Opens a submission; a parcel that was awaited from the same agent before is awaited no longer.

        :raises RuleBroken: an id that was used before, or above the terms' submissions per hour
        """
        if self.get(db, submit.submission) is not None:
            raise RuleBroken("this submission id was used before; take a fresh one", code="duplicate-submission")
        (recent,) = db.execute(
            "SELECT count(*) FROM submissions WHERE agent = ? AND submitted_ms > ?", (agent, now_ms - 3_600_000)
        ).fetchone()
        if recent >= terms.submissions_per_hour:
            raise RuleBroken(
                f"this market takes {terms.submissions_per_hour} submissions an hour from an agent; trade less often",
                code="too-often",
            )
        db.execute("UPDATE submissions SET state = 'ended' WHERE agent = ? AND state = 'accepted'", (agent,))
        db.execute(
            f"INSERT INTO submissions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'accepted', ?, 0)",
            (
                submit.submission,
                agent,
                submit.snapshot,
                submit.task,
                submit.step,
                submit.plain_bytes,
                submit.buy,
                submit.sell,
                submit.ask,
                signed,
                now_ms,
            ),
        )

    def get(self, db: sqlite3.Connection, submission: bytes) -> Submission | None:
        """One submission."""
        rows = self._select(db, "WHERE id = ?", (submission,))
        return rows[0] if rows else None

    def by_snapshot(self, db: sqlite3.Connection, agent: str, snapshot: bytes) -> Submission | None:
        """The last submission of a snapshot."""
        rows = self._select(db, "WHERE agent = ? AND snapshot = ? ORDER BY submitted_ms DESC", (agent, snapshot))
        return rows[0] if rows else None

    def book(self, db: sqlite3.Connection, submission: bytes) -> bool:
        """A parcel is complete: ends what its agent had in the book before. False when it is awaited no longer."""
        done = db.execute("UPDATE submissions SET state = 'booked' WHERE id = ? AND state = 'accepted'", (submission,))
        if done.rowcount != 1:
            return False
        db.execute(
            "UPDATE submissions SET state = 'ended' WHERE state IN ('booked', 'appraised') "
            "AND agent = (SELECT agent FROM submissions WHERE id = ?) AND id <> ?",
            (submission, submission),
        )
        return True

    def appraised(self, db: sqlite3.Connection, submission: bytes, round_number: int) -> None:
        """A submission had its round; one that was replaced meanwhile stays ended."""
        db.execute(
            "UPDATE submissions SET round = ?, state = CASE state WHEN 'booked' THEN 'appraised' ELSE state END "
            "WHERE id = ?",
            (round_number, submission),
        )

    def end(self, db: sqlite3.Connection, submission: bytes) -> None:
        """A submission whose parcel was refused."""
        db.execute("UPDATE submissions SET state = 'ended' WHERE id = ?", (submission,))

    def waiting(self, db: sqlite3.Connection) -> list[Submission]:
        """Complete submissions that were not appraised yet, oldest first."""
        return self._select(db, "WHERE state = 'booked' ORDER BY submitted_ms, id", ())

    def awaited(self, db: sqlite3.Connection) -> list[Submission]:
        """Submissions whose parcel has not arrived."""
        return self._select(db, "WHERE state = 'accepted'", ())

    def latest(self, db: sqlite3.Connection) -> list[Submission]:
        """The latest complete submission of every agent: the market's offers."""
        return self._select(db, "WHERE state IN ('booked', 'appraised') ORDER BY submitted_ms DESC, id", ())

    def last_round(self, db: sqlite3.Connection) -> int:
        """Number of the last round that was appraised."""
        (number,) = db.execute("SELECT coalesce(max(round), 0) FROM submissions").fetchone()
        return int(number)

    def told(self, db: sqlite3.Connection, agent: str, task: str, data: bytes) -> Told:
        """What an agent was told of this task, measured on the data of that digest, so far."""
        row = db.execute(
            "SELECT state FROM told WHERE agent = ? AND task = ? AND data = ?", (agent, task, data)
        ).fetchone()
        return Told(**json.loads(row[0])) if row else Told()

    def keep_told(self, db: sqlite3.Connection, agent: str, task: str, data: bytes, state: Told) -> None:
        """Keeps it, unless it is nothing."""
        if state != Told():
            values = (agent, task, data, json.dumps(dataclasses.asdict(state)))
            db.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?)", values)

    def expire(self, db: sqlite3.Connection, terms: MarketTerms, now_ms: int) -> None:
        """Ends submissions whose parcel did not arrive in time."""
        db.execute(
            "UPDATE submissions SET state = 'ended' WHERE state = 'accepted' AND submitted_ms < ?",
            (now_ms - terms.upload_ms,),
        )

    def forget(self, db: sqlite3.Connection, before_ms: int) -> None:
        """Drops the rows of submissions that ended and were made before then; the last round keeps its number."""
        db.execute(
            "DELETE FROM submissions WHERE state = 'ended' AND submitted_ms < ? "
            "AND round < (SELECT max(round) FROM submissions)",
            (before_ms,),
        )

    def live_folders(self, db: sqlite3.Connection) -> set[str]:
        """Names of the folders that are still needed."""
        rows = db.execute("SELECT id FROM submissions WHERE state IN ('accepted', 'booked', 'appraised')").fetchall()
        return {row[0].hex() for row in rows}

    def offers(self, db: sqlite3.Connection) -> tuple[Offer, ...]:
        """What other agents may know of the book."""
        return tuple(
            Offer(seller=s.agent, task=s.task, step=s.step, submitted_ms=s.submitted_ms)
            for s in self.latest(db)[:1024]
            if s.sell
        )

    def _select(self, db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[Submission]:
        rows = db.execute(f"SELECT {_COLUMNS} FROM submissions {where}", values).fetchall()
        return [
            Submission(
                id=bytes(row[0]),
                agent=row[1],
                snapshot=bytes(row[2]),
                task=row[3],
                step=row[4],
                plain_bytes=row[5],
                buy=bool(row[6]),
                sell=bool(row[7]),
                ask=row[8],
                signed=bytes(row[9]),
                state=row[10],
                submitted_ms=row[11],
                round=row[12],
            )
            for row in rows
        ]
