"""Carries one sealed parcel over one stream, and takes up where a broken stream or a restart left off.

::

    sender                               receiver
    length (4) | header            ->
                                   <-    length (4) | "F" | first chunk (8)
    chunks from there, trailer     ->
                                   <-    length (4) | "D"

Instead of its next answer the receiver may send a refusal, `length (4) | "N" | Refusal`, and before any answer a sign
of life, `length (4) | "B"`. Lengths of chunks and trailer follow from the signed header; nothing else is interpreted.

Knows: the order of bytes, threads for disk and ciphers, two buffers so that one fills while the other travels. Refuses
to know: what is inside. Fails with `ConnectionLost` (call again on a new stream), a `PeerFault` or `MachineFault` of
the receiver (the sender gets `Refused`; of the receiver's machine it learns no more than the code).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from p2pmarket import failpoints, limits
from p2pmarket.crypto.header import Expectation, PrivateKeys
from p2pmarket.crypto.sealing import TAG_BYTES, TRAILER_BYTES, Opener
from p2pmarket.errors import ConnectionLost, MalformedMessage, MarketError, NetworkFault, PeerFault, Refused, TooLarge
from p2pmarket.messages import Refusal
from p2pmarket.network.spool import Incoming, Outgoing
from p2pmarket.network.transport import Stream
from p2pmarket.parcel import ParcelContext
from p2pmarket.records import decode, encode
from p2pmarket.tasks import end_tasks
from p2pmarket.units import Clock

Progress = Callable[[int, int], None]
"""Told plain bytes done and in all, in the event loop."""
Check = Callable[[Path, ParcelContext], None]
"""Looks at a verified parcel's plain file, in a worker thread; raises a MarketError to refuse it."""

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

_BATCH_CHUNKS = 2
_MAX_REPLY_BYTES = 8 * 1024
_GOODBYE_SECONDS = 10.0
_FROM, _DONE, _NO, _BUSY = b"F", b"D", b"N", b"B"
_PLACES = {_FROM: "from", _DONE: "whole", _NO: "refused", _BUSY: "busy"}
"""What fail points call the receiver's answers."""


async def send_parcel(stream: Stream, outgoing: Outgoing, progress: Progress | None = None) -> None:
    """Sends a parcel from the first chunk that the receiver needs, and closes the stream after its verdict.

    :raises Refused: the receiver's code and sentence
    :raises ConnectionLost: send again on a new stream
    :raises MalformedMessage: the receiver's answers break the protocol
    :raises DataError: the parcel on disk changed
    """
    try:
        await _write(stream, "header", len(outgoing.header).to_bytes(4, "big") + outgoing.header)
        first = int.from_bytes(await _read_answer(stream, _FROM, 8), "big")
        if first > outgoing.context.chunks:
            raise MalformedMessage("the receiver asks for chunks after the last; it runs another program")
        await _send_until_verdict(stream, outgoing, first, progress)
    finally:
        await stream.close()


async def receive_parcel(
    stream: Stream,
    incoming: Incoming,
    expectation: Expectation,
    keyring: PrivateKeys,
    clock: Clock,
    *,
    check: Check | None = None,
    progress: Progress | None = None,
) -> ParcelContext:
    """Receives a parcel into `incoming`; `incoming.plain_path` exists once this returned. The caller closes the stream.

    :raises PeerFault: the parcel is not the one expected, does not verify, or `check` refused it
    :raises DiskFull: it could not be kept; what was verified stays for another time
    :raises ConnectionLost: receive again on a new stream
    """
    answers = _Answers(stream)
    try:
        async with answers.signs_of_life():
            opener = await _receive_header(stream, expectation, keyring, clock)
            first = await _in_thread(incoming.begin, opener)
            await answers.write(_FROM, first.to_bytes(8, "big"))
            await _receive_chunks(stream, incoming, opener.context, first, progress)
            trailer = await stream.read_exactly(TRAILER_BYTES)
            await _in_thread(_accept, incoming, opener.context, trailer, check)
    except NetworkFault:
        raise
    except MarketError as error:
        with contextlib.suppress(ConnectionLost):
            await answers.write(_NO, encode(_refusal(error)))
            await _wait_for_goodbye(stream)
        raise
    with contextlib.suppress(ConnectionLost):  # the parcel is whole; a sender that missed this asks again
        await answers.write(_DONE, b"")
        await _wait_for_goodbye(stream)
    return opener.context


