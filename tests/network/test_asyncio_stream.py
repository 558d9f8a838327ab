"""Streams over sockets: stalls are told from slowness."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from p2pmarket.errors import ConnectionLost
from p2pmarket.network.asyncio_stream import AsyncioStream


@contextlib.asynccontextmanager
async def stream_and_socket(stall_seconds):
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours)
    stream = AsyncioStream("peer", reader, writer, set(), stall_seconds=stall_seconds)
    try:
        yield stream, theirs
    finally:
        theirs.close()
        await stream.close()


async def test_silence_is_a_stall():
    async with stream_and_socket(0.02) as (stream, theirs):
        theirs.send(b"ab")
        with pytest.raises(ConnectionLost, match="peer sent nothing"):
            await stream.read_exactly(3)
        with pytest.raises(ConnectionLost):
            await stream.write(b"x")


async def test_a_reader_who_takes_nothing_is_a_stall():
    async with stream_and_socket(0.02) as (stream, theirs):
        with pytest.raises(ConnectionLost, match="peer took nothing"):
            await stream.write(bytes(8 * 2**20))


async def test_slow_is_not_stalled():
    """Ten times the stall time in all, but something moves in each part of it."""
    stall_seconds = 0.3
    async with stream_and_socket(stall_seconds) as (stream, theirs):
        loop = asyncio.get_running_loop()

        async def drip() -> None:
            for _ in range(30):
                await loop.sock_sendall(theirs, b"x")
                await asyncio.sleep(stall_seconds / 30)

        dripping = asyncio.create_task(drip())
        assert await stream.read_exactly(30) == b"x" * 30
        await dripping


async def test_two_directions_at_once():
    async with stream_and_socket(5) as (stream, theirs):
        loop = asyncio.get_running_loop()
        payload = bytes(range(256)) * 4096

        async def mirror() -> None:
            left = len(payload)
            while left:
                part = await loop.sock_recv(theirs, 65536)
                left -= len(part)
                await loop.sock_sendall(theirs, part)

        mirroring = asyncio.create_task(mirror())
        reading = asyncio.create_task(stream.read_exactly(len(payload)))
        await stream.write(payload)
        assert await reading == payload
        await mirroring


async def test_an_end_in_the_middle_is_a_lost_connection():
    async with stream_and_socket(5) as (stream, theirs):
        theirs.send(b"abc")
        theirs.close()
        assert await stream.read_exactly(2) == b"ab"
        with pytest.raises(ConnectionLost, match="ended"):
            await stream.read_exactly(2)
        with pytest.raises(ConnectionLost):
            for _ in range(3):
                await stream.write(b"x")
