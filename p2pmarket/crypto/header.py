"""The header of a sealed parcel: what it is for, and its file key, sealed so that only the named receiver reads it.

::

    "P2PM" | version (1) | context length (2) | context | HPKE(file key) | commitment (32) | signature (64)

HPKE is RFC 9180, base mode; the context is its info. The chunk key and the key commitment are HKDF (RFC 5869) of the
file key and the context's digest. AES-GCM and ChaCha20-Poly1305 do not commit to their key, hence the commitment
(Len, Grubbs, Ristenpart: Partitioning Oracle Attacks, 2021).

Knows: keys, the context and what the receiver expects of it. Refuses to know: chunks (sealing), replays (the ledger
keeps trade and submission ids). Fails with a `PeerFault`; which check failed is in its sentence.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from p2pmarket import limits
from p2pmarket.crypto.keyring import EncryptionKeys
from p2pmarket.crypto.keys import Identity, public_key_of
from p2pmarket.crypto.signing import SIGNATURE_BYTES, check_fresh, check_signature, signed_bytes
from p2pmarket.errors import BadSeal, Expired, MalformedMessage, TooLarge, WrongVersion
from p2pmarket.messages import KeyStatement
from p2pmarket.parcel import ParcelContext
from p2pmarket.records import decode, encode

MAGIC = b"P2PM"
VERSION = 1
X25519, MLKEM768_X25519 = 1, 2
"""`ParcelContext.suite`."""
AES_256_GCM, CHACHA20_POLY1305 = 1, 2
"""`ParcelContext.cipher`."""
FILE_KEY_BYTES = 32

_COMMITMENT_BYTES = 32
_CONTEXT_AT = len(MAGIC) + 3
_SUITES = {
    X25519: Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
    MLKEM768_X25519: Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM),
}
_SEALED_KEY_BYTES = {X25519: 32 + FILE_KEY_BYTES + 16, MLKEM768_X25519: 1120 + FILE_KEY_BYTES + 16}
"""Encapsulated key, file key, tag."""


@dataclasses.dataclass(frozen=True)
class Expectation:
    """What the receiver waits for; a parcel for anything else is refused."""

    market: str
    broker: str
    purpose: str
    """ "offer" or "delivery"."""
    trade: bytes
    """The trade of a delivery, the submission of an offer."""
    sender: str
    receiver: str
    manifest_digest: bytes
    max_plain_bytes: int


class PrivateKeys(Protocol):
    """The part of a `Keyring` that opening needs."""

    def private(self, epoch: int) -> EncryptionKeys:
        """:raises BadSeal: no keys of this epoch"""
        ...


def new_context(
    receiver: KeyStatement,
    *,
    market: str,
    broker: str,
    purpose: str,
    trade: bytes,
    sender: str,
    manifest_digest: bytes,
    plain_bytes: int,
    issued_ms: int,
    expires_ms: int,
) -> ParcelContext:
    """The context of a new parcel: post-quantum suite where the receiver offers it, the cipher this machine is fast at.

    :raises MalformedMessage: a field out of its bounds
    """
    return ParcelContext(
        version=VERSION,
        suite=preferred_suite(receiver),
        cipher=preferred_cipher(),
        market=market,
        broker=broker,
        purpose=purpose,
        trade=trade,
        sender=sender,
        receiver=receiver.peer,
        receiver_epoch=receiver.epoch,
        message_id=secrets.token_bytes(16),
        issued_ms=issued_ms,
        expires_ms=expires_ms,
        manifest_digest=manifest_digest,
        plain_bytes=plain_bytes,
        chunk_bytes=limits.CHUNK_BYTES,
    )


def seal_header(identity: Identity, receiver: KeyStatement, context: ParcelContext, file_key: bytes) -> bytes:
    """The header of a new parcel, its 32-byte file key sealed to the receiver's published keys.

    :raises MalformedMessage: those are not keys
    """
    context_bytes = encode(context)
    sealed_key = _SUITES[context.suite].encrypt(file_key, _public_key(receiver, context.suite), _info(context_bytes))
    length = len(context_bytes).to_bytes(2, "big")
    commitment = _derive(file_key, context_bytes)[1]
    unsigned = MAGIC + bytes((VERSION,)) + length + context_bytes + sealed_key + commitment
    return unsigned + identity.sign(signed_bytes("parcel-header", unsigned))


def own_header(header: bytes, file_key: bytes) -> tuple[ParcelContext, bytes]:
    """The context and chunk key of a header that this peer made itself.

    :raises PeerFault: it is damaged
    """
    context_bytes = _split(header).context
    return decode(ParcelContext, context_bytes), _derive(file_key, context_bytes)[0]


def open_header(
    header: bytes, expectation: Expectation, keyring: PrivateKeys, now_ms: int
) -> tuple[ParcelContext, bytes]:
    """The context and chunk key of a stranger's header, checked in this order: form, signature, purpose, seal.

    :raises WrongVersion: not a parcel of this version
    :raises TooLarge: header or plain bytes above their limits
    :raises BadSignature: not signed by the expected sender
    :raises MalformedMessage: the sender signed something that is not a parcel's context
    :raises BadSeal: for another purpose than expected, or it does not open
    :raises Expired: past its time
    """
    parts = _split(header)
    signed = signed_bytes("parcel-header", parts.unsigned)
    check_signature(public_key_of(expectation.sender), parts.signature, signed, "parcel's header")
    context = decode(ParcelContext, parts.context)
    _check_context(context, expectation)
    check_fresh(context.issued_ms, context.expires_ms, now_ms, what="parcel")
    if context.expires_ms - context.issued_ms > limits.MAX_PARCEL_AGE_SECONDS * 1000:
        raise Expired(f"this parcel claims a life above {limits.MAX_PARCEL_AGE_SECONDS // 86400} days; seal it anew")
    file_key = _open_key(parts, context, keyring.private(context.receiver_epoch))
    chunk_key, commitment = _derive(file_key, parts.context)
    if not hmac.compare_digest(commitment, parts.commitment):
        raise BadSeal("this parcel's key is not the one it commits to; seal it anew")
    return context, chunk_key


@functools.cache
def preferred_cipher() -> int:
    """AES-256-GCM where the processor computes AES itself, else ChaCha20-Poly1305, which is fast without."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:  # not Linux: the 64-bit processors that other systems run on have AES
        return AES_256_GCM
    return AES_256_GCM if "aes" in words else CHACHA20_POLY1305


