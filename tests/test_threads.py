"""A resource lives, works and is closed in one thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from p2pmarket.threads import OwnThread


class Resource:
    """Notes the threads it is used in."""

    def __init__(self) -> None:
        self.threads = [threading.current_thread()]
        self.done: list[int] = []
        self.closed = False
        self.begun = threading.Event()

    def work(self, number: int, *, gate: threading.Event | None = None) -> int:
        """Waits for the gate."""
        self.begun.set()
        if gate is not None:
            assert gate.wait(10)
        self.threads.append(threading.current_thread())
        self.done.append(number)
        return number

    def fail(self) -> None:
        """Raises."""
        raise ValueError("on purpose")

    def close(self) -> None:
        """As OwnThread wants."""
        self.threads.append(threading.current_thread())
        self.closed = True


def living(name: str) -> list[threading.Thread]:
    """Threads of that name."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


async def test_everything_happens_in_one_thread_in_order() -> None:
    made: list[Resource] = []

    def make() -> Resource:
        made.append(Resource())
        return made[0]

    own = OwnThread("own-a", make)
    await own.open()
    assert await asyncio.gather(*(own.run(Resource.work, number) for number in range(5))) == [0, 1, 2, 3, 4]
    await own.close()
    await own.close()
    assert made[0].done == [0, 1, 2, 3, 4]
    assert made[0].closed
    assert len(set(made[0].threads)) == 1
    assert made[0].threads[0] is not threading.current_thread()
    assert not living("own-a")


async def test_what_work_raises_is_raised_and_the_thread_goes_on() -> None:
    own = OwnThread("own-b", Resource)
    await own.open()
    with pytest.raises(ValueError, match="on purpose"):
        await own.run(Resource.fail)
    assert await own.run(Resource.work, 1) == 1
    await own.close()


async def test_what_was_begun_is_finished_though_nobody_waits() -> None:
    resource, gate = Resource(), threading.Event()
    own = OwnThread("own-c", lambda: resource)
    await own.open()
    task = asyncio.create_task(own.run(Resource.work, 1, gate=gate))
    assert await asyncio.to_thread(resource.begun.wait, 10)
    task.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await own.close()
    assert resource.done == [1]


async def test_a_resource_that_cannot_be_made_leaves_no_thread() -> None:
    def broken() -> Resource:
        raise ValueError("cannot be made")

    own = OwnThread("own-d", broken)
    with pytest.raises(ValueError, match="cannot be made"):
        await own.open()
    for thread in living("own-d"):
        await asyncio.to_thread(thread.join, 10)
    assert not living("own-d")


async def test_it_must_be_open() -> None:
    own = OwnThread("own-e", Resource)
    with pytest.raises(RuntimeError, match="not open"):
        await own.run(Resource.work, 1)
    await own.open()
    await own.close()
    with pytest.raises(RuntimeError, match="not open"):
        await own.run(Resource.work, 1)
