"""Ends tasks, and waits for events, so that no cancellation is lost.

Knows: that `asyncio.wait_for`, before Python 3.12, drops a cancellation that comes together with its own result
(CPython issue 86296); a task that loops around one then goes on for ever, and whoever closes it waits for ever.
Libraries use it too, so whoever ends a task asks again. Refuses to know: what the tasks do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

_CANCEL_AGAIN_SECONDS = 1.0


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], tries: int | None = None) -> None:
    """Cancels tasks, other than the current one, and waits until they have ended; what they raise is dropped.

    :param tries: how often they are asked, a second apart, before they are left as they are; None: until they end
    """
    left = {task for task in tasks if task is not asyncio.current_task()}
    while left and tries != 0:
        tries = tries and tries - 1
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_SECONDS)
        await asyncio.gather(*done, return_exceptions=True)


async def happens(event: asyncio.Event, within_seconds: float) -> bool:
    """Waits for an event, at most so long; whether it happened, also where somebody else has cleared it since."""
    if event.is_set():
        return True
    waiting = asyncio.ensure_future(event.wait())
    try:
        done, _ = await asyncio.wait({waiting}, timeout=max(0.0, within_seconds))
        return bool(done)
    finally:
        waiting.cancel()
