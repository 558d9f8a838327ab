"""What the broker owes each peer in words: the replies it gave, and the mail it keeps until acknowledged.

Knows: the tables `replies`, `mailboxes` and `mail`, inside a transaction that someone else opened.
Refuses to know: what the bytes say. A message id used twice raises RuleBroken `replayed`.
"""

from __future__ import annotations

import sqlite3

from p2pmarket.errors import RuleBroken


def seen_reply(connection: sqlite3.Connection, sender: str, message_id: bytes) -> bytes | None:
    """The reply that this message got before; None when it is new."""
    row = connection.execute(
        "SELECT reply FROM replies WHERE sender = ? AND message_id = ?", (sender, message_id)
    ).fetchone()
    return row[0] if row else None


def remember(connection: sqlite3.Connection, sender: str, message_id: bytes, reply: bytes, at_ms: int) -> None:
    """Binds a reply to a message.

    :raises RuleBroken: code replayed, when it has one already
    """
    if not remember_first(connection, sender, message_id, reply, at_ms):
        raise RuleBroken(
            "a message with this id was answered before; use a fresh id for every message", code="replayed"
        )


def remember_first(connection: sqlite3.Connection, sender: str, message_id: bytes, reply: bytes, at_ms: int) -> bool:
    """Binds a reply to a message that has none; False, and no change, where it has one."""
    done = connection.execute(
        "INSERT INTO replies VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (sender, message_id, reply, at_ms)
    )
    return done.rowcount == 1


def forget_replies(connection: sqlite3.Connection, before_ms: int) -> None:
    """Drops replies that were given before then."""
    connection.execute("DELETE FROM replies WHERE at_ms < ?", (before_ms,))


def queue(connection: sqlite3.Connection, peer: str, body: bytes) -> int:
    """Adds mail; returns its number: 1, 2, ... for each peer, none used twice."""
    (number,) = connection.execute(
        "INSERT INTO mailboxes (peer, last) VALUES (?, 1) ON CONFLICT (peer) DO UPDATE SET last = last + 1 "
        "RETURNING last",
        (peer,),
    ).fetchone()
    connection.execute("INSERT INTO mail VALUES (?, ?, ?)", (peer, number, body))
    return int(number)


def catch_up(connection: sqlite3.Connection, peer: str, number: int) -> bool:
    """Makes a peer's mail continue after `number` where the mailbox is behind it; True where it was.

    It is behind where an older copy of the ledger was restored that lacks mail and no leaf (one that lacks leaves is
    found by the heads that agents show): the peer would pass over mail of numbers it has seen.
    """
    row = connection.execute("SELECT last FROM mailboxes WHERE peer = ?", (peer,)).fetchone()
    if number <= (row[0] if row else 0):
        return False
    connection.execute(
        "INSERT INTO mailboxes (peer, last) VALUES (?, ?) ON CONFLICT (peer) DO UPDATE SET last = last + excluded.last",
        (peer, number),
    )
    for (old,) in connection.execute("SELECT number FROM mail WHERE peer = ? ORDER BY number DESC", (peer,)).fetchall():
        connection.execute("UPDATE mail SET number = ? WHERE peer = ? AND number = ?", (old + number, peer, old))
    return True


def after(connection: sqlite3.Connection, peer: str, number: int) -> list[tuple[int, bytes]]:
    """Mail that a peer has not acknowledged and that is newer than `number`, oldest first."""
    return connection.execute(
        "SELECT number, body FROM mail WHERE peer = ? AND number > ? ORDER BY number", (peer, number)
    ).fetchall()


def drop(connection: sqlite3.Connection, peer: str, up_to: int) -> None:
    """Forgets mail that the peer has kept, and remembers that it has."""
    connection.execute("DELETE FROM mail WHERE peer = ? AND number <= ?", (peer, up_to))
    connection.execute(
        "UPDATE mailboxes SET acknowledged = max(acknowledged, min(?, last)) WHERE peer = ?", (up_to, peer)
    )


def acknowledged(connection: sqlite3.Connection, peer: str) -> int:
    """The highest number of mail that the peer ever said it kept; 0 before the first."""
    row = connection.execute("SELECT acknowledged FROM mailboxes WHERE peer = ?", (peer,)).fetchone()
    return int(row[0]) if row else 0
