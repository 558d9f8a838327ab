"""The network in memory when it is bad: late writes, writes that are lost with their streams, peers kept apart."""

from __future__ import annotations

import asyncio

import pytest

from p2pmarket.errors import ConnectionLost, PeerUnreachable
from p2pmarket.network.memory import CALM, Fate, MemoryNetwork, MemoryStream
from p2pmarket.network.transport import Stream
from p2pmarket.simulation.virtual import VirtualLoop, run


class Listener:
    """Notes what arrives and when, byte by byte."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.heard: list[tuple[float, str]] = []
        self.ended: list[float] = []

    async def serve(self, stream: Stream) -> None:
        try:
            while True:
                letter = (await stream.read_exactly(1)).decode()
                self.heard.append((round(self.loop.time(), 3), letter))
        except ConnectionLost:
            self.ended.append(round(self.loop.time(), 3))


async def listening(loop: VirtualLoop, network: MemoryNetwork) -> tuple[Listener, MemoryStream, MemoryStream]:
    """A listener and two streams to it."""
    listener = Listener(loop)
    one, other = network.join("one"), network.join("other")
    await other.serve("talk", listener.serve)
    return listener, await one.open("other", "talk"), await one.open("other", "talk")


def test_streams_overtake_one_another_and_each_keeps_its_order() -> None:
    delays = iter([5.0, 1.0, 2.0])

    async def main(loop: VirtualLoop) -> list[tuple[float, str]]:
        network = MemoryNetwork(loop.now_ms, weather=lambda sender, receiver, size: Fate(next(delays)))
        listener, first, second = await listening(loop, network)
        await first.write(b"a")
        await first.write(b"b")
        await second.write(b"c")
        await second.close()
        await asyncio.sleep(10)
        return listener.heard

    assert run(main) == [(2.0, "c"), (5.0, "a"), (5.0, "b")]


def test_a_lost_write_breaks_its_stream_later_and_alone() -> None:
    fates = {b"b": Fate(3.0, lost=True)}
    said: list[bytes] = []

    async def main(loop: VirtualLoop) -> None:
        network = MemoryNetwork(
            loop.now_ms,
            weather=lambda sender, receiver, size: fates.get(said[-1], CALM),
            watch=lambda *w: said.append(w[2]),
        )
        listener, first, second = await listening(loop, network)
        for letter in (b"a", b"b", b"c"):
            await first.write(letter)
        await second.write(b"d")
        await asyncio.sleep(10)
        assert listener.heard == [(0.0, "a"), (0.0, "d")] and listener.ended == [3.0]
        with pytest.raises(ConnectionLost):
            await first.write(b"e")
        await second.write(b"f")
        await asyncio.sleep(1)
        assert listener.heard[-1] == (10.0, "f")

    run(main)


def test_peers_kept_apart_cannot_meet_until_it_heals() -> None:
    async def main(loop: VirtualLoop) -> None:
        network = MemoryNetwork(loop.now_ms)
        listener, first, _ = await listening(loop, network)
        network.part("other", "one")
        await first.write(b"a")
        with pytest.raises(PeerUnreachable):
            await network.peer("one").open("other", "talk")  # type: ignore[union-attr]
        network.heal()
        again = await network.peer("one").open("other", "talk")  # type: ignore[union-attr]
        await again.write(b"b")
        await asyncio.sleep(network.stall_seconds + 1)
        assert [letter for _, letter in listener.heard] == ["b"]
        with pytest.raises(ConnectionLost):
            await first.write(b"c")

    run(main)


def test_a_watch_may_end_a_write_before_it_is_done() -> None:
    def refuse(sender: str, receiver: str, data: bytes) -> None:
        raise asyncio.CancelledError

    async def main(loop: VirtualLoop) -> None:
        network = MemoryNetwork(loop.now_ms, watch=refuse)
        listener, first, _ = await listening(loop, network)
        with pytest.raises(asyncio.CancelledError):
            await first.write(b"a")
        await asyncio.sleep(1)
        assert listener.heard == []

    run(main)
