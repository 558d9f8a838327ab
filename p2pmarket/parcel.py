"""What a snapshot is called and how it is laid out when it travels: schema, manifest, parcel context.

Knows: the records. Refuses to know: tensors (parameters/), keys (crypto/), streams (network/).

A parcel's plain bytes are `body | manifest | manifest length (4 bytes, big endian)`: each tensor's encoded bytes
one after the other, then the manifest that names them, so that a writer needs one pass.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from p2pmarket import limits
from p2pmarket.records import Bound, Count, Digest, Id, Millis, Name, OneOf, PeerId, Record

CODECS = ("none", "float16", "bfloat16", "int8")
"""Codec of one tensor's values; integers and booleans always travel as "none" (docs/protocol.md, "Codecs")."""

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""Element types that may travel."""

TensorName = Annotated[str, Bound(1, limits.MAX_TENSOR_NAME_CHARACTERS)]
Shape = Annotated[tuple[Annotated[int, Bound(0, 2**40)], ...], Bound(0, limits.MAX_TENSOR_DIMENSIONS)]


@dataclasses.dataclass(frozen=True)
class TensorSpec(Record):
    """Name, shape and element type of one tensor of a market's model."""

    name: TensorName
    shape: Shape
    dtype: Annotated[str, OneOf(DTYPES)]


@dataclasses.dataclass(frozen=True)
class Schema(Record):
    """Every tensor of a market's model, sorted by name. Signed by the broker; agents check their model against it."""

    TYPE: ClassVar[str] = "schema"
    tensors: Annotated[tuple[TensorSpec, ...], Bound(1, limits.MAX_TENSORS)]


@dataclasses.dataclass(frozen=True)
class TensorEntry(Record):
    """One tensor inside a parcel's body."""

    name: TensorName
    shape: Shape
    dtype: Annotated[str, OneOf(DTYPES)]
    """Element type after decoding."""
    codec: Annotated[str, OneOf(CODECS)]
    zstd: bool
    """Whether the encoded bytes are a zstd frame of `encoded_bytes` plain bytes."""
    offset: Count
    """Bytes from the start of the body."""
    length: Count
    """Bytes in the body."""
    encoded_bytes: Count
    """Bytes after decompression: equals `length` without zstd."""
    digest: Digest
    """BLAKE3 of the bytes in the body."""


@dataclasses.dataclass(frozen=True)
class Manifest(Record):
    """Names everything in a parcel. Its SHA-256 is the snapshot's digest.

    The salt keeps the digest, which travels in clear in the parcel's header, from confirming a guess.
    """

    market: Name
    task: Name
    step: Count
    salt: Id
    body_bytes: Count
    tensors: Annotated[tuple[TensorEntry, ...], Bound(1, limits.MAX_TENSORS)]


@dataclasses.dataclass(frozen=True)
class ParcelContext(Record):
    """What a sealed parcel is for: inside the HPKE info and under both signatures, so it serves nothing else."""

    version: Annotated[int, Bound(1, 1)]
    suite: Annotated[int, Bound(1, 2)]
    """KEM of the file key: 1 X25519, 2 MLKEM768_X25519 (crypto/sealing)."""
    cipher: Annotated[int, Bound(1, 2)]
    """AEAD of the chunks: 1 AES-256-GCM, 2 ChaCha20-Poly1305."""
    market: Name
    broker: PeerId
    purpose: Annotated[str, OneOf(("offer", "delivery"))]
    trade: Id
    """The trade for a delivery, the submission for an offer."""
    sender: PeerId
    receiver: PeerId
    receiver_epoch: Count
    """Which of the receiver's published encryption keys was used."""
    message_id: Id
    issued_ms: Millis
    expires_ms: Millis
    manifest_digest: Digest
    plain_bytes: Annotated[int, Bound(1, limits.MAX_PARCEL_BYTES)]
    chunk_bytes: Annotated[int, Bound(1, limits.CHUNK_BYTES)]

    @property
    def chunks(self) -> int:
        """Number of chunks: the last one may be short, none is empty."""
        return -(-self.plain_bytes // self.chunk_bytes)

    def chunk_length(self, index: int) -> int:
        """Plain bytes of chunk `index`."""
        return min(self.chunk_bytes, self.plain_bytes - index * self.chunk_bytes)