# ---- the sender -------------------------------------------------------------------------------------------------


async def _send_until_verdict(stream: Stream, outgoing: Outgoing, first: int, progress: Progress | None) -> None:
    verdict = asyncio.create_task(_read_answer(stream, _DONE, 0))
    sending = asyncio.create_task(_send_from(stream, outgoing, first, progress))
    try:
        await asyncio.wait({verdict, sending}, return_when=asyncio.FIRST_COMPLETED)
        if not verdict.done():
            # A receiver that refuses may also break the stream: its refusal then says more than our failed write.
            with contextlib.suppress(ConnectionLost):
                await sending
        await verdict
        if not sending.done():
            raise MalformedMessage("the receiver has the parcel before it was sent; it runs another program")
        await sending
    finally:
        await end_tasks((verdict, sending))


async def _send_from(stream: Stream, outgoing: Outgoing, first: int, progress: Progress | None) -> None:
    """Chunks `first ...` and the trailer; one batch is sealed while the one before it travels."""
    context = outgoing.context
    # The first chunk is the longest: a small parcel, as there are hundreds at a time, takes little memory.
    size = min(_BATCH_CHUNKS, context.chunks) * (context.chunk_length(0) + TAG_BYTES)
    filling, travelling = memoryview(bytearray(size)), memoryview(bytearray(size))
    sealed = await _in_thread(_seal, outgoing, first, filling)
    for start in range(first, context.chunks, _BATCH_CHUNKS):
        filling, travelling = travelling, filling
        end = start + _BATCH_CHUNKS
        _, sealed = await _both(_write(stream, "chunk", sealed), _in_thread(_seal, outgoing, end, filling))
        if progress is not None:
            progress(min(end * context.chunk_bytes, context.plain_bytes), context.plain_bytes)
    await _write(stream, "trailer", await _in_thread(outgoing.trailer))


def _seal(outgoing: Outgoing, start: int, out: memoryview) -> memoryview:
    return outgoing.seal(start, max(0, min(_BATCH_CHUNKS, outgoing.context.chunks - start)), out)


async def _read_answer(stream: Stream, expected: bytes, length: int) -> bytes:
    """The body of the receiver's next answer, past its signs of life.

    :raises Refused: it is a refusal
    :raises MalformedMessage: it is neither a refusal nor `expected` with `length` bytes
    """
    while True:
        frame = await _read_frame(stream, _MAX_REPLY_BYTES)
        kind, body = frame[:1], frame[1:]
        if kind == _NO:
            refusal = decode(Refusal, body)
            raise Refused(refusal.sentence, code=refusal.code)
        if kind == expected and len(body) == length:
            return body
        if kind != _BUSY or body:
            raise MalformedMessage("the receiver's answer breaks the protocol; it runs another program")


# ---- the receiver -----------------------------------------------------------------------------------------------


async def _receive_header(stream: Stream, expectation: Expectation, keyring: PrivateKeys, clock: Clock) -> Opener:
    header = await _read_frame(stream, limits.MAX_PARCEL_HEADER_BYTES)
    return await _in_thread(Opener, header, expectation, keyring, clock())