def preferred_suite(receiver: KeyStatement) -> int:
    """The hybrid post-quantum suite where both sides have it: weights stay secret for years."""
    if not receiver.mlkem768_x25519:
        return X25519
    try:
        _public_key(receiver, MLKEM768_X25519)
    except UnsupportedAlgorithm:
        return X25519
    return MLKEM768_X25519


class _Header(NamedTuple):
    unsigned: bytes
    context: bytes
    sealed_key: bytes
    commitment: bytes
    signature: bytes


def _split(header: bytes) -> _Header:
    """A header's parts by their places; nothing of it is verified."""
    if len(header) > limits.MAX_PARCEL_HEADER_BYTES:
        raise TooLarge(f"a parcel's header of {len(header)} bytes is above {limits.MAX_PARCEL_HEADER_BYTES}")
    if header[: len(MAGIC)] != MAGIC or header[len(MAGIC) : len(MAGIC) + 1] != bytes((VERSION,)):
        raise WrongVersion(f"these bytes are not a parcel of version {VERSION}; both sides need the same program")
    context_end = _CONTEXT_AT + int.from_bytes(header[len(MAGIC) + 1 : _CONTEXT_AT], "big")
    signature_at = len(header) - SIGNATURE_BYTES
    commitment_at = signature_at - _COMMITMENT_BYTES
    if commitment_at - context_end not in _SEALED_KEY_BYTES.values():
        raise BadSeal("this parcel's header has the wrong length; it was cut or altered, send it again")
    return _Header(
        unsigned=header[:signature_at],
        context=header[_CONTEXT_AT:context_end],
        sealed_key=header[context_end:commitment_at],
        commitment=header[commitment_at:signature_at],
        signature=header[signature_at:],
    )


def _check_context(context: ParcelContext, expectation: Expectation) -> None:
    for name in ("market", "broker", "purpose", "trade", "sender", "receiver", "manifest_digest"):
        if getattr(context, name) != getattr(expectation, name):
            raise BadSeal(f"this parcel is for another {name.replace('_', ' ')} than the one expected here")
    if context.chunk_bytes != limits.CHUNK_BYTES:
        raise BadSeal(f"this parcel is cut into chunks of {context.chunk_bytes} bytes, not {limits.CHUNK_BYTES}")
    if context.plain_bytes > expectation.max_plain_bytes:
        raise TooLarge(f"this parcel of {context.plain_bytes} bytes is above the {expectation.max_plain_bytes} allowed")


def _open_key(parts: _Header, context: ParcelContext, keys: EncryptionKeys) -> bytes:
    private_key = keys.mlkem768_x25519 if context.suite == MLKEM768_X25519 else keys.x25519
    try:
        file_key = _SUITES[context.suite].decrypt(parts.sealed_key, private_key, _info(parts.context))
    except (InvalidTag, ValueError):
        raise BadSeal(
            "this parcel's key does not open with the receiver's keys; seal it to its newest statement"
        ) from None
    if len(file_key) != FILE_KEY_BYTES:
        raise BadSeal("this parcel's key has the wrong length; seal it anew")
    return file_key


def _public_key(receiver: KeyStatement, suite: int) -> X25519PublicKey | MLKEM768X25519PublicKey:
    try:
        if suite == X25519:
            return X25519PublicKey.from_public_bytes(receiver.x25519)
        mlkem, x25519 = receiver.mlkem768_x25519[:-32], receiver.mlkem768_x25519[-32:]
        return MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(mlkem), X25519PublicKey.from_public_bytes(x25519)
        )
    except ValueError:
        raise MalformedMessage(f"the encryption keys of {receiver.peer} are not keys; ask it for new ones") from None


def _derive(file_key: bytes, context_bytes: bytes) -> tuple[bytes, bytes]:
    """The chunk key and the key commitment, 32 bytes each."""
    info = b"p2pmarket/parcel-keys/v1\0" + hashlib.sha256(context_bytes).digest()
    keys = HKDF(SHA256(), FILE_KEY_BYTES + _COMMITMENT_BYTES, None, info).derive(file_key)
    return keys[:FILE_KEY_BYTES], keys[FILE_KEY_BYTES:]


def _info(context_bytes: bytes) -> bytes:
    return b"p2pmarket/parcel-key/v1\0" + context_bytes
