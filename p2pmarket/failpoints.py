"""Named places at which a test makes a process die, fail or wait; in service they do nothing.

Knows: the names, and what P2PMARKET_FAILPOINTS asks for, `name:nth:kill|error|delay`, several with commas between
them: at the nth time that the place is reached; a delay lasts DELAY_SECONDS. Refuses to know: what the places mean.
An order that cannot be read ends the process with a SettingsError: a test that tests nothing must not pass.

A name is `file.work.moment` for a transaction (`ledger.settle.before`, `ledger.settle.after`: its commit), with
`commit` for work that has no name, and `send.message.moment` for a message (`send.deal.before`). An error before a
commit undoes it, after it only the answer is lost; an error at a message is a broken stream. `follow` hears of every
place that is reached. docs/settlement.md lists the places that a round of trade reaches.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

from p2pmarket.errors import MachineFault, SettingsError

VARIABLE = "P2PMARKET_FAILPOINTS"
DELAY_SECONDS = 0.5
DEEDS = ("kill", "error", "delay")


class FailPointHit(MachineFault):
    """What a fail point raises that was told to."""

    code = "fail-point"


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to happen where, and at which visit, counted from 1."""

    name: str
    nth: int
    deed: str


def read_orders(text: str) -> tuple[Order, ...]:
    """The orders in the variable's text.

    :raises SettingsError: one of them cannot be read
    """
    orders = []
    for word in filter(None, text.split(",")):
        name, _, rest = word.partition(":")
        nth, _, deed = rest.partition(":")
        if not name or not nth.isdecimal() or int(nth) < 1 or deed not in DEEDS:
            raise SettingsError(
                f"{VARIABLE} holds {word!r}; write name:nth:{'|'.join(DEEDS)}, such as send.deal.before:1:kill"
            )
        orders.append(Order(name, int(nth), deed))
    return tuple(orders)


class FailPoints:
    """The orders of one process and how often each place was reached. Places are reached from several threads."""

    def __init__(self, orders: tuple[Order, ...]) -> None:
        self.orders = orders
        self.follow: Callable[[str], None] | None = None
        """Called with the name of every place that is reached; None outside of tests."""
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        """A place is reached.

        :raises FailPointHit: an order says so
        """
        if self.follow is not None:
            self.follow(name)
        if not self.orders:
            return
        with self._lock:
            self._counts[name] += 1
            visit = self._counts[name]
        for order in self.orders:
            if order.name == name and order.nth == visit:
                _do(order)


def _do(order: Order) -> None:
    if order.deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if order.deed == "error":
        raise FailPointHit(f"fail point {order.name} was told to fail at visit {order.nth}; unset {VARIABLE}")
    time.sleep(DELAY_SECONDS)


POINTS = FailPoints(read_orders(os.environ.get(VARIABLE, "")))
"""Those of this process."""


def watched() -> bool:
    """Whether anybody wants to know that places are reached; where a name costs something, ask this first."""
    return POINTS.follow is not None or bool(POINTS.orders)


def reach(name: str) -> None:
    """A place of this process is reached.

    :raises FailPointHit: an order says so
    """
    if watched():
        POINTS.reach(name)
