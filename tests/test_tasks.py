"""No cancellation is lost: neither where an event comes with it, nor where a library drops one."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from p2pmarket.tasks import end_tasks, happens


async def test_an_event_is_waited_for():
    event = asyncio.Event()
    assert not await happens(event, 0.01)
    assert not await happens(event, -1)
    asyncio.get_running_loop().call_later(0.01, event.set)
    assert await happens(event, 30)
    assert await happens(event, -1)


async def test_a_cancellation_that_comes_with_the_event_is_not_lost():
    event = asyncio.Event()
    waiting = asyncio.create_task(happens(event, 30))
    for _ in range(3):
        await asyncio.sleep(0)
    event.set()
    await asyncio.sleep(0)  # the event has happened, and whoever waited has not gone on yet
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_event_that_another_waiter_clears_at_once_has_happened():
    event = asyncio.Event()

    async def wait_and_clear() -> bool:
        happened = await happens(event, 30)
        event.clear()
        return happened

    both = asyncio.gather(wait_and_clear(), wait_and_clear())
    asyncio.get_running_loop().call_later(0.01, event.set)
    assert await both == [True, True]


async def test_waiting_leaves_no_task_behind():
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(happens(asyncio.Event(), 30))
    await asyncio.sleep(0)
    await end_tasks([waiting])
    await asyncio.sleep(0)
    assert waiting.cancelled() and asyncio.all_tasks() == before


async def test_a_task_that_drops_a_cancellation_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("p2pmarket.tasks._CANCEL_AGAIN_SECONDS", 0.01)
    dropped = 0

    async def stubborn() -> None:
        nonlocal dropped
        while dropped < 3:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
            dropped += 1
        await asyncio.sleep(30)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(end_tasks([task]), 10)
    assert task.cancelled() and dropped == 3


@pytest.mark.parametrize("tries", [1, 3])
async def test_a_task_that_never_ends_is_left_after_some_tries(monkeypatch: pytest.MonkeyPatch, tries: int):
    monkeypatch.setattr("p2pmarket.tasks._CANCEL_AGAIN_SECONDS", 0.01)
    asked, over = 0, asyncio.Event()

    async def deaf() -> None:
        nonlocal asked
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                asked += 1

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(end_tasks([task], tries), 10)
    assert asked == tries and not task.done()
    over.set()
    await task


async def test_what_ended_tasks_raise_is_dropped_and_the_own_task_goes_on():
    async def fails() -> None:
        raise ValueError("not heard")

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await end_tasks([task])
    current = asyncio.current_task()
    assert current is not None
    await end_tasks([current])
