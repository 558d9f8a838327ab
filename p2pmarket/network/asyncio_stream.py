"""A `Stream` over asyncio's reader and writer, with timeouts by progress.

Knows: buffers and stalls. Refuses to know: who connected the two ends, and how. Every failure is `ConnectionLost`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

from p2pmarket import limits
from p2pmarket.errors import ConnectionLost

BUFFER_BYTES = 1024 * 1024
"""asyncio's own 64 KiB wakes the loop too often for parcels."""
_CLOSE_SECONDS = 3.0


class AsyncioStream:
    """One stream to `peer_id`; a member of `streams` until it is closed."""

    def __init__(
        self,
        peer_id: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        streams: set[AsyncioStream],
        *,
        stall_seconds: float = limits.STREAM_STALL_SECONDS,
    ) -> None:
        self._peer_id = peer_id
        self._reader = reader
        self._writer = writer
        self._streams = streams
        self._stall_seconds = stall_seconds
        # A reader that asyncio made for an accepted connection takes no limit any other way.
        reader._limit = BUFFER_BYTES  # type: ignore[attr-defined]
        # drain() then returns only when everything is handed over, so that the caller may reuse its buffer: newer
        # versions of asyncio keep a view of what is not yet sent, not a copy.
        writer.transport.set_write_buffer_limits(high=0)
        streams.add(self)

    @property
    def peer_id(self) -> str:
        return self._peer_id

    async def read_exactly(self, count: int) -> bytes:
        parts: list[bytes] = []
        missing = count
        with _Stall(self._writer.transport, self._stall_seconds, lambda: missing) as stall:
            while missing:
                try:
                    part = await self._reader.read(missing)
                except OSError:
                    part = b""
                if not part:
                    stall.check(f"{self._peer_id} sent nothing")
                    raise ConnectionLost(f"the stream from {self._peer_id} ended")
                parts.append(part)
                missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        transport = self._writer.transport
        if transport.is_closing():
            raise ConnectionLost(f"the stream to {self._peer_id} is closed")
        self._writer.write(data)
        with _Stall(transport, self._stall_seconds, transport.get_write_buffer_size) as stall:
            try:
                await self._writer.drain()
            except OSError:
                raise ConnectionLost(f"the stream to {self._peer_id} ended") from None
            stall.check(f"{self._peer_id} took nothing")
        if transport.is_closing():
            raise ConnectionLost(f"the stream to {self._peer_id} ended")

    async def close(self) -> None:
        self._streams.discard(self)
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), _CLOSE_SECONDS)

    def abort(self) -> None:
        """Ends the stream at once, with what was not yet sent."""
        self._streams.discard(self)
        self._writer.transport.abort()


class _Stall:
    """Aborts a connection when `left` stays the same for `seconds`. One timer, no task: this is the parcels' path."""

    def __init__(self, transport: asyncio.WriteTransport, seconds: float, left: Callable[[], int]) -> None:
        self._transport = transport
        self._seconds = seconds
        self._left = left
        self._stalled = False

    def __enter__(self) -> _Stall:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def check(self, otherwise: str) -> None:
        """:raises ConnectionLost: the connection was aborted here"""
        if self._stalled:
            raise ConnectionLost(f"{otherwise} for {self._seconds:.0f} s; the stream is given up")

    def _start(self) -> None:
        self._last = self._left()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def _look(self) -> None:
        if self._left() != self._last:
            self._start()
            return
        self._stalled = True
        self._transport.abort()
