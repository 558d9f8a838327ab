"""Finding brokers: announce one's own statement, look up others', remember who was found.

Knows: the table's keys and the peer book, a SQLite file. Refuses to know: which transport keeps the table, and what a
broker's market is about. What the table says is a hint: every statement is verified here, and a broker that the table
does not show may still be in the book. Fails with `MarketNotFound`, which names the markets that were seen. The book is
only a cache: one that cannot be read is moved aside, and a full disk costs its news, not a session.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from p2pmarket import limits
from p2pmarket.crypto.signing import check_fresh, signer_of, verify
from p2pmarket.errors import Expired, MarketNotFound, PeerFault
from p2pmarket.messages import BrokerStatement, KeyStatement
from p2pmarket.network.announcement import BROKER_KEYS, broker_key, check_announcement
from p2pmarket.network.transport import Transport
from p2pmarket.tasks import happens
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock, now_ms

logger = logging.getLogger(__name__)

MAX_BOOK_BROKERS = 1024
_RETRY_SECONDS = 15.0


async def announce(
    transport: Transport,
    sign_statement: Callable[[], bytes],
    *,
    again: asyncio.Event | None = None,
    every_seconds: float = limits.ANNOUNCE_EVERY_SECONDS,
    fraction: Callable[[], float] = random.random,
) -> None:
    """Announces until it is cancelled: at once, then every `every_seconds` (a tenth more or less, so that brokers that
    started together spread out), soon again where nobody stored it, and whenever `again` is set.

    :param sign_statement: makes a signed BrokerStatement that expires ANNOUNCE_EXPIRY_SECONDS from now
    :param again: `Libp2pTransport.restarted`; cleared here
    :raises PeerFault: the statement breaks the rule of `announcement`
    """
    again = again or asyncio.Event()
    while True:
        again.clear()
        stored = await announce_once(transport, sign_statement())
        pause = every_seconds * (0.9 + 0.2 * fraction())
        if not stored:
            logger.warning("no peer stored this broker's announcement; trying again")
            pause = min(pause, _RETRY_SECONDS)
        await happens(again, pause)


async def announce_once(transport: Transport, statement: bytes, *, clock: Clock = now_ms) -> bool:
    """Publishes a signed statement of this peer; True where it was stored.

    :raises PeerFault: the statement breaks the rule of `announcement`
    """
    ours = verify(statement, BrokerStatement, signer=transport.peer_id)
    key = broker_key(ours.market)
    check_announcement(key, transport.peer_id, statement, ours.expires_ms, clock())
    return await transport.publish(key, statement, ours.expires_ms)


async def find_brokers(
    transport: Transport, market: str, book: OwnThread[PeerBook], *, clock: Clock = now_ms, broker: str | None = None
) -> list[BrokerStatement]:
    """Brokers of a market: those that announce it now, newest first, then those of the book that do not.

    A flood of announcements by strangers can hide a broker in the table, but not in the book. Statements from the book
    may have run out; their addresses are where to try.

    :param book: in a thread of its own, as it waits for the disk
    :param broker: only this one (a pinned peer id)
    :raises MarketNotFound: none
    """
    announced = await _announced(transport, broker_key(market), clock())
    ours = {signer_of(data): data for data, statement in announced if statement.market == market}
    await book.run(PeerBook.remember, tuple(ours.values()), clock())
    found = [statement for _, statement in announced if statement.market == market]
    found += [statement for statement in await book.run(PeerBook.brokers, market) if statement.broker not in ours]
    found = [statement for statement in found if broker in (None, statement.broker)]
    if not found:
        raise await _not_found(transport, market, broker, clock)
    return found


async def note_welcome(book: OwnThread[PeerBook], market: str, keys: KeyStatement, *, clock: Clock = now_ms) -> None:
    """Notes that a broker was of use: the book keeps it and names it first.

    :raises Expired: its encryption keys are older than ones it showed before
    """
    if not await book.run(PeerBook.admit_epoch, keys.peer, keys.epoch):
        raise Expired(
            f"the broker {keys.peer} shows older encryption keys than before; its operator must restore the newer ones,"
            " or remove the old ones from its state folder so that new ones are made"
        )
    await book.run(PeerBook.used, market, keys.peer, clock())


async def list_markets(transport: Transport, *, clock: Clock = now_ms) -> dict[str, list[BrokerStatement]]:
    """Every market that is announced now, by name; its brokers newest first."""
    now = clock()
    markets: dict[str, list[BrokerStatement]] = {}
    for announced in await asyncio.gather(*(_announced(transport, key, now) for key in BROKER_KEYS)):
        for _, statement in announced:
            markets.setdefault(statement.market, []).append(statement)
    return dict(sorted(markets.items()))


async def _announced(transport: Transport, key: str, now: int) -> list[tuple[bytes, BrokerStatement]]:
    """The fresh, verified statements under a key with their bytes, newest first."""
    kept = []
    for peer_id, value in (await transport.lookup(key)).items():
        try:
            statement = check_announcement(key, peer_id, value, 0, now)
            check_fresh(statement.issued_ms, statement.expires_ms, now, what="announcement")
        except PeerFault as error:
            logger.debug("ignored an announcement: %s", error)
        else:
            kept.append((value, statement))
    return sorted(kept, key=lambda entry: entry[1].issued_ms, reverse=True)


async def _not_found(transport: Transport, market: str, broker: str | None, clock: Clock) -> MarketNotFound:
    markets = await list_markets(transport, clock=clock)
    seen = f"seen: {', '.join(markets)}" if markets else "no market was seen at all"
    if broker is not None and market in markets:
        return MarketNotFound(
            f"broker {broker} does not announce market {market} ({len(markets[market])} others do);"
            " check the pinned peer id, or wait until that broker runs"
        )
    return MarketNotFound(
        f"no broker announces market {market} ({seen}); check its name and the initial peers, or start a broker"
    )


class PeerBook:
    """Brokers and key epochs this peer has seen, in a SQLite file. Use it in a `with`.

    No call fails because of the disk: what cannot be kept is forgotten, what cannot be read is not there.
    """

    def __init__(self, path: Path) -> None:
        self._warned = False
        try:
            self._database = _open_book(path)
        except sqlite3.DatabaseError as error:
            self._database = _begin_again(path, error)

    def __enter__(self) -> PeerBook:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """May be called twice."""
        self._database.close()

    def remember(self, statements: Iterable[bytes], seen_ms: int) -> None:
        """Keeps signed BrokerStatements that were verified; an older one never replaces a newer."""
        rows = []
        for data in statements:
            statement = verify(data, BrokerStatement, signer=None)
            rows.append((statement.market, statement.broker, data, statement.issued_ms, seen_ms))
        with self._written():
            self._database.executemany(
                "INSERT INTO brokers (market, peer, statement, issued_ms, seen_ms) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (market, peer) DO UPDATE SET statement = excluded.statement,"
                " issued_ms = excluded.issued_ms, seen_ms = excluded.seen_ms"
                " WHERE excluded.issued_ms >= brokers.issued_ms",
                rows,
            )
            # Strangers may announce any number of brokers; those that were of use are not pushed out by them.
            self._database.execute(
                "DELETE FROM brokers WHERE used_ms = 0 AND rowid NOT IN"
                " (SELECT rowid FROM brokers ORDER BY used_ms = 0, seen_ms DESC LIMIT ?)",
                (MAX_BOOK_BROKERS,),
            )

    def used(self, market: str, peer_id: str, now: int) -> None:
        """A session with this broker worked; it is kept and comes first from now on."""
        with self._written():
            self._database.execute(
                "UPDATE brokers SET used_ms = ? WHERE market = ? AND peer = ?", (now, market, peer_id)
            )

    def brokers(self, market: str) -> list[BrokerStatement]:
        """Known brokers of a market: last used first, then last seen. Their statements may have run out."""
        rows = self._read(
            "SELECT peer, statement FROM brokers WHERE market = ? ORDER BY used_ms DESC, seen_ms DESC", (market,)
        )
        return [verify(data, BrokerStatement, signer=peer) for peer, data in rows]

    def admit_epoch(self, peer_id: str, epoch: int) -> bool:
        """Whether this epoch of a peer's encryption keys is no older than the highest seen; then it is the highest."""
        highest = self._read("SELECT epoch FROM key_epochs WHERE peer = ?", (peer_id,))
        if highest and epoch < highest[0][0]:
            return False
        with self._written():
            self._database.execute(
                "INSERT INTO key_epochs (peer, epoch) VALUES (?, ?) ON CONFLICT (peer)"
                " DO UPDATE SET epoch = excluded.epoch WHERE excluded.epoch > key_epochs.epoch",
                (peer_id, epoch),
            )
        return True

    def _read(self, question: str, values: Sequence[object]) -> list[Any]:
        try:
            return self._database.execute(question, values).fetchall()
        except sqlite3.Error as error:
            self._warn(f"cannot be read ({error}); going on as if it were empty")
            return []

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """What is done inside is kept whole, or not at all, with a warning."""
        try:
            with self._database:
                yield
        except sqlite3.Error as error:
            self._warn(f"cannot be written ({error}); going on without what is new, free space on its disk")

    def _warn(self, what: str) -> None:
        # Once: what ails a disk ails every call.
        logger.log(logging.DEBUG if self._warned else logging.WARNING, "the peer book %s", what)
        self._warned = True


