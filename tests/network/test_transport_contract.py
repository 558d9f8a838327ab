"""One suite for both transports: what the layers above may rely on."""

from __future__ import annotations

import asyncio

import pytest
from peers import QUARTER_HOUR_MS, eventually, identity_of, statement_of

from p2pmarket import limits
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import ConnectionLost, PeerUnreachable
from p2pmarket.messages import Checkpoint
from p2pmarket.network.announcement import BROKER_KEYS, broker_key
from p2pmarket.network.table import head_key
from p2pmarket.network.transport import Stream
from p2pmarket.units import now_ms

MIB = 1024 * 1024
ECHO = "p2pmarket/test/echo"


async def echo(stream: Stream) -> None:
    while True:
        await stream.write(await stream.read_exactly(4))


async def ping(stream: Stream) -> bytes:
    await stream.write(b"ping")
    return await stream.read_exactly(4)


async def test_both_ends_know_each_other_and_bytes_arrive_in_order(transports):
    agent, broker = await transports("agent"), await transports("broker")
    seen = []

    async def serve(stream: Stream) -> None:
        seen.append(stream.peer_id)
        for _ in range(3):
            await stream.write((await stream.read_exactly(5)).upper())

    await broker.serve(ECHO, serve)
    stream = await agent.open(broker.peer_id, ECHO)
    await stream.write(b"hel")
    await stream.write(memoryview(b"loworldagain"))
    assert await stream.read_exactly(15) == b"HELLOWORLDAGAIN"
    assert seen == [agent.peer_id] == [identity_of("agent").peer_id]
    assert stream.peer_id == broker.peer_id
    assert await stream.read_exactly(0) == b""


