"""Frozen records <-> msgpack arrays in field order, every field checked when the record is made.

Knows: how a dataclass's annotations bound its fields, and how records become bytes.
Refuses to know: who signed them (crypto/signing), what they mean (messages, parcel, market).
A record that breaks a bound raises `MalformedMessage`, whether it came off the wire or was made here.

A field is one of: bool, int, float, str, bytes, another Record, `X | None`, `tuple[X, ...]`, with bounds given by
`Annotated[..., Bound]`. Floats are finite. Bytes are decoded with no extension hook, bounded in size, depth
and count, and an array must have exactly the record's fields.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Annotated, Any, TypeVar

import msgpack

from p2pmarket import limits
from p2pmarket.errors import MalformedMessage, TooLarge

R = TypeVar("R", bound="Record")


@dataclasses.dataclass(frozen=True)
class Bound:
    """`low <= x <= high` for numbers; the same for the length of text, bytes and tuples."""

    low: int | float
    high: int | float

    def holds(self, value: Any) -> bool:
        size = value if isinstance(value, (int, float)) else len(value)
        return bool(self.low <= size <= self.high)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The value is one of a fixed set of words."""

    words: tuple[str, ...]

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
        for name, hint in _hints(type(self)).items():
            problem = _problem(getattr(self, name), hint)
            if problem:
                raise MalformedMessage(f"{type(self).__name__}.{name} {problem}")


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


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(kind: type) -> dict[str, Any]:
    """A record's fields and their annotations, in order; computed once a type."""
    if kind not in _HINTS:
        hints = typing.get_type_hints(kind, include_extras=True)
        _HINTS[kind] = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return _HINTS[kind]


def _problem(value: Any, hint: Any) -> str | None:
    """What is wrong with `value` as a `hint`, in words; None when nothing is."""
    if typing.get_origin(hint) is Annotated:
        inner, *bounds = typing.get_args(hint)
        problem = _problem(value, inner)
        if problem:
            return problem
        for bound in bounds:
            if value is not None and not bound.holds(value):
                shown = value if isinstance(value, (int, float, str)) else f"length {len(value)}"
                return f"is out of bounds ({str(shown)[:40]!r}, must satisfy {bound})"
        return None
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [option for option in typing.get_args(hint) if option is not types.NoneType]
        return None if value is None else _problem(value, inner[0])
    if origin is tuple:
        item = typing.get_args(hint)[0]
        if type(value) is not tuple:
            return "is not a list"
        if len(value) > limits.MAX_TUPLE_ITEMS:
            return f"has more than {limits.MAX_TUPLE_ITEMS} items"
        return next((problem for part in value if (problem := _problem(part, item))), None)
    if type(value) is not hint:
        return f"is {type(value).__name__}, not {hint.__name__}"
    if hint is float and not math.isfinite(value):
        return "is not finite"
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return [_plain(getattr(value, name)) for name in _hints(type(value))]
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value


def _build(kind: type[R], value: Any, depth: int) -> R:
    hints = _hints(kind)
    if type(value) is not tuple or len(value) != len(hints):
        raise MalformedMessage(f"{kind.__name__}: not an array of {len(hints)} fields")
    if depth > limits.MAX_RECORD_DEPTH:
        raise MalformedMessage(f"{kind.__name__}: nested deeper than {limits.MAX_RECORD_DEPTH}")
    return kind(*(_field(part, hint, depth + 1) for part, hint in zip(value, hints.values(), strict=True)))


def _field(value: Any, hint: Any, depth: int) -> Any:
    """Turns nested arrays into the records and tuples that `hint` names; leaves all else as it is."""
    if typing.get_origin(hint) is Annotated:
        return _field(value, typing.get_args(hint)[0], depth)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [option for option in typing.get_args(hint) if option is not types.NoneType]
        return None if value is None else _field(value, inner[0], depth)
    if origin is tuple and type(value) is tuple:
        return tuple(_field(part, typing.get_args(hint)[0], depth) for part in value)
    if isinstance(hint, type) and issubclass(hint, Record):
        return _build(hint, value, depth)
    return value
