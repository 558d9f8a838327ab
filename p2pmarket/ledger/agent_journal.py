"""What an agent must not forget: the words it gave, the reports, bids and receipts of its trades, its mail's numbers.

Knows: the agent's own side of each trade, with as many brokers as it likes. Refuses to know: balances (the broker's
ledger holds them), tensors, networks. A receipt that does not hold, or contradicts what this agent signed, raises a
PeerFault; the contradicting bytes are kept as evidence.

An intent is written before its message is sent, so an agent that was killed knows what it may have said. An
`AgentJournal` belongs to the thread that opened it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from p2pmarket.crypto.signing import verify
from p2pmarket.errors import RuleBroken, SettingsError
from p2pmarket.ledger.database import Database
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.messages import Bid, GainReport, Receipt
from p2pmarket.units import Clock, now_ms

APPLICATION_ID = 0x70327041
"""Spells "p2pA"."""
VERSION = 1
UNMATCHED = "unmatched"
"""Reason of a trade whose last bid was below the ask: it binds no longer, and a higher one may follow."""

SCHEMA: tuple[str, ...] = (
    "CREATE TABLE owner (id INTEGER PRIMARY KEY CHECK (id = 1), peer TEXT NOT NULL) STRICT",
    """CREATE TABLE intents (
        message_id BLOB PRIMARY KEY CHECK (length(message_id) = 16),
        broker TEXT NOT NULL,
        body BLOB NOT NULL,
        made_ms INTEGER NOT NULL,
        reply BLOB
    ) STRICT""",
    "CREATE INDEX intents_open ON intents (broker) WHERE reply IS NULL",
    """CREATE TABLE trades (
        broker TEXT NOT NULL,
        trade BLOB NOT NULL CHECK (length(trade) = 16),
        role TEXT NOT NULL CHECK (role IN ('buyer', 'seller')),
        partner TEXT NOT NULL,
        gain REAL,
        report BLOB,
        bid BLOB,
        bid_amount INTEGER NOT NULL DEFAULT 0 CHECK (bid_amount >= 0),
        bid_expires_ms INTEGER NOT NULL DEFAULT 0,
        price INTEGER NOT NULL DEFAULT 0 CHECK (price >= 0),
        fee INTEGER NOT NULL DEFAULT 0 CHECK (fee BETWEEN 0 AND price),
        receipt BLOB,
        noted_ms INTEGER NOT NULL,
        settled_ms INTEGER,
        fetched_ms INTEGER,
        loaded_ms INTEGER,
        reason TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (broker, trade)
    ) STRICT""",
    "CREATE TABLE mail (broker TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT",
    "CREATE TABLE evidence (broker TEXT NOT NULL, body BLOB NOT NULL, kept_ms INTEGER NOT NULL) STRICT",
)


@dataclasses.dataclass(frozen=True)
class Intent:
    """A message this agent decided to send and has no answer to yet."""

    message_id: bytes
    body: bytes
    """Signed bytes: what is sent again is the same."""
    made_ms: int


@dataclasses.dataclass(frozen=True)
class AgentTrade:
    """One trade as this agent knows it; the field names are the table's columns."""

    broker: str
    trade: bytes
    role: str
    partner: str
    gain: float | None
    report: bytes | None
    bid: bytes | None
    bid_amount: int
    bid_expires_ms: int
    price: int
    fee: int
    receipt: bytes | None
    noted_ms: int
    settled_ms: int | None
    fetched_ms: int | None
    loaded_ms: int | None
    reason: str

    @property
    def stage(self) -> str:
        """How far it got, in a word: reported, bid, over, sold, bought, fetched, loaded."""
        if self.receipt is None:
            return "over" if self.reason else "bid" if self.bid else "reported"
        if self.role == "seller":
            return "sold"
        if self.reason:
            return "over"
        return "loaded" if self.loaded_ms else "fetched" if self.fetched_ms else "bought"


_COLUMNS = ", ".join(field.name for field in dataclasses.fields(AgentTrade))


