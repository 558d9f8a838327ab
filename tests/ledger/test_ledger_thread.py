"""Many callers of one ledger: they share commits, spend nothing twice, and hear of nothing that is not durable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from ledger_examples import HOUR_MS, MARKET, Bench

from p2pmarket import failpoints
from p2pmarket.broker_node import ledger_thread
from p2pmarket.broker_node.ledger_thread import LedgerThread, _Job
from p2pmarket.errors import DiskFull, MarketError, RuleBroken
from p2pmarket.failpoints import FailPointHit, FailPoints, read_orders
from p2pmarket.ledger.journal import Ledger


class Commits(LedgerThread):
    """A ledger thread that notes its commits, and can be made to wait so that a batch gathers."""

    def __init__(self, bench: Bench) -> None:
        self.commits = 0
        self.begun, self.gate = threading.Event(), threading.Event()
        super().__init__(lambda: self._open_ledger(bench))

    def _open_ledger(self, bench: Bench) -> Ledger:
        ledger = Ledger.open(bench.path, bench.broker, MARKET, bench.clock)
        with ledger.transaction() as connection:
            pass
        connection.execute("PRAGMA synchronous = OFF")
        connection.set_trace_callback(self._note)
        return ledger

    def _note(self, statement: str) -> None:
        self.commits += statement == "COMMIT"

    def _wait_for_gate(self, ledger: Ledger) -> bool:
        self.begun.set()
        return self.gate.wait()

    async def blocked(self) -> asyncio.Future[bool]:
        """Keeps the thread busy, in a batch of its own, until the gate is set."""
        self.begun.clear()
        self.gate.clear()
        blocking = asyncio.ensure_future(self.run(self._wait_for_gate))
        await asyncio.to_thread(self.begun.wait)
        return blocking

    async def together(self, *works: Callable[[Ledger], Any]) -> list[Any]:
        """Runs these in as few batches as there can be; their results, or what they raised."""
        blocking = await self.blocked()
        waiting = [asyncio.ensure_future(self.run(work)) for work in works]
        await asyncio.sleep(0)  # each has put its work into the queue
        self.commits = -1  # without that of what blocks
        self.gate.set()
        await blocking
        return await asyncio.gather(*waiting, return_exceptions=True)


class Hasty(Commits):
    """Control: answers before the commit."""

    def _run_one(self, job: _Job, connection: Any) -> Any:
        outcome = super()._run_one(job, connection)
        job.future.set_result(outcome[0])
        return outcome


@pytest_asyncio.fixture
async def thread(bench: Bench) -> AsyncIterator[Commits]:
    made = Commits(bench)
    await made.open()
    yield made
    await made.close()


def bids(bench: Bench, count: int, amount: int) -> list[bytes]:
    """Signed bids on as many new trades."""
    return [bench.bid(bench.appraised(), amount) for _ in range(count)]


def place(data: bytes) -> Callable[[Ledger], Any]:
    return lambda ledger: ledger.place_bid(data)


def grant(bench: Bench, amount: int = 1) -> Callable[[Ledger], int]:
    message = bench.id()
    return lambda ledger: ledger.grant(bench.buyer.peer_id, amount, "", message)


# ---- one balance -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", list(range(8)))
async def test_64_bids_at_once_never_overspend(bench: Bench, thread: Commits, seed: int) -> None:
    bench.chance.seed(seed)
    bench.ledger.open_account(bench.buyer.peer_id, 100)
    amounts = [bench.chance.randrange(1, 60) for _ in range(64)]
    made = [bench.bid(bench.appraised(), amount) for amount in amounts]
    bench.ledger.close()
    if seed % 2:
        outcomes = await thread.together(*[place(data) for data in made])
    else:
        outcomes = await asyncio.gather(*[thread.run(place(data)) for data in made], return_exceptions=True)
    taken = 0
    for amount, outcome in zip(amounts, outcomes, strict=True):
        if taken + amount <= 100:  # they are taken in the order in which they came
            assert outcome.state == "quoted"
            taken += amount
        else:
            assert isinstance(outcome, RuleBroken) and outcome.code == "insufficient-balance"
    bench.reopen()
    assert bench.ledger.held(bench.buyer.peer_id) == taken <= 100
    assert sum(row.bid_amount for row in bench.ledger.trades(state="quoted")) == taken
    assert bench.ledger.verify().problems == ()


# ---- one commit ------------------------------------------------------------------------------------------------------


async def test_what_waits_shares_a_commit_up_to_a_bound(bench: Bench, thread: Commits) -> None:
    bench.ledger.close()
    most = ledger_thread.MAX_BATCH
    assert await thread.together(*[grant(bench) for _ in range(most)]) == list(range(1, most + 1))
    assert thread.commits == 1
    await thread.together(*[grant(bench) for _ in range(2 * most + 1)])
    assert thread.commits == 3
    assert bench.reopen().balance(bench.buyer.peer_id) == 3 * most + 1
    assert bench.ledger.verify().problems == ()


async def test_an_error_is_its_own_callers_and_undoes_nothing_else(bench: Bench, thread: Commits) -> None:
    bench.ledger.close()
    peer, message = bench.buyer.peer_id, bench.id()

    def broken(ledger: Ledger) -> None:
        ledger.grant(peer, 10, "kept: a transaction of its own", message)
        with ledger.transaction():
            ledger.grant(peer, 100, "undone", bytes(16))
            raise ZeroDivisionError

    def reads(ledger: Ledger) -> tuple[int, int]:
        return ledger.balance(peer), len(ledger.history(peer))

    outcomes = await thread.together(grant(bench), broken, reads, grant(bench, 1000))
    assert outcomes[0] == 1 and isinstance(outcomes[1], ZeroDivisionError)
    assert outcomes[2] == (11, 2), "a reader sees what went before it in the batch"
    assert outcomes[3] == 1011 and thread.commits == 1
    assert bench.reopen().balance(peer) == 1011
    assert bench.ledger.verify().problems == ()


async def test_an_end_that_is_durable_before_its_error_stays(bench: Bench, thread: Commits) -> None:
    bench.fund()
    trade, _ = bench.quoted(10, 10)
    bench.ledger.record_ask(trade, bench.ask(trade, 10, expires_ms=bench.clock() + 9 * HOUR_MS))
    bench.ledger.close()
    bench.clock.ms += HOUR_MS

    def settle(ledger: Ledger) -> object:
        return ledger.settle(trade, 10, 0, fetch_before_ms=bench.clock() + HOUR_MS)

    outcomes = await thread.together(grant(bench), settle, grant(bench))
    assert isinstance(outcomes[1], MarketError) and outcomes[1].code == "expired"
    assert bench.reopen().trade(trade).state == "expired"
    assert bench.ledger.verify().problems == ()


async def test_a_checkpoint_in_a_batch_is_of_what_it_follows(bench: Bench, thread: Commits) -> None:
    bench.ledger.close()

    def look(ledger: Ledger) -> tuple[bytes, tuple[str, ...]]:
        return ledger.checkpoint(), ledger.verify().problems

    outcomes = await thread.together(grant(bench), look, grant(bench), look)
    assert outcomes[1][0] != outcomes[3][0] == bench.reopen().checkpoint()
    assert outcomes[1][1] == outcomes[3][1] == ()


async def test_who_goes_away_before_its_turn_is_not_run(bench: Bench, thread: Commits) -> None:
    bench.ledger.close()
    blocking = await thread.blocked()
    leaves, stays = [asyncio.ensure_future(thread.run(grant(bench, amount))) for amount in (1, 10)]
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.sleep(0)
    thread.gate.set()
    assert await stays == 10 and await blocking
    with pytest.raises(asyncio.CancelledError):
        await leaves


async def test_closing_waits_for_what_was_asked(bench: Bench, thread: Commits) -> None:
    bench.ledger.close()
    blocking = await thread.blocked()
    asked = [asyncio.ensure_future(thread.run(grant(bench))) for _ in range(5)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(thread.close())
    await asyncio.sleep(0)
    thread.gate.set()
    await closing
    assert await blocking and [await each for each in asked] == [1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError, match="not open"):
        await thread.run(grant(bench))


# ---- commits that fail -----------------------------------------------------------------------------------------------


async def fail_a_commit(bench: Bench, thread: Commits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose commit fails: everybody hears of it, and nothing is there."""
    bench.ledger.close()
    first = grant(bench)
    assert await thread.run(first) == 1
    monkeypatch.setattr(failpoints, "POINTS", FailPoints(read_orders("ledger.grant.before:1:error")))
    outcomes = await thread.together(grant(bench), lambda ledger: ledger.balance(bench.buyer.peer_id), grant(bench))
    assert all(isinstance(outcome, FailPointHit) for outcome in outcomes), "nobody may be told a result"
    assert await thread.run(lambda ledger: ledger.balance(bench.buyer.peer_id)) == 1
    assert await thread.run(grant(bench)) == 2, "and it goes on"
    assert bench.reopen().verify().problems == ()


