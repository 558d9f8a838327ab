"""Proofs under the heads of a ledger's log, past and present, from the subtrees that are stored.

Knows: the tables `leaves` and `nodes`, inside a transaction that someone else opened; each proof reads O(log n) rows.
Refuses to know: what the leaves say, who signed which head. A place that the log does not have raises RuleBroken
`beyond-log`.
"""

from __future__ import annotations

import sqlite3

from p2pmarket.errors import JournalDamaged, RuleBroken
from p2pmarket.ledger.log import Range, consistency_ranges, inclusion_ranges, leaf_hash, root_of_peaks, subtrees


def size_of(connection: sqlite3.Connection) -> int:
    """Leaves of the log."""
    return int(connection.execute("SELECT size FROM head").fetchone()[0])


def root_at(connection: sqlite3.Connection, size: int) -> bytes:
    """Merkle tree head of the first `size` leaves.

    :raises RuleBroken: code beyond-log
    """
    _check(connection, 0, size)
    return _root(connection, (0, size))


def inclusion(connection: sqlite3.Connection, index: int, size: int) -> tuple[bytes, ...]:
    """Audit path of leaf `index` under the head of the first `size` leaves (RFC 6962, section 2.1.1).

    :raises RuleBroken: code beyond-log
    """
    _check(connection, index + 1, size)
    return tuple([_root(connection, part) for part in inclusion_ranges(index, size)])


def consistency(connection: sqlite3.Connection, first: int, second: int) -> tuple[bytes, ...]:
    """Proof that the first `first` leaves are those of the log of `second` (RFC 6962, section 2.1.2).

    :raises RuleBroken: code beyond-log
    """
    _check(connection, first, second)
    return tuple([_root(connection, part) for part in consistency_ranges(first, second)])


def _check(connection: sqlite3.Connection, first: int, second: int) -> None:
    size = size_of(connection)
    if not 0 <= first <= second <= size:
        raise RuleBroken(
            f"this log has {size} leaves, and {first} of {second} is not a part of it; ask for one that is",
            code="beyond-log",
        )


def _root(connection: sqlite3.Connection, part: Range) -> bytes:
    """Head over a range of leaves."""
    return root_of_peaks(tuple([_subtree(connection, level, place) for level, place in subtrees(part)]))


def _subtree(connection: sqlite3.Connection, level: int, place: int) -> bytes:
    if level == 0:
        row = connection.execute("SELECT data FROM leaves WHERE number = ?", (place,)).fetchone()
    else:
        row = connection.execute("SELECT hash FROM nodes WHERE level = ? AND place = ?", (level, place)).fetchone()
    if row is None:
        raise JournalDamaged(f"the log lacks subtree {place} on level {level}; run `p2pmarket ledger audit`")
    return bytes(row[0]) if level else leaf_hash(row[0])
