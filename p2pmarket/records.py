"""Frozen records <-> msgpack arrays in field order, every field checked when the record is made.

Knows: how a dataclass's annotations bound its fields, and how records become bytes.
Refuses to know: who signed them (crypto/signing), what they mean (messages, parcel, market).
A record that breaks a bound raises `MalformedMessage`, whether it came off the wire or was made here.

A field is one of: bool, int, float, str, bytes, another Record, `X | None`, `tuple[X, ...]`, with bounds given by
`Annotated[..., Bound]`. Floats are finite. Bytes are decoded with no extension hook, bounded in size, depth
and count, and an array must have exactly the record's fields. What a record's annotations say is worked out once a
type, into one function a field that checks it and one that builds it.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

import msgpack

from p2pmarket import limits
from p2pmarket.errors import MalformedMessage, TooLarge

R = TypeVar("R", bound="Record")


@dataclasses.dataclass(frozen=True)
class Bound:
    """`low <= x <= high` for numbers; the same for the length of text, bytes and tuples."""

    low: int | float
    high: int | float

    def __str__(self) -> str:
        return f"{self.low} ... {self.high}"

    def holds(self, value: Any) -> bool:
        size = value if isinstance(value, (int, float)) else len(value)
        return bool(self.low <= size <= self.high)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The value is one of a fixed set of words."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"

    def holds(self, value: Any) -> bool:
        return value in self.words


Name = Annotated[str, Bound(1, limits.MAX_NAME_CHARACTERS)]
Text = Annotated[str, Bound(0, limits.MAX_TEXT_CHARACTERS)]
PeerId = Annotated[str, Bound(40, 64)]
"""A libp2p peer id in base58: account, address and verification key in one (crypto/keys)."""
Digest = Annotated[bytes, Bound(32, 32)]
Id = Annotated[bytes, Bound(16, 16)]
"""16 random bytes that name a message, parcel or trade."""
Amount = Annotated[int, Bound(0, limits.MAX_AMOUNT)]
"""Micro-credits."""
Millis = Annotated[int, Bound(0, 2**48)]
"""UTC in milliseconds, or a duration in milliseconds."""
Count = Annotated[int, Bound(0, 2**53 - 1)]
Signed = Annotated[bytes, Bound(1, limits.MAX_RECORD_BYTES)]
"""A signed record's bytes, carried whole inside another."""


class Record:
    """Base of every frozen dataclass that goes on the wire or into the journal."""

    def __post_init__(self) -> None:
        for field in _fields(type(self)):
            problem = field.check(getattr(self, field.name))
            if problem:
                raise MalformedMessage(f"{type(self).__name__}.{field.name} {problem}")


def encode(record: Record) -> bytes:
    """A record as a msgpack array of its fields in order.

    :raises TooLarge: more than MAX_RECORD_BYTES
    """
    data: bytes = msgpack.packb(_plain(record), use_bin_type=True)
    if len(data) > limits.MAX_RECORD_BYTES:
        raise TooLarge(f"{type(record).__name__} of {len(data)} bytes is above {limits.MAX_RECORD_BYTES}")
    return data


def decode(kind: type[R], data: bytes | memoryview, *, max_bytes: int = limits.MAX_RECORD_BYTES) -> R:
    """The record of type `kind` in `data`.

    :raises TooLarge: longer than max_bytes
    :raises MalformedMessage: not msgpack, nested too deep, or a field out of its bounds
    """
    if len(data) > max_bytes:
        raise TooLarge(f"{kind.__name__} of {len(data)} bytes is above {max_bytes}")
    try:
        value = msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            strict_map_key=True,
            max_map_len=0,
            max_ext_len=0,
            max_array_len=limits.MAX_TUPLE_ITEMS,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedMessage(f"{kind.__name__}: not a msgpack array ({type(error).__name__})") from None
    return _build(kind, value, 0)


# ---- annotations, worked out once a type ----------------------------------------------------------------------------

