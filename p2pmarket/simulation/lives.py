"""The life of one party's process inside a simulation, and its end without notice.

Knows: which tasks belong to a process, because a task's context says so and tasks that it starts inherit it. Refuses to
know: what the process is. At its end (`Life.end`) the process's tasks are unwound, and nothing that they do on the way
has an effect: work for threads is refused (`Gone`), the network has let go of it (`on_end`). Work that an end cuts
short raises `Gone`, so that an open transaction rolls back, as a journal does after a kill.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CURRENT: contextvars.ContextVar[Life | None] = contextvars.ContextVar("p2pmarket-life", default=None)
"""The process that the running code belongs to; None: the simulation itself."""

_MOST_ROUNDS = 1000

Watch = Callable[["Life", str], None]
"""Told each step of a life and what it is; may end the life."""


class Gone(BaseException):
    """The process that this code ran in has ended; no code of the process may catch it."""


class Ended(Exception):
    """The process ended before it had done what the simulation waits for."""


class Life:
    """One process of one party, from its start to its end."""

    def __init__(self, name: str, watch: Watch = lambda life, what: None) -> None:
        """:param watch: told of each step: "work" begins, is "done" (durable), "write" to a stream, fail points"""
        self.name = name
        self.ended = False
        self.steps = 0
        self.on_end: list[Callable[[], None]] = []
        """Called at the end, before anything else of the simulation runs."""
        self._watch = watch
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._buried = asyncio.Event()
        self._outside = contextvars.copy_context()

    def own(self, task: asyncio.Task[Any]) -> None:
        """A task of this process."""
        self._tasks[task] = None
        task.add_done_callback(self._forget, context=self._outside)

    async def within(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, done in this process.

        :raises Ended: the process ended before it
        """
        if self.ended:
            work.close()
            raise Ended(f"{self.name} has ended")
        context = contextvars.copy_context()
        context.run(CURRENT.set, self)
        task = context.run(asyncio.ensure_future, work)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
        if self.ended:
            raise Ended(f"{self.name} has ended")
        return task.result()

    def step(self, what: str) -> None:
        """The process is about to do something that others may see.

        :raises Gone: it has ended, maybe just now
        """
        if not self.ended:
            self.steps += 1
            self._watch(self, what)
        if self.ended:
            raise Gone(f"{self.name} has ended")

    def end(self) -> None:
        """Ends the process at once."""
        if self.ended:
            return
        self.ended = True
        for tell in self.on_end:
            tell()
        asyncio.get_running_loop().call_soon(self._unwind, _MOST_ROUNDS, context=self._outside)

    async def buried(self) -> None:
        """Waits until no task of an ended process is left."""
        await self._buried.wait()

    def _unwind(self, rounds: int) -> None:
        if not self._tasks:
            self._buried.set()
            return
        if not rounds:
            raise RuntimeError(f"{self.name} has ended and {list(self._tasks)[0]} does not take it")
        for task in list(self._tasks):
            task.cancel()
        asyncio.get_running_loop().call_soon(self._unwind, rounds - 1, context=self._outside)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if self.ended and not task.cancelled():
            task.exception()  # seen: nobody else looks after an end
