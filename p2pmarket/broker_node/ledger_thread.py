"""The ledger's own thread: SQLite commits wait for the disk there, never in the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from p2pmarket.ledger.journal import Ledger

T = TypeVar("T")


class LedgerThread:
    """Runs functions on the ledger, one after the other."""

    def __init__(self, ledger: Ledger, executor: ThreadPoolExecutor) -> None:
        """:param executor: of one worker, in which the ledger was opened"""
        self._ledger = ledger
        self._executor = executor

    @classmethod
    async def open(cls, open_ledger: Callable[[], Ledger]) -> LedgerThread:
        """Starts the thread and opens the ledger in it; raises what `open_ledger` raises."""
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        try:
            ledger = await asyncio.get_running_loop().run_in_executor(executor, open_ledger)
        except BaseException:
            executor.shutdown(wait=False)
            raise
        return cls(ledger, executor)

    async def run(self, work: Callable[[Ledger], T]) -> T:
        """The result of `work`; once begun it finishes, even when the caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, self._ledger)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work` on the connection of one transaction."""

        def inside(ledger: Ledger) -> T:
            with ledger.transaction() as connection:
                return work(connection)

        return await self.run(inside)

    async def close(self) -> None:
        """Closes the ledger after what is under way."""
        await self.run(lambda ledger: ledger.close())
        self._executor.shutdown()
