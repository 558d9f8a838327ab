"""One trade as a row of an agent's journal: reading it, and the few ways in which it changes.

Knows: the tables `trades` and `asks`, inside a transaction that someone else opened. Refuses to know: what is true
(agent_rules) and when it is kept (agent_journal).
"""

from __future__ import annotations

import sqlite3

from p2pmarket.crypto.signing import verify
from p2pmarket.ledger.agent_schema import COLUMNS, AgentTrade, AskGiven
from p2pmarket.messages import Bid, Receipt

RECOVERED = "recovered"
"""Reason of a purchase that the journal learnt of from the broker: its report is lost, and what would check it."""


def load(connection: sqlite3.Connection, broker: str, trade: bytes) -> AgentTrade | None:
    """One trade; None when there is none."""
    row = connection.execute(f"SELECT {COLUMNS} FROM trades WHERE broker = ? AND trade = ?", (broker, trade)).fetchone()
    return AgentTrade(*row) if row else None


def select(connection: sqlite3.Connection, condition: str, *values: str, limit: int = -1) -> list[AgentTrade]:
    """The trades that fit a condition in SQL, the newest first."""
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM trades WHERE {condition} ORDER BY noted_ms DESC, rowid DESC LIMIT ?", (*values, limit)
    )
    return [AgentTrade(*row) for row in rows]


def set_bid(connection: sqlite3.Connection, bid: Bid, data: bytes) -> None:
    """The trade's bid that binds now."""
    connection.execute(
        "UPDATE trades SET bid = ?, bid_amount = ?, bid_expires_ms = ?, reason = '' WHERE broker = ? AND trade = ?",
        (data, bid.amount, bid.expires_ms, bid.broker, bid.trade),
    )


def set_receipt(
    connection: sqlite3.Connection, owner: str, receipt: Receipt, data: bytes, word: bytes | None, now_ms: int
) -> None:
    """The trade is settled; it may be one that was never heard of. `word` is the owner's own, where it is known."""
    buys = receipt.buyer == owner
    connection.execute(
        "INSERT INTO trades (broker, trade, role, partner, noted_ms) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET partner = excluded.partner",
        (
            receipt.broker, receipt.trade, "buyer" if buys else "seller", receipt.seller if buys else receipt.buyer,
            now_ms,
        ),
    )  # fmt: skip
    connection.execute(
        "UPDATE trades SET price = ?, fee = ?, receipt = ?, settled_ms = ?, learnt_ms = coalesce(learnt_ms, ?), "
        f"{'bid' if buys else 'ask'} = ?, "
        "reason = CASE WHEN role = 'buyer' AND report IS NULL THEN ? ELSE '' END "
        "WHERE broker = ? AND trade = ?",
        (
            receipt.price, receipt.fee, data, receipt.settled_ms, now_ms, word, RECOVERED, receipt.broker,
            receipt.trade,
        ),
    )  # fmt: skip
    if buys and word is not None:
        bid = verify(word, Bid, signer=owner)
        connection.execute(
            "UPDATE trades SET bid_amount = ?, bid_expires_ms = ? WHERE broker = ? AND trade = ?",
            (bid.amount, bid.expires_ms, receipt.broker, receipt.trade),
        )


def set_sale(connection: sqlite3.Connection, broker: str, trade: bytes, snapshot: bytes) -> None:
    """What was sold."""
    connection.execute("UPDATE trades SET snapshot = ? WHERE broker = ? AND trade = ?", (snapshot, broker, trade))


def set_refund(connection: sqlite3.Connection, broker: str, trade: bytes, data: bytes | None, at_ms: int) -> None:
    """The price was paid back; what was kept of that first stays."""
    connection.execute(
        "UPDATE trades SET refund = coalesce(refund, ?), refunded_ms = coalesce(refunded_ms, ?) "
        "WHERE broker = ? AND trade = ?",
        (data, at_ms, broker, trade),
    )


def keep_ask(connection: sqlite3.Connection, broker: str, snapshot: bytes, given: AskGiven, data: bytes) -> None:
    """What the owner asks for a snapshot (`given.trade` empty) or in one trade; of several words the lowest."""
    connection.execute(
        "INSERT INTO asks VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (broker, snapshot, trade) "
        "DO UPDATE SET amount = excluded.amount, body = excluded.body, made_ms = excluded.made_ms "
        "WHERE excluded.amount < asks.amount",
        (broker, snapshot, given.trade, given.buyer, given.amount, data, given.made_ms),
    )


def asked(connection: sqlite3.Connection, broker: str, snapshot: bytes, trade: bytes) -> bytes | None:
    """The owner's lowest word that covers a sale; None where none is kept."""
    row = connection.execute(
        "SELECT body FROM asks WHERE broker = ? AND (trade = ? OR (snapshot = ? AND trade = x'')) "
        "ORDER BY amount LIMIT 1",
        (broker, trade, snapshot),
    ).fetchone()
    return bytes(row[0]) if row else None


def asks(connection: sqlite3.Connection, broker: str, limit: int) -> list[AskGiven]:
    """What the owner was asked to price: the newest of each buyer, then the second of each, and so on, so that nobody
    pushes the others out by bidding often."""
    rows = connection.execute(
        "SELECT trade, buyer, amount, made_ms FROM asks WHERE broker = ? AND trade <> x'' "
        "ORDER BY row_number() OVER (PARTITION BY coalesce(buyer, trade) ORDER BY made_ms DESC), made_ms DESC LIMIT ?",
        (broker, limit),
    )
    return [AskGiven(*row) for row in rows]


def buyers(connection: sqlite3.Connection, broker: str) -> dict[str, bytes]:
    """The pseudonym of every peer that bought something which the owner was asked to price."""
    rows = connection.execute(
        "SELECT trades.partner, asks.buyer FROM asks JOIN trades USING (broker, trade) "
        "WHERE broker = ? AND trades.role = 'seller' AND trades.receipt IS NOT NULL AND asks.buyer IS NOT NULL",
        (broker,),
    )
    return dict(rows.fetchall())
