"""Transfers: broken streams, restarts, hostile senders, full disks."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from parcel_examples import (
    CHUNK_BYTES,
    NOW_MS,
    PLAIN,
    RECEIVER,
    SENDER,
    OneEpoch,
    Outcome,
    attempt,
    expectation,
    outgoing,
)

from p2pmarket import limits
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.sealing import TAG_BYTES
from p2pmarket.crypto.signing import signed_bytes
from p2pmarket.errors import BadSeal, BadSignature, BadSnapshot, ConnectionLost, DiskFull, MalformedMessage, Refused
from p2pmarket.errors import TooLarge as TooLargeError
from p2pmarket.network import files, memory, transfer
from p2pmarket.network.memory import Fault, MemoryNetwork
from p2pmarket.network.spool import Incoming, Outgoing
from p2pmarket.network.transfer import receive_parcel, send_parcel
from p2pmarket.network.transport import Stream
from p2pmarket.parcel import ParcelContext
from p2pmarket.records import encode


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHUNK_BYTES", CHUNK_BYTES)
    # One batch in flight: the n-th write waits until the batch before the last was kept, so that tests may count on it.
    monkeypatch.setattr(memory, "PIPE_BYTES", 2 * (CHUNK_BYTES + TAG_BYTES))


def ok(outcome: Outcome) -> bool:
    return outcome.sent is None and outcome.received is None


async def test_a_parcel_arrives_and_arriving_twice_changes_nothing(tmp_path: Path) -> None:
    parcel, incoming = outgoing(tmp_path), Incoming.open(tmp_path / "in")
    assert ok(await attempt(MemoryNetwork(), parcel, incoming))
    assert incoming.plain_path.read_bytes() == PLAIN
    again = await attempt(MemoryNetwork(), parcel, Incoming.open(tmp_path / "in"))
    assert ok(again) and again.first is None
    assert incoming.plain_path.read_bytes() == PLAIN


@pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 5 * CHUNK_BYTES])
async def test_sizes_around_the_edges_of_chunks_and_batches(tmp_path: Path, size: int) -> None:
    incoming = Incoming.open(tmp_path / "in")
    assert ok(await attempt(MemoryNetwork(), outgoing(tmp_path, plain=PLAIN[:size]), incoming))
    assert incoming.plain_path.read_bytes() == PLAIN[:size]


async def writes_of_a_whole_transfer(folder: Path) -> dict[str, int]:
    network = MemoryNetwork()
    assert ok(await attempt(network, outgoing(folder), Incoming.open(folder / "in")))
    return dict(network.writes)


@pytest.mark.parametrize("restart", ["sender", "receiver", "both", "none"])
async def test_a_stream_broken_at_any_write_of_either_side_is_taken_up(tmp_path: Path, restart: str) -> None:
    writes = await writes_of_a_whole_transfer(tmp_path / "count")
    assert writes == {SENDER.peer_id: 7, RECEIVER.peer_id: 2}
    for peer, count in writes.items():
        for broken in range(1, count + 1):
            folder = tmp_path / f"{peer}-{broken}"
            parcel, incoming = outgoing(folder), Incoming.open(folder / "in")
            lost = await attempt(MemoryNetwork(faults=[Fault(peer, broken)]), parcel, incoming)
            assert isinstance(lost.sent, ConnectionLost)
            if restart in ("sender", "both"):
                parcel = Outgoing.load(folder / "out", SENDER)
            if restart in ("receiver", "both"):
                incoming = Incoming.open(folder / "in")
            resumed = await attempt(MemoryNetwork(), parcel, incoming)
            assert ok(resumed), (peer, broken, resumed)
            assert incoming.plain_path.read_bytes() == PLAIN
            if peer == SENDER.peer_id and 4 <= broken <= 6:
                assert resumed.first is not None and resumed.first >= 2, "what had arrived is not sent again"


async def test_a_transfer_that_breaks_every_time_still_ends(tmp_path: Path) -> None:
    parcel, attempts = outgoing(tmp_path), 0
    while attempts < 20:
        attempts += 1
        incoming = Incoming.open(tmp_path / "in")
        if ok(await attempt(MemoryNetwork(faults=[Fault(SENDER.peer_id, 4)]), parcel, incoming)):
            break
    assert incoming.plain_path.read_bytes() == PLAIN and 2 < attempts < 20


async def test_a_kept_chunk_that_went_bad_is_fetched_again(tmp_path: Path) -> None:
    parcel = outgoing(tmp_path)
    await attempt(MemoryNetwork(faults=[Fault(SENDER.peer_id, 6)]), parcel, Incoming.open(tmp_path / "in"))
    part = tmp_path / "in" / "plain.part"
    kept = bytearray(part.read_bytes())
    assert len(kept) >= 4 * CHUNK_BYTES
    kept[2 * CHUNK_BYTES] ^= 1
    part.write_bytes(kept)
    incoming = Incoming.open(tmp_path / "in")
    resumed = await attempt(MemoryNetwork(), parcel, incoming)
    assert ok(resumed) and resumed.first == 2
    assert incoming.plain_path.read_bytes() == PLAIN


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"purpose": "delivery"}, BadSeal),
        ({"trade": b"u" * 16}, BadSeal),
        ({"receiver": SENDER.peer_id}, BadSeal),
        ({"market": "other"}, BadSeal),
        ({"manifest_digest": b"e" * 32}, BadSeal),
        ({"sender": RECEIVER.peer_id}, BadSignature),
        ({"max_plain_bytes": len(PLAIN) - 1}, TooLargeError),
    ],
)
async def test_a_parcel_for_something_else_is_refused_on_both_sides(
    tmp_path: Path, change: dict[str, Any], error: type[Exception]
) -> None:
    outcome = await attempt(MemoryNetwork(), outgoing(tmp_path), Incoming.open(tmp_path / "in"), expectation(**change))
    assert type(outcome.received) is error
    assert isinstance(outcome.sent, Refused) and str(outcome.sent) == str(outcome.received)
    assert outcome.sent.code == error.code  # type: ignore[attr-defined]
    assert not list((tmp_path / "in").iterdir())


async def test_a_refused_check_is_told_and_nothing_is_kept(tmp_path: Path) -> None:
    def check(path: Path, context: ParcelContext) -> None:
        assert path.read_bytes() == PLAIN and context.purpose == "offer"
        raise BadSnapshot("tensor 'w' has a value that is not finite; train again")

    incoming = Incoming.open(tmp_path / "in")
    outcome = await attempt(MemoryNetwork(), outgoing(tmp_path), incoming, check=check)
    assert isinstance(outcome.received, BadSnapshot)
    assert isinstance(outcome.sent, Refused) and outcome.sent.code == "bad-snapshot"
    assert "not finite" in str(outcome.sent) and not incoming.directory.exists()


async def test_a_full_disk_is_told_without_paths_and_the_transfer_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcel, real, written = outgoing(tmp_path), os.pwrite, 0

    def pwrite(file: int, data: Any, offset: int) -> int:
        nonlocal written
        if str(tmp_path / "in") in os.readlink(f"/proc/self/fd/{file}"):
            written += len(data)
            if written > 5 * CHUNK_BYTES:
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data, offset)

    monkeypatch.setattr(files.os, "pwrite", pwrite)
    outcome = await attempt(MemoryNetwork(), parcel, Incoming.open(tmp_path / "in"))
    assert isinstance(outcome.received, DiskFull) and "No space left" in str(outcome.received)
    assert isinstance(outcome.sent, Refused) and outcome.sent.code == "disk-full"
    assert str(tmp_path) not in str(outcome.sent)
    monkeypatch.setattr(files.os, "pwrite", real)
    incoming = Incoming.open(tmp_path / "in")
    resumed = await attempt(MemoryNetwork(), parcel, incoming)
    assert ok(resumed) and resumed.first == 4
    assert incoming.plain_path.read_bytes() == PLAIN


# ---- hostile ends -------------------------------------------------------------------------------------------------


async def talk_to_receiver(folder: Path, sent: bytes) -> Outcome:
    """A sender that writes `sent` and reads the first answer."""
    network, outcome = MemoryNetwork(), Outcome()
    sender, receiver = network.join(SENDER.peer_id), network.join(RECEIVER.peer_id)

    async def handler(stream: Stream) -> None:
        try:
            await receive_parcel(stream, Incoming.open(folder), expectation(), OneEpoch(), lambda: NOW_MS)
        except Exception as error:
            outcome.received = error

    await receiver.serve("parcel", handler)
    stream = await sender.open(RECEIVER.peer_id, "parcel")
    await stream.write(sent)
    length = int.from_bytes(await stream.read_exactly(4), "big")
    assert (await stream.read_exactly(length))[:1] == b"N"
    await stream.close()
    await asyncio.gather(*receiver._serving)
    return outcome


@pytest.mark.parametrize("length", [0, limits.MAX_PARCEL_HEADER_BYTES + 1, 2**32 - 1])
async def test_a_header_of_any_announced_length_is_not_awaited(tmp_path: Path, length: int) -> None:
    outcome = await talk_to_receiver(tmp_path, length.to_bytes(4, "big") + b"P2PM")
    assert isinstance(outcome.received, TooLargeError)


async def test_a_parcel_that_announces_exabytes_takes_no_room(tmp_path: Path) -> None:
    context = outgoing(tmp_path).context
    object.__setattr__(context, "plain_bytes", 2**60)
    body = encode(context)
    unsigned = b"P2PM\1" + len(body).to_bytes(2, "big") + body + bytes(80 + 32)
    header = unsigned + SENDER.sign(signed_bytes("parcel-header", unsigned))
    outcome = await talk_to_receiver(tmp_path / "in", len(header).to_bytes(4, "big") + header)
    assert isinstance(outcome.received, MalformedMessage)
    assert not list((tmp_path / "in").iterdir())


async def test_altered_chunks_and_trailers_are_refused_and_what_was_good_is_kept(tmp_path: Path) -> None:
    parcel = outgoing(tmp_path)

    class Tampering(Outgoing):
        def seal(self, first: int, count: int, out: memoryview) -> memoryview:
            sealed = super().seal(first, count, out)
            if first == 4:
                sealed[1] ^= 1
            return sealed

    tampering = Tampering(parcel.directory, parcel._sealer)
    outcome = await attempt(MemoryNetwork(), tampering, Incoming.open(tmp_path / "in"))
    assert isinstance(outcome.received, BadSeal)
    assert isinstance(outcome.sent, Refused) and outcome.sent.code == "bad-seal"

    parcel.trailer = lambda: bytes(64)  # type: ignore[method-assign]
    incoming = Incoming.open(tmp_path / "in")
    outcome = await attempt(MemoryNetwork(), parcel, incoming)
    assert isinstance(outcome.received, BadSignature) and outcome.first == 4
    assert not incoming.plain_path.exists()


async def talk_to_sender(folder: Path, *answers: bytes) -> Exception | None:
    """A receiver that gives these answers whatever it is sent."""
    network = MemoryNetwork()
    sender, receiver = network.join(SENDER.peer_id), network.join(RECEIVER.peer_id)

    async def handler(stream: Stream) -> None:
        for answer in answers:
            await stream.write(answer)
        with pytest.raises(ConnectionLost):
            while True:
                await stream.read_exactly(1)

    await receiver.serve("parcel", handler)
    stream = await sender.open(RECEIVER.peer_id, "parcel")
    try:
        await send_parcel(stream, outgoing(folder))
    except Exception as error:
        return error
    finally:
        await receiver.close()
    return None


@pytest.mark.parametrize(
    "answers",
    [
        [b"\0\0\0\x09F" + (11).to_bytes(8, "big")],
        [b"\0\0\0\x02Fx"],
        [b"\0\0\0\x01D"],
        [b"\0\0\0\x02Bx"],
        [b"\0\0\0\x03N\x92x"],
        [b"\0\0\0\x09F" + bytes(8), b"\0\0\0\x02D!"],
    ],
)
async def test_answers_that_break_the_protocol_are_named(tmp_path: Path, answers: list[bytes]) -> None:
    assert isinstance(await talk_to_sender(tmp_path, *answers), MalformedMessage)


async def test_an_answer_too_long_is_not_awaited(tmp_path: Path) -> None:
    assert isinstance(await talk_to_sender(tmp_path, b"\xff" * 5), TooLargeError)


async def test_a_receiver_that_works_long_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEARTBEAT_SECONDS", 0.001)
    signs, read_frame = asyncio.Event(), transfer._read_frame
    loop, seen = asyncio.get_running_loop(), 0

    async def counting(stream: Stream, max_bytes: int) -> bytes:
        nonlocal seen
        frame = await read_frame(stream, max_bytes)
        seen += frame == b"B"
        if seen >= 3:
            signs.set()
        return frame

    monkeypatch.setattr(transfer, "_read_frame", counting)

    def check(path: Path, context: ParcelContext) -> None:
        asyncio.run_coroutine_threadsafe(signs.wait(), loop).result()

    assert ok(await attempt(MemoryNetwork(), outgoing(tmp_path), Incoming.open(tmp_path / "in"), check=check))
    assert seen >= 3


async def test_a_cancelled_transfer_leaves_nothing_running(tmp_path: Path) -> None:
    network, incoming = MemoryNetwork(), Incoming.open(tmp_path / "in")
    sender, receiver = network.join(SENDER.peer_id), network.join(RECEIVER.peer_id)
    begun, reached = asyncio.Event(), asyncio.get_running_loop()

    def check(path: Path, context: ParcelContext) -> None:
        reached.call_soon_threadsafe(begun.set)

    async def handler(stream: Stream) -> None:
        await receive_parcel(stream, incoming, expectation(), OneEpoch(), lambda: NOW_MS, check=check)
        await asyncio.Event().wait()

    await receiver.serve("parcel", handler)
    stream = await sender.open(RECEIVER.peer_id, "parcel")
    sending = asyncio.create_task(send_parcel(stream, outgoing(tmp_path)))
    await begun.wait()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await receiver.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


class NeverClosing:
    """A sender's stream whose end the receiver never sees."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.peer_id = stream.peer_id
        self.read_exactly, self.write = stream.read_exactly, stream.write

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_that_comes_with_the_goodbye_is_not_lost(tmp_path: Path, turns: int) -> None:
    network, incoming = MemoryNetwork(), Incoming.open(tmp_path / "in")
    sender, receiver = network.join(SENDER.peer_id), network.join(RECEIVER.peer_id)

    async def handler(stream: Stream) -> None:
        await receive_parcel(stream, incoming, expectation(), OneEpoch(), lambda: NOW_MS)
        await asyncio.Event().wait()

    await receiver.serve("parcel", handler)
    stream = await sender.open(RECEIVER.peer_id, "parcel")
    await send_parcel(NeverClosing(stream), outgoing(tmp_path))
    for _ in range(10):  # until the receiver waits for the stream's end
        await asyncio.sleep(0)
    await stream.close()
    for _ in range(turns):
        await asyncio.sleep(0)
    closing = asyncio.create_task(receiver.close())
    done, _ = await asyncio.wait({closing}, timeout=5)
    assert done, "the handler lost its cancellation and went on"


async def test_another_peer_cannot_forward_a_parcel_as_its_own(tmp_path: Path) -> None:
    thief = Identity.generate()
    outcome = await attempt(
        MemoryNetwork(), outgoing(tmp_path), Incoming.open(tmp_path / "in"), expectation(sender=thief.peer_id)
    )
    assert isinstance(outcome.received, BadSignature)
