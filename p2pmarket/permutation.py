"""Which axes of a model's tensors may be permuted together: architecture knowledge as data.

Knows: the records, and that they are consistent. Refuses to know: torch, models (models/ writes specs, alignment/ finds
them), how to use one (alignment/ applies, verifies and matches).
A spec that contradicts itself raises ModelError when it is made.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from p2pmarket.errors import ModelError


class Axis(NamedTuple):
    """Where a class's units lie on axis `axis` of the tensor called `tensor`.

    Unit u of outer block o lies at `start + o * stride + u * inner ... + inner - 1`. The defaults say that the units
    are the axis. Channels that were flattened into features have `inner` = pixels of a channel; the width of an
    attention head has `outer` = heads; the keys of a fused qkv projection `start` = width.
    """

    tensor: str
    axis: int
    start: int = 0
    outer: int = 1
    """Times that the units repeat along the axis."""
    inner: int = 1
    """Neighbouring positions that belong to one unit."""
    stride: int = 0
    """Positions from one outer block to the next; 0: they touch (size * inner)."""


@dataclasses.dataclass(frozen=True)
class PermutationClass:
    """One set of interchangeable units, and every axis that enumerates them.

    With `blocks` above 1 there are that many sets of `size` units, each permuted by itself: the inner widths of
    attention heads. Each member's `outer` is then a multiple of `blocks`; consecutive outer blocks belong to one.
    `within` names the class whose units (in all its blocks) are these blocks: when heads move, their inner units move
    with them, and are permuted in their new places.
    """

    name: str
    size: int
    """Units in one block."""
    members: tuple[Axis, ...]
    blocks: int = 1
    within: str = ""


@dataclasses.dataclass(frozen=True)
class PermutationSpec:
    """The permutation symmetries of one architecture (Ainsworth et al. 2022, section 2).

    Permuting every member of a class by the same permutation leaves the model's function as it was. A class comes after
    the one it is `within`.

    :raises ModelError: a class named twice, empty, or within none; members that lie across one another
    """

    classes: tuple[PermutationClass, ...]

    def __post_init__(self) -> None:
        known: dict[str, PermutationClass] = {}
        for group in self.classes:
            if group.name in known or min(group.size, group.blocks) < 1 or not group.members:
                raise ModelError(f"permutation class {group.name!r} is named twice or empty; name each class once")
            _check_blocks(group, known)
            known[group.name] = group
        for on_axis in self.members_on().values():
            for place, (group, member) in enumerate(on_axis):
                for other, beside in on_axis[:place]:
                    _check_beside(group, member, other, beside)

    @property
    def sizes(self) -> dict[str, int]:
        """Class name -> number of units in a block."""
        return {group.name: group.size for group in self.classes}

    def members_on(self) -> dict[tuple[str, int], list[tuple[PermutationClass, Axis]]]:
        """(tensor name, axis) -> the classes on that axis with their places, in the order of `classes`."""
        found: dict[tuple[str, int], list[tuple[PermutationClass, Axis]]] = {}
        for group in self.classes:
            for member in group.members:
                found.setdefault((member.tensor, member.axis), []).append((group, member))
        return found


def last_position(group: PermutationClass, member: Axis) -> int:
    """The last position of the axis that belongs to the class."""
    return member.start + (member.outer - 1) * _stride(group, member) + group.size * member.inner - 1


def _stride(group: PermutationClass, member: Axis) -> int:
    return member.stride or group.size * member.inner


def _check_blocks(group: PermutationClass, known: dict[str, PermutationClass]) -> None:
    if group.within:
        around = known.get(group.within)
        if around is None or around.size * around.blocks != group.blocks:
            raise ModelError(
                f"permutation class {group.name!r} has {group.blocks} blocks within {group.within!r}, which must be a "
                "class before it with as many units"
            )
    for member in group.members:
        wrong = min(member.axis, member.start) < 0 or min(member.outer, member.inner) < 1
        if wrong or member.outer % group.blocks or _stride(group, member) < group.size * member.inner:
            raise ModelError(
                f"permutation class {group.name!r}: the place on axis {member.axis} of {member.tensor} has {member}, "
                f"which {group.blocks} blocks of {group.size} units do not fit"
            )


def _check_beside(group: PermutationClass, member: Axis, other: PermutationClass, beside: Axis) -> None:
    """Two classes on one axis lie apart, or one inside single units of the other."""
    apart = member.start > last_position(other, beside) or beside.start > last_position(group, member)
    inside = group.size * member.inner <= beside.inner or other.size * beside.inner <= member.inner
    interleaved = _stride(group, member) == _stride(other, beside) and (
        _phase(group, member, other, beside) or _phase(other, beside, group, member)
    )
    if not (apart or inside or interleaved):
        raise ModelError(
            f"axis {member.axis} of {member.tensor} is in the permutation classes {other.name!r} and {group.name!r}; "
            "a position of an axis belongs to one class, or to one inside a unit of another"
        )


def _phase(group: PermutationClass, member: Axis, other: PermutationClass, beside: Axis) -> bool:
    """Whether in every stride the one's positions end before the other's begin."""
    stride = _stride(group, member)
    first, second = member.start % stride, beside.start % stride
    return first + group.size * member.inner <= second and second + other.size * beside.inner <= stride
