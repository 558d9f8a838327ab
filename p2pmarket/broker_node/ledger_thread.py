"""The ledger in its own thread: commits wait for the disk there, and what waits meanwhile shares the next one.

Knows: which functions wait for the ledger, and that no result leaves before the commit that makes it durable. Refuses
to know: what they do. What one of them raises is its caller's alone, with whatever it undid itself; where the commit
fails, or the disk undid everything midway, nothing of the whole batch was written and each caller gets that error.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from p2pmarket.errors import MarketError
from p2pmarket.ledger.journal import Ledger
from p2pmarket.threads import OwnThread

P = ParamSpec("P")
T = TypeVar("T")

MAX_BATCH = 64
"""Functions that share a commit: bounds how long the first of them waits for the others, to some 0.1 s."""


class _Job(NamedTuple):
    """A function that waits for the ledger, and who waits for it."""

    call: Callable[[], Any]
    future: Future[Any]


class LedgerThread(OwnThread[Ledger]):
    """Runs functions on the ledger, one after the other; those that wait at the same time commit together.

    Each is run inside one transaction around all of the batch: its own `transaction()`s are nested in that, and what
    raises inside of one is undone alone, as ever. What is no Exception is the end of this process: nobody is answered.
    """

    def __init__(self, make: Callable[[], Ledger]) -> None:
        super().__init__("ledger", make)
        self._waiting: deque[_Job] = deque()
        self._stopped: MarketError | None = None

    def stop(self, error: MarketError) -> None:
        """Nothing is run on this ledger any more: everybody who asks gets `error`. May be called in any thread."""
        self._stopped = error

    async def run(self, work: Callable[Concatenate[Ledger, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work(ledger, ...)`, durable; once begun it finishes, even when the caller is cancelled."""
        if self._resource is None:
            raise RuntimeError("the ledger is not open")
        if self._stopped is not None:
            raise _again(self._stopped)
        job = _Job(functools.partial(work, self._resource, *args, **kwargs), Future())
        self._waiting.append(job)
        self._executor.submit(self._run_batch, self._resource)
        result: T = await asyncio.wrap_future(job.future)
        return result

    async def inside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work` on the connection of one transaction."""

        def run(ledger: Ledger) -> T:
            with ledger.transaction() as connection:
                return work(connection)

        return await self.run(run)

    def _run_batch(self, ledger: Ledger) -> None:
        """Runs what waits and hands the results back. It is called once for each job and finds nothing, mostly."""
        batch = self._take()
        if not batch:
            return
        try:
            with ledger.transaction() as connection:
                outcomes = [self._run_one(job, connection) for job in batch]
        except Exception as fault:
            for job in batch:
                job.future.set_exception(fault)
            return
        for job, (result, error) in zip(batch, outcomes, strict=True):
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)

    def _take(self) -> list[_Job]:
        batch: list[_Job] = []
        while self._waiting and len(batch) < MAX_BATCH:
            job = self._waiting.popleft()
            if job.future.set_running_or_notify_cancel():
                batch.append(job)
        return batch

    def _run_one(self, job: _Job, connection: sqlite3.Connection) -> tuple[Any, Exception | None]:
        """What a job returns, or what it raises.

        :raises Exception: what it raises, where the disk took the whole transaction with it
        """
        if self._stopped is not None:
            return None, _again(self._stopped)
        try:
            return job.call(), None
        except Exception as error:
            if not connection.in_transaction:
                raise
            return None, error


def _again(error: MarketError) -> MarketError:
    """The same error for another caller: one object would gather everybody's tracebacks."""
    return type(error)(str(error), code=error.code)
