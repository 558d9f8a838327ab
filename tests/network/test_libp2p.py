"""libp2p itself: hostile bytes in the DHT, a daemon that dies, and a start that fails in words."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys

import msgpack
import pytest
from hivemind.dht.node import DHTID, DHTNode
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.p2p import P2P, PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer
from peers import QUARTER_HOUR_MS, eventually, identity_of, statement_of

from p2pmarket import limits
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import (
    BootstrapUnreachable,
    ConnectionLost,
    IdentityError,
    IdentityInUse,
    PeerUnreachable,
    PortInUse,
    SettingsError,
)
from p2pmarket.messages import Checkpoint
from p2pmarket.network.announcement import BROKER_KEYS, broker_key
from p2pmarket.network.dht_guards import install_decoder_guards
from p2pmarket.network.startup import with_port
from p2pmarket.network.table import head_key
from p2pmarket.network.transport import Stream
from p2pmarket.units import now_ms

TUPLE_TYPE = 0x40
KEY = broker_key("digits")
HOSTILE_OF_EVERY_KIND = 300


def nested(depth: int) -> bytes:
    """A tuple in a tuple in a tuple, as hivemind's serializer writes them, `depth` deep."""
    sizes, size = [], 1
    for _ in range(depth):
        sizes.append(size + 1)
        size += 1 + 6
    headers = (b"\xc9" + size.to_bytes(4, "big") + bytes((TUPLE_TYPE,)) + b"\x91" for size in reversed(sizes))
    # ext32 of `size` bytes, holding an array of one
    return b"".join(headers) + b"\xc0"


# ---- the depth guard ----------------------------------------------------------------------------------------------


def test_nesting_is_refused_beyond_a_depth_and_the_process_lives():
    install_decoder_guards(MSGPackSerializer)
    install_decoder_guards(MSGPackSerializer)
    assert MSGPackSerializer.loads(nested(3)) == (((None,),),)
    assert MSGPackSerializer.loads(nested(limits.MAX_DHT_NESTING)) == ((((None,),),),)
    for depth in (5, 200, 20_000):
        with pytest.raises(ValueError, match="nested deeper"):
            MSGPackSerializer.loads(nested(depth))
    assert MSGPackSerializer.loads(nested(3)) == (((None,),),), "the count is back at zero after a refusal"


def test_without_the_guard_one_message_ends_the_process():
    """The control: hivemind as it is."""
    program = "import sys; from hivemind.utils import MSGPackSerializer as s; s.loads(sys.stdin.buffer.read())"
    ended = subprocess.run([sys.executable, "-c", program], input=nested(20_000), capture_output=True, check=False)
    assert ended.returncode < 0, "ended by a signal"


def test_nesting_hidden_in_dictionaries_is_counted_too():
    install_decoder_guards(MSGPackSerializer)
    inner = DictionaryDHTValue()
    inner.store("key", b"value", 2e9)
    assert MSGPackSerializer.loads(MSGPackSerializer.dumps(inner)).get("key").value == b"value"
    data = MSGPackSerializer.dumps(inner)
    for _ in range(5):
        data = msgpack.packb(msgpack.ExtType(TUPLE_TYPE, b"\x91" + data))
    with pytest.raises(ValueError, match="nested deeper"):
        MSGPackSerializer.loads(data)


def test_an_error_does_not_quote_the_message():
    install_decoder_guards(MSGPackSerializer)
    for wrong in (bytes(2**20), b"", b"\xc1" * 1000, b"\x91"):
        with pytest.raises(ValueError, match="not msgpack") as caught:
            MSGPackSerializer.loads(wrong)
        assert len(repr(caught.value)) < 200


# ---- hostile records ----------------------------------------------------------------------------------------------


@pytest.fixture
async def attacker(tmp_path):
    """A function that starts a plain hivemind node, with no rules of its own, next to a transport."""
    nodes = []

    async def start(victim) -> DHTNode:
        seeds = await victim.addresses()
        p2p = await P2P.create(
            initial_peers=seeds, use_relay=False, use_auto_relay=False, nat_port_map=False, auto_nat=False
        )
        nodes.append(await DHTNode.create(p2p=p2p, initial_peers=seeds))
        return nodes[-1]

    yield start
    for node in nodes:
        await node.shutdown()
        await node.p2p.shutdown()


