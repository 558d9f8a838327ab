"""Deterministic identities, records and parcels that the tests of crypto/ and the vectors in tests/vectors share."""

from __future__ import annotations

import dataclasses
import hashlib
import types
import typing
from typing import Annotated, Any

from p2pmarket import records
from p2pmarket.crypto.header import Expectation, seal_header
from p2pmarket.crypto.keyring import EncryptionKeys
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.sealing import TAG_BYTES, TRAILER_BYTES, Opener, Sealer
from p2pmarket.crypto.signing import verify
from p2pmarket.market import MarketTerms
from p2pmarket.messages import MESSAGE_TYPES, KeyStatement
from p2pmarket.parcel import ParcelContext, Schema

SELLER = Identity(hashlib.sha256(b"seller").digest())
BROKER = Identity(hashlib.sha256(b"broker").digest())
STRANGER = Identity(hashlib.sha256(b"stranger").digest())
NOW_MS = 1_800_000_000_000
EPOCH = 7
BROKER_KEYS = EncryptionKeys(
    EPOCH, hashlib.sha256(b"x25519").digest(), hashlib.sha512(b"ml-kem").digest(), NOW_MS - 1000, NOW_MS + 10**9
)
SIGNED_TYPES: dict[str, Any] = {**MESSAGE_TYPES, Schema.TYPE: Schema, MarketTerms.TYPE: MarketTerms}


class OneEpoch:
    """The part of a keyring that opening needs."""

    def private(self, epoch: int) -> EncryptionKeys:
        assert epoch == EPOCH
        return BROKER_KEYS


def example(kind: type, seed: int = 0) -> Any:
    """A record of any type, its fields from their annotations."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return kind(*(_value(hints[field.name], (), seed) for field in dataclasses.fields(kind)))


def _value(hint: Any, bounds: tuple[Any, ...], seed: int) -> Any:
    if typing.get_origin(hint) is Annotated:
        inner, *outer = typing.get_args(hint)
        return _value(inner, (*outer, *bounds), seed)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _value(next(part for part in typing.get_args(hint) if part is not types.NoneType), bounds, seed)
    if origin is tuple:
        return tuple(_value(typing.get_args(hint)[0], (), seed + place) for place in range(max(1, _low(bounds))))
    if isinstance(hint, type) and issubclass(hint, records.Record):
        return example(hint, seed)
    words = next((bound.words for bound in bounds if isinstance(bound, records.OneOf)), None)
    if words:
        return words[seed % len(words)]
    low, high = _low(bounds), max((b.high for b in bounds if isinstance(b, records.Bound)), default=2**32)
    length = int(min(max(low, 5), high))
    text = hashlib.shake_256(f"{hint}{seed}".encode()).hexdigest(length)
    return {
        bool: bool(seed % 2), int: int(min(high, low + 3 + seed)), float: float(min(high, low + 0.25)),
        str: text[:length], bytes: bytes.fromhex(text)[:length],
    }[hint]  # fmt: skip


def _low(bounds: tuple[Any, ...]) -> Any:
    return max((bound.low for bound in bounds if isinstance(bound, records.Bound)), default=0)


def statement() -> KeyStatement:
    return verify(BROKER_KEYS.statement(BROKER), KeyStatement, signer=BROKER.peer_id)


def context(suite: int = 2, cipher: int = 1, chunk_bytes: int = 16, **changes: Any) -> ParcelContext:
    fields: dict[str, Any] = dict(
        version=1, suite=suite, cipher=cipher, market="market", broker=BROKER.peer_id, purpose="offer", trade=b"t" * 16,
        sender=SELLER.peer_id, receiver=BROKER.peer_id, receiver_epoch=EPOCH, message_id=b"m" * 16, issued_ms=NOW_MS,
        expires_ms=NOW_MS + 60_000, manifest_digest=b"d" * 32, plain_bytes=40, chunk_bytes=chunk_bytes,
    )  # fmt: skip
    return ParcelContext(**{**fields, **changes})


def expectation(**changes: Any) -> Expectation:
    expected = Expectation(
        "market", BROKER.peer_id, "offer", b"t" * 16, SELLER.peer_id, BROKER.peer_id, b"d" * 32, max_plain_bytes=1000
    )
    return dataclasses.replace(expected, **changes)


def seal(sealer: Sealer, plain: bytes) -> list[bytes]:
    """The header, chunks and trailer of a parcel."""
    size, chunks, tags = sealer.context.chunk_bytes, [], b""
    for index in range(sealer.context.chunks):
        part = memoryview(plain)[index * size : (index + 1) * size]
        chunks.append(bytes(sealer.seal_chunk(index, part, memoryview(bytearray(size + TAG_BYTES)))))
        tags += chunks[-1][-TAG_BYTES:]
    return [sealer.header, *chunks, sealer.trailer(tags)]


def sealer_for(parcel: ParcelContext, file_key: bytes = b"k" * 32, sender: Identity = SELLER) -> Sealer:
    return Sealer(sender, seal_header(sender, statement(), parcel, file_key), file_key)


def flat(parts: list[bytes]) -> bytes:
    """A parcel as it goes over a stream."""
    return len(parts[0]).to_bytes(4, "big") + b"".join(parts)


def open_flat(data: bytes, expected: Expectation | None = None) -> tuple[bytes, bytes]:
    """Reads a parcel as a receiver reads a stream: its plain bytes, and the bytes that were looked at."""
    position = 0

    def take(count: int) -> bytes:
        nonlocal position
        if position + count > len(data):
            raise EOFError
        position += count
        return data[position - count : position]

    opener = Opener(take(int.from_bytes(take(4), "big")), expected or expectation(), OneEpoch(), NOW_MS)
    plain, tags = b"", b""
    for index in range(opener.context.chunks):
        sealed = take(opener.context.chunk_length(index) + TAG_BYTES)
        plain += opener.open_chunk(index, sealed, memoryview(bytearray(opener.context.chunk_bytes)))
        tags += sealed[-TAG_BYTES:]
    opener.check_trailer(take(TRAILER_BYTES), tags)
    return plain, data[:position]


context()  # a record's bounds are read when its first one is made: before any test lowers CHUNK_BYTES