class AgentJournal:
    """An agent's open journal. Open it with `AgentJournal.open`, in the thread that uses it; a context manager."""

    def __init__(self, path: Path, peer: str, clock: Clock) -> None:
        self.peer = peer
        self._clock = clock
        self._database = Database(path, application_id=APPLICATION_ID, version=VERSION, schema=SCHEMA)

    @classmethod
    def open(cls, path: Path, peer: str, clock: Clock = now_ms) -> AgentJournal:
        """The journal of the agent `peer` in the file `path`, which is made if missing.

        :raises SettingsError: the file is another agent's
        :raises JournalDamaged, DiskFull, MachineFault: it cannot be opened
        """
        journal = cls(path, peer, clock)
        with journal.transaction() as connection:
            connection.execute("INSERT INTO owner VALUES (1, ?) ON CONFLICT DO NOTHING", (peer,))
            (owner,) = connection.execute("SELECT peer FROM owner").fetchone()
        if owner != peer:
            journal.close()
            raise SettingsError(f"the journal {path} is of agent {owner}; name another path for agent {peer}")
        return journal

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def __enter__(self) -> AgentJournal:
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
        with self.transaction() as connection:
            row = connection.execute("SELECT broker, body FROM intents WHERE message_id = ?", (message_id,)).fetchone()
            if row is not None and row != (broker, body):
                raise RuleBroken("this message id was used for another message; take a fresh one", code="replayed")
            connection.execute(
                "INSERT INTO intents VALUES (?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
                (message_id, broker, body, self._clock()),
            )

    def answered(self, message_id: bytes, reply: bytes) -> None:
        """The broker's reply has come; the message needs no sending any more."""
        with self.transaction() as connection:
            connection.execute("UPDATE intents SET reply = ? WHERE message_id = ?", (reply, message_id))

    def unanswered(self, broker: str) -> list[Intent]:
        """What was or may have been said to a broker without an answer, oldest first: send the same bytes again."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT message_id, body, made_ms FROM intents WHERE broker = ? AND reply IS NULL ORDER BY rowid",
                (broker,),
            )
            return [Intent(*row) for row in rows]

    # ---- trades --------------------------------------------------------------------------------------------------

    def keep_report(self, broker: str, data: bytes) -> GainReport:
        """Keeps a gain report that this agent may buy on.

        :raises BadSignature, MalformedMessage: not that broker's report
        :raises RuleBroken: code not-mine, when it is for another buyer
        """
        report = verify(data, GainReport, signer=broker)
        if report.buyer != self.peer:
            raise RuleBroken("this gain report is for another buyer", code="not-mine")
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO trades (broker, trade, role, partner, gain, report, noted_ms) "
                "VALUES (?, ?, 'buyer', ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (broker, report.trade, report.seller, report.gain, data, self._clock()),
            )
        return report

    def keep_bid(self, data: bytes) -> Bid:
        """Keeps a signed bid, as its trade's and as an intent, before it is sent.

        :raises RuleBroken: code unknown-trade without a report; wrong-state when this agent bid otherwise before, and
            this does not raise a bid that was unmatched
        """
        bid = verify(data, Bid, signer=self.peer)
        with self.transaction() as connection:
            row = self._load(connection, bid.broker, bid.trade)
            if row is None or row.report is None:
                raise RuleBroken("there is no gain report for this trade to bid on", code="unknown-trade")
            first = row.bid in (None, data) and not row.reason
            if row.receipt is not None or not (first or self._is_raised(row, bid)):
                raise RuleBroken(
                    f"this trade is {row.stage} already; a bid is made once, and again higher where it was unmatched",
                    code="wrong-state",
                )
            self.intend(bid.broker, bid.message_id, data)
            connection.execute(
                "UPDATE trades SET bid = ?, bid_amount = ?, bid_expires_ms = ?, reason = '' "
                "WHERE broker = ? AND trade = ?",
                (data, bid.amount, bid.expires_ms, bid.broker, bid.trade),
            )
        return bid

    def keep_receipt(self, broker: str, data: bytes) -> Receipt:
        """Keeps a receipt for something this agent bought or sold. The same one again changes nothing.

        :raises BadSignature, MalformedMessage: not that broker's receipt, or its proof does not hold
        :raises RuleBroken: code not-mine, when it names neither side as this agent; contradiction, when it is not
            what this agent bid or was told before (kept as evidence: stop trading with that broker)
        """
        receipt = verify_receipt(data, broker)
        if self.peer not in (receipt.buyer, receipt.seller):
            raise RuleBroken("this receipt is for another buyer and seller", code="not-mine")
        with self.transaction() as connection:
            row = self._load(connection, broker, receipt.trade)
            conflict = self._conflict(row, receipt, data)
            if conflict:
                connection.execute("INSERT INTO evidence VALUES (?, ?, ?)", (broker, data, self._clock()))
            elif row is None:
                self._insert_sale(connection, receipt, data)
            else:
                connection.execute(
                    "UPDATE trades SET price = ?, fee = ?, receipt = ?, settled_ms = ?, reason = '' "
                    "WHERE broker = ? AND trade = ?",
                    (receipt.price, receipt.fee, data, receipt.settled_ms, broker, receipt.trade),
                )
        if conflict:
            raise RuleBroken(f"{conflict}; it is kept as evidence, stop trading with {broker}", code="contradiction")
        return receipt

    def end(self, broker: str, trade: bytes, reason: str) -> None:
        """A trade ended without a settlement: refused, or NoDeal with its code; for what is not wanted, `decline`."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE trades SET reason = ? WHERE broker = ? AND trade = ? AND receipt IS NULL",
                (reason, broker, trade),
            )

    def decline(self, broker: str, trades: Sequence[bytes]) -> tuple[bytes, ...]:
        """Ends those of these trades that this agent did not bid on, and says which: a bid binds until answered."""
        declined = []
        with self.transaction() as connection:
            for trade in trades:
                done = connection.execute(
                    "UPDATE trades SET reason = 'declined' WHERE broker = ? AND trade = ? AND bid IS NULL "
                    "AND receipt IS NULL AND reason = ''",
                    (broker, trade),
                )
                if done.rowcount:
                    declined.append(trade)
        return tuple(declined)

    def fetched(self, broker: str, trade: bytes) -> None:
        """The delivery is on this machine and its digest is the report's."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE trades SET fetched_ms = coalesce(fetched_ms, ?) WHERE broker = ? AND trade = ?",
                (self._clock(), broker, trade),
            )

    def loaded(self, broker: str, trade: bytes) -> None:
        """The delivery is in the model."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE trades SET loaded_ms = coalesce(loaded_ms, ?) WHERE broker = ? AND trade = ?",
                (self._clock(), broker, trade),
            )

    def give_up(self, broker: str, trade: bytes, reason: str) -> None:
        """A purchase whose delivery is not used: it was refunded, or came too late to be of use."""
        with self.transaction() as connection:
            connection.execute(
                "UPDATE trades SET reason = ? WHERE broker = ? AND trade = ? AND receipt IS NOT NULL "
                "AND loaded_ms IS NULL",
                (reason, broker, trade),
            )

    def owed(self) -> list[AgentTrade]:
        """Purchases that were paid for and are not in the model yet, the newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM trades WHERE role = 'buyer' AND receipt IS NOT NULL AND loaded_ms IS NULL "
                "AND reason = '' ORDER BY noted_ms DESC, rowid DESC"
            )
            return [AgentTrade(*row) for row in rows]

    def trade(self, broker: str, trade: bytes) -> AgentTrade | None:
        """One trade; None when this agent never heard of it."""
        with self._database.reading() as connection:
            return self._load(connection, broker, trade)

    def trades(self, limit: int = -1) -> list[AgentTrade]:
        """This agent's trades, the newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM trades ORDER BY noted_ms DESC, rowid DESC LIMIT ?", (limit,)
            )
            return [AgentTrade(*row) for row in rows]

    def spent(self, since_ms: int) -> int:
        """Micro-credits paid since then, plus every bid that bound since then and has no answer: it may be paid."""
        with self._database.reading() as connection:
            (paid,) = connection.execute(
                "SELECT coalesce(sum(price), 0) FROM trades WHERE role = 'buyer' AND settled_ms >= ?", (since_ms,)
            ).fetchone()
            (bound,) = connection.execute(
                "SELECT coalesce(sum(bid_amount), 0) FROM trades "
                "WHERE bid IS NOT NULL AND receipt IS NULL AND reason = '' AND bid_expires_ms >= ?",
                (since_ms,),
            ).fetchone()
            return int(paid + bound)

    # ---- mail ----------------------------------------------------------------------------------------------------

    def last_mail(self, broker: str) -> int:
        """The highest number of a broker's mail that was kept; 0 before the first."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT last FROM mail WHERE broker = ?", (broker,)).fetchone()
            return int(row[0]) if row else 0

    def keep_mail(self, broker: str, number: int) -> bool:
        """Counts mail as kept, in the `transaction()` of its effect; False for mail that was kept before."""
        with self.transaction() as connection:
            if number <= self.last_mail(broker):
                return False
            connection.execute(
                "INSERT INTO mail VALUES (?, ?) ON CONFLICT (broker) DO UPDATE SET last = excluded.last",
                (broker, number),
            )
            return True

    # ---- inside --------------------------------------------------------------------------------------------------

    def _load(self, connection: sqlite3.Connection, broker: str, trade: bytes) -> AgentTrade | None:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM trades WHERE broker = ? AND trade = ?", (broker, trade)
        ).fetchone()
        return AgentTrade(*row) if row else None

    def _is_raised(self, row: AgentTrade, bid: Bid) -> bool:
        """Whether this is the next bid on a trade whose last one was below the ask."""
        if row.bid is None or row.reason != UNMATCHED:
            return False
        last = verify(row.bid, Bid, signer=self.peer)
        return bid.revision == last.revision + 1 and bid.amount > last.amount

    def _conflict(self, row: AgentTrade | None, receipt: Receipt, data: bytes) -> str | None:
        """How a genuine receipt contradicts this journal; None when it does not."""
        if row is not None and row.receipt not in (None, data):
            return "the broker signed two receipts for one trade"
        if receipt.buyer != self.peer:
            return None
        if row is None or row.bid is None:
            return "the broker settled a purchase that this agent never bid for"
        bid = verify(row.bid, Bid, signer=self.peer)
        if receipt.price > bid.amount or receipt.delivery != bid.delivery:
            return "the broker settled a purchase beyond what this agent bid"
        return None

    def _insert_sale(self, connection: sqlite3.Connection, receipt: Receipt, data: bytes) -> None:
        connection.execute(
            "INSERT INTO trades (broker, trade, role, partner, price, fee, receipt, noted_ms, settled_ms) "
            "VALUES (?, ?, 'seller', ?, ?, ?, ?, ?, ?)",
            (
                receipt.broker, receipt.trade, receipt.buyer, receipt.price, receipt.fee, data, self._clock(),
                receipt.settled_ms,
            ),
        )  # fmt: skip
