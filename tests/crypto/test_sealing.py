"""Sealed parcels: vectors, the order of checks, and controls that show each defence is needed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from crypto_examples import (
    BROKER,
    BROKER_KEYS,
    EPOCH,
    NOW_MS,
    SELLER,
    STRANGER,
    OneEpoch,
    context,
    example,
    expectation,
    flat,
    open_flat,
    seal,
    sealer_for,
    statement,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from p2pmarket import limits
from p2pmarket.crypto import header, sealing
from p2pmarket.crypto.header import _derive, new_context, open_header, preferred_cipher, preferred_suite, seal_header
from p2pmarket.crypto.keyring import EncryptionKeys
from p2pmarket.crypto.sealing import TAG_BYTES, Opener, Sealer, _Chunks
from p2pmarket.crypto.signing import sign, signed_bytes
from p2pmarket.errors import BadSeal, BadSignature, Expired, MalformedMessage, TooLarge, WrongVersion
from p2pmarket.messages import Done
from p2pmarket.records import decode, encode

PLAIN = bytes(range(40))
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sealed.json").read_text())
"""Made by `python tests/vectors/make.py`."""


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHUNK_BYTES", 16)


class Vector(OneEpoch):
    def __init__(self, keys: str) -> None:
        self.keys = decode(EncryptionKeys, bytes.fromhex(keys))

    def private(self, epoch: int) -> EncryptionKeys:
        return self.keys


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"suite{vector['suite']}-cipher{vector['cipher']}")
def test_vectors(vector: dict[str, Any]) -> None:
    opener = Opener(bytes.fromhex(vector["header"]), expectation(), Vector(vector["receiver_keys"]), NOW_MS)
    assert (opener.context.suite, opener.context.cipher) == (vector["suite"], vector["cipher"])
    plain, tags = b"", b""
    for index, chunk in enumerate(map(bytes.fromhex, vector["chunks"])):
        plain += opener.open_chunk(index, chunk, memoryview(bytearray(16)))
        tags += chunk[-TAG_BYTES:]
    opener.check_trailer(bytes.fromhex(vector["trailer"]), tags)
    assert plain == bytes.fromhex(vector["plain"]) == PLAIN


@pytest.mark.parametrize("suite", [1, 2])
@pytest.mark.parametrize("cipher", [1, 2])
def test_what_was_sealed_opens_and_a_sealer_taken_up_again_gives_the_same_bytes(suite: int, cipher: int) -> None:
    sealer = Sealer.create(SELLER, statement(), context(suite, cipher))
    parts = seal(sealer, PLAIN)
    assert open_flat(flat(parts))[0] == PLAIN
    assert seal(Sealer(SELLER, sealer.header, sealer.file_key), PLAIN) == parts
    assert PLAIN[:16] not in b"".join(parts)
    opener = Opener(sealer.header, expectation(), OneEpoch(), NOW_MS)
    tag = opener.tag_of(2, memoryview(PLAIN)[32:], memoryview(bytearray(32)))
    assert tag == parts[3][-TAG_BYTES:]


def test_new_parcels_are_post_quantum_where_offered_and_never_share_keys() -> None:
    fields: dict[str, Any] = {
        name: getattr(context(), name)
        for name in ("market", "broker", "purpose", "trade", "sender", "manifest_digest", "plain_bytes", "issued_ms",
                     "expires_ms")
    }  # fmt: skip
    parcels = [Sealer.create(SELLER, statement(), new_context(statement(), **fields)) for _ in range(2)]
    assert parcels[0].context.suite == 2 and preferred_suite(statement()) == 2
    assert parcels[0].file_key != parcels[1].file_key
    assert parcels[0].context.message_id != parcels[1].context.message_id
    assert preferred_suite(dataclasses.replace(statement(), mlkem768_x25519=b"")) == 1
    assert preferred_cipher() in (1, 2)


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"market": "other"}, "another market"),
    ({"broker": STRANGER.peer_id}, "another broker"),
    ({"purpose": "delivery"}, "another purpose"),
    ({"trade": b"u" * 16}, "another trade"),
    ({"receiver": STRANGER.peer_id}, "another receiver"),
    ({"manifest_digest": b"e" * 32}, "another manifest digest"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES)
def test_a_parcel_for_anything_else_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadSeal, match=words):
        open_flat(flat(seal(sealer_for(context()), PLAIN)), expectation(**change))
    with pytest.raises(BadSeal, match=words):
        open_flat(flat(seal(sealer_for(context(**change)), PLAIN)))


def test_sender_and_signature_are_bound_together() -> None:
    forwarded = flat(seal(sealer_for(context()), PLAIN))
    with pytest.raises(BadSignature):
        open_flat(forwarded, expectation(sender=STRANGER.peer_id))
    posing = flat(seal(sealer_for(context(), sender=STRANGER), PLAIN))
    with pytest.raises(BadSignature):
        open_flat(posing)
    taken_over = flat(seal(sealer_for(context(), sender=STRANGER), PLAIN))
    with pytest.raises(BadSeal, match="another sender"):
        open_flat(taken_over, expectation(sender=STRANGER.peer_id))


def test_sizes_versions_and_times() -> None:
    parts = seal(sealer_for(context()), PLAIN)
    with pytest.raises(TooLarge, match="40 bytes is above the 39 allowed"):
        open_flat(flat(parts), expectation(max_plain_bytes=39))
    with pytest.raises(TooLarge):
        open_header(bytes(limits.MAX_PARCEL_HEADER_BYTES + 1), expectation(), OneEpoch(), NOW_MS)
    for wrong in (b"", b"P2PX" + parts[0][4:], parts[0][:4] + b"\2" + parts[0][5:]):
        with pytest.raises(WrongVersion):
            open_header(wrong, expectation(), OneEpoch(), NOW_MS)
    with pytest.raises(BadSeal, match="wrong length"):
        open_header(parts[0][:-1], expectation(), OneEpoch(), NOW_MS)
    for times in ({"issued_ms": NOW_MS + 4000}, {"expires_ms": NOW_MS}, {"expires_ms": NOW_MS + 8 * 86400_000}):
        with pytest.raises(Expired):
            open_flat(flat(seal(sealer_for(context(**times)), PLAIN)))
    with pytest.raises(BadSeal, match="chunks of 8 bytes"):
        open_flat(flat(seal(sealer_for(context(chunk_bytes=8)), PLAIN)))


def signed_header(context_bytes: bytes, sealed_key: bytes = bytes(80)) -> bytes:
    """A header with any context, signed by the seller."""
    unsigned = b"P2PM\1" + len(context_bytes).to_bytes(2, "big") + context_bytes + sealed_key + bytes(32)
    return unsigned + SELLER.sign(signed_bytes("parcel-header", unsigned))


def test_a_signed_context_out_of_bounds_is_refused() -> None:
    huge = context()
    object.__setattr__(huge, "plain_bytes", 2**60)
    for context_bytes in (encode(huge), b"", b"\x90", encode(context())[:-1], sign(SELLER, Done())):
        with pytest.raises(MalformedMessage):
            open_header(signed_header(context_bytes), expectation(), OneEpoch(), NOW_MS)


def test_a_key_sealed_under_another_suite_context_or_receiver_does_not_open() -> None:
    for suite, size in ((1, 1168), (2, 80)):
        with pytest.raises(BadSeal, match="does not open"):
            open_header(signed_header(encode(context(suite)), bytes(size)), expectation(), OneEpoch(), NOW_MS)
    moved = header._split(sealer_for(context(message_id=b"n" * 16)).header).sealed_key
    with pytest.raises(BadSeal, match="does not open"):
        open_header(signed_header(encode(context()), moved), expectation(), OneEpoch(), NOW_MS)
    other_keys = EncryptionKeys.generate(EPOCH, NOW_MS)
    no_mlkem = dataclasses.replace(BROKER_KEYS, mlkem768_seed=b"")
    for keys, words in ((other_keys, "does not open"), (no_mlkem, "did not offer")):
        vector = Vector(encode(keys).hex())
        with pytest.raises(BadSeal, match=words):
            open_header(sealer_for(context()).header, expectation(), vector, NOW_MS)


def test_published_keys_that_are_no_keys_are_refused() -> None:
    with pytest.raises(MalformedMessage, match="are not keys"):
        seal_header(SELLER, dataclasses.replace(statement(), mlkem768_x25519=b"\xff" * 1216), context(), bytes(32))


def test_chunks_stay_in_their_places_and_the_trailer_covers_them() -> None:
    head, *chunks, trailer = seal(sealer_for(context()), PLAIN)
    with pytest.raises(BadSeal, match="chunk 0"):
        open_flat(flat([head, chunks[1], chunks[0], chunks[2], trailer]))
    with pytest.raises(BadSeal, match="wrong length"):
        Opener(head, expectation(), OneEpoch(), NOW_MS).open_chunk(2, chunks[0], memoryview(bytearray(16)))
    tags = b"".join(chunk[-TAG_BYTES:] for chunk in chunks)
    opener = Opener(head, expectation(), OneEpoch(), NOW_MS)
    with pytest.raises(BadSeal, match="ended before its last chunk"):
        opener.check_trailer(trailer, tags[:-TAG_BYTES])
    for bad in (trailer[:-1], trailer[:-1] + bytes((trailer[-1] ^ 1,)), b""):
        with pytest.raises(BadSignature):
            opener.check_trailer(bad, tags)
    with pytest.raises(BadSignature):
        opener.check_trailer(trailer, tags[TAG_BYTES:] + tags[:TAG_BYTES])


# ---- controls: without the defence, the attack works ------------------------------------------------------------


def cut_short(cipher: int) -> bytes:
    """A reader of two chunks is given the first two of a parcel of three."""
    long, short = _Chunks(b"k" * 32, cipher, chunks=3), _Chunks(b"k" * 32, cipher, chunks=2)
    sealed, plain = memoryview(bytearray(32)), memoryview(bytearray(16))
    long.seal(1, memoryview(PLAIN)[16:32], sealed)
    short.open(1, sealed, plain)
    return bytes(plain)


@pytest.mark.parametrize("cipher", [1, 2])
def test_the_last_flag_stops_truncation(cipher: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSeal):
        cut_short(cipher)
    monkeypatch.setattr(sealing, "_nonce", lambda index, last: index.to_bytes(11, "big") + b"\0")
    assert cut_short(cipher) == PLAIN[16:32]


def other_chunk_of_a_reader() -> bytes:
    """Who can read a parcel has its key: it seals another chunk and shows it as the sender's."""
    sealer = sealer_for(context())
    parts = seal(sealer, PLAIN)
    forged = seal(Sealer(SELLER, sealer.header, sealer.file_key), b"forged by reader" + PLAIN[16:])
    return open_flat(flat([parts[0], forged[1], *parts[2:]]))[0]


