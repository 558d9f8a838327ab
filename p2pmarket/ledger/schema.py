"""The ledger's tables, in one place. Rules that SQLite can hold are held here too, whatever the code above does.

Amounts are micro-credits, times UTC milliseconds. `accounts` is what the leaves fold to; `held` of a balance cannot be
spent: the amounts of the peer's bids that wait for an answer (trades that are quoted) and its part of prices that are
settled and not delivered yet. `head` is the state of the log after the last leaf and the signed checkpoint over it;
`nodes` are the roots of the full subtrees below it, so that proofs need no pass over the log: the one at `level` and
`place` is over the 2^level leaves from place * 2^level on, for levels from 1; leaves are their own. PRICED never rests.
"""

from __future__ import annotations

from p2pmarket.ledger.trade import PRICED, STATES
from p2pmarket.limits import MAX_AMOUNT

APPLICATION_ID = 0x7032704C
"""Spells "p2pL"."""
VERSION = 1

BOOK_TABLES = frozenset({"members", "submissions", "told"})
"""The place of the broker's book in the same file (broker_node/book.py): the only tables beside the ledger's own."""

_RESTING = ", ".join(f"'{state}'" for state in STATES if state != PRICED)

SCHEMA: tuple[str, ...] = (
    f"""CREATE TABLE head (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        market TEXT NOT NULL,
        broker TEXT NOT NULL,
        size INTEGER NOT NULL CHECK (size >= 0),
        peaks BLOB NOT NULL CHECK (length(peaks) % 32 = 0),
        minted INTEGER NOT NULL CHECK (minted BETWEEN 0 AND {MAX_AMOUNT}),
        checkpoint_size INTEGER NOT NULL,
        checkpoint BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE leaves (
        number INTEGER PRIMARY KEY CHECK (number >= 0),
        data BLOB NOT NULL
    ) STRICT""",
    """CREATE TABLE nodes (
        level INTEGER NOT NULL CHECK (level >= 1),
        place INTEGER NOT NULL CHECK (place >= 0),
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        PRIMARY KEY (level, place)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TRIGGER leaves_stay BEFORE DELETE ON leaves
        BEGIN SELECT raise(ABORT, 'leaves are never deleted'); END""",
    """CREATE TRIGGER leaves_rest BEFORE UPDATE ON leaves
        BEGIN SELECT raise(ABORT, 'leaves are never changed'); END""",
    f"""CREATE TABLE accounts (
        peer TEXT PRIMARY KEY,
        balance INTEGER NOT NULL CHECK (balance BETWEEN 0 AND {MAX_AMOUNT}),
        held INTEGER NOT NULL DEFAULT 0 CHECK (held BETWEEN 0 AND balance),
        opened_ms INTEGER,
        day_limit INTEGER CHECK (day_limit >= 0)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE postings (
        leaf INTEGER NOT NULL REFERENCES leaves (number),
        peer TEXT NOT NULL REFERENCES accounts (peer),
        change INTEGER NOT NULL,
        balance INTEGER NOT NULL CHECK (balance >= 0)
    ) STRICT""",
    "CREATE INDEX postings_of_a_peer ON postings (peer, leaf)",
    """CREATE TABLE grants (
        message_id BLOB PRIMARY KEY CHECK (length(message_id) = 16),
        leaf INTEGER NOT NULL REFERENCES leaves (number)
    ) STRICT, WITHOUT ROWID""",
    f"""CREATE TABLE trades (
        trade BLOB PRIMARY KEY CHECK (length(trade) = 16),
        submission BLOB NOT NULL CHECK (length(submission) = 16),
        task TEXT NOT NULL,
        buyer TEXT NOT NULL,
        seller TEXT NOT NULL CHECK (seller <> buyer),
        buyer_snapshot BLOB NOT NULL CHECK (length(buyer_snapshot) = 32),
        seller_snapshot BLOB NOT NULL CHECK (length(seller_snapshot) = 32),
        state TEXT NOT NULL CHECK (state IN ({_RESTING}, '{PRICED}')),
        created_ms INTEGER NOT NULL,
        changed_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        delivery BLOB CHECK (length(delivery) = 32),
        report BLOB,
        bid BLOB,
        bid_amount INTEGER NOT NULL DEFAULT 0 CHECK (bid_amount >= 0),
        bids INTEGER NOT NULL DEFAULT 0 CHECK (bids >= 0),
        bids_until_ms INTEGER,
        ask BLOB,
        price INTEGER NOT NULL DEFAULT 0 CHECK (price >= 0),
        fee INTEGER NOT NULL DEFAULT 0 CHECK (fee BETWEEN 0 AND price),
        receipt BLOB,
        settled_ms INTEGER,
        fetch_before_ms INTEGER,
        served_ms INTEGER,
        reason TEXT NOT NULL DEFAULT ''
    ) STRICT""",
    "CREATE INDEX trades_of_a_buyer ON trades (buyer, state)",
    "CREATE INDEX trades_of_a_seller ON trades (seller, state)",
    "CREATE INDEX trades_by_state ON trades (state, expires_ms)",
    "CREATE INDEX purchases ON trades (buyer, settled_ms) WHERE settled_ms IS NOT NULL",
    "CREATE INDEX bids_of_a_task ON trades (task, changed_ms) WHERE bids > 0",
    """CREATE TABLE replies (
        sender TEXT NOT NULL,
        message_id BLOB NOT NULL CHECK (length(message_id) = 16),
        reply BLOB NOT NULL,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (sender, message_id)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE mailboxes (
        peer TEXT PRIMARY KEY,
        last INTEGER NOT NULL,
        acknowledged INTEGER NOT NULL DEFAULT 0 CHECK (acknowledged BETWEEN 0 AND last)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE mail (
        peer TEXT NOT NULL REFERENCES mailboxes (peer),
        number INTEGER NOT NULL CHECK (number >= 1),
        body BLOB NOT NULL,
        PRIMARY KEY (peer, number)
    ) STRICT""",
)