def hostile_records(count):
    """(what, key, subkey or None for a regular value, value, expiry in seconds), `count` of every kind."""
    now = now_ms()
    expires = (now + QUARTER_HOUR_MS) / 1000
    wrap = MSGPackSerializer.dumps
    random_bytes = random.Random(0).randbytes
    for number in range(count):
        sybil, other = identity_of(f"sybil-{number}"), identity_of(f"other-{number}")
        honest = statement_of(sybil, issued_ms=now)
        altered = bytearray(honest)
        altered[number % len(honest)] ^= 1 << number % 8
        yield "unsigned", KEY, sybil.peer_id, wrap(b"come to me"), expires
        yield "squatted", KEY, sybil.peer_id, wrap(statement_of(other, issued_ms=now)), expires
        yield "about another", KEY, sybil.peer_id, wrap(statement_of(sybil, broker=other.peer_id)), expires
        yield "altered", KEY, sybil.peer_id, wrap(bytes(altered)), expires
        yield "unknown key", f"anything-{number}", sybil.peer_id, wrap(honest), expires
        yield "wrong key", next(key for key in BROKER_KEYS if key != KEY), sybil.peer_id, wrap(honest), expires
        yield "outlives", KEY, sybil.peer_id, wrap(honest), expires + 60
        yield "endless", KEY, sybil.peer_id, wrap(honest), (math.inf, math.nan, 1e300)[number % 3]
        yield "huge", KEY, sybil.peer_id, wrap(bytes(2000 + number)), expires
        yield "regular", KEY, None, wrap(honest), expires
        yield "noise", KEY, random_bytes(20), random_bytes(1 + number), expires
        yield "nested value", KEY, sybil.peer_id, nested(number), expires
        yield "not bytes", KEY, sybil.peer_id, wrap([honest]), expires
        yield "trailing", KEY, sybil.peer_id, wrap(honest) + b"\0", expires
        head = sign(sybil, Checkpoint("digits", sybil.peer_id, number, bytes(32), now))
        yield "a head under another key", head_key("digits", other.peer_id), sybil.peer_id, wrap(head), expires
        yield "a head as an announcement", KEY, sybil.peer_id, wrap(head), expires
        yield "a regular head", head_key("digits", sybil.peer_id), None, wrap(head), expires


@pytest.mark.testnet
async def test_hostile_records_are_refused_and_honest_ones_are_found(join_libp2p, attacker, caplog):
    victim = await join_libp2p("victim")
    node = await attacker(victim)
    broker = await join_libp2p("broker", initial_peers=await victim.addresses())
    peer = PeerID.from_base58(victim.peer_id)
    records = list(hostile_records(HOSTILE_OF_EVERY_KIND))
    for start in range(0, len(records), 200):
        part = records[start : start + 200]
        stored = await node.protocol.call_store(
            peer,
            [DHTID.generate(source=key) for _, key, *_ in part],
            [value for *_, value, _ in part],
            [expires for *_, expires in part],
            [subkey for *_, subkey, _, _ in part],
        )
        assert stored is not None
        assert [what for (what, *_), ok in zip(part, stored, strict=True) if ok] == []
    now = now_ms()
    honest = statement_of(identity_of("broker"), issued_ms=now)
    assert await broker.publish(KEY, honest, now + QUARTER_HOUR_MS)
    assert await victim.lookup(KEY) == {broker.peer_id: honest}
    assert "Traceback" not in caplog.text


@pytest.mark.testnet
async def test_hostile_requests_do_not_end_the_node(join_libp2p, attacker):
    victim = await join_libp2p("victim")
    node = await attacker(victim)
    stub = node.protocol.get_stub(PeerID.from_base58(victim.peer_id))
    key = DHTID.generate(source=KEY).to_bytes()
    forged = DictionaryDHTValue()
    forged.store(identity_of("sybil").peer_id, MSGPackSerializer.dumps(b"come to me"), 2e9)
    bodies = [nested(5), nested(200), nested(20_000), b"", b"\xc1", bytes(2**20), MSGPackSerializer.dumps(forged)]
    for body in bodies:
        for subkey in (DHTProtocol.IS_DICTIONARY, DHTProtocol.IS_REGULAR_VALUE, body):
            request = dht_pb2.StoreRequest(
                keys=[key], subkeys=[subkey], values=[body], expiration_time=[2e9], in_cache=[False]
            )
            try:
                answer = await stub.rpc_store(request, timeout=5)
                assert list(answer.store_ok) == [False]
            except Exception as refusal:
                assert not isinstance(refusal, asyncio.TimeoutError)
    for keys in ([b""], [b"x" * 100], [key] * 100):
        try:
            await stub.rpc_find(dht_pb2.FindRequest(keys=keys), timeout=5)
        except Exception as refusal:
            assert not isinstance(refusal, asyncio.TimeoutError)
    assert await victim.lookup(KEY) == {}


