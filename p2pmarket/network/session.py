"""One session: requests, replies, mail and heartbeats over one stream.

Knows: frames and their order. Refuses to know: what the bodies say. Both ends use the same class; a session ends
with `ConnectionLost` when the stream breaks or nothing was heard for STREAM_STALL_SECONDS, or with the peer's fault
when it sends what is no frame. Every task it starts ends with it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from p2pmarket import failpoints, limits
from p2pmarket.crypto.signing import type_of
from p2pmarket.errors import ConnectionLost, MalformedMessage, MarketError, TooLarge
from p2pmarket.network.transport import Stream
from p2pmarket.tasks import end_tasks
from p2pmarket.wire import LENGTH, Frame, Kind, body_length, decode_frame, encode_frame

log = logging.getLogger(__name__)

RequestHandler = Callable[[bytes], Awaitable[bytes]]
MailHandler = Callable[[int, bytes], Awaitable[None]]
AckHandler = Callable[[int], Awaitable[None]]


async def read_frame(stream: Stream) -> Frame:
    """The next frame on a stream.

    :raises ConnectionLost: the stream broke
    :raises PeerFault: what came is no frame, or too large
    """
    length = body_length(await stream.read_exactly(LENGTH.size))
    return decode_frame(await stream.read_exactly(length))


async def write_frame(stream: Stream, frame: Frame) -> None:
    """Writes one frame.

    :raises ConnectionLost: the stream broke
    :raises TooLarge: a body above MAX_RECORD_BYTES
    """
    data = encode_frame(frame)
    if not failpoints.watched():
        await stream.write(data)
        return
    place = f"send.{_name_of(frame)}"
    try:
        failpoints.reach(f"{place}.before")
        await stream.write(data)
        failpoints.reach(f"{place}.after")
    except failpoints.FailPointHit as hit:
        raise ConnectionLost(str(hit)) from None


def _name_of(frame: Frame) -> str:
    """What fail points call a frame: its message's type, or its kind where it holds none."""
    try:
        return type_of(frame.body)
    except MalformedMessage:
        return frame.kind.name.lower().replace("_", "-")


class Session:
    """Run it once with `await session.run()`; use `request`, `send_mail` and `close` meanwhile."""

    def __init__(
        self,
        stream: Stream,
        *,
        on_request: RequestHandler | None = None,
        on_mail: MailHandler | None = None,
        on_ack: AckHandler | None = None,
        mailed: int = 0,
        heartbeat_seconds: float = limits.HEARTBEAT_SECONDS,
    ) -> None:
        """:param mailed: number of the last mail the other end has"""
        self._stream = stream
        self._on_request = on_request
        self._on_mail = on_mail
        self._on_ack = on_ack
        self._heartbeat_seconds = heartbeat_seconds
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._answering: set[asyncio.Task[Any]] = set()
        self._write_lock = asyncio.Lock()
        self._over: ConnectionLost | None = None
        self.mailed = mailed

    @property
    def peer_id(self) -> str:
        """The other end."""
        return self._stream.peer_id

    async def run(self) -> None:
        """Reads until the session ends.

        :raises ConnectionLost: the stream broke, or the other end fell silent
        :raises PeerFault: the other end sent what is no frame
        """
        pulse = asyncio.create_task(self._pulse())
        try:
            while True:
                await self._take(await read_frame(self._stream))
        finally:
            await self.close()
            await end_tasks({pulse, *self._answering})

    async def request(self, body: bytes, timeout_seconds: float = limits.REQUEST_TIMEOUT_SECONDS) -> bytes:
        """The reply to a request.

        :raises ConnectionLost: the session ended before the reply, or none came within the timeout
        """
        if self._over:
            raise self._over
        number = next(self._numbers)
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        try:
            await self._send(Frame(Kind.REQUEST, number, body))
            return await asyncio.wait_for(reply, timeout_seconds)
        except asyncio.TimeoutError:
            raise ConnectionLost(f"{self.peer_id} did not answer within {timeout_seconds:.0f} s") from None
        finally:
            self._waiting.pop(number, None)
            if reply.done() and not reply.cancelled():
                reply.exception()  # seen: where sending failed, nobody waits for the reply that `close` failed too

    async def send_mail(self, number: int, body: bytes) -> None:
        """Sends one numbered mail.

        :raises ConnectionLost: the session is over
        """
        self.mailed = max(self.mailed, number)  # first: the acknowledgement may be here before the writing ends
        await self._send(Frame(Kind.MAIL, number, body))

    async def acknowledge(self, number: int) -> None:
        """Tells the broker that mail up to `number` is kept.

        :raises ConnectionLost: the session is over
        """
        await self._send(Frame(Kind.MAIL_ACK, number))

    async def close(self) -> None:
        """Ends the session; waiting requests raise ConnectionLost."""
        if self._over is None:
            self._over = ConnectionLost(f"the session with {self.peer_id} ended")
        for reply in self._waiting.values():
            if not reply.done():
                reply.set_exception(self._over)
        for task in self._answering - {asyncio.current_task()}:
            task.cancel()
        await self._stream.close()

    async def _send(self, frame: Frame) -> None:
        if self._over:
            raise self._over
        async with self._write_lock:
            await write_frame(self._stream, frame)

    async def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.PING:
            await self._send(Frame(Kind.PONG))
        elif frame.kind is Kind.REPLY:
            reply = self._waiting.get(frame.number)
            if reply is not None and not reply.done():
                reply.set_result(frame.body)
        elif frame.kind is Kind.REQUEST:
            if self._on_request is None:
                raise MalformedMessage("this end of a session takes no requests")
            if len(self._answering) >= limits.MAX_SESSION_REQUESTS_IN_FLIGHT:
                raise TooLarge(f"more than {limits.MAX_SESSION_REQUESTS_IN_FLIGHT} requests at once")
            self._own(self._answer(frame, self._on_request))
        elif frame.kind is Kind.MAIL:
            if self._on_mail is None:
                raise MalformedMessage("this end of a session takes no mail")
            await self._on_mail(frame.number, frame.body)
        elif frame.kind is Kind.MAIL_ACK and self._on_ack is not None:
            if frame.number > self.mailed:
                raise MalformedMessage(f"mail {frame.number} is acknowledged and was never sent")
            await self._on_ack(frame.number)

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, frame: Frame, handler: RequestHandler) -> None:
        try:
            await self._send(Frame(Kind.REPLY, frame.number, await handler(frame.body)))
        except MarketError as error:
            # The handler turns what it refuses into a Refusal; what reaches this line ends the session.
            log.info("session with %s: %s", self.peer_id, error)
            await self.close()
        except Exception:
            log.exception("a request of %s failed", self.peer_id)
            await self.close()

    async def _pulse(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._heartbeat_seconds)
                await self._send(Frame(Kind.PING))
        except ConnectionLost:
            await self.close()
