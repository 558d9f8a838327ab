"""A simulated broker's ledger: whoever makes the run hears when its disk is full.

Knows: which error it is. Refuses to know: what follows from it. A broker on the internet tells its agents only that it
cannot do something now, and they come again; a simulated one's failed visits would be taken for the market's doing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.errors import DiskFull
from p2pmarket.ledger.journal import Ledger

P = ParamSpec("P")
T = TypeVar("T")


class ToldLedger(LedgerThread):
    """As any other, and it tells."""

    def __init__(self, make: Callable[[], Ledger], tell: Callable[[DiskFull], None]) -> None:
        super().__init__(make)
        self._tell = tell

    async def run(self, work: Callable[Concatenate[Ledger, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `LedgerThread.run`.

        :raises DiskFull: after it was told
        """
        try:
            return await super().run(work, *args, **kwargs)
        except DiskFull as error:
            self._tell(error)
            raise