@pytest.mark.testnet
async def test_a_node_keeps_a_bounded_number_of_records(join_libp2p, attacker, monkeypatch):
    monkeypatch.setattr(limits, "MAX_DHT_RECORDS_PER_KEY", 3)
    victim = await join_libp2p("victim")
    node = await attacker(victim)
    now = now_ms()
    expires = (now + QUARTER_HOUR_MS) / 1000
    sybils = [identity_of(f"sybil-{number}") for number in range(5)]
    values = [MSGPackSerializer.dumps(statement_of(sybil, issued_ms=now)) for sybil in sybils]
    names = [sybil.peer_id for sybil in sybils]
    stored = await node.protocol.call_store(
        PeerID.from_base58(victim.peer_id), [DHTID.generate(source=KEY)] * 5, values, [expires] * 5, names
    )
    assert list(stored) == [True, True, True, False, False]
    assert set(await victim.lookup(KEY)) == set(names[:3])


@pytest.mark.testnet
async def test_a_node_keeps_heads_of_a_bounded_number_of_logs(join_libp2p, attacker, monkeypatch):
    monkeypatch.setattr(limits, "MAX_DHT_LOGS", 2)
    monkeypatch.setattr(limits, "MAX_DHT_HEADS_PER_LOG", 2)
    victim = await join_libp2p("victim")
    node = await attacker(victim)
    expires = (now_ms() + QUARTER_HOUR_MS) / 1000
    logs = [identity_of(f"log-{number}") for number in range(19)]  # more than there are keys of announcements

    async def store(log, publisher: str) -> bool:
        head = sign(log, Checkpoint("digits", log.peer_id, 1, bytes(32), 1))
        key, value = DHTID.generate(source=head_key("digits", log.peer_id)), MSGPackSerializer.dumps(head)
        peer = PeerID.from_base58(victim.peer_id)
        (stored,) = await node.protocol.call_store(peer, [key], [value], [expires], [publisher])
        return stored

    kept = [await store(log, "one") for log in logs]
    assert kept == [True] * 18 + [False], "two, and what is free of the sixteen for announcements"
    assert [await store(logs[0], publisher) for publisher in ("one", "two", "three")] == [True, True, False]
    now = now_ms()
    assert await victim.publish(KEY, statement_of(identity_of("victim"), issued_ms=now), now + QUARTER_HOUR_MS)


# ---- the daemon dies ----------------------------------------------------------------------------------------------


def daemon_process(transport) -> int:
    return transport._daemon.p2p._child.pid


@pytest.mark.testnet
async def test_a_killed_daemon_comes_back_with_its_address_handlers_and_records(join_libp2p):
    broker = await join_libp2p("broker", ping_every_seconds=0.2)
    addresses = await broker.addresses()
    agent = await join_libp2p("agent", initial_peers=addresses)

    async def echo(stream: Stream) -> None:
        while True:
            await stream.write(await stream.read_exactly(4))

    await broker.serve("p2pmarket/test/echo", echo)
    now = now_ms()
    statement = statement_of(identity_of("broker"), issued_ms=now)
    assert await broker.publish(KEY, statement, now + QUARTER_HOUR_MS)
    for _ in range(3):
        stream = await agent.open(broker.peer_id, "p2pmarket/test/echo")
        await stream.write(b"ping")
        assert await stream.read_exactly(4) == b"ping"
        waiting = asyncio.create_task(stream.read_exactly(1))
        broker.restarted.clear()
        os.kill(daemon_process(broker), signal.SIGKILL)
        with pytest.raises(ConnectionLost):
            await waiting
        await asyncio.wait_for(broker.restarted.wait(), 30)
        assert await broker.addresses() == addresses

        async def served_again() -> bool:
            try:
                stream = await agent.open(broker.peer_id, "p2pmarket/test/echo", addresses)
                await stream.write(b"pong")
                return await stream.read_exactly(4) == b"pong"
            except (PeerUnreachable, ConnectionLost):
                return False

        await eventually(served_again)
        assert await broker.lookup(KEY) == {broker.peer_id: statement}


@pytest.mark.testnet
async def test_a_daemon_that_stands_still_is_replaced(join_libp2p, monkeypatch):
    monkeypatch.setattr("p2pmarket.network.libp2p.PING_SECONDS", 0.3)
    monkeypatch.setattr("p2pmarket.network.libp2p.STOP_SECONDS", 0.3)
    broker = await join_libp2p("broker", ping_every_seconds=0.1)
    before = daemon_process(broker)
    os.kill(before, signal.SIGSTOP)
    await asyncio.wait_for(broker.restarted.wait(), 30)
    assert daemon_process(broker) != before


