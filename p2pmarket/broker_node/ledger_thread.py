"""The ledger in its own thread: SQLite commits wait for the disk there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from p2pmarket.ledger.journal import Ledger
from p2pmarket.threads import OwnThread

T = TypeVar("T")


class LedgerThread(OwnThread[Ledger]):
    """Runs functions on the ledger, one after the other."""

    def __init__(self, make: Callable[[], Ledger]) -> None:
        super().__init__("ledger", make)

    async def inside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work` on the connection of one transaction."""

        def run(ledger: Ledger) -> T:
            with ledger.transaction() as connection:
                return work(connection)

        return await self.run(run)