def test_the_trailer_stops_a_reader_who_forges_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSignature):
        other_chunk_of_a_reader()
    monkeypatch.setattr(Opener, "check_trailer", lambda self, trailer, tags: None)
    assert other_chunk_of_a_reader() == b"forged by reader" + PLAIN[16:]


def times(a: int, b: int) -> int:
    """Product in GCM's field (NIST SP 800-38D, section 6.3), bit 0 the highest."""
    product = 0
    for bit in range(127, -1, -1):
        if b >> bit & 1:
            product ^= a
        a = a >> 1 ^ (0xE1 << 120 if a & 1 else 0)
    return product


def inverse(a: int) -> int:
    result = 1 << 127
    for bit in range(127, -1, -1):
        result = times(result, result)
        if bit:
            result = times(result, a)
    return result


def hash_key_and_mask(chunk_key: bytes, nonce: bytes) -> tuple[int, int]:
    block = Cipher(algorithms.AES(chunk_key), modes.ECB()).encryptor()  # noqa: S305
    return tuple(int.from_bytes(block.update(part), "big") for part in (bytes(16), nonce + b"\0\0\0\1"))  # type: ignore[return-value]


def one_chunk_for_two_keys(first_key: bytes, second_key: bytes, nonce: bytes) -> bytes:
    """Two blocks and a tag that AES-GCM opens under both keys (Dodis, Grubbs, Ristenpart, Woodage, 2018)."""
    (h, s), (g, t) = (hash_key_and_mask(key, nonce) for key in (first_key, second_key))
    one, lengths = int.from_bytes(b"any sixteen here", "big"), 2 * 128
    h2, g2 = times(h, h), times(g, g)
    wanted = times(one, times(h2, h) ^ times(g2, g)) ^ times(lengths, h ^ g) ^ s ^ t
    two = times(wanted, inverse(h2 ^ g2))
    tag = times(one, times(h2, h)) ^ times(two, h2) ^ times(lengths, h) ^ s
    return b"".join(part.to_bytes(16, "big") for part in (one, two, tag))


