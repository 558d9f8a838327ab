"""Any record of a type, made from its annotations; and values just outside each field's bounds."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any

from hypothesis import strategies as st

from p2pmarket.records import Bound, OneOf, Record

LONG = 20
"""Lengths of examples, where a bound allows more."""


def records(kind: type[Record]) -> st.SearchStrategy[Any]:
    """Any record of this type."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{field.name: values(hints[field.name]) for field in dataclasses.fields(kind)})


def values(hint: Any, low: float | None = None, high: float | None = None) -> st.SearchStrategy[Any]:
    """Any value that an annotation allows."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        inner, *_, bound = typing.get_args(hint)  # the last is the narrowest
        return st.sampled_from(bound.words) if isinstance(bound, OneOf) else values(inner, bound.low, bound.high)
    if origin in (types.UnionType, typing.Union):
        return st.none() | values(_some(hint))
    lengths = {"min_size": int(low or 0), "max_size": int(max(low or 0, min(LONG, high if high is not None else LONG)))}
    if origin is tuple:
        return st.lists(values(typing.get_args(hint)[0]), min_size=lengths["min_size"], max_size=3).map(tuple)
    if issubclass(hint, Record):
        return records(hint)
    simple: dict[type, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(int(low or 0), int(high if high is not None else 2**53)),
        float: st.floats(low, high, allow_nan=False, allow_infinity=False),
        str: st.text(**lengths),
        bytes: st.binary(**lengths),
    }
    return simple[hint]


def outside(kind: type[Record]) -> Iterator[tuple[str, Any]]:
    """Each field with values that it must refuse: of another type, and just outside its bounds."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        yield field.name, object()
        for value in _outside(hints[field.name]):
            yield field.name, value


def _outside(hint: Any) -> Iterator[Any]:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        yield from _outside(_some(hint))
        return
    if hint is float:
        yield from (math.nan, math.inf)
    if typing.get_origin(hint) is not Annotated:
        return
    inner, *_, bound = typing.get_args(hint)
    if isinstance(bound, OneOf):
        yield "none of these words"
        return
    assert isinstance(bound, Bound)
    if inner is int:
        yield from (bound.low - 1, bound.high + 1)
    elif inner is float:
        yield from (math.nextafter(bound.low, -math.inf), math.nextafter(bound.high, math.inf))
    elif inner in (str, bytes):
        filler: Any = "x" if inner is str else b"x"
        yield filler * (int(bound.high) + 1)
        if bound.low:
            yield filler * (int(bound.low) - 1)
    elif bound.low:
        yield ()


def _some(hint: Any) -> Any:
    return next(option for option in typing.get_args(hint) if option is not types.NoneType)
