"""Finding brokers where the table is full of strangers' records, and where it is empty."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3

import pytest
from peers import QUARTER_HOUR_MS, identity_of, statement_of

from p2pmarket.crypto.signing import sign
from p2pmarket.errors import BadSignature, Expired, MarketNotFound, PeerFault
from p2pmarket.messages import BalanceRequest, KeyStatement
from p2pmarket.network.announcement import BROKER_KEYS, broker_key, check_announcement
from p2pmarket.network.directory import (
    MAX_BOOK_BROKERS,
    PeerBook,
    announce,
    announce_once,
    find_brokers,
    list_markets,
    note_welcome,
)
from p2pmarket.network.memory import MemoryNetwork
from p2pmarket.threads import OwnThread
from p2pmarket.units import now_ms

KEY = broker_key("digits")
BROKER, AGENT = identity_of("broker"), identity_of("agent")


@pytest.fixture
def book(tmp_path):
    with PeerBook(tmp_path / "book.sqlite") as book:
        yield book


@pytest.fixture
async def shelf(tmp_path):
    """A peer book in a thread of its own."""
    async with opened(tmp_path / "book.sqlite") as shelf:
        yield shelf


@contextlib.asynccontextmanager
async def opened(path):
    shelf = OwnThread("peer-book", lambda: PeerBook(path))
    await shelf.open()
    yield shelf
    await shelf.close()


@pytest.fixture
def agent(memory_network):
    return memory_network.join(AGENT.peer_id)


def plant(network: MemoryNetwork, owner: str, value: bytes, key: str = KEY) -> None:
    network.plant(key, identity_of(owner).peer_id, value, now_ms() + QUARTER_HOUR_MS)


async def test_brokers_are_found_newest_first(memory_network, agent, shelf):
    now = now_ms()
    for age, name in enumerate(("newest", "middle", "oldest")):
        broker = memory_network.join(identity_of(name).peer_id)
        assert await announce_once(broker, statement_of(identity_of(name), issued_ms=now - age * 1000))
    found = await find_brokers(agent, "digits", shelf)
    assert [statement.broker for statement in found] == [
        identity_of(name).peer_id for name in ("newest", "middle", "oldest")
    ]


async def test_hostile_records_are_ignored(memory_network, agent, shelf):
    now = now_ms()
    plant(memory_network, "squatter", statement_of(BROKER))
    plant(memory_network, "liar", statement_of(identity_of("liar"), broker=BROKER.peer_id))
    plant(memory_network, "late", statement_of(identity_of("late"), issued_ms=now - QUARTER_HOUR_MS))
    plant(memory_network, "early", statement_of(identity_of("early"), issued_ms=now + 10_000))
    plant(memory_network, "eternal", statement_of(identity_of("eternal"), lives_ms=10**9))
    plant(memory_network, "huge", statement_of(identity_of("huge"), addresses=("é" * 160,) * 4))
    plant(memory_network, "other", sign(identity_of("other"), BalanceRequest(bytes(16))))
    plant(memory_network, "noise", b"\xff" * 100)
    plant(memory_network, "empty", b"")
    forged = bytearray(statement_of(identity_of("forger")))
    forged[-20] ^= 1
    plant(memory_network, "forger", bytes(forged))
    memory_network.plant(KEY, "not a peer id", statement_of(BROKER), now + QUARTER_HOUR_MS)
    elsewhere = next(key for key in BROKER_KEYS if key != KEY)
    plant(memory_network, "lost", statement_of(identity_of("lost")), key=elsewhere)
    with pytest.raises(MarketNotFound):
        await find_brokers(agent, "digits", shelf)
    assert await list_markets(agent) == {}
    plant(memory_network, "broker", statement_of(BROKER))
    assert [statement.broker for statement in await find_brokers(agent, "digits", shelf)] == [BROKER.peer_id]
    assert list(await list_markets(agent)) == ["digits"]


async def test_markets_that_share_a_key_are_told_apart(memory_network, agent, shelf):
    sharing = next(name for name in (f"market-{number}" for number in range(1000)) if broker_key(name) == KEY)
    plant(memory_network, "broker", statement_of(BROKER))
    plant(memory_network, "other", statement_of(identity_of("other"), sharing))
    assert [statement.broker for statement in await find_brokers(agent, "digits", shelf)] == [BROKER.peer_id]
    assert set(await list_markets(agent)) == {"digits", sharing}
    assert len({broker_key(f"market-{number}") for number in range(1000)}) == len(BROKER_KEYS)


async def test_a_market_that_nobody_announces_is_named_with_those_that_were_seen(memory_network, agent, shelf):
    with pytest.raises(MarketNotFound, match="no broker announces market digitz .no market was seen at all"):
        await find_brokers(agent, "digitz", shelf)
    plant(memory_network, "broker", statement_of(BROKER))
    with pytest.raises(MarketNotFound, match="market digitz .seen: digits.; check its name"):
        await find_brokers(agent, "digitz", shelf)


async def test_only_the_pinned_broker_is_found(memory_network, agent, shelf):
    for name in ("broker", "sybil-1", "sybil-2"):
        plant(memory_network, name, statement_of(identity_of(name)))
    found = await find_brokers(agent, "digits", shelf, broker=BROKER.peer_id)
    assert [statement.broker for statement in found] == [BROKER.peer_id]
    absent = identity_of("absent").peer_id
    with pytest.raises(MarketNotFound, match=f"broker {absent} does not announce market digits .3 others"):
        await find_brokers(agent, "digits", shelf, broker=absent)


async def test_a_broker_that_the_table_does_not_show_is_found_in_the_book(memory_network, agent, tmp_path):
    path = tmp_path / "book.sqlite"
    plant(memory_network, "broker", statement_of(BROKER, addresses=("/ip4/127.0.0.1/tcp/1",)))
    async with opened(path) as shelf:
        await find_brokers(agent, "digits", shelf)
    empty = MemoryNetwork()
    alone = empty.join(AGENT.peer_id)
    async with opened(path) as shelf:
        found = await find_brokers(alone, "digits", shelf)
        assert [statement.addresses for statement in found] == [("/ip4/127.0.0.1/tcp/1",)]
        plant(empty, "sybil", statement_of(identity_of("sybil")))
        found = await find_brokers(alone, "digits", shelf)
        assert [statement.broker for statement in found] == [identity_of("sybil").peer_id, BROKER.peer_id]
    async with opened(tmp_path / "new.sqlite") as shelf:
        found = await find_brokers(alone, "digits", shelf, broker=None)
        assert [statement.broker for statement in found] == [identity_of("sybil").peer_id]


def test_strangers_do_not_push_brokers_that_were_of_use_out_of_the_book(book):
    book.remember([statement_of(BROKER)], seen_ms=1)
    book.used("digits", BROKER.peer_id, 2)
    unused = identity_of("unused")
    book.remember([statement_of(unused)], seen_ms=1)
    sybils = [identity_of(f"sybil-{number}") for number in range(MAX_BOOK_BROKERS + 10)]
    book.remember([statement_of(sybil) for sybil in sybils], seen_ms=3)
    kept = [statement.broker for statement in book.brokers("digits")]
    assert len(kept) == MAX_BOOK_BROKERS
    assert kept[0] == BROKER.peer_id
    assert unused.peer_id not in kept


def test_an_older_statement_does_not_replace_a_newer_one_in_the_book(book):
    now = now_ms()
    book.remember([statement_of(BROKER, issued_ms=now)], seen_ms=now)
    book.remember([statement_of(BROKER, issued_ms=now - 5000)], seen_ms=now + 1)
    assert [statement.issued_ms for statement in book.brokers("digits")] == [now]
    book.remember([statement_of(BROKER, issued_ms=now + 5000)], seen_ms=now + 2)
    assert [statement.issued_ms for statement in book.brokers("digits")] == [now + 5000]


def test_an_epoch_of_keys_never_goes_back(tmp_path):
    with PeerBook(tmp_path / "book.sqlite") as book:
        assert book.admit_epoch("peer", 5)
        assert book.admit_epoch("peer", 5)
        assert not book.admit_epoch("peer", 4)
        assert book.admit_epoch("other", 1)
    with PeerBook(tmp_path / "book.sqlite") as book:
        assert not book.admit_epoch("peer", 4)
        assert book.admit_epoch("peer", 6)


@pytest.mark.parametrize("content", [b"not a database at all, only text " * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_book_that_cannot_be_read_is_moved_aside(tmp_path, caplog, content):
    path = tmp_path / "book.sqlite"
    path.write_bytes(content)
    with PeerBook(path) as book:
        book.remember([statement_of(BROKER)], seen_ms=1)
        assert len(book.brokers("digits")) == 1
    assert (tmp_path / "book.sqlite.unreadable").read_bytes() == content
    assert "cannot be read" in caplog.text


def test_a_book_of_another_version_is_moved_aside(tmp_path):
    path = tmp_path / "book.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE brokers (something TEXT)")
    other.close()
    with PeerBook(path) as book:
        assert book.brokers("digits") == []


async def test_announcing_repeats_by_the_clock_and_at_once_when_asked(memory_network):
    broker = memory_network.join(BROKER.peer_id)
    again, announced = asyncio.Event(), asyncio.Queue()

    def sign_statement() -> bytes:
        announced.put_nowait(None)
        return statement_of(BROKER)

    task = asyncio.create_task(announce(broker, sign_statement, again=again, every_seconds=3600))
    await announced.get()
    assert list(await broker.lookup(KEY)) == [BROKER.peer_id]
    for _ in range(3):
        again.set()
        await announced.get()
    task.cancel()
    often = asyncio.create_task(announce(broker, sign_statement, every_seconds=0.001, fraction=lambda: 0.5))
    for _ in range(3):
        await announced.get()
    often.cancel()
    await asyncio.gather(task, often, return_exceptions=True)


async def test_a_statement_that_breaks_the_rule_is_not_announced(memory_network):
    broker = memory_network.join(BROKER.peer_id)
    with pytest.raises(BadSignature):
        await announce(broker, lambda: statement_of(AGENT))
    with pytest.raises(PeerFault):
        await announce_once(broker, statement_of(BROKER, lives_ms=10**9))


def test_a_record_never_outlives_its_statement():
    now = now_ms()
    data = statement_of(BROKER, issued_ms=now)
    assert check_announcement(KEY, BROKER.peer_id, data, now + QUARTER_HOUR_MS, now).market == "digits"
    for expires_ms in (now + QUARTER_HOUR_MS + 2, float(10**15)):
        with pytest.raises(Expired):
            check_announcement(KEY, BROKER.peer_id, data, expires_ms, now)
    for expires_ms in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(PeerFault):
            check_announcement(KEY, BROKER.peer_id, data, expires_ms, now)


async def test_a_broker_that_shows_older_keys_than_before_is_refused(shelf, tmp_path) -> None:
    def keys(epoch: int) -> KeyStatement:
        return KeyStatement(BROKER.peer_id, epoch, bytes(32), b"", 0, QUARTER_HOUR_MS)

    await note_welcome(shelf, "digits", keys(5))
    await note_welcome(shelf, "digits", keys(6))
    with pytest.raises(Expired, match="older encryption keys"):
        await note_welcome(shelf, "digits", keys(5))


class FullDiskBook(PeerBook):
    """On a disk without room for another page."""

    def __init__(self, path):
        super().__init__(path)
        (pages,) = self._database.execute("PRAGMA page_count").fetchone()
        self._database.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_full_disk_costs_the_books_news_and_no_session(memory_network, agent, tmp_path, caplog):
    path = tmp_path / "book.sqlite"
    with PeerBook(path) as book:
        book.remember([statement_of(BROKER)], seen_ms=1)
        assert book.admit_epoch(BROKER.peer_id, 5)
    plant(memory_network, "broker", statement_of(BROKER))
    for number in range(40):
        plant(memory_network, f"other-{number}", statement_of(identity_of(f"other-{number}")))
    shelf = OwnThread("peer-book", lambda: FullDiskBook(path))
    await shelf.open()
    with caplog.at_level(logging.WARNING):
        assert len(await find_brokers(agent, "digits", shelf)) == 41
        assert len(await find_brokers(agent, "digits", shelf)) == 41
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cannot be written (database or disk is full)" in caplog.text
    await shelf.close()
    with PeerBook(path) as book:
        assert [statement.broker for statement in book.brokers("digits")] == [BROKER.peer_id]


def test_a_book_that_cannot_be_written_still_tells_older_keys(tmp_path):
    with PeerBook(tmp_path / "book.sqlite") as book:
        assert book.admit_epoch("peer", 5)
        book._database.execute("PRAGMA query_only = ON")
        book.used("digits", BROKER.peer_id, 2)
        assert not book.admit_epoch("peer", 4)
        assert book.admit_epoch("peer", 6)
        assert book.admit_epoch("new", 1)


def test_a_book_whose_tables_are_gone_is_an_empty_one(book):
    book._database.executescript("DROP TABLE brokers; DROP TABLE key_epochs")
    assert book.brokers("digits") == []
    assert book.admit_epoch("peer", 1)


def test_where_no_book_can_be_kept_one_in_memory_serves(tmp_path, caplog):
    with PeerBook(tmp_path / "no such folder" / "book.sqlite") as book:
        book.remember([statement_of(BROKER)], seen_ms=1)
        assert len(book.brokers("digits")) == 1
    assert "no peer book can be kept" in caplog.text
