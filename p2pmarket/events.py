"""What a running program tells: events as plain dictionaries, and the wish that it stop.

Knows: nothing of how events are shown; the command line prints them as JSON lines or as text.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Event = Mapping[str, Any]
"""`event` names it: ready, status, round, trade, stopping, done; the other keys are plain JSON values."""
Emit = Callable[[Event], None]


@contextlib.contextmanager
def stop_asked(*, on_eof: bool = False) -> Iterator[asyncio.Event]:
    """An event that is set when this process is asked to stop: by SIGINT or SIGTERM, or (`on_eof`) when standard input
    closes. Enter it before telling anybody that the program is ready: from then on a signal ends it in order."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    if on_eof:
        loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 1024) else asked.set())
    try:
        yield asked
    finally:
        if on_eof:
            loop.remove_reader(sys.stdin.fileno())
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
