"""Appending a leaf and moving the money it speaks of, inside a transaction that someone else opened.

Knows: the tables `head`, `leaves`, `nodes`, `postings` and `accounts`. Refuses to know: when a movement is allowed;
holds.py sees to it that what is taken is there. A movement that the tables' own rules forbid is a ledger that does
not add up: database.py makes it JournalDamaged, and the transaction around it rolls back.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from p2pmarket.errors import RuleBroken
from p2pmarket.ledger.leaves import Granted, Leaf, Refunded, pack, unpack
from p2pmarket.ledger.log import full_subtrees, grow, leaf_hash, root_of_peaks
from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.units import format_credits


class Change(NamedTuple):
    """What a leaf does to one account, in micro-credits."""

    peer: str
    amount: int
    """Of the balance."""
    held: int = 0
    """Of the part of it that cannot be spent."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A leaf in its place: everything a receipt needs."""

    index: int
    leaf: bytes
    size: int
    root: bytes
    proof: tuple[bytes, ...]
    balances: tuple[int, ...]
    """Of the accounts that it changed, after each change."""


@dataclasses.dataclass(frozen=True)
class AccountRow:
    """One account; `opened_ms` is None for one that was only ever paid into."""

    peer: str
    balance: int
    held: int
    """What of the balance cannot be spent now."""
    opened_ms: int | None
    day_limit: int | None
    """What it may spend in 24 hours, where its operator set something; 0: nothing."""


@dataclasses.dataclass(frozen=True)
class HistoryRow:
    """One movement on one account."""

    index: int
    """Leaf of the log."""
    at_ms: int
    kind: str
    """opened, granted, settled or refunded."""
    peer: str
    change: int
    balance: int
    """After the change."""
    trade: bytes | None
    memo: str


def append(connection: sqlite3.Connection, leaf: Leaf, changes: Sequence[Change] = ()) -> Entry:
    """Adds `leaf` to the log and applies its changes of accounts, in order."""
    data = pack(leaf)
    size, packed = connection.execute("SELECT size, peaks FROM head").fetchone()
    before = unpack_peaks(packed)
    hashed = leaf_hash(data)
    after = grow(before, size, hashed)
    connection.execute("INSERT INTO leaves (number, data) VALUES (?, ?)", (size, data))
    connection.executemany("INSERT INTO nodes VALUES (?, ?, ?)", full_subtrees(before, size, hashed))
    connection.execute("UPDATE head SET size = ?, peaks = ?", (size + 1, b"".join(after)))
    balances = tuple([_move(connection, size, change) for change in changes])
    return Entry(size, hashed, size + 1, root_of_peaks(after), tuple(reversed(before)), balances)


def mint(connection: sqlite3.Connection, amount: int) -> None:
    """Counts credit that comes into being, before it is paid to anyone.

    :raises RuleBroken: code too-much-credit, when all credit together would pass MAX_AMOUNT
    """
    (minted,) = connection.execute("SELECT minted FROM head").fetchone()
    if minted + amount > MAX_AMOUNT:
        raise RuleBroken(
            f"a ledger holds at most {format_credits(MAX_AMOUNT)} credits and {format_credits(minted)} are issued",
            code="too-much-credit",
        )
    connection.execute("UPDATE head SET minted = ?", (minted + amount,))


def balance_of(connection: sqlite3.Connection, peer: str) -> int:
    """A peer's balance; 0 without an account."""
    row = connection.execute("SELECT balance FROM accounts WHERE peer = ?", (peer,)).fetchone()
    return int(row[0]) if row else 0


def history_of(connection: sqlite3.Connection, peer: str | None) -> list[HistoryRow]:
    """Every movement of one peer, or of all, oldest first."""
    where, values = ("WHERE peer = ?", (peer,)) if peer is not None else ("", ())
    found = connection.execute(
        "SELECT leaf, data, peer, change, balance FROM postings JOIN leaves ON leaf = number "
        f"{where} ORDER BY leaf, postings.rowid",
        values,
    )
    rows = []
    for index, data, account, change, balance in found:
        leaf = unpack(data)
        trade = getattr(leaf, "trade", None)
        memo = leaf.memo if isinstance(leaf, Granted) else leaf.reason if isinstance(leaf, Refunded) else ""
        rows.append(HistoryRow(index, leaf.at_ms, leaf.KIND, account, change, balance, trade, memo))
    return rows


def unpack_peaks(packed: bytes) -> tuple[bytes, ...]:
    """The log's peaks (log.py) as `head` keeps them: 32 bytes each, largest tree first."""
    return tuple(packed[at : at + 32] for at in range(0, len(packed), 32))


def _move(connection: sqlite3.Connection, leaf: int, change: Change) -> int:
    peer, amount, held = change
    row = connection.execute(
        "UPDATE accounts SET balance = balance + ?, held = held + ? WHERE peer = ? RETURNING balance",
        (amount, held, peer),
    ).fetchone()
    if row is None:
        row = connection.execute(
            "INSERT INTO accounts (peer, balance, held) VALUES (?, ?, ?) RETURNING balance", (peer, amount, held)
        ).fetchone()
    balance = int(row[0])
    connection.execute("INSERT INTO postings VALUES (?, ?, ?, ?)", (leaf, peer, amount, balance))
    return balance
