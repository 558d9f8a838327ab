"""An agent's journal: its tables, and its rows as records.

Knows: what is kept. Refuses to know: when (agent_book, agent_journal). Amounts are micro-credits, times are UTC
milliseconds. `asks.buyer` is the broker's pseudonym for who bid, NULL for a standing ask. `heads` has at most one row
that is proven for each log, and those that wait for a proof; `mail.lost` says that the broker knows of what this
journal does not.
"""

from __future__ import annotations

import dataclasses

APPLICATION_ID = 0x70327041
"""Spells "p2pA"."""
VERSION = 1

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
        ask BLOB,
        snapshot BLOB CHECK (length(snapshot) = 32),
        price INTEGER NOT NULL DEFAULT 0 CHECK (price >= 0),
        fee INTEGER NOT NULL DEFAULT 0 CHECK (fee BETWEEN 0 AND price),
        receipt BLOB,
        noted_ms INTEGER NOT NULL,
        settled_ms INTEGER,
        learnt_ms INTEGER,
        fetched_ms INTEGER,
        loaded_ms INTEGER,
        refund BLOB,
        refunded_ms INTEGER,
        reason TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (broker, trade)
    ) STRICT""",
    """CREATE TABLE asks (
        broker TEXT NOT NULL,
        snapshot BLOB NOT NULL CHECK (length(snapshot) = 32),
        trade BLOB NOT NULL,
        buyer BLOB CHECK (length(buyer) = 16),
        amount INTEGER NOT NULL CHECK (amount >= 0),
        body BLOB NOT NULL,
        made_ms INTEGER NOT NULL,
        PRIMARY KEY (broker, snapshot, trade)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE mail (
        broker TEXT PRIMARY KEY,
        last INTEGER NOT NULL,
        lost INTEGER NOT NULL DEFAULT 0 CHECK (lost IN (0, 1))
    ) STRICT""",
    """CREATE TABLE heads (
        broker TEXT NOT NULL,
        market TEXT NOT NULL,
        size INTEGER NOT NULL CHECK (size >= 0),
        root BLOB NOT NULL CHECK (length(root) = 32),
        body BLOB NOT NULL,
        proven INTEGER NOT NULL CHECK (proven IN (0, 1)),
        kept_ms INTEGER NOT NULL,
        PRIMARY KEY (broker, market, size)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE evidence (
        number INTEGER NOT NULL,
        broker TEXT NOT NULL,
        reason TEXT NOT NULL,
        body BLOB NOT NULL,
        kept_ms INTEGER NOT NULL
    ) STRICT""",
    "CREATE TABLE distrusted (broker TEXT PRIMARY KEY, reason TEXT NOT NULL, since_ms INTEGER NOT NULL) STRICT",
)


@dataclasses.dataclass(frozen=True)
class Intent:
    """A message this agent decided to send and has no answer to yet."""

    message_id: bytes
    body: bytes
    """Signed bytes: what is sent again is the same."""
    made_ms: int


@dataclasses.dataclass(frozen=True)
class AskGiven:
    """What this agent asked in one trade; of several words the lowest."""

    trade: bytes
    buyer: bytes | None
    """The broker's pseudonym for who bid; None where it was not kept."""
    amount: int
    made_ms: int


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What shows that a broker contradicts itself or this agent: a sentence, and signed bytes that bear it out."""

    broker: str
    reason: str
    bodies: tuple[bytes, ...]
    kept_ms: int


@dataclasses.dataclass(frozen=True)
class AgentTrade:
    """One trade as this agent knows it; the field names are the table's columns."""

    broker: str
    trade: bytes
    role: str
    partner: str
    """Empty where nobody said."""
    gain: float | None
    report: bytes | None
    bid: bytes | None
    bid_amount: int
    bid_expires_ms: int
    ask: bytes | None
    """A seller's own word for this sale: its signed Ask, or its Submit with a standing one."""
    snapshot: bytes | None
    """Of a sale: what was sold, as the broker's mail named it."""
    price: int
    fee: int
    receipt: bytes | None
    noted_ms: int
    settled_ms: int | None
    """By the broker's clock, as its receipt says."""
    learnt_ms: int | None
    """When the receipt came, by this agent's own clock."""
    fetched_ms: int | None
    loaded_ms: int | None
    refund: bytes | None
    """The broker's signed Refund; None also where only its status told of one."""
    refunded_ms: int | None
    reason: str

    @property
    def stage(self) -> str:
        """How far it got, in a word: reported, bid, over, sold, bought, fetched, loaded, refunded."""
        if self.receipt is None:
            return "over" if self.reason else "bid" if self.bid else "reported"
        if self.refunded_ms:
            return "refunded"
        if self.role == "seller":
            return "sold"
        if self.reason:
            return "over"
        return "loaded" if self.loaded_ms else "fetched" if self.fetched_ms else "bought"


COLUMNS = ", ".join(field.name for field in dataclasses.fields(AgentTrade))
"""Of the table `trades`, in the order of `AgentTrade`."""
