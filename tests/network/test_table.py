"""Which heads of brokers' logs may stand in the shared table."""

from __future__ import annotations

import dataclasses
import hashlib
from types import SimpleNamespace

import msgpack
import pytest
from peers import QUARTER_HOUR_MS, identity_of, statement_of

from p2pmarket import limits
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import PeerFault
from p2pmarket.messages import Checkpoint
from p2pmarket.network.announcement import BROKER_KEYS, broker_key
from p2pmarket.network.dht_guards import AnnouncementValidator
from p2pmarket.network.table import check_record, head_key, key_of_head
from p2pmarket.units import now_ms

BROKER, AGENT, STRANGER = identity_of("broker"), identity_of("agent"), identity_of("stranger")
KEY = head_key("digits", BROKER.peer_id)


def head(identity=BROKER, **changes) -> bytes:
    return sign(identity, dataclasses.replace(Checkpoint("digits", BROKER.peer_id, 5, bytes(32), 1), **changes))


def hashed(key: str) -> bytes:
    return hashlib.sha1(key.encode()).digest()


def record(key: bytes, peer_id: str, value: bytes, expires_ms: int) -> SimpleNamespace:
    return SimpleNamespace(
        key=key, subkey=msgpack.packb(peer_id), value=msgpack.packb(value), expiration_time=expires_ms / 1000
    )


def cases():
    soon = now_ms() + QUARTER_HOUR_MS
    other = head_key("digits", STRANGER.peer_id)
    yield "honest", KEY, head(), soon, True
    yield "longest name", head_key("é" * 64, BROKER.peer_id), head(market="é" * 64), soon, True
    yield "another log's key", other, head(), soon, False
    yield "another market's key", head_key("letters", BROKER.peer_id), head(), soon, False
    yield "signed by a stranger", KEY, head(STRANGER), soon, False
    yield "a stranger's own, here", KEY, head(STRANGER, broker=STRANGER.peer_id), soon, False
    yield "a stranger's own, there", other, head(STRANGER, broker=STRANGER.peer_id), soon, True
    yield "no checkpoint", KEY, statement_of(BROKER), soon, False
    yield "noise", KEY, b"\xff" * 100, soon, False
    yield "empty", KEY, b"", soon, False
    yield "huge", KEY, head() + bytes(limits.MAX_DHT_VALUE_BYTES), soon, False
    yield "eternal", KEY, head(), soon + 10**9, False
    yield "under a broker's key", broker_key("digits"), head(), soon, False
    yield "an announcement", KEY, statement_of(BROKER), soon, False


@pytest.mark.parametrize(("name", "key", "value", "expires_ms", "stands"), list(cases()), ids=[c[0] for c in cases()])
def test_what_stands_under_the_key_of_a_log(name, key, value, expires_ms, stands):
    now = now_ms()
    if stands:
        check_record(key, AGENT.peer_id, value, expires_ms, now)
        assert key_of_head(value) == key and len(value) <= limits.MAX_DHT_VALUE_BYTES
    else:
        with pytest.raises(PeerFault):
            check_record(key, AGENT.peer_id, value, expires_ms, now)
    validator = AnnouncementValidator({hashed(fixed): fixed for fixed in BROKER_KEYS}, now_ms, hashed)
    assert validator.validate(record(hashed(key), AGENT.peer_id, value, expires_ms)) is stands


def test_announcements_stand_as_before():
    validator = AnnouncementValidator({hashed(fixed): fixed for fixed in BROKER_KEYS}, now_ms, hashed)
    soon, statement = now_ms() + QUARTER_HOUR_MS - 1000, statement_of(BROKER)
    assert validator.validate(record(hashed(broker_key("digits")), BROKER.peer_id, statement, soon))
    assert not validator.validate(record(hashed("anything"), BROKER.peer_id, statement, soon))
    assert not validator.validate(record(hashed("anything"), BROKER.peer_id, head(), soon))
    assert not validator.validate(record(hashed(KEY), BROKER.peer_id, head(), float("inf")))


async def test_an_agent_publishes_a_head_and_others_read_it(memory_network):
    agent, other = memory_network.join(AGENT.peer_id), memory_network.join(STRANGER.peer_id)
    assert await agent.publish(KEY, head(), now_ms() + QUARTER_HOUR_MS)
    assert not await other.publish(KEY, head(STRANGER), now_ms() + QUARTER_HOUR_MS)
    assert await other.lookup(KEY) == {AGENT.peer_id: head()}
