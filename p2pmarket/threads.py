"""A resource with a thread of its own: what waits for a disk waits there, never in the event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Concatenate, Generic, ParamSpec, Protocol, TypeVar


class Closable(Protocol):
    """Something that is closed in the thread that opened it."""

    def close(self) -> None:
        """Closes it."""
        ...


R = TypeVar("R", bound=Closable)
P = ParamSpec("P")
T = TypeVar("T")


class OwnThread(Generic[R]):
    """Runs functions on one resource, one after the other, in one thread."""

    def __init__(self, name: str, make: Callable[[], R]) -> None:
        """:param make: makes the resource, in the thread"""
        self._executor = _own_executor(name)
        self._make = make
        self._resource: R | None = None

    async def open(self) -> None:
        """Makes the resource; raises what making it raises, and then the thread has ended."""
        try:
            self._resource = await asyncio.get_running_loop().run_in_executor(self._executor, self._make)
        except BaseException:
            self._executor.shutdown(wait=False)
            raise

    async def run(self, work: Callable[Concatenate[R, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work(resource, ...)`; once begun it finishes, even when the caller is cancelled."""
        if self._resource is None:
            raise RuntimeError("the resource is not open")
        call = functools.partial(work, self._resource, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def close(self) -> None:
        """Closes the resource after what is under way; may be called twice."""
        if self._resource is not None:
            resource, self._resource = self._resource, None
            await asyncio.get_running_loop().run_in_executor(self._executor, resource.close)
        self._executor.shutdown()


def _own_executor(name: str) -> Executor:
    """A thread; or what the running loop has in its place, where it knows no threads (simulation/virtual.py)."""
    try:
        make = getattr(asyncio.get_running_loop(), "own_executor", None)
    except RuntimeError:
        make = None
    executor: Executor = make(name) if make else ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
    return executor