@pytest.mark.testnet
async def test_a_peer_that_lost_everyone_finds_its_way_back(join_libp2p):
    seed = await join_libp2p("seed")
    addresses = await seed.addresses()
    port = int(addresses[0].split("/")[4])
    agent = await join_libp2p("agent", initial_peers=addresses, ping_every_seconds=0.2)
    await seed.close()

    async def alone() -> bool:
        await agent.lookup(KEY)  # hivemind forgets a node when it does not answer
        return agent._daemon.alone

    await eventually(alone)
    seed = await join_libp2p("seed", host_maddrs=(f"/ip4/127.0.0.1/tcp/{port}",))
    now = now_ms()
    statement = statement_of(identity_of("seed"), issued_ms=now)
    assert await seed.publish(KEY, statement, now + QUARTER_HOUR_MS)

    async def found() -> bool:
        return await agent.lookup(KEY) == {seed.peer_id: statement}

    await eventually(found)


# ---- a start that fails -------------------------------------------------------------------------------------------


@pytest.mark.testnet
async def test_a_port_that_another_peer_or_program_holds_is_named(join_libp2p):
    seed = await join_libp2p("seed")
    port = (await seed.addresses())[0].split("/")[4]
    with socket.create_server(("127.0.0.1", 0)) as server:
        for taken in (port, server.getsockname()[1]):
            maddr = f"/ip4/127.0.0.1/tcp/{taken}"
            with pytest.raises(PortInUse, match=f"another program listens on {maddr}; stop it, or choose"):
                await join_libp2p("late", host_maddrs=(maddr,), startup_timeout_seconds=0.3)


@pytest.mark.testnet
async def test_initial_peers_that_do_not_answer_are_named(join_libp2p):
    dead = f"/ip4/127.0.0.1/tcp/1/p2p/{identity_of('dead').peer_id}"
    with pytest.raises(BootstrapUnreachable, match="none of the initial peers answered.*tcp/1/p2p"):
        await join_libp2p("agent", initial_peers=(dead,), startup_timeout_seconds=0.8)
    seed = await join_libp2p("seed")
    impostor = f"{(await seed.addresses())[0].rpartition('/')[0]}/{identity_of('dead').peer_id}"
    with pytest.raises(BootstrapUnreachable):
        await join_libp2p("agent", initial_peers=(impostor,), startup_timeout_seconds=0.8)
    assert await join_libp2p("agent", initial_peers=(dead, *await seed.addresses())), "one that answers is enough"


@pytest.mark.testnet
async def test_one_identity_runs_once_here_and_on_the_network(join_libp2p, tmp_path):
    seed = await join_libp2p("seed")
    seeds = await seed.addresses()
    agent = await join_libp2p("agent", initial_peers=seeds)
    with pytest.raises(IdentityInUse, match="another process runs with the identity"):
        await join_libp2p("agent", initial_peers=seeds)
    shutil.copy(tmp_path / "agent.key", tmp_path / "copy.key")
    with pytest.raises(IdentityInUse, match="is on this network already"):
        await join_libp2p("copy", initial_peers=seeds, startup_timeout_seconds=0.8)
    assert await agent.addresses(), "what the copy did leaves the running peer's daemon and sockets alone"


@pytest.mark.testnet
async def test_a_closed_peer_starts_again_with_its_identity(join_libp2p):
    seed = await join_libp2p("seed")
    for _ in range(2):
        agent = await join_libp2p("agent", initial_peers=await seed.addresses())
        await agent.close()
        await agent.close()


async def test_settings_that_cannot_work_are_named(join_libp2p, tmp_path):
    for wrong in ("nonsense", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1/p2p/"):
        with pytest.raises(SettingsError, match="is no address such as"):
            await join_libp2p("agent", initial_peers=(wrong,))
    with pytest.raises(SettingsError, match="is no address such as"):
        await join_libp2p("agent", host_maddrs=("0.0.0.0:31330",))
    (tmp_path / "broken.key").write_bytes(b"abc")
    with pytest.raises(IdentityError):
        await join_libp2p("broken")


@pytest.mark.testnet
async def test_an_address_of_another_machine_is_named(join_libp2p):
    with pytest.raises(SettingsError, match="does not have: /ip4/192.0.2.1/tcp/0"):
        await join_libp2p("agent", host_maddrs=("/ip4/192.0.2.1/tcp/0",))


def test_a_restart_keeps_the_port_where_there_is_one():
    seen = ("/ip4/127.0.0.1/tcp/7/p2p/x", "/ip4/10.0.0.2/tcp/7/p2p/x")
    assert with_port(("/ip4/0.0.0.0/tcp/0",), seen) == ("/ip4/0.0.0.0/tcp/7",)
    assert with_port(("/ip4/0.0.0.0/tcp/9",), seen) == ("/ip4/0.0.0.0/tcp/9",)
    assert with_port(("/ip4/0.0.0.0/tcp/0",), ()) == ("/ip4/0.0.0.0/tcp/0",)
