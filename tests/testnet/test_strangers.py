"""Strangers at a running broker: garbage, other versions, and streams that lead nowhere, while others trade."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
import struct
import sys
from collections.abc import AsyncIterator

import pytest
from peers import identity_of
from testnet_market import Market, p2pmarket

from p2pmarket import limits
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import ConnectionLost, PeerUnreachable
from p2pmarket.messages import Bid, Fetch, Hello, Refusal, Upload
from p2pmarket.network.libp2p import Libp2pTransport
from p2pmarket.network.names import PARCELS, SESSIONS
from p2pmarket.network.session import read_frame, write_frame
from p2pmarket.network.transport import Stream
from p2pmarket.settings import NetworkSettings
from p2pmarket.units import now_ms
from p2pmarket.wire import Frame, Kind, encode_frame

pytestmark = [pytest.mark.testnet, pytest.mark.asyncio(loop_scope="session")]

ME = identity_of("stranger")
ANSWER_SECONDS = 20.0


@contextlib.asynccontextmanager
async def stranger(market: Market, tmp_path) -> AsyncIterator[Libp2pTransport]:
    """A peer of the network that keeps no rule."""
    ME.save(tmp_path / "stranger.key")
    transport = await Libp2pTransport.create(NetworkSettings(tmp_path / "stranger.key", initial_peers=market.peers))
    try:
        yield transport
    finally:
        await transport.close()


def hello(tmp_path, **changes: object) -> Hello:
    """A Hello that the broker welcomes, but for the changes."""
    keys = Keyring.open(tmp_path / "keys", ME, now_ms).statement
    honest = Hello(secrets.token_bytes(16), 1, "clouds", keys, now_ms(), 0)
    return dataclasses.replace(honest, **changes)


async def refusal_of(stream: Stream, broker: str) -> str:
    """The code of the broker's answer; "hung up" where it only closed the stream."""
    try:
        reply = await asyncio.wait_for(read_frame(stream), ANSWER_SECONDS)
    except ConnectionLost:
        return "hung up"
    finally:
        await stream.close()
    return verify(reply.body, Refusal, signer=broker).code


async def test_garbage_is_refused_and_the_market_goes_on(market: Market, tmp_path):
    broker = market.broker.ready["peer_id"]
    log_before = market.broker.log.read_text()
    other = identity_of("somebody else")
    signed = sign(ME, hello(tmp_path))
    bid = Bid(secrets.token_bytes(16), "clouds", broker, bytes(16), bytes(32), 5, now_ms() + 60_000)

    def request(body: bytes) -> bytes:
        return encode_frame(Frame(Kind.REQUEST, 1, body))

    wanted = [
        # protocol, bytes, the broker's answer
        (SESSIONS, secrets.token_bytes(4000), {"malformed", "too-large", "hung up"}),
        (PARCELS, secrets.token_bytes(4000), {"malformed", "too-large", "hung up"}),
        (SESSIONS, b"\xff" * 64, {"too-large"}),
        (PARCELS, b"\xff" * 64, {"too-large"}),
        (SESSIONS, struct.pack("!I", 9 + limits.MAX_RECORD_BYTES + 1) + bytes(64), {"too-large"}),
        (SESSIONS, struct.pack("!I", 3) + bytes(64), {"malformed"}),
        (SESSIONS, encode_frame(Frame(Kind.PING)), {"unknown-message"}),
        (SESSIONS, request(secrets.token_bytes(300)), {"malformed", "bad-signature"}),
        (SESSIONS, request(signed[:-1] + b"\7"), {"bad-signature"}),
        (SESSIONS, request(sign(other, hello(tmp_path))), {"bad-signature"}),
        (SESSIONS, request(sign(ME, bid)), {"malformed", "bad-signature"}),
        (SESSIONS, request(sign(ME, hello(tmp_path, market="x"))), {"unknown-market"}),
        (PARCELS, request(signed), {"unknown-message"}),
        (PARCELS, upload(Upload(secrets.token_bytes(16), bytes(16))), {"unknown-submission"}),
        (PARCELS, upload(Fetch(secrets.token_bytes(16), bytes(16))), {"unknown-trade"}),
    ]
    async with stranger(market, tmp_path) as transport:

        async def send_all() -> list[tuple[int, str]]:
            surprises = []
            for index, (protocol, data, codes) in enumerate(wanted):
                stream = await transport.open(broker, protocol)
                await stream.write(data)
                code = await refusal_of(stream, broker)
                if code not in codes:
                    surprises.append((index, code))
            return surprises

        surprises, _, _ = await asyncio.gather(send_all(), market.buys("buyer"), market.buys("other"))
    assert surprises == []
    assert market.broker.log.read_text() == log_before, "a stranger's bytes are no news for the operator"