_Check = Callable[[Any], "str | None"]
"""What is wrong with a value, in words; None when nothing is."""
_Builder = Callable[[Any, int], Any]
"""A value from msgpack (at a depth) -> the records in it built; a value of the wrong form passes as it is."""


class _Field(NamedTuple):
    name: str
    check: _Check
    builder: _Builder | None
    """None where msgpack's values are the field's own."""


_FIELDS: dict[type, tuple[_Field, ...]] = {}


def _fields(kind: type) -> tuple[_Field, ...]:
    """A record's fields in order."""
    if kind not in _FIELDS:
        hints = typing.get_type_hints(kind, include_extras=True)
        names = [field.name for field in dataclasses.fields(kind)]
        _FIELDS[kind] = tuple(_Field(name, _checker(hints[name]), _builder(hints[name])) for name in names)
    return _FIELDS[kind]


def _checker(hint: Any) -> _Check:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *bounds = typing.get_args(hint)
        return _bounded(_checker(inner), bounds)
    if origin in (types.UnionType, typing.Union):
        return _optional(_checker(_other_than_none(hint)))
    if origin is tuple:
        return _every(_checker(typing.get_args(hint)[0]))
    return _typed(hint)


def _bounded(check: _Check, bounds: list[Bound | OneOf]) -> _Check:
    def problem(value: Any) -> str | None:
        wrong = check(value)
        if wrong:
            return wrong
        for bound in bounds:
            if value is not None and not bound.holds(value):
                shown = value if isinstance(value, (int, float, str)) else f"length {len(value)}"
                return f"is out of bounds ({str(shown)[:40]!r}, must be {bound})"
        return None

    return problem


def _optional(check: _Check) -> _Check:
    return lambda value: None if value is None else check(value)


def _every(check: _Check) -> _Check:
    def problem(value: Any) -> str | None:
        if type(value) is not tuple:
            return "is not a list"
        if len(value) > limits.MAX_TUPLE_ITEMS:
            return f"has more than {limits.MAX_TUPLE_ITEMS} items"
        for part in value:
            wrong = check(part)
            if wrong:
                return wrong
        return None

    return problem


def _typed(kind: Any) -> _Check:
    def problem(value: Any) -> str | None:
        if type(value) is not kind:
            return f"is {type(value).__name__}, not {kind.__name__}"
        if kind is float and not math.isfinite(value):
            return "is not finite"
        return None

    return problem


def _builder(hint: Any) -> _Builder | None:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _builder(typing.get_args(hint)[0])
    if origin in (types.UnionType, typing.Union):
        inner = _builder(_other_than_none(hint))
        return inner and (lambda value, depth: None if value is None else inner(value, depth))
    if origin is tuple:
        part = _builder(typing.get_args(hint)[0])
        return part and (
            lambda value, depth: tuple(part(item, depth) for item in value) if type(value) is tuple else value
        )
    if issubclass(hint, Record):
        return lambda value, depth: _build(hint, value, depth)
    return None


def _other_than_none(hint: Any) -> Any:
    """X of `X | None`."""
    return next(option for option in typing.get_args(hint) if option is not types.NoneType)


def _build(kind: type[R], value: Any, depth: int) -> R:
    fields = _fields(kind)
    if type(value) is not tuple or len(value) != len(fields):
        raise MalformedMessage(f"{kind.__name__}: not an array of {len(fields)} fields")
    if depth > limits.MAX_RECORD_DEPTH:
        raise MalformedMessage(f"{kind.__name__}: nested deeper than {limits.MAX_RECORD_DEPTH}")
    return kind(
        *(field.builder(part, depth + 1) if field.builder else part for part, field in zip(value, fields, strict=True))
    )


def _plain(value: Any) -> Any:
    """What msgpack packs for a record or a field of one."""
    if isinstance(value, Record):
        return [_plain(getattr(value, field.name)) for field in _fields(type(value))]
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value