def _begin_again(path: Path, error: sqlite3.DatabaseError) -> sqlite3.Connection:
    """A new book in the place of one that cannot be opened; only in memory where there is no place."""
    aside = path.with_name(path.name + ".unreadable")
    try:
        path.replace(aside)
        logger.warning("the peer book %s cannot be read (%s); moved to %s, a new one begins", path, error, aside)
        return _open_book(path)
    except (OSError, sqlite3.DatabaseError) as reason:
        logger.warning("no peer book can be kept at %s (%s); going on without, free space on its disk", path, reason)
        return _open_book(Path(":memory:"))


def _open_book(path: Path) -> sqlite3.Connection:
    """:raises sqlite3.DatabaseError: the file is something else, or damaged"""
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA journal_mode = TRUNCATE")
        database.executescript(
            "CREATE TABLE IF NOT EXISTS brokers (market TEXT, peer TEXT, statement BLOB NOT NULL,"
            " issued_ms INTEGER NOT NULL, seen_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL DEFAULT 0,"
            " PRIMARY KEY (market, peer));"
            "CREATE TABLE IF NOT EXISTS key_epochs (peer TEXT PRIMARY KEY, epoch INTEGER NOT NULL);"
        )
        database.execute("SELECT market, peer, statement, issued_ms, seen_ms, used_ms FROM brokers LIMIT 1")
        if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("the file is damaged")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database
