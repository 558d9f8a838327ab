"""Records: every bound on a field, and bytes from strangers."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket import limits
from p2pmarket.errors import MalformedMessage, TooLarge
from p2pmarket.records import Bound, Count, OneOf, Record, decode, encode


@dataclasses.dataclass(frozen=True)
class Part(Record):
    name: Annotated[str, Bound(1, 4)]
    amount: Count | None


@dataclasses.dataclass(frozen=True)
class Whole(Record):
    yes: bool
    share: Annotated[float, Bound(-1.0, 1.0)]
    colour: Annotated[str, OneOf(("red", "blue"))]
    key: Annotated[bytes, Bound(2, 2)]
    parts: Annotated[tuple[Part, ...], Bound(0, 3)]
    rows: tuple[tuple[int, ...], ...]
    best: Part | None


@dataclasses.dataclass(frozen=True)
class Deep(Record):
    inner: Deep | None


GOOD: dict[str, Any] = {
    "yes": True,
    "share": 0.5,
    "colour": "red",
    "key": b"ab",
    "parts": (Part("a", 1), Part("b", None)),
    "rows": ((1, 2), ()),
    "best": None,
}

parts = st.builds(Part, name=st.text(min_size=1, max_size=4), amount=st.none() | st.integers(0, 2**53 - 1))
wholes = st.builds(
    Whole,
    yes=st.booleans(),
    share=st.floats(-1, 1),
    colour=st.sampled_from(("red", "blue")),
    key=st.binary(min_size=2, max_size=2),
    parts=st.lists(parts, max_size=3).map(tuple),
    rows=st.lists(st.lists(st.integers(-(2**63), 2**64 - 1), max_size=3).map(tuple), max_size=3).map(tuple),
    best=st.none() | parts,
)


def packed(**changes: Any) -> bytes:
    """A Whole as a stranger may pack it: any value in any field."""
    values = {**GOOD, "parts": [["a", 1]], "rows": [[1]], **changes}
    return bytes(msgpack.packb(list(values.values())))


@given(wholes)
def test_a_record_comes_back_as_it_was(whole: Whole) -> None:
    assert decode(Whole, encode(whole)) == whole
    assert encode(decode(Whole, encode(whole))) == encode(whole)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("yes", 1, "is int, not bool"),
        ("share", 1, "is int, not float"),
        ("share", 1.01, "out of bounds"),
        ("share", math.nan, "not finite"),
        ("share", math.inf, "not finite"),
        ("colour", "green", "one of red, blue"),
        ("colour", b"red", "is bytes, not str"),
        ("key", b"abc", "length 3"),
        ("key", "ab", "is str, not bytes"),
        ("parts", [Part("a", 1)], "is not a list"),
        ("parts", (Part("a", 1),) * 4, "length 4"),
        ("parts", (1,), "is int, not Part"),
        ("rows", ((1, "x"),), "is str, not int"),
        ("rows", ((True,),), "is bool, not int"),
        ("best", "nothing", "is str, not Part"),
    ],
)
def test_a_field_out_of_its_bounds_is_named(field: str, value: Any, words: str) -> None:
    with pytest.raises(MalformedMessage, match=words) as refused:
        Whole(**{**GOOD, field: value})
    assert f"Whole.{field}" in str(refused.value)


@pytest.mark.parametrize("amount", [0, 2**53 - 1, None])
def test_bounds_are_inclusive(amount: int | None) -> None:
    assert Part("name", amount).amount == amount


@pytest.mark.parametrize(("name", "amount"), [("", 1), ("fives", 1), ("a", -1), ("a", 2**53)])
def test_just_outside_is_refused(name: str, amount: int) -> None:
    with pytest.raises(MalformedMessage):
        Part(name, amount)


def test_the_stranger_of_these_tests_can_also_be_honest() -> None:
    assert decode(Whole, packed()).parts == (Part("a", 1),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        packed()[:-1],
        packed() + b"\0",
        msgpack.packb({"yes": True}),
        msgpack.packb(5),
        msgpack.packb(list(GOOD)[:-1]),
        msgpack.packb([*GOOD, 1]),
        packed(yes={}),
        packed(yes={1: {2: 3}}),
        packed(key=msgpack.ExtType(1, b"ab")),
        packed(key=msgpack.Timestamp(1)),
        packed(share=math.nan),
        packed(share=-math.inf),
        packed(parts=[["a", 1, 2]]),
        packed(parts=[["a"]]),
        packed(parts=["a"]),
        packed(parts=7),
        packed(best=[]),
        packed(rows=[0]),
        packed(colour=b"\xff\xfe"),
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1 items
        b"\xdf\xff\xff\xff\xff",  # a map of as many
        b"\x97\xdb\xff\xff\xff\xff",  # a text of as many bytes
        b"\x97\xc6\xff\xff\xff\xff",
        b"\x91" * 200_000 + b"\xc0",
        b"\x97\xa3\xff\xff\xff",  # a text that is not UTF-8
    ],
    ids=lambda data: data[:12].hex() or "empty",
)
def test_hostile_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(Whole, data)


@given(st.binary(max_size=200))
def test_random_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode(Whole, b"\xc0" + data)


def test_records_inside_records_end_somewhere() -> None:
    def nested(levels: int) -> Deep:
        return Deep(nested(levels - 1) if levels else None)

    deepest = nested(limits.MAX_RECORD_DEPTH)
    assert decode(Deep, encode(deepest)) == deepest
    with pytest.raises(MalformedMessage, match="nested deeper"):
        decode(Deep, encode(nested(limits.MAX_RECORD_DEPTH + 1)))


def test_lists_end_somewhere() -> None:
    rows = ((),) * limits.MAX_TUPLE_ITEMS
    assert decode(Whole, packed(rows=rows)).rows == rows
    with pytest.raises(MalformedMessage):
        decode(Whole, packed(rows=[*rows, ()]))
    with pytest.raises(MalformedMessage, match="more than"):
        Whole(**{**GOOD, "rows": (*rows, ())})


def test_sizes_are_bounded_both_ways() -> None:
    @dataclasses.dataclass(frozen=True)
    class Big(Record):
        data: bytes

    fits = Big(bytes(limits.MAX_RECORD_BYTES - 6))
    assert decode(Big, encode(fits)) == fits
    with pytest.raises(TooLarge):
        encode(Big(bytes(limits.MAX_RECORD_BYTES)))
    with pytest.raises(TooLarge):
        decode(Big, bytes(limits.MAX_RECORD_BYTES + 1))
    with pytest.raises(TooLarge):
        decode(Big, encode(Big(bytes(100))), max_bytes=99)


def test_a_memoryview_is_bytes_enough() -> None:
    assert decode(Part, memoryview(encode(Part("a", 1)))) == Part("a", 1)