def upload(opening: Upload | Fetch) -> bytes:
    """What opens a parcel stream."""
    return encode_frame(Frame(Kind.REQUEST, 1, sign(ME, opening)))


async def test_streams_left_open_and_given_up_do_not_stand_in_others_way(market: Market, tmp_path):
    broker = market.broker.ready["peer_id"]
    async with stranger(market, tmp_path) as transport:
        held = [await transport.open(broker, protocol) for protocol in (SESSIONS, PARCELS, SESSIONS, PARCELS)]
        for stream in held:
            await stream.write(b"\0\0")  # half of a length, and no more
        assert len(held) == limits.MAX_STREAMS_PER_PEER
        for _ in range(3 * limits.MAX_STREAMS_PER_PEER):
            refused = await transport.open(broker, SESSIONS)
            with pytest.raises(ConnectionLost):
                await asyncio.wait_for(refused.read_exactly(1), ANSWER_SECONDS)
            await refused.close()
        await market.buys("buyer")
        for stream in held:
            await stream.close()
    await market.buys("other")


async def test_a_session_that_turns_to_garbage_ends_alone(market: Market, tmp_path):
    broker = market.broker.ready["peer_id"]
    async with stranger(market, tmp_path) as transport:
        stream = await transport.open(broker, SESSIONS)
        await write_frame(stream, Frame(Kind.REQUEST, 1, sign(ME, hello(tmp_path))))
        assert (await read_frame(stream)).kind is Kind.REPLY
        await write_frame(stream, Frame(Kind.REQUEST, 2, b"no record at all"))
        assert verify((await read_frame(stream)).body, Refusal, signer=broker).code == "malformed"
        await stream.write(b"\xff" * 64)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(read_frame(stream), ANSWER_SECONDS)
        await stream.close()
        await market.buys("buyer")


async def test_another_version_is_told_so(market: Market, tmp_path):
    broker = market.broker.ready["peer_id"]
    async with stranger(market, tmp_path) as transport:
        stream = await transport.open(broker, SESSIONS)
        await write_frame(stream, Frame(Kind.REQUEST, 1, sign(ME, hello(tmp_path, version=2))))
        assert await refusal_of(stream, broker) == "wrong-version"
        with pytest.raises(PeerUnreachable, match="another kind of peer or version"):
            await transport.open(broker, SESSIONS.replace("/1/", "/2/"))


async def test_a_node_of_another_version_ends_with_the_brokers_sentence(market: Market):
    """The same program, but for its version's number, as a user of an older one would run it."""
    program = (
        "import sys; from p2pmarket.node import link; link.PROTOCOL_VERSION = 2;"
        "from p2pmarket.cli import main; sys.exit(main())"
    )
    ended = await p2pmarket(
        "node", "--market", "clouds", "--watch", "x", "--out", "y", "--state", market.folder / "older",
        "--initial_peers", *market.peers, program=(sys.executable, "-c", program),
    )  # fmt: skip
    assert ended.code == 6
    assert ended.out == ""
    assert ended.error.count("\n") == 1
    assert "speaks version 1 of the protocol, you speak 2; upgrade the older one" in ended.error
