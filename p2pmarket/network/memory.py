"""A whole network in one process: `Transport` without sockets, with faults given as data.

Knows: peers that joined, their streams, the shared table. Refuses to know: what the bytes say. Nothing here draws
random numbers, so a run repeats exactly. Fails like the real one: `PeerUnreachable` for who is not there,
`ConnectionLost` for a stream whose other end left, back-pressure from bounded buffers.

A party's crash is a `Fault`: at its n-th stream write the peer vanishes and the write is lost. Run once without faults,
read `network.writes[peer]`, and every step at which that party may vanish is one fault from 1 to that number.
What happens to each write otherwise is a `Fate`, which a `Weather` decides: late (so streams overtake one another; one
stream keeps its order, and nothing arrives twice, as with any transport here), or lost with its stream. `part` keeps
two peers from each other until `heal`.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from p2pmarket import limits
from p2pmarket.errors import ConnectionLost, IdentityInUse, PeerFault, PeerUnreachable
from p2pmarket.network.memory_pipe import Pipe
from p2pmarket.network.streams import StreamCaps, serve_stream
from p2pmarket.network.table import check_record
from p2pmarket.network.transport import StreamHandler
from p2pmarket.tasks import end_tasks
from p2pmarket.units import Clock, now_ms

PIPE_BYTES = 1024 * 1024
"""Bytes one direction of a stream holds before its writer waits; about what a libp2p stream does."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """`peer` vanishes at its `write`-th stream write, counted from 1 over all its streams."""

    peer: str
    write: int


@dataclasses.dataclass(frozen=True)
class Fate:
    """What becomes of one write."""

    delay_seconds: float = 0.0
    """It arrives that much later."""
    lost: bool = False
    """It never arrives, and its stream breaks when it would have: its writer learns of that no sooner."""


CALM = Fate()

Weather = Callable[[str, str, int], Fate]
"""Decides a write's fate from its sender, its receiver and its number of bytes."""
Watch = Callable[[str, str, bytes], None]
"""Told each write before it is done: sender, receiver, bytes. What it raises is raised at the writer."""


class MemoryNetwork:
    """The hub: who is present, and the table of announcements."""

    def __init__(
        self,
        clock: Clock = now_ms,
        faults: Iterable[Fault] = (),
        *,
        stall_seconds: float = limits.STREAM_STALL_SECONDS,
        weather: Weather = lambda sender, receiver, size: CALM,
        watch: Watch = lambda sender, receiver, data: None,
    ) -> None:
        self.clock = clock
        self.stall_seconds = stall_seconds
        self.weather = weather
        self.watch = watch
        self.writes: Counter[str] = Counter()
        """Stream writes begun so far, by peer id."""
        self._faults = frozenset(faults)
        self._present: dict[str, MemoryTransport] = {}
        self._table: dict[str, dict[str, tuple[bytes, int]]] = {}
        self._parted: set[frozenset[str]] = set()

    def join(self, peer_id: str) -> MemoryTransport:
        """A peer's new presence; one that vanished or closed joins again under the same id.

        :raises IdentityInUse: it is present
        """
        if peer_id in self._present:
            raise IdentityInUse(f"{peer_id} is present on this network; close it before it joins again")
        self._present[peer_id] = MemoryTransport(self, peer_id)
        return self._present[peer_id]

    def vanish(self, peer_id: str) -> None:
        """The peer is gone at once: its streams break at both ends with what they held; nobody reaches it."""
        transport = self._present.pop(peer_id, None)
        if transport is not None:
            transport._break_streams()

    def part(self, one: str, other: str) -> None:
        """Keeps two peers apart: no new stream, and what they write on those they have is lost with the stream."""
        self._parted.add(frozenset((one, other)))

    def heal(self) -> None:
        """Nobody is kept apart any longer."""
        self._parted.clear()

    def parted(self, one: str, other: str) -> bool:
        """Whether two peers are kept apart."""
        return frozenset((one, other)) in self._parted

    def fate(self, sender: str, receiver: str, size: int) -> Fate:
        """What becomes of a write."""
        if self.parted(sender, receiver):
            return Fate(self.stall_seconds, lost=True)
        return self.weather(sender, receiver, size)

    def plant(self, key: str, peer_id: str, value: bytes, expires_ms: int) -> None:
        """Puts any value into the table unchecked, as hostile nodes of a real table may."""
        self._table.setdefault(key, {})[peer_id] = (value, expires_ms)

    def peer(self, peer_id: str) -> MemoryTransport | None:
        """The peer's presence, None where it is gone."""
        return self._present.get(peer_id)

    def values(self, key: str) -> dict[str, bytes]:
        """What the table holds under `key` and has not run out."""
        now = self.clock()
        return {peer: value for peer, (value, expires_ms) in self._table.get(key, {}).items() if expires_ms > now}

    def count_write(self, peer_id: str) -> None:
        """One write of this peer begins; carries out the fault that is set for it.

        :raises ConnectionLost: the peer vanished at this write
        """
        self.writes[peer_id] += 1
        if Fault(peer_id, self.writes[peer_id]) in self._faults:
            self.vanish(peer_id)
            raise ConnectionLost(f"{peer_id} vanished at its write {self.writes[peer_id]}")


