"""A network of processes on one machine for crash tests: streams over Unix sockets, the shared table as files.

Knows: a folder with one socket a peer, and who says to be who: nothing here authenticates anybody, so it is no part of
the package. Refuses to know: what the bytes say. Fails as `Transport` does; what a killed process held ends at once,
because the kernel closes its sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from p2pmarket.errors import ConnectionLost, PeerUnreachable
from p2pmarket.network.asyncio_stream import BUFFER_BYTES, AsyncioStream
from p2pmarket.network.streams import StreamCaps, serve_stream
from p2pmarket.network.transport import StreamHandler
from p2pmarket.tasks import end_tasks

_SERVED = b"!"
_TIME_BYTES = 8


class SocketTransport:
    """One peer's presence in `folder`; a `Transport`. Make it anew after a kill: it takes the old socket's place."""

    def __init__(self, folder: Path, peer_id: str) -> None:
        """:param folder: with a short path: a Unix socket's name holds some hundred bytes"""
        self._folder = folder
        self._peer_id = peer_id
        self._handlers: dict[str, StreamHandler] = {}
        self._caps = StreamCaps()
        self._streams: set[AsyncioStream] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None

    @property
    def peer_id(self) -> str:
        return self._peer_id

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler
        if self._server is None:
            path = self._socket(self._peer_id)
            path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._accept, path)

    async def open(self, peer_id: str, protocol: str, addresses: tuple[str, ...] = ()) -> AsyncioStream:
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket(peer_id), limit=BUFFER_BYTES)
        except OSError as error:
            raise PeerUnreachable(f"{peer_id} cannot be reached ({error}); check that it is running") from None
        stream = AsyncioStream(peer_id, reader, writer, self._streams)
        try:
            await _write_word(stream, self._peer_id)
            await _write_word(stream, protocol)
            await stream.read_exactly(len(_SERVED))
        except ConnectionLost:
            await stream.close()
            raise PeerUnreachable(f"{peer_id} does not serve {protocol} now") from None
        except BaseException:
            stream.abort()
            raise
        return stream

    async def publish(self, key: str, value: bytes, expires_ms: int) -> bool:
        place = self._place(key) / self._peer_id
        place.parent.mkdir(exist_ok=True)
        new = place.with_suffix(".new")
        new.write_bytes(expires_ms.to_bytes(_TIME_BYTES, "big") + value)
        os.replace(new, place)
        return True

    async def lookup(self, key: str) -> Mapping[str, bytes]:
        found = [path for path in self._place(key).glob("*") if not path.suffix]
        return {path.name: path.read_bytes()[_TIME_BYTES:] for path in found}

    async def addresses(self) -> tuple[str, ...]:
        return (f"/unix/{self._peer_id}",)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for stream in list(self._streams):
            stream.abort()
        await end_tasks(self._serving)

    def _socket(self, peer_id: str) -> Path:
        return self._folder / peer_id[-10:]

    def _place(self, key: str) -> Path:
        return self._folder / f"table-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        stream = AsyncioStream("a caller", reader, writer, self._streams)
        with contextlib.suppress(ConnectionLost):
            peer_id, protocol = await _read_word(stream), await _read_word(stream)
            if protocol in self._handlers and self._caps.admit(peer_id):
                stream._peer_id = peer_id
                try:
                    await stream.write(_SERVED)
                    await serve_stream(stream, protocol, self._handlers[protocol])
                finally:
                    self._caps.leave(peer_id)
        await stream.close()


async def _write_word(stream: AsyncioStream, word: str) -> None:
    data = word.encode()
    await stream.write(bytes((len(data),)) + data)


async def _read_word(stream: AsyncioStream) -> str:
    (length,) = await stream.read_exactly(1)
    return (await stream.read_exactly(length)).decode()
