"""One direction of a stream in memory: bounded bytes that arrive at once or later, in order, or break.

Knows: bytes, who waits for them. Refuses to know: peers, what decides when they arrive (memory.py). Fails with
`ConnectionLost` like a real stream: at either end of one that broke, at the reader of one that ended, and where nothing
moves for too long.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from p2pmarket.errors import ConnectionLost


class Pipe:
    """At most so many bytes in flight, one reader, one writer."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._buffer = bytearray()
        self._in_flight = 0
        self._last_arrival = 0.0
        self._ended = False
        self._closed = False
        self._broken = False
        self._swallows = False
        self._waiting: list[asyncio.Future[None]] = []

    def put(self, data: memoryview, peer_id: str, delay_seconds: float = 0.0) -> int:
        """Takes as many bytes as there is room for, to arrive after `delay_seconds` and all before them; how many.

        :raises ConnectionLost: ended at either end
        """
        if self._closed or self._broken:
            raise ConnectionLost(f"the stream to {peer_id} is closed")
        if self._swallows:
            return len(data)
        room = min(len(data), self._most_bytes - len(self._buffer) - self._in_flight)
        if room:
            piece = bytes(data[:room])
            self._in_flight += room
            self._later(delay_seconds, lambda: self._arrive(piece))
        return room

    def take(self, count: int, peer_id: str) -> bytes:
        """At most `count` bytes of what is there.

        :raises ConnectionLost: nothing is there and nothing will come
        """
        data = bytes(self._buffer[:count])
        if self._broken or (self._ended and not data):
            raise ConnectionLost(f"the stream from {peer_id} ended")
        if data:
            del self._buffer[:count]
            self._wake()
        return data

    def end(self) -> None:
        """Nothing more is put; the reader gets what was."""
        if not self._closed:
            self._closed = True
            self._later(0.0, self._finish)

    def swallow(self) -> None:
        """What is put from now on never arrives, and nobody is told."""
        self._swallows = True

    def break_(self) -> None:
        """Both ends fail from now on; what was not taken is lost."""
        self._broken = self._closed = True
        self._wake()

    async def change(self, stall_seconds: float, otherwise: str) -> None:
        """Waits until something arrived, was taken, ended or broke.

        :raises ConnectionLost: nothing happened for `stall_seconds`
        """
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await asyncio.wait({waiter}, timeout=stall_seconds)
            if not waiter.done():
                raise ConnectionLost(f"{otherwise} for {stall_seconds:.0f} s; the stream is given up")
        finally:
            waiter.cancel()

    def _later(self, delay_seconds: float, what: Callable[[], None]) -> None:
        """Does `what` after the delay and after everything that is under way; at once where neither is there."""
        if not delay_seconds and not self._last_arrival:
            what()
            return
        loop = asyncio.get_running_loop()
        # Never the same moment twice: timers of one moment have no order.
        self._last_arrival = max(math.nextafter(self._last_arrival, math.inf), loop.time() + delay_seconds)
        loop.call_at(self._last_arrival, what)

    def _arrive(self, piece: bytes) -> None:
        self._in_flight -= len(piece)
        if not self._broken:
            self._buffer += piece
            self._wake()

    def _finish(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)