async def _receive_chunks(
    stream: Stream, incoming: Incoming, context: ParcelContext, first: int, progress: Progress | None
) -> None:
    """Chunks `first ...`; one batch is opened and written while the next one travels."""
    scratch = memoryview(bytearray(context.chunk_length(0)))
    batch = await _read_batch(stream, context, first)
    for start in range(first, context.chunks, _BATCH_CHUNKS):
        end = start + _BATCH_CHUNKS
        _, batch = await _both(_in_thread(incoming.keep, start, batch, scratch), _read_batch(stream, context, end))
        if progress is not None:
            progress(min(end * context.chunk_bytes, context.plain_bytes), context.plain_bytes)


async def _read_batch(stream: Stream, context: ParcelContext, start: int) -> list[bytes]:
    end = min(start + _BATCH_CHUNKS, context.chunks)
    return [await stream.read_exactly(context.chunk_length(index) + TAG_BYTES) for index in range(start, end)]


def _accept(incoming: Incoming, context: ParcelContext, trailer: bytes, check: Check | None) -> None:
    part = incoming.check(trailer)
    if check is not None:
        try:
            check(part, context)
        except PeerFault:
            incoming.remove()
            raise
    incoming.finish()


def _refusal(error: MarketError) -> Refusal:
    """What the sender learns; of faults of this machine only the code, as their sentences name paths."""
    if isinstance(error, PeerFault):
        return Refusal(error.code, str(error)[: limits.MAX_TEXT_CHARACTERS])
    return Refusal(error.code, "the receiver cannot keep this parcel now; try again later")


class _Answers:
    """Writes the receiver's answers, and signs of life while it is busy, one at a time."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._writing = asyncio.Lock()

    async def write(self, kind: bytes, body: bytes) -> None:
        async with self._writing:
            data = (1 + len(body)).to_bytes(4, "big") + kind + body
            await _write(self._stream, _PLACES[kind], data)

    @contextlib.asynccontextmanager
    async def signs_of_life(self) -> AsyncIterator[None]:
        """Tells the sender every HEARTBEAT_SECONDS that this side lives, however long disk or `check` take."""
        task = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            async with self._writing:  # no half-written frame stays behind
                task.cancel()
            await end_tasks({task})

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(limits.HEARTBEAT_SECONDS)
            await self.write(_BUSY, b"")


async def _wait_for_goodbye(stream: Stream) -> None:
    """Lets the sender read the last answer: it closes the stream then, and what it still sends is dropped."""

    async def drop() -> None:
        while True:
            await stream.read_exactly(64 * 1024)

    # Not asyncio.wait_for: before Python 3.12 it loses a cancellation that comes together with the stream's end.
    dropping = asyncio.create_task(drop())
    try:
        await asyncio.wait({dropping}, timeout=_GOODBYE_SECONDS)
    finally:
        await end_tasks({dropping})


# ---- both -------------------------------------------------------------------------------------------------------


async def _write(stream: Stream, part: str, data: bytes | memoryview) -> None:
    """Writes one part of a parcel, or an answer to one, between two fail points."""
    try:
        failpoints.reach(f"send.parcel-{part}.before")
        await stream.write(data)
        failpoints.reach(f"send.parcel-{part}.after")
    except failpoints.FailPointHit as hit:
        raise ConnectionLost(str(hit)) from None


async def _read_frame(stream: Stream, max_bytes: int) -> bytes:
    length = int.from_bytes(await stream.read_exactly(4), "big")
    if not 0 < length <= max_bytes:
        raise TooLarge(f"a frame of {length} bytes is outside 1 ... {max_bytes}; the peer runs another program")
    return await stream.read_exactly(length)


async def _both(one: Awaitable[S], other: Awaitable[T]) -> tuple[S, T]:
    """Both results, after both have ended; the first one's failure before the other's."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    for result in (first, second):
        if isinstance(result, BaseException):
            raise result
    return cast("tuple[S, T]", (first, second))


async def _in_thread(job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `job` in a worker thread; when cancelled, still waits for it, as it uses buffers and files of the caller."""
    running = asyncio.ensure_future(asyncio.to_thread(job, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise
