"""The contract between the market and whatever carries its bytes: authenticated streams and a table of hints.

Two implementations, `memory.MemoryTransport` and `libp2p.Libp2pTransport`; tests/network/test_transport_contract.py
runs against both. Everything above this line never learns which one it has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol


class Stream(Protocol):
    """One ordered, authenticated two-way stream of bytes to a peer. There is no half-close: frame what you send."""

    @property
    def peer_id(self) -> str:
        """The other end, authenticated by the transport."""
        ...

    async def read_exactly(self, count: int) -> bytes:
        """Exactly `count` bytes.

        :raises ConnectionLost: the stream ended, broke, or no byte came for STREAM_STALL_SECONDS
            (a caller that may wait longer asks with its own heartbeat)
        """
        ...

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hands `data` over and waits while the other end is slow (back-pressure). The buffer may be reused after.

        :raises ConnectionLost: the stream broke, or nothing was taken for STREAM_STALL_SECONDS
        """
        ...

    async def close(self) -> None:
        """Ends the stream in both directions; never raises, may be called twice."""
        ...


StreamHandler = Callable[[Stream], Awaitable[None]]
"""Serves one incoming stream; the transport closes it when this returns or raises, and logs what it raised."""


class Transport(Protocol):
    """A peer's presence on the network."""

    @property
    def peer_id(self) -> str:
        """This peer's own id."""
        ...

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Answers streams that peers open under the name `protocol`, within MAX_STREAMS and MAX_STREAMS_PER_PEER."""
        ...

    async def open(self, peer_id: str, protocol: str, addresses: tuple[str, ...] = ()) -> Stream:
        """A stream to a peer; `addresses` are hints where it may be found.

        :raises PeerUnreachable: no such peer, or it does not serve this protocol
        """
        ...

    async def publish(self, key: str, value: bytes, expires_ms: int) -> bool:
        """Puts `value` under `key` and this peer's id in the shared table until `expires_ms` (UTC); True if stored.

        The table is a hint, never truth: values are signed statements and readers verify them.
        """
        ...

    async def lookup(self, key: str) -> Mapping[str, bytes]:
        """All values under `key` by the peer id they were published under; empty when there are none."""
        ...

    async def addresses(self) -> tuple[str, ...]:
        """Addresses under which other peers may reach this one, ready for `--initial_peers`."""
        ...

    async def close(self) -> None:
        """Leaves the network; streams break, processes and sockets end. May be called twice."""
        ...
