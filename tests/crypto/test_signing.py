"""Signed records: vectors for every type, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from crypto_examples import NOW_MS, SELLER, SIGNED_TYPES, STRANGER, example

from p2pmarket import limits
from p2pmarket.crypto import signing
from p2pmarket.crypto.signing import check_fresh, sign, signer_of, type_of, unverified, verify
from p2pmarket.errors import BadSignature, Expired, MalformedMessage, TooLarge
from p2pmarket.messages import Ask, Bid, Done, Welcome

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signed.json").read_text())
"""Made by `python tests/vectors/make.py`."""


def relabelled(data: bytes, label: str) -> bytes:
    rest = data[1 + data[0] :]
    return bytes((len(label),)) + label.encode() + rest


def test_every_signed_type_has_a_vector() -> None:
    assert set(VECTORS) == set(SIGNED_TYPES)


@pytest.mark.parametrize("name", sorted(SIGNED_TYPES))
def test_vectors(name: str) -> None:
    data, kind = bytes.fromhex(VECTORS[name]["signed"]), SIGNED_TYPES[name]
    record: Any = verify(data, kind, signer=SELLER.peer_id)
    assert record == example(kind)
    assert sign(SELLER, record) == data
    assert type_of(data) == name and signer_of(data) == SELLER.peer_id
    assert len(VECTORS[name]["record"]) == len(vars(record))


@pytest.mark.parametrize("name", sorted(SIGNED_TYPES))
def test_another_signer_is_refused_and_named(name: str) -> None:
    kind = SIGNED_TYPES[name]
    data = sign(STRANGER, example(kind))
    assert verify(data, kind, signer=None) == example(kind)
    with pytest.raises(BadSignature, match=STRANGER.peer_id):
        verify(data, kind, signer=SELLER.peer_id)


def test_a_bid_never_passes_as_an_ask_though_their_fields_are_alike() -> None:
    data = sign(SELLER, example(Bid))
    with pytest.raises(MalformedMessage, match="is a bid, not a ask"):
        verify(data, Ask, signer=SELLER.peer_id)
    with pytest.raises(BadSignature):
        verify(relabelled(data, "ask"), Ask, signer=SELLER.peer_id)


def test_control_without_the_type_in_the_signature_a_bid_passes_as_an_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "signed_bytes", lambda label, body: body)
    data = relabelled(sign(SELLER, example(Bid)), "ask")
    assert isinstance(verify(data, Ask, signer=SELLER.peer_id), Ask)


@pytest.mark.parametrize("data", [b"", b"\0", b"\x03bid", bytes(200), b"\xff" * 500, b"\x03BID" + bytes(100)])
def test_what_is_no_signed_record_is_refused(data: bytes) -> None:
    for look in (type_of, signer_of, lambda data: verify(data, Done, signer=None)):
        with pytest.raises(MalformedMessage):
            look(data)


def test_sizes_are_bounded_on_both_sides() -> None:
    with pytest.raises(TooLarge):
        verify(bytes(limits.MAX_RECORD_BYTES + 1), Done, signer=None)
    half = bytes(limits.MAX_RECORD_BYTES // 2)
    with pytest.raises(TooLarge):
        sign(SELLER, Welcome(half, (half,), (0,), (b"d" * 32,), b"k", 0, 0, b"c", (), 0))


def test_time_has_an_end_and_a_skew() -> None:
    check_fresh(NOW_MS + 2_999, NOW_MS + 10_000, NOW_MS)
    check_fresh(NOW_MS - 10_000, NOW_MS + 1, NOW_MS)
    with pytest.raises(Expired, match="in the future"):
        check_fresh(NOW_MS + 3_001, NOW_MS + 10_000, NOW_MS)
    with pytest.raises(Expired, match="ran out"):
        check_fresh(NOW_MS - 10_000, NOW_MS, NOW_MS, what="bid")


def test_what_was_verified_before_is_read_without_its_signature_and_still_by_its_type() -> None:
    data = sign(SELLER, Done())
    key_at = 1 + data[0]
    forged = data[: key_at + 32] + bytes(64) + data[key_at + 96 :]  # no signature
    assert unverified(data, Done) == verify(data, Done, signer=None)
    assert unverified(forged, Done) == Done()
    with pytest.raises(BadSignature):
        verify(forged, Done, signer=None)
    with pytest.raises(MalformedMessage):
        unverified(data, Bid)
