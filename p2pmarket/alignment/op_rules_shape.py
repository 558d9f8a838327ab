"""Rules of operations that rearrange: reshape, transpose, cut, join, repeat, pad.

Knows: torch's semantics of shapes (row-major reshapes, negative axes). Fails with Misfit where a call is not one that
the rule covers; the call then counts as unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from p2pmarket.alignment import axes
from p2pmarket.alignment.axes import Leaf, Misfit, Term
from p2pmarket.alignment.op_rules import Call, Dims, Made, Stack, is_dims, place, replaced, rule, unknown


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as", "_reshape_alias", "ravel")
def _reshape(call: Call) -> Made:
    before: Dims = call["self"]
    shape: tuple[int, ...] = call.shapes
    made: list[Term] = [Leaf(1)] * len(shape)
    stack: tuple[int, list[dict[int, Term]]] | None = None
    for ours, theirs in _groups([term.size for term in before], shape):
        whole = axes.product([before[axis] for axis in ours])
        apart = [axis for axis in theirs if (call.name, axis) in call.stacks]
        if apart and stack is None and len(theirs) > 1:
            stack = _stacked(call, whole, theirs, apart[0])
            continue
        for axis, term in zip(theirs, call.regroup(whole, [shape[axis] for axis in theirs]), strict=True):
            made[axis] = _made_here(call, axis, term)
    if stack is None:
        return tuple(made)
    parts = [tuple(part.get(axis, made[axis]) for axis in range(len(shape)) if axis != stack[0]) for part in stack[1]]
    return Stack(stack[0], tuple(parts))


def _made_here(call: Call, axis: int, term: Term) -> Term:
    term = axes.resolve(term)
    if isinstance(term, Leaf) and term.origin is None:
        term.origin = (call.name, axis)
    return term


def _stacked(call: Call, whole: Term, theirs: Sequence[int], apart: int) -> tuple[int, list[dict[int, Term]]]:
    """(axis, for each position on it: axis -> term)."""
    shape = call.shapes
    before = [axis for axis in theirs if axis < apart]
    after = [axis for axis in theirs if axis > apart]
    inner = math.prod(shape[axis] for axis in after)
    *outer, rest = call.regroup(whole, [*(shape[axis] for axis in before), shape[apart] * inner])
    parts = []
    for piece in call.cut(rest, [inner] * shape[apart]):
        terms = call.regroup(piece, [shape[axis] for axis in after])
        parts.append(dict(zip([*before, *after], [*outer, *terms], strict=True)))
    return apart, parts


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Axes of a row-major reshape that become one another, without axes of 1."""
    if 0 in before:
        raise Misfit("an empty tensor is reshaped")
    ours = [axis for axis, size in enumerate(before) if size != 1]
    theirs = [axis for axis, size in enumerate(after) if size != 1]
    groups = []
    while ours and theirs:
        left, right = [ours.pop(0)], [theirs.pop(0)]
        sizes = [before[left[0]], after[right[0]]]
        while sizes[0] != sizes[1]:
            side, axis = (0, ours.pop(0)) if sizes[0] < sizes[1] else (1, theirs.pop(0))
            (left, right)[side].append(axis)
            sizes[side] *= (before, after)[side][axis]
        groups.append((left, right))
    return groups


@rule("permute", "transpose", "t", "mT", "mH", "swapaxes", "swapdims", "movedim", "moveaxis", "numpy_T", "adjoint")
def _permute(call: Call) -> Made:
    value = call["self"]
    count = len(call.shapes)
    order = list(range(count))
    if call.op == "permute":
        order = [axis % count for axis in call["dims"]]
    elif call.op in ("movedim", "moveaxis"):
        source, target = _many(call["source"]), _many(call["destination"])
        moved = {there % count: here % count for here, there in zip(source, target, strict=True)}
        rest = iter(axis for axis in range(count) if axis not in moved.values())
        order = [moved[axis] if axis in moved else next(rest) for axis in range(count)]
    elif call.op in ("t", "numpy_T"):
        order.reverse()
    elif count:
        named = ("axis0", "axis1") if call.op == "swapaxes" else ("dim0", "dim1")
        first, second = (-2, -1) if call.op in ("mT", "mH", "adjoint") else (call[named[0]], call[named[1]])
        order[first % count], order[second % count] = order[second % count], order[first % count]
    if isinstance(value, Stack):
        inside = [axis - (axis > value.axis) for axis in order if axis != value.axis]
        return Stack(order.index(value.axis), tuple(tuple(part[axis] for axis in inside) for part in value.parts))
    return tuple(value[axis] for axis in order)


