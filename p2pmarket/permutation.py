"""Which axes of a model's tensors may be permuted together: architecture knowledge as data.

Knows: the record, and that it is consistent. Refuses to know: torch, models (models/ writes specs), how to use
one (alignment/ applies, verifies and matches).
A spec that contradicts itself raises ModelError when it is made.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from p2pmarket.errors import ModelError


class Axis(NamedTuple):
    """Axis number `axis` of the tensor called `tensor`."""

    tensor: str
    axis: int


@dataclasses.dataclass(frozen=True)
class PermutationClass:
    """One set of interchangeable units, and every axis that enumerates them."""

    name: str
    size: int
    """Number of units: the length of every member axis."""
    members: tuple[Axis, ...]


@dataclasses.dataclass(frozen=True)
class PermutationSpec:
    """The permutation symmetries of one architecture (Ainsworth et al. 2022, section 2).

    Permuting every member axis of a class by the same permutation leaves the model's function as it was.

    :raises ModelError: a class named twice, empty, or an axis that is a member twice
    """

    classes: tuple[PermutationClass, ...]

    def __post_init__(self) -> None:
        owners: dict[Axis, str] = {}
        names: set[str] = set()
        for group in self.classes:
            if group.name in names or group.size < 1 or not group.members:
                raise ModelError(f"permutation class {group.name!r} is named twice or empty; name each class once")
            names.add(group.name)
            for member in group.members:
                if member in owners:
                    raise ModelError(
                        f"axis {member.axis} of {member.tensor} is in the permutation classes {owners[member]!r} "
                        f"and {group.name!r}; an axis belongs to one class"
                    )
                owners[member] = group.name

    @property
    def sizes(self) -> dict[str, int]:
        """Class name -> number of units."""
        return {group.name: group.size for group in self.classes}

    def axes_of(self) -> dict[str, dict[int, str]]:
        """Tensor name -> {axis: class name}, for the tensors that have a permutable axis."""
        axes: dict[str, dict[int, str]] = {}
        for group in self.classes:
            for member in group.members:
                axes.setdefault(member.tensor, {})[member.axis] = group.name
        return axes
