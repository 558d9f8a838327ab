"""Signed records: bytes that name their type and signer and verify only as what they were signed as.

Wire form: `type length (1) | type | public key (32) | Ed25519 signature (64) | body`, the body being the record's
msgpack array. The signature is over `"p2pmarket/" type "/v1\\0" body` (RFC 8032); Ed25519 hashes the public key in.
The bytes are verified as they came and never serialised again. Knows: labels and signatures. Refuses to know: what
a record means, whether its signer may say it, whether it was seen before (ledger). Fails with a `PeerFault`.
"""

from __future__ import annotations

import re
from typing import ClassVar, NamedTuple, Protocol, TypeVar, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from p2pmarket import limits
from p2pmarket.crypto.keys import PUBLIC_KEY_BYTES, Identity, peer_id_of, public_key_of
from p2pmarket.errors import BadSignature, Expired, MalformedMessage, TooLarge
from p2pmarket.records import Record, decode, encode

SIGNATURE_BYTES = 64
_TYPE_NAME = re.compile(rb"[a-z0-9-]{1,32}")


class Signable(Protocol):
    """A `Record` with a name that is bound into its signature."""

    TYPE: ClassVar[str]


M = TypeVar("M", bound=Signable)


class _Parts(NamedTuple):
    label: str
    public_key: bytes
    signature: bytes
    body: bytes


def sign(identity: Identity, record: Signable) -> bytes:
    """The signed bytes of a record.

    :raises TooLarge: they would be more than MAX_RECORD_BYTES
    """
    body = encode(cast(Record, record))
    label = record.TYPE.encode("ascii")
    signature = identity.sign(signed_bytes(record.TYPE, body))
    data = bytes((len(label),)) + label + identity.public_key + signature + body
    _check_size(data)
    return data


def verify(data: bytes, kind: type[M], *, signer: str | None) -> M:
    """The record of type `kind` in `data`, signed by the peer `signer` (None: by whoever `signer_of` names).

    :raises TooLarge: longer than MAX_RECORD_BYTES
    :raises BadSignature: the signature does not verify, or is another peer's
    :raises MalformedMessage: another type of record, or not a record
    """
    parts = _split(data)
    if parts.label != kind.TYPE:
        raise MalformedMessage(f"this record is a {parts.label}, not a {kind.TYPE}; the sender mixed them up")
    if signer is not None and public_key_of(signer) != parts.public_key:
        raise BadSignature(f"this {kind.TYPE} is signed by {peer_id_of(parts.public_key)}, not by {signer}")
    check_signature(parts.public_key, parts.signature, signed_bytes(kind.TYPE, parts.body), kind.TYPE)
    return cast(M, decode(cast("type[Record]", kind), parts.body))


def unverified(data: bytes, kind: type[M]) -> M:
    """The record of type `kind` in `data`, its signature not looked at: for what was verified, or signed here, before.

    :raises TooLarge, MalformedMessage: as `verify`
    """
    parts = _split(data)
    if parts.label != kind.TYPE:
        raise MalformedMessage(f"this record is a {parts.label}, not a {kind.TYPE}; the sender mixed them up")
    return cast(M, decode(cast("type[Record]", kind), parts.body))


def signer_of(data: bytes) -> str:
    """The peer id that signed bytes claim as their signer, not verified: for routing and for choosing a key.

    :raises MalformedMessage: not a signed record
    :raises TooLarge: longer than MAX_RECORD_BYTES
    """
    return peer_id_of(_split(data).public_key)


def type_of(data: bytes) -> str:
    """The type that signed bytes claim, not verified.

    :raises MalformedMessage: not a signed record
    :raises TooLarge: longer than MAX_RECORD_BYTES
    """
    return _split(data).label


def check_fresh(issued_ms: int, expires_ms: int, now_ms: int, *, what: str = "message") -> None:
    """Refuses what is not valid yet (beyond the clock skew that is allowed) or no longer valid.

    :raises Expired: `now_ms` (UTC) is outside `issued_ms - MAX_CLOCK_SKEW_SECONDS ... expires_ms`
    """
    ahead = (issued_ms - now_ms) / 1000
    if ahead > limits.MAX_CLOCK_SKEW_SECONDS:
        raise Expired(f"this {what} was issued {ahead:.1f} s in the future; set the clocks of both machines")
    if now_ms >= expires_ms:
        raise Expired(f"this {what} ran out {(now_ms - expires_ms) / 1000:.1f} s ago; ask its sender for a new one")


def signed_bytes(label: str, body: bytes) -> bytes:
    """What a signature of type `label` covers: no two types ever sign the same bytes, as no label holds a slash."""
    return b"p2pmarket/" + label.encode("ascii") + b"/v1\0" + body


def check_signature(public_key: bytes, signature: bytes, data: bytes, what: str) -> None:
    """Verifies an Ed25519 signature; `what` names the thing in the error.

    :raises BadSignature: it does not verify
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise BadSignature(f"the signature of this {what} does not verify; it was altered or forged") from None


def _split(data: bytes) -> _Parts:
    _check_size(data)
    key_at = 1 + data[0] if data else 0
    body_at = key_at + PUBLIC_KEY_BYTES + SIGNATURE_BYTES
    label = data[1:key_at]
    if len(data) <= body_at or not _TYPE_NAME.fullmatch(label):
        raise MalformedMessage("these bytes are not a signed record; the sender runs another program or version")
    signature_at = key_at + PUBLIC_KEY_BYTES
    return _Parts(label.decode("ascii"), data[key_at:signature_at], data[signature_at:body_at], data[body_at:])


def _check_size(data: bytes) -> None:
    if len(data) > limits.MAX_RECORD_BYTES:
        raise TooLarge(f"a signed record of {len(data)} bytes is above {limits.MAX_RECORD_BYTES}; send less in one")
