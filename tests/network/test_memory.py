"""The network in memory: faults as data, stalls, and the table's clock."""

from __future__ import annotations

import asyncio

import pytest
from peers import QUARTER_HOUR_MS, identity_of, statement_of

from p2pmarket.errors import ConnectionLost, IdentityInUse, PeerUnreachable
from p2pmarket.network.announcement import broker_key
from p2pmarket.network.memory import Fault, MemoryNetwork
from p2pmarket.network.transport import Stream

STEPS = 3


async def conversation(network: MemoryNetwork) -> list[str]:
    """Three questions and answers; what the agent saw."""
    agent, broker = network.join("agent"), network.join("broker")

    async def answer(stream: Stream) -> None:
        while True:
            await stream.write((await stream.read_exactly(1)).upper())

    await broker.serve("talk", answer)
    seen = []
    try:
        stream = await agent.open("broker", "talk")
        for question in (b"a", b"b", b"c"):
            await stream.write(question)
            seen.append((await stream.read_exactly(1)).decode())
    except ConnectionLost:
        seen.append("lost")
    await agent.close()
    await broker.close()
    return seen


async def test_every_step_at_which_a_party_may_vanish_can_be_listed():
    calm = MemoryNetwork()
    assert await conversation(calm) == ["A", "B", "C"]
    assert calm.writes == {"agent": STEPS, "broker": STEPS}
    for peer in ("agent", "broker"):
        for step in range(1, STEPS + 1):
            seen = await conversation(MemoryNetwork(faults=[Fault(peer, step)]))
            assert seen == [*"ABC"[: step - 1], "lost"]
    assert await conversation(MemoryNetwork(faults=[Fault("agent", STEPS + 1)])) == ["A", "B", "C"]


async def test_a_peer_that_vanished_is_gone_until_it_joins_again(memory_network):
    agent, broker = memory_network.join("agent"), memory_network.join("broker")
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(stream: Stream) -> None:
        received.put_nowait(await stream.read_exactly(2))

    await broker.serve("talk", serve)
    stream = await agent.open("broker", "talk")
    await stream.write(b"1")
    memory_network.vanish("broker")
    memory_network.vanish("broker")
    for use in (stream.write(b"2"), stream.read_exactly(1)):
        with pytest.raises(ConnectionLost):
            await use
    with pytest.raises(PeerUnreachable):
        await agent.open("broker", "talk")
    with pytest.raises(PeerUnreachable):
        await broker.open("agent", "talk")
    again = memory_network.join("broker")
    with pytest.raises(PeerUnreachable, match="does not serve"):
        await agent.open("broker", "talk")
    await again.serve("talk", serve)
    await broker.close()  # the old presence; the new one stays
    await (await agent.open("broker", "talk")).write(b"34")
    assert await received.get() == b"34"


async def test_one_peer_id_is_present_once(memory_network):
    memory_network.join("agent")
    with pytest.raises(IdentityInUse):
        memory_network.join("agent")


async def test_a_stream_on_which_nothing_moves_is_given_up():
    network = MemoryNetwork(stall_seconds=0.01)
    agent, broker = network.join("agent"), network.join("broker")
    await broker.serve("talk", lambda stream: asyncio.Event().wait())
    stream = await agent.open("broker", "talk")
    with pytest.raises(ConnectionLost, match="sent nothing"):
        await stream.read_exactly(1)
    with pytest.raises(ConnectionLost, match="took nothing"):
        await stream.write(bytes(2**21))
    await broker.close()


async def test_an_announcement_runs_out_by_the_network_s_clock():
    now = 1_800_000_000_000
    network = MemoryNetwork(clock=lambda: now)
    broker = network.join(identity_of("broker").peer_id)
    statement = statement_of(identity_of("broker"), issued_ms=now)
    key = broker_key("digits")
    assert await broker.publish(key, statement, now + QUARTER_HOUR_MS)
    now += QUARTER_HOUR_MS - 1
    assert await broker.lookup(key) == {broker.peer_id: statement}
    now += 1
    assert await broker.lookup(key) == {}