def _many(value: int | Sequence[int]) -> Sequence[int]:
    return [value] if isinstance(value, int) else value


@rule("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "lift_fresh", "to", "_to_copy", "type_as", "dropout")
def _same(call: Call) -> Made:
    value: Made = next(value for value in call.arguments.values() if isinstance(value, Stack) or is_dims(value))
    return value


@rule("select", "unbind")
def _select(call: Call) -> Made:
    value = call["self"]
    if isinstance(value, Stack):
        count = len(value.parts[0]) + 1
        if call["dim"] % count == value.axis:
            return list(value.parts) if call.op == "unbind" else value.parts[call["index"]]
        value = merged(call, value)
    axis = place(value, call["dim"])
    _take_apart(call, value[axis])
    call.pin(value[axis], f"{call.op} picks single positions")
    left = replaced(value, axis)
    return [left] * value[axis].size if call.op == "unbind" else left


def _take_apart(call: Call, term: Term) -> None:
    """An axis that a reshape made is taken apart: the next walk makes it a stack there."""
    term = axes.resolve(term)
    if isinstance(term, Leaf) and term.pin is None and term.origin is not None:
        call.wanted.add(term.origin)


def merged(call: Call, stack: Stack) -> Dims:
    """A stack as one tensor: what differed along it is now the same."""
    for part in stack.parts[1:]:
        for one, other in zip(stack.parts[0], part, strict=True):
            call.unify(one, other)
    reason = "positions along a stack differ in meaning"
    first = stack.parts[0]
    return (*first[: stack.axis], call.fixed(len(stack.parts), reason), *first[stack.axis :])


@rule("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk")
def _split(call: Call) -> Made:
    value = call["self"]
    dim = call["dim"] or 0
    if isinstance(value, Stack):
        count = len(value.parts[0]) + 1
        if dim % count == value.axis and all(shape[value.axis] == 1 for shape in call.shapes):
            return [(*part[: value.axis], Leaf(1), *part[value.axis :]) for part in value.parts]
        value = merged(call, value)
    axis = place(value, dim)
    sizes = [shape[axis] for shape in call.shapes]
    if set(sizes) == {1} and len(sizes) > 1:
        _take_apart(call, value[axis])
    return [replaced(value, axis, piece) for piece in call.cut(value[axis], sizes)]


@rule("slice", "narrow")
def _slice(call: Call) -> Made:
    value: Dims = call["self"]
    axis = place(value, call["dim"] or 0)
    term, size = axes.resolve(value[axis]), call.shapes[axis]
    if size == term.size:
        return value
    if not size:
        return replaced(value, axis, Leaf(0))
    start = call["start"] or 0
    if not isinstance(start, int):
        raise Misfit("a cut that depends on data")
    start = min(max(start + term.size if start < 0 else start, 0), term.size)
    pinned = isinstance(term, Leaf) and term.pin is not None
    if (call["step"] or 1) != 1 or pinned:
        call.pin(term, "slice takes every n-th position")
        return replaced(value, axis, *[call.fixed(size, "slice takes every n-th position")])
    sizes = [start, size, term.size - start - size]
    pieces = call.cut(term, [part for part in sizes if part], used=False)
    piece = pieces[1 if start else 0]
    axes.use(piece)
    return replaced(value, axis, piece)


@rule("cat", "concat", "concatenate", "hstack", "vstack")
def _cat(call: Call) -> Made:
    tensors: list[Dims] = [dims for dims in call["tensors"] if len(dims) > 1 or dims[0].size]
    if call.op == "vstack" or any(len(dims) != len(tensors[0]) for dims in tensors):
        raise Misfit("tensors of different dimensions are joined")
    dim = (0 if len(tensors[0]) == 1 else 1) if call.op == "hstack" else call["dim"] or 0
    axis = place(tensors[0], dim)
    made = [call.unify(*(dims[other] for dims in tensors)) for other in range(len(tensors[0])) if other != axis]
    return (*made[:axis], axes.join([dims[axis] for dims in tensors]), *made[axis:])


@rule("stack")
def _stack(call: Call) -> Made:
    tensors: list[Dims] = call["tensors"]
    made = tuple(call.unify(*terms) for terms in zip(*tensors, strict=True))
    axis = (call["dim"] or 0) % (len(made) + 1)
    return (*made[:axis], call.fixed(len(tensors), "stack gives every position its meaning"), *made[axis:])


@rule("squeeze")
def _squeeze(call: Call) -> Made:
    value = call["self"]
    if isinstance(value, Stack):
        whole: Dims = (*value.parts[0][: value.axis], Leaf(len(value.parts)), *value.parts[0][value.axis :])
        out = _squeezed(call, whole)
        order = [axis for axis in range(len(whole)) if axis not in out]
        kept = [axis - (axis > value.axis) for axis in order if axis != value.axis]
        return Stack(order.index(value.axis), tuple(tuple(part[axis] for axis in kept) for part in value.parts))
    out = _squeezed(call, value)
    return tuple(term for axis, term in enumerate(value) if axis not in out)


def _squeezed(call: Call, value: Dims) -> set[int]:
    axes_ = range(len(value)) if call["dim"] is None else [place(value, axis) for axis in _many(call["dim"])]
    return {axis for axis in axes_ if value[axis].size == 1}


@rule("unsqueeze")
def _unsqueeze(call: Call) -> Made:
    value = call["self"]
    if isinstance(value, Stack):
        axis = call["dim"] % (len(value.parts[0]) + 2)
        at = axis - (axis > value.axis)
        parts = tuple((*part[:at], Leaf(1), *part[at:]) for part in value.parts)
        return Stack(value.axis + (axis <= value.axis), parts)
    axis = call["dim"] % (len(value) + 1)
    return (*value[:axis], Leaf(1), *value[axis:])


@rule("expand", "expand_as", "broadcast_to")
def _expand(call: Call) -> Made:
    value: Dims = call["self"]
    new = len(call.shapes) - len(value)
    made: list[Term] = [Leaf(size) for size in call.shapes]
    for axis, term in enumerate(value):
        if term.size == call.shapes[axis + new]:
            made[axis + new] = term
    return tuple(made)


@rule("repeat", "tile")
def _repeat(call: Call) -> Made:
    value: Dims = call["self"]
    new = len(call.shapes) - len(value)
    made: list[Term] = [Leaf(size) for size in call.shapes[:new]]
    for axis, term in enumerate(value):
        made.append(axes.product([Leaf(call.shapes[axis + new] // term.size), term]))
    return tuple(made)


@rule("repeat_interleave")
def _repeat_interleave(call: Call) -> Made:
    value: Dims = call["self"]
    if not isinstance(call["repeats"], int) or call["dim"] is None:
        return unknown(call, "it repeats by data")
    axis = place(value, call["dim"])
    return replaced(value, axis, axes.product([value[axis], Leaf(call["repeats"])]))


@rule("pad", "constant_pad_nd")
def _pad(call: Call) -> Made:
    value: Dims = call["self"]
    padding: list[int] = call["pad"]
    made = list(value)
    for index in range(len(padding) // 2):
        axis, (low, high) = len(value) - 1 - index, padding[2 * index : 2 * index + 2]
        if low == high == 0:
            continue
        if (call["mode"] or "constant") != "constant" or min(low, high) < 0:
            call.pin(value[axis], "pad reads positions at the end")
            made[axis] = call.fixed(call.shapes[axis], "pad reads positions at the end")
        else:
            ends = [call.fixed(size, "padding has no units") for size in (low, high)]
            made[axis] = axes.join([ends[0], value[axis], ends[1]])
    return tuple(made)


@rule("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def _shuffle(call: Call) -> Made:
    value: Dims = call["self"]
    if len(value) != 4:
        raise Misfit("not a batch of images")
    batch, channels, *spatial = value
    reason = f"{call.op} moves positions between axes"
    for term in spatial:
        call.pin(term, reason)
    if call.op == "channel_shuffle":
        groups = call["groups"]
        outer, inner = call.regroup(channels, [groups, channels.size // groups])
        return (batch, axes.product([inner, outer]), *spatial)
    factor = call["upscale_factor"] or call["downscale_factor"]
    sub = call.fixed(factor**2, reason)
    fixed = tuple(call.fixed(size, reason) for size in call.shapes[2:])
    if call.op == "pixel_unshuffle":
        return (batch, axes.product([channels, sub]), *fixed)
    kept, moved = call.regroup(channels, [channels.size // factor**2, factor**2])
    call.pin(moved, reason)
    return (batch, kept, *fixed)
