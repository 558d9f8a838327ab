"""Rules of operations that tell positions apart: what depends on the order along an axis, and what is indexed.

Knows: an index names positions, so the axis it indexes stays as it is. Fails with Misfit where a call is not one that
the rule covers; the call then counts as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from p2pmarket.alignment.axes import Misfit
from p2pmarket.alignment.op_rules import Call, Dims, Made, place, replaced, rule, unknown


def _many(value: int | Sequence[int]) -> Sequence[int]:
    return [value] if isinstance(value, int) else value


def _pins(axis_of: Callable[[Call, Dims], Sequence[int]], call: Call, reason: str) -> Dims:
    value: Dims = call["self"]
    for axis in axis_of(call, value):
        call.pin(value[place(value, axis)], reason)
    return value


@rule("roll", "flip", "cumsum", "cumprod", "logcumsumexp", "tril", "triu", "diff")
def _by_position(call: Call) -> Made:
    """Same shape, but positions along some axes are told apart."""
    if call.op == "diff":
        value: Dims = call["self"]
        axis = place(value, call["dim"])
        call.pin(value[axis], "diff depends on positions")
        return replaced(value, axis, call.fixed(call.shapes[axis], "diff depends on positions"))
    if call.op in ("tril", "triu"):
        return _pins(lambda call, value: (-2, -1), call, f"{call.op} depends on positions")
    if call.op == "roll" and not call["dims"]:
        return unknown(call, "roll depends on positions")
    return _pins(
        lambda call, value: _many(call["dim"] if call["dims"] is None else call["dims"]),
        call,
        f"{call.op} depends on positions",
    )


@rule("index")
def _index(call: Call) -> Made:
    """x[..., i, j, ...] with tensors of integers: what they index is told apart, the rest is as it was."""
    value: Dims = call["self"]
    indices: list[Any] = call["indices"]
    by = [axis for axis, index in enumerate(indices) if index is not None]
    reason = "an index names its positions"
    for axis in by:
        call.pin(value[axis], reason)
    found = call.broadcast(*(indices[axis] for axis in by))
    rest = [term for axis, term in enumerate(value) if axis not in by]
    first = by[0] if by == list(range(by[0], by[-1] + 1)) else 0
    made = (*rest[:first], *found, *rest[first:])
    if tuple(term.size for term in made) != call.shapes:
        raise Misfit("an index by mask")
    return made


@rule("index_put")
def _index_put(call: Call) -> Made:
    value: Dims = call["self"]
    by = [axis for axis, index in enumerate(call["indices"]) if index is not None]
    if by != list(range(len(by))):
        raise Misfit("an index in the middle")
    for axis in by:
        call.pin(value[axis], "an index names its positions")
    rest = value[len(by) :]
    written: Dims = call["values"]
    for one, other in zip(reversed(rest), reversed(written), strict=False):
        if other.size != 1:
            call.unify(one, other)
    for term in written[: max(len(written) - len(rest), 0)]:
        call.pin(term, "an index names its positions")
    return value


@rule("index_select")
def _index_select(call: Call) -> Made:
    value: Dims = call["self"]
    axis = place(value, call["dim"])
    call.pin(value[axis], "an index names its positions")
    return replaced(value, axis, *call["index"])


@rule("gather", "take_along_dim")
def _gather(call: Call) -> Made:
    value, index = call["self"], call["index"] or call["indices"]
    axis = place(value, call["dim"])
    call.pin(value[axis], "an index names its positions")
    for other, (one, at) in enumerate(zip(value, index, strict=True)):
        if other != axis and one.size == at.size:
            call.unify(one, at)
        elif other != axis:
            call.pin(one, "gather reads a part")
            call.pin(at, "gather reads a part")
    return tuple(index)