async def test_a_commit_that_fails_fails_all_of_the_batch(
    bench: Bench, thread: Commits, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fail_a_commit(bench, thread, monkeypatch)


async def test_answers_before_the_commit_would_be_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a thread that hands results back before they are durable does not pass the test above."""
    hasty = Hasty(bench)
    await hasty.open()
    with pytest.raises(AssertionError, match="nobody may be told a result"):
        await fail_a_commit(bench, hasty, monkeypatch)
    await hasty.close()


async def test_a_full_disk_in_the_middle_fails_all_of_the_batch(bench: Bench, thread: Commits) -> None:
    """What SQLite undoes, it undoes for everybody; a job that hides the error and goes on writes nothing either."""
    bench.ledger.close()
    peer = bench.buyer.peer_id
    assert await thread.run(grant(bench)) == 1

    def fill(ledger: Ledger) -> None:
        with ledger.transaction() as connection:
            connection.execute("CREATE TABLE filler (data BLOB)")
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            connection.execute("PRAGMA cache_size = 1")
            connection.execute("INSERT INTO filler VALUES (zeroblob(1000000))")

    def make_room(ledger: Ledger) -> None:
        with ledger.transaction() as connection:
            connection.execute("PRAGMA max_page_count = 100000")

    def lose(ledger: Ledger) -> None:
        """As fails a disk that takes the transaction with it, said or not."""
        with ledger.transaction() as connection:
            pass
        connection.execute("ROLLBACK")

    def lose_and_say(ledger: Ledger) -> None:
        lose(ledger)
        raise DiskFull("the disk failed")

    def hide(ledger: Ledger) -> str:
        try:
            lose_and_say(ledger)
        except DiskFull:
            ledger.grant(peer, 1000, "", bytes(16))
        return "all is well"

    outcomes = await thread.together(grant(bench), fill, grant(bench))
    assert all(isinstance(outcome, DiskFull) for outcome in outcomes), "it took the whole transaction with it"
    await thread.run(make_room)
    assert await thread.run(lambda ledger: ledger.balance(peer)) == 1

    for failing in (lose, lose_and_say, hide):
        outcomes = await thread.together(grant(bench), failing, grant(bench))
        assert all(isinstance(outcome, DiskFull) for outcome in outcomes), failing.__name__
        assert await thread.run(lambda ledger: ledger.balance(peer)) == 1
    assert bench.reopen().verify().problems == ()
