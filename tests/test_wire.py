"""Frames: bytes and back, and what a stranger may claim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.errors import MalformedMessage, TooLarge
from p2pmarket.limits import MAX_RECORD_BYTES
from p2pmarket.wire import LENGTH, Frame, Kind, body_length, decode_frame, encode_frame

HEAD_BYTES = 9
WITH_BODY = (Kind.REQUEST, Kind.REPLY, Kind.MAIL)


def decoded(data: bytes) -> Frame:
    """The frame in bytes that hold exactly one."""
    length = body_length(data[: LENGTH.size])
    assert len(data) == LENGTH.size + length
    return decode_frame(data[LENGTH.size :])


@given(st.sampled_from(WITH_BODY), st.integers(0, 2**64 - 1), st.binary(max_size=100))
def test_a_frame_comes_back_as_it_was(kind: Kind, number: int, body: bytes) -> None:
    assert decoded(encode_frame(Frame(kind, number, body))) == Frame(kind, number, body)


@pytest.mark.parametrize("kind", set(Kind) - set(WITH_BODY))
def test_the_others_have_no_body(kind: Kind) -> None:
    assert decoded(encode_frame(Frame(kind, 7))) == Frame(kind, 7)
    with pytest.raises(MalformedMessage, match=kind.name):
        decode_frame(encode_frame(Frame(kind, 7))[LENGTH.size :] + b"x")


def test_the_layout_is_fixed() -> None:
    assert encode_frame(Frame(Kind.MAIL, 258, b"ab")).hex() == "0000000b" + "03" + "0000000000000102" + b"ab".hex()


def test_the_longest_frame_and_one_more() -> None:
    longest = encode_frame(Frame(Kind.REQUEST, 1, bytes(MAX_RECORD_BYTES)))
    assert len(decoded(longest).body) == MAX_RECORD_BYTES
    with pytest.raises(TooLarge):
        encode_frame(Frame(Kind.REQUEST, 1, bytes(MAX_RECORD_BYTES + 1)))
    with pytest.raises(TooLarge):
        body_length(LENGTH.pack(HEAD_BYTES + MAX_RECORD_BYTES + 1))
    with pytest.raises(TooLarge):
        body_length(b"\xff" * 4)


@pytest.mark.parametrize("count", range(HEAD_BYTES))
def test_a_frame_has_a_whole_head(count: int) -> None:
    with pytest.raises(MalformedMessage, match="shorter than its head"):
        body_length(LENGTH.pack(count))


@pytest.mark.parametrize("code", [0, 7, 255])
def test_unknown_kinds_are_refused(code: int) -> None:
    with pytest.raises(MalformedMessage, match=f"unknown frame kind {code}"):
        decode_frame(bytes((code,)) + bytes(8))