async def test_a_writer_waits_for_a_slow_reader_and_may_reuse_its_buffer(transports):
    agent, broker = await transports("agent"), await transports("broker")
    go_on, digest = asyncio.Event(), bytearray()

    async def serve(stream: Stream) -> None:
        await go_on.wait()
        for _ in range(32):
            digest.append(set((await stream.read_exactly(MIB))[:: MIB // 4]).pop())
        await stream.write(b"done")

    await broker.serve(ECHO, serve)
    stream = await agent.open(broker.peer_id, ECHO)
    written = 0

    async def send() -> None:
        nonlocal written
        buffer = bytearray(MIB)
        for number in range(32):
            buffer[:] = bytes((number,)) * MIB
            await stream.write(buffer)
            written += 1

    sending = asyncio.create_task(send())
    await asyncio.wait({sending}, timeout=0.5)
    assert written < 16
    go_on.set()
    await sending
    assert await stream.read_exactly(4) == b"done"
    assert list(digest) == list(range(32))


async def test_what_was_written_before_closing_is_read_and_then_the_stream_ends(transports):
    agent, broker = await transports("agent"), await transports("broker")

    async def serve(stream: Stream) -> None:
        await stream.write(b"x" * 300_000)

    await broker.serve(ECHO, serve)
    stream = await agent.open(broker.peer_id, ECHO)
    assert len(await stream.read_exactly(300_000)) == 300_000
    with pytest.raises(ConnectionLost):
        await stream.read_exactly(1)
    await stream.close()
    await stream.close()
    with pytest.raises(ConnectionLost):
        await stream.write(b"late")


async def test_a_handler_that_fails_costs_its_stream_alone(transports, caplog):
    agent, broker = await transports("agent"), await transports("broker")

    async def serve(stream: Stream) -> None:
        if await stream.read_exactly(4) == b"fail":
            raise ValueError("on purpose")
        await stream.write(b"fine")

    await broker.serve(ECHO, serve)
    failing, working = await agent.open(broker.peer_id, ECHO), await agent.open(broker.peer_id, ECHO)
    await failing.write(b"fail")
    with pytest.raises(ConnectionLost):
        await failing.read_exactly(1)
    assert "on purpose" in caplog.text
    assert await ping(working) == b"fine"


async def test_who_is_not_there_or_does_not_serve_is_unreachable(transports):
    agent, broker = await transports("agent"), await transports("broker")
    await broker.serve(ECHO, echo)
    with pytest.raises(PeerUnreachable, match="does not serve"):
        await agent.open(broker.peer_id, "p2pmarket/test/other")
    for peer_id in (identity_of("nobody").peer_id, "not a peer id", agent.peer_id):
        with pytest.raises(PeerUnreachable, match="cannot be reached"):
            await agent.open(peer_id, ECHO)


async def test_hints_where_a_peer_may_be_help_and_bad_ones_do_no_harm(transports):
    agent, broker = await transports("agent"), await transports("broker")
    await broker.serve(ECHO, echo)
    hints = ("nonsense", "/ip4/127.0.0.1/tcp/1", *await broker.addresses())
    assert await ping(await agent.open(broker.peer_id, ECHO, hints)) == b"ping"


async def test_a_peer_that_holds_too_many_streams_gets_no_more_until_one_ends(transports):
    agent, other, broker = await transports("agent"), await transports("other"), await transports("broker")
    await broker.serve(ECHO, echo)
    held = [await agent.open(broker.peer_id, ECHO) for _ in range(limits.MAX_STREAMS_PER_PEER)]
    assert [await ping(stream) for stream in held] == [b"ping"] * limits.MAX_STREAMS_PER_PEER
    excess = await agent.open(broker.peer_id, ECHO)
    with pytest.raises(ConnectionLost):
        await ping(excess)
    assert await ping(await other.open(broker.peer_id, ECHO)) == b"ping"
    await held[0].close()

    async def served_again() -> bool:
        try:
            return await ping(await agent.open(broker.peer_id, ECHO)) == b"ping"
        except ConnectionLost:
            return False

    await eventually(served_again)


async def test_a_peer_that_leaves_breaks_its_streams_and_is_unreachable(transports):
    agent, broker = await transports("agent"), await transports("broker")
    ended = asyncio.Event()

    async def serve(stream: Stream) -> None:
        try:
            await echo(stream)
        finally:
            ended.set()

    await broker.serve(ECHO, serve)
    stream = await agent.open(broker.peer_id, ECHO)
    assert await ping(stream) == b"ping"
    waiting = asyncio.create_task(stream.read_exactly(1))
    await broker.close()
    with pytest.raises(ConnectionLost):
        await waiting
    assert ended.is_set()
    with pytest.raises(PeerUnreachable):
        await agent.open(broker.peer_id, ECHO)
    assert await broker.addresses() == ()
    assert await broker.lookup(BROKER_KEYS[0]) == {}
    with pytest.raises(PeerUnreachable):
        await broker.open(agent.peer_id, ECHO)
    await broker.close()


async def test_an_announcement_is_found_by_others_and_renewed(transports):
    broker, agent, third = await transports("broker"), await transports("agent"), await transports("third")
    key, now = broker_key("digits"), now_ms()
    assert await agent.lookup(key) == {}
    first = statement_of(identity_of("broker"), issued_ms=now)
    assert await broker.publish(key, first, now + QUARTER_HOUR_MS)
    for transport in (broker, agent, third):
        assert await transport.lookup(key) == {broker.peer_id: first}
    second = statement_of(identity_of("broker"), issued_ms=now + 2000)
    assert await broker.publish(key, second, now + 2000 + QUARTER_HOUR_MS)
    for transport in (broker, agent, third):
        assert await transport.lookup(key) == {broker.peer_id: second}


async def test_an_announcement_that_breaks_the_rule_is_not_stored(transports):
    broker, agent = await transports("broker"), await transports("agent")
    own, now = identity_of("broker"), now_ms()
    key, expires = broker_key("digits"), now + QUARTER_HOUR_MS
    other_key = next(other for other in BROKER_KEYS if other != key)
    honest = statement_of(own, issued_ms=now)
    assert not await broker.publish(other_key, honest, expires)
    assert not await broker.publish("p2pmarket/v1/unknown", honest, expires)
    assert not await broker.publish(key, statement_of(identity_of("agent")), expires)
    assert not await broker.publish(key, statement_of(own, broker=agent.peer_id), expires)
    assert not await broker.publish(key, honest, expires + 60_000)
    assert not await broker.publish(key, honest, now - 1000)
    assert not await broker.publish(key, statement_of(own, addresses=("é" * 160,) * 4), expires)
    assert not await broker.publish(key, b"anything", expires)
    assert await agent.lookup(key) == {}
    assert await broker.publish(key, honest, expires)


async def test_heads_of_a_brokers_log_are_published_by_whoever_holds_them(transports):
    one, other, third = await transports("one"), await transports("other"), await transports("third")
    broker, now = identity_of("broker"), now_ms()
    key, expires = head_key("digits", broker.peer_id), now + QUARTER_HOUR_MS
    heads = [sign(broker, Checkpoint("digits", broker.peer_id, size, bytes(32), now)) for size in (1, 2)]
    assert await one.publish(key, heads[0], expires) and await other.publish(key, heads[1], expires)
    assert await third.lookup(key) == {one.peer_id: heads[0], other.peer_id: heads[1]}
    forged = sign(identity_of("third"), Checkpoint("digits", broker.peer_id, 3, bytes(32), now))
    assert not await third.publish(key, forged, expires)
    assert not await third.publish(head_key("letters", broker.peer_id), heads[0], expires)
    assert await one.publish(key, heads[1], expires + 2000)
    assert await third.lookup(key) == {one.peer_id: heads[1], other.peer_id: heads[1]}