def two_readings(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """The sender commits to one key and seals another with the same chunk: two plain texts behind one commitment."""
    monkeypatch.setattr(limits, "CHUNK_BYTES", 32)
    parcel = context(cipher=1, chunk_bytes=32, plain_bytes=32)
    honest, other = ((key, _derive(key, encode(parcel))) for key in (b"1" * 32, b"2" * 32))
    chunk = one_chunk_for_two_keys(honest[1][0], other[1][0], sealing._nonce(0, True))
    readings = set()
    for file_key, _ in (honest, other):
        unsigned = header._split(seal_header(SELLER, statement(), parcel, file_key)).unsigned[:-32] + honest[1][1]
        head = unsigned + SELLER.sign(signed_bytes("parcel-header", unsigned))
        digests = hashlib.sha256(head).digest() + hashlib.sha256(chunk[-16:]).digest()
        readings.add(open_flat(flat([head, chunk, SELLER.sign(signed_bytes("parcel-trailer", digests))]))[0])
    return readings


def test_the_commitment_stops_one_chunk_with_two_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSeal, match="commits to"):
        two_readings(monkeypatch)
    monkeypatch.setattr(header.hmac, "compare_digest", lambda one, other: True)
    assert len(two_readings(monkeypatch)) == 2


def test_labels_keep_headers_trailers_and_records_apart() -> None:
    labels = {"parcel-header", "parcel-trailer", "bid"}
    assert len({signed_bytes(label, b"same") for label in labels}) == len(labels)
    assert BROKER.peer_id != SELLER.peer_id and example(Done) == Done()
