"""Parcels on disk and the two ends of a transfer over the in-memory network, for the tests of spool and transfer."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from p2pmarket.crypto.header import Expectation
from p2pmarket.crypto.keyring import EncryptionKeys
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import verify
from p2pmarket.messages import KeyStatement
from p2pmarket.network.memory import MemoryNetwork
from p2pmarket.network.spool import Incoming, Outgoing
from p2pmarket.network.transfer import Check, receive_parcel, send_parcel
from p2pmarket.network.transport import Stream
from p2pmarket.parcel import ParcelContext

SENDER = Identity(hashlib.sha256(b"sender").digest())
RECEIVER = Identity(hashlib.sha256(b"receiver").digest())
NOW_MS = 1_800_000_000_000
KEYS = EncryptionKeys.generate(3, NOW_MS)
CHUNK_BYTES = 512
PLAIN = hashlib.shake_256(b"parameters").digest(9 * CHUNK_BYTES + 100)
"""Ten chunks, the last one short: five batches of two."""

# A record's bounds are read when its first one is made: before any test lowers CHUNK_BYTES.
ParcelContext(1, 1, 1, "m", RECEIVER.peer_id, "offer", bytes(16), SENDER.peer_id, RECEIVER.peer_id, 0, bytes(16), 0, 0,
              bytes(32), 1, 1024 * 1024)  # fmt: skip


class OneEpoch:
    """The part of a keyring that opening needs."""

    def private(self, epoch: int) -> EncryptionKeys:
        return KEYS


def statement() -> KeyStatement:
    return verify(KEYS.statement(RECEIVER), KeyStatement, signer=RECEIVER.peer_id)


def outgoing(directory: Path, *, plain: bytes = PLAIN, purpose: str = "offer", trade: bytes = b"t" * 16) -> Outgoing:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "packed").write_bytes(plain)
    return Outgoing.create(
        directory / "out", directory / "packed", identity=SENDER, receiver=statement(), market="market",
        broker=RECEIVER.peer_id, purpose=purpose, trade=trade, manifest_digest=b"d" * 32, issued_ms=NOW_MS,
        expires_ms=NOW_MS + 60_000,
    )  # fmt: skip


def expectation(**changes: object) -> Expectation:
    expected = Expectation(
        "market", RECEIVER.peer_id, "offer", b"t" * 16, SENDER.peer_id, RECEIVER.peer_id, b"d" * 32, 1_000_000
    )
    return dataclasses.replace(expected, **changes)  # type: ignore[arg-type]


@dataclasses.dataclass
class Outcome:
    """How each end of one attempt ended: None is success."""

    sent: Exception | None = None
    received: Exception | None = None
    first: int | None = None
    """The chunk the transfer began with, by the receiver's first report of progress."""


async def attempt(
    network: MemoryNetwork,
    parcel: Outgoing,
    incoming: Incoming,
    expected: Expectation | None = None,
    check: Check | None = None,
) -> Outcome:
    """One stream's worth of transfer; both ends join anew and leave at the end."""
    outcome = Outcome()
    sender, receiver = network.join(SENDER.peer_id), network.join(RECEIVER.peer_id)

    async def handler(stream: Stream) -> None:
        try:
            await receive_parcel(
                stream, incoming, expected or expectation(), OneEpoch(), lambda: NOW_MS, check=check, progress=reported
            )
        except Exception as error:
            outcome.received = error

    def reported(done: int, total: int) -> None:
        if outcome.first is None:
            outcome.first = max(0, -(-done // CHUNK_BYTES) - 2)

    await receiver.serve("parcel", handler)
    stream = await sender.open(RECEIVER.peer_id, "parcel")
    try:
        await send_parcel(stream, parcel)
    except Exception as error:
        outcome.sent = error
    serving = list(receiver._serving)
    for task in serving:
        await task
    for transport in (sender, receiver):
        await transport.close()
    return outcome
