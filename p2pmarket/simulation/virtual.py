"""An event loop without a clock on the wall: time jumps to the next timer as soon as nothing else is ready.

Knows: timers, tasks, work for threads. Refuses to know: sockets, signals, subprocesses: nothing outside the process is
ever waited for, so a run is a function of its coroutine and its seeds. A loop in which nothing is ready and no timer
runs would wait for ever: `Deadlock`, which says what waits.

* Work for executors (`asyncio.to_thread`, `OwnThread`) is done in the loop's thread, without threads: one executor's in
  the order it was given, after `work_seconds()`, and its callers hear of it so much later again.
* Tasks and futures hash by the order of their making, so that sets of them have the same order in every process.
* A `Life` (lives.py) is a party's process: what runs in one stops for good when it ends.

Linux and macOS; the same on every Python from 3.10 on only where asyncio itself is.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import itertools
import math
import selectors
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

from p2pmarket.simulation.lives import CURRENT, Gone

T = TypeVar("T")

START_MS = 1_700_000_000_000
"""UTC in milliseconds at which virtual time begins, where nobody says otherwise: 14 November 2023."""


class Deadlock(RuntimeError):
    """Nothing is ready and no timer runs."""


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        self._number = number  # first: asyncio puts the task into a set while it is made
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class _Future(asyncio.Future[Any]):
    """A future of the same kind."""

    def __init__(self, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(**options)

    def __hash__(self) -> int:
        return self._number


class _Jump(selectors.SelectSelector):
    """Instead of waiting: moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        """Seconds since the loop was made."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("nothing is ready and no timer runs")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. Use `run`, or like any other loop, from one thread."""

    def __init__(self, *, start_ms: int = START_MS, work_seconds: Callable[[], float] = lambda: 0.0) -> None:
        """
        :param start_ms: UTC at time 0
        :param work_seconds: drawn twice for each piece of work given to an executor: how long it waits for its turn,
            and how long its caller waits for the result
        """
        self._jump = _Jump()
        super().__init__(self._jump)
        # What is due within it is due: after three months the usual 1e-9 is lost in a float's rounding.
        self._clock_resolution = 1e-6
        self._start_ms = start_ms
        self._work_seconds = work_seconds
        self._turn: weakref.WeakKeyDictionary[Executor, float] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._jump.now

    def now_ms(self) -> int:
        """Virtual UTC in milliseconds: a `Clock`."""
        return self._start_ms + round(self._jump.now * 1000)

    def create_future(self) -> asyncio.Future[Any]:
        """A future that hashes by the order of its making."""
        return _Future(next(self._numbers), loop=self)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """As ever, but for what the end of a life cut short: nobody is left to hear of it."""
        if not isinstance(context.get("exception"), Gone):
            super().call_exception_handler(context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Does the work in its turn, in this thread.

        :raises asyncio.CancelledError: the life it is done for has ended
        """
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                outcome: tuple[Any, BaseException | None] = func(*args), None
            except Gone:
                raise
            except BaseException as error:
                outcome = None, error
            self._in_turn(executor, lambda: _settle(future, *outcome))

        self._do(executor, work)
        return future

    def own_executor(self, name: str) -> Executor:
        """Takes the place of an executor with one thread (threads.py)."""
        return _Inline(self)

    def _do(self, executor: Executor | None, work: Callable[[], None]) -> None:
        """Does a process's work in the executor's turn, unless the process has ended by then.

        :raises asyncio.CancelledError: it has ended already
        """
        life = CURRENT.get()
        if life is not None and life.ended:
            raise asyncio.CancelledError

        def run() -> None:
            with contextlib.suppress(Gone):
                if life is not None:
                    life.step("work")
                work()
                if life is not None:
                    life.step("done")

        self._in_turn(executor, run)

    def _in_turn(self, executor: Executor | None, what: Callable[[], None]) -> None:
        """Does something after a drawn time, and after everything that waits for the same executor."""
        delay = self._work_seconds()
        when = self.time() + delay
        if executor is not None:
            # Never the same moment twice: timers of one moment have no order.
            when = max(when, math.nextafter(self._turn.get(executor, 0.0), math.inf))
            self._turn[executor] = when
        self.call_at(when, what)


class _Inline(Executor):
    """An executor that works in the loop's thread."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """As Executor.submit.

        :raises asyncio.CancelledError: the life it is done for has ended
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except Gone:
                raise
            except BaseException as error:
                future.set_exception(error)

        self._loop._do(self, work)
        return future


def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    assert isinstance(loop, VirtualLoop)
    task = _Task(next(loop._numbers), coro, loop=loop, **options)
    context: contextvars.Context | None = options.get("context")
    life = CURRENT.get() if context is None else context.get(CURRENT)
    if life is not None:
        life.own(task)
    return task


def _settle(future: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
    if future.done():
        return
    if problem is not None:
        future.set_exception(problem)
    else:
        future.set_result(result)


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]], loop: VirtualLoop | None = None) -> T:
    """The result of `main(loop)` on a loop of its own, closed afterwards with every task in it ended.

    :raises Deadlock: names the tasks that wait and where
    """
    loop = loop or VirtualLoop()
    try:
        try:
            return loop.run_until_complete(main(loop))
        except Deadlock as error:
            raise Deadlock(f"{error}; {waiting(loop)}") from None
        finally:
            _end_all(loop)
    finally:
        loop.close()


def waiting(loop: asyncio.AbstractEventLoop) -> str:
    """The tasks that are not done and the line each of them waits at, in words."""
    tasks = sorted(asyncio.all_tasks(loop), key=hash)
    return "waiting: " + ("; ".join(f"{task.get_name()} {_place(task.get_coro())}" for task in tasks) or "no task")


def _place(coroutine: Any) -> str:
    """Where a coroutine waits: the innermost line of ours and the way to it."""
    places = []
    while coroutine is not None and getattr(coroutine, "cr_frame", None) is not None:
        frame = coroutine.cr_frame
        places.append(f"{coroutine.__qualname__} line {frame.f_lineno}")
        coroutine = coroutine.cr_await
    return "in " + " > ".join(places) if places else "not begun"


def _end_all(loop: VirtualLoop) -> None:
    """Cancels what is left, again and again: before Python 3.12, wait_for loses a cancellation that meets a result."""
    for _ in range(100):
        left = sorted(asyncio.all_tasks(loop), key=hash)
        if not left:
            break
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