class MemoryTransport:
    """One peer's presence; made by `MemoryNetwork.join`."""

    def __init__(self, network: MemoryNetwork, peer_id: str) -> None:
        self._network = network
        self._peer_id = peer_id
        self._handlers: dict[str, tuple[StreamHandler, contextvars.Context]] = {}
        self._caps = StreamCaps()
        self._streams: dict[MemoryStream, None] = {}
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def peer_id(self) -> str:
        return self._peer_id

    @property
    def present(self) -> bool:
        """Whether this peer is on the network: neither vanished nor closed."""
        return self._network.peer(self._peer_id) is self

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        # Whoever opens a stream, it is served in the context of who serves it, as in a process of its own.
        self._handlers[protocol] = (handler, contextvars.copy_context())

    async def open(self, peer_id: str, protocol: str, addresses: tuple[str, ...] = ()) -> MemoryStream:
        if not self.present:
            raise PeerUnreachable(f"{self._peer_id} has left the network; join again")
        other = self._network.peer(peer_id)
        if other is None or other is self or self._network.parted(self._peer_id, peer_id):
            raise PeerUnreachable(f"{peer_id} cannot be reached; check that it is running, then try again")
        if protocol not in other._handlers:
            raise PeerUnreachable(f"{peer_id} does not serve {protocol}; it is another kind of peer or version")
        there, back = Pipe(PIPE_BYTES), Pipe(PIPE_BYTES)
        stream = MemoryStream(self, peer_id, incoming=back, outgoing=there, stall_seconds=self._network.stall_seconds)
        other._accept(stream._far_end(other, self._peer_id), protocol)
        return stream

    async def publish(self, key: str, value: bytes, expires_ms: int) -> bool:
        now = self._network.clock()
        try:
            check_record(key, self._peer_id, value, expires_ms, now)
        except PeerFault:
            return False
        if not self.present or expires_ms <= now:
            return False
        self._network.plant(key, self._peer_id, value, expires_ms)
        return True

    async def lookup(self, key: str) -> Mapping[str, bytes]:
        return self._network.values(key) if self.present else {}

    async def addresses(self) -> tuple[str, ...]:
        return (f"/memory/{self._peer_id}",) if self.present else ()

    async def close(self) -> None:
        if self.present:
            self._network.vanish(self._peer_id)
        await end_tasks(self._serving)

    def _accept(self, stream: MemoryStream, protocol: str) -> None:
        if not self._caps.admit(stream.peer_id):
            stream._end()
            return
        handler, context = self._handlers[protocol]
        task = context.run(asyncio.ensure_future, serve_stream(stream, protocol, handler))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        task.add_done_callback(lambda _: self._caps.leave(stream.peer_id))
        # A task that is cancelled before its first step never reaches its own clean-up.
        task.add_done_callback(lambda _: stream._end())

    def _break_streams(self) -> None:
        for stream in list(self._streams):
            stream._break()


class MemoryStream:
    """One end of a stream."""

    def __init__(
        self, owner: MemoryTransport, peer_id: str, *, incoming: Pipe, outgoing: Pipe, stall_seconds: float
    ) -> None:
        self._owner = owner
        self._peer_id = peer_id
        self._incoming = incoming
        self._outgoing = outgoing
        self._stall_seconds = stall_seconds
        owner._streams[self] = None

    @property
    def peer_id(self) -> str:
        return self._peer_id

    async def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            data += self._incoming.take(count - len(data), self._peer_id)
            if len(data) < count:
                await self._incoming.change(self._stall_seconds, f"{self._peer_id} sent nothing")
        return bytes(data)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        network, owner = self._owner._network, self._owner.peer_id
        fate = CALM
        if self._owner.present:
            network.count_write(owner)
            network.watch(owner, self._peer_id, bytes(data))
            fate = network.fate(owner, self._peer_id, len(data))
        if fate.lost:
            self._lose(fate.delay_seconds)
            return
        rest = memoryview(data).cast("B")
        while True:
            rest = rest[self._outgoing.put(rest, self._peer_id, fate.delay_seconds) :]
            if not rest:
                return
            await self._outgoing.change(self._stall_seconds, f"{self._peer_id} took nothing")

    async def close(self) -> None:
        self._end()

    def _far_end(self, owner: MemoryTransport, peer_id: str) -> MemoryStream:
        return MemoryStream(
            owner, peer_id, incoming=self._outgoing, outgoing=self._incoming, stall_seconds=self._stall_seconds
        )

    def _end(self) -> None:
        """The other end reads what was written before; nothing more goes either way."""
        self._outgoing.end()
        self._incoming.break_()
        self._owner._streams.pop(self, None)

    def _lose(self, delay_seconds: float) -> None:
        """What is written from now on is lost; after the delay both ends see the stream break."""
        self._outgoing.swallow()
        asyncio.get_running_loop().call_later(delay_seconds, self._break)

    def _break(self) -> None:
        self._outgoing.break_()
        self._incoming.break_()
        self._owner._streams.pop(self, None)
