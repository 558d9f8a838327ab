"""What of a balance cannot be spent: bids that wait for an answer, and proceeds whose delivery may still be refunded.

Knows: the column `held` of `accounts`, how much an account may spend in a day, inside a transaction that someone else
opened. Refuses to know: when a hold begins and ends (bids.py, journal.py). A hold above what is free raises RuleBroken
`insufficient-balance`, a bid above what may be spent `spending-limit`. Releasing what is not held breaks a CHECK of the
table: the ledger is damaged then, and says so.
"""

from __future__ import annotations

import sqlite3

from p2pmarket.errors import JournalDamaged, RuleBroken
from p2pmarket.ledger.trade import PAID, QUOTED
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.units import format_credits

SPENDING_WINDOW_MS = 24 * 3600 * 1000


def held_of(connection: sqlite3.Connection, peer: str) -> int:
    """Micro-credits of a peer's balance that cannot be spent; 0 without an account."""
    row = connection.execute("SELECT held FROM accounts WHERE peer = ?", (peer,)).fetchone()
    return int(row[0]) if row else 0


def hold(connection: sqlite3.Connection, peer: str, amount: int) -> None:
    """Sets `amount` of what a peer has free aside.

    :raises RuleBroken: code insufficient-balance, when it has less free
    """
    done = connection.execute(
        "UPDATE accounts SET held = held + ? WHERE peer = ? AND balance - held >= ?", (amount, peer, amount)
    )
    if amount and done.rowcount != 1:
        row = connection.execute("SELECT balance, held FROM accounts WHERE peer = ?", (peer,)).fetchone()
        balance, held = row or (0, 0)
        raise RuleBroken(
            f"this takes {format_credits(amount)} credits and {format_credits(balance - held)} of the account's "
            f"{format_credits(balance)} are free; bid less, or wait until what is held is answered or delivered",
            code="insufficient-balance",
        )


def release(connection: sqlite3.Connection, peer: str, amount: int) -> None:
    """Makes what was held free again.

    :raises JournalDamaged: there is no account that could hold it
    """
    done = connection.execute("UPDATE accounts SET held = held - ? WHERE peer = ?", (amount, peer))
    if amount and done.rowcount != 1:
        raise JournalDamaged(f"the account of {peer} is missing from this ledger; run `p2pmarket ledger audit`")


def release_proceeds(connection: sqlite3.Connection, row: TradeRow, broker: str) -> None:
    """Makes the seller's part of a settled price and the broker's fee theirs to spend."""
    release(connection, row.seller, row.price - row.fee)
    release(connection, broker, row.fee)


def check_spending(connection: sqlite3.Connection, peer: str, amount: int, spend_per_day: int, now_ms: int) -> None:
    """A new bid, all bids that are held, and what was paid in the last 24 hours, against the smaller limit.

    :param spend_per_day: the terms' limit in micro-credits; 0: none
    :raises RuleBroken: code spending-limit
    """
    row = connection.execute("SELECT day_limit FROM accounts WHERE peer = ?", (peer,)).fetchone()
    limits = [limit for limit in (spend_per_day or None, row[0] if row else None) if limit is not None]
    if not limits:
        return
    (bids,) = connection.execute(
        "SELECT ifnull(sum(bid_amount), 0) FROM trades WHERE buyer = ? AND state = ?", (peer, QUOTED)
    ).fetchone()
    (paid,) = connection.execute(
        "SELECT ifnull(sum(price), 0) FROM trades WHERE buyer = ? AND settled_ms > ? "
        f"AND state IN ({', '.join('?' * len(PAID))})",
        (peer, now_ms - SPENDING_WINDOW_MS, *sorted(PAID)),
    ).fetchone()
    if paid + bids + amount > min(limits):
        raise RuleBroken(
            f"it may spend {format_credits(min(limits))} credits in 24 hours; of them {format_credits(paid)} are paid, "
            f"{format_credits(bids)} are bid, and a bid of {format_credits(amount)} is too much now",
            code="spending-limit",
        )


def set_day_limit(connection: sqlite3.Connection, peer: str, amount: int | None) -> None:
    """What an account may spend in 24 hours, in micro-credits; None: as the terms say."""
    connection.execute(
        "INSERT INTO accounts (peer, balance, day_limit) VALUES (?, 0, ?) "
        "ON CONFLICT (peer) DO UPDATE SET day_limit = excluded.day_limit",
        (peer, amount),
    )
