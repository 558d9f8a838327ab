"""Which classes must be matched together, and where their units lie, as tables of indices.

Knows: the spec's geometry. Classes that lie on common positions of an axis, or within one another (attention heads,
their keys and values), are one family: what is best for the one depends on the other. Classes of different families
meet only as different axes of a tensor. Refuses to know: weights. Fails with ModelError on places that do not line up.

A site is a set of positions that always move together: one unit of each class that covers them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from p2pmarket.alignment.symmetry import Permutations, axis_order
from p2pmarket.errors import ModelError
from p2pmarket.permutation import Axis, PermutationClass, PermutationSpec

Indices = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Pattern:
    """How the sites of some parts of axes are covered by classes; fused queries and keys share one pattern."""

    units: Mapping[str, Indices]
    """Class -> (sites,): block * size + unit at each site."""
    moved: Mapping[str, Indices]
    """Class -> (sites, size): the site at which a site finds itself with each other unit of the same block."""

    @property
    def sites(self) -> int:
        """Number of sites."""
        return len(next(iter(self.units.values())))


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Where a pattern's sites lie on one axis of one tensor."""

    tensor: str
    axis: int
    pattern: int
    places: Tensor
    """(sites, copies): the positions of each site; copies of one site are compared with each other."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Classes that are matched together."""

    name: str
    classes: tuple[PermutationClass, ...]
    """An outer class before those within it."""
    patterns: tuple[Pattern, ...]
    parts: tuple[Part, ...]

    @property
    def simple(self) -> bool:
        """Whether it is one class whose blocks are assignment problems by themselves."""
        return len(self.classes) == 1

    @functools.cached_property
    def tensors(self) -> tuple[str, ...]:
        """The tensors it lies on."""
        return tuple(dict.fromkeys(part.tensor for part in self.parts))


@dataclasses.dataclass(frozen=True)
class AxisUse:
    """The classes on one axis of one tensor, all of one or more families, and its length."""

    members: tuple[tuple[PermutationClass, Axis], ...]
    length: int

    def order(self, permutations: Permutations) -> Tensor:
        """(length,): from which position each position comes."""
        if len(self.members) == 1 and _is_axis(*self.members[0], self.length):
            return permutations[self.members[0][0].name]
        return axis_order(self.members, permutations, self.length)


def families_of(spec: PermutationSpec, shapes: Mapping[str, Sequence[int]]) -> tuple[Family, ...]:
    """The families of a spec, on the tensors of `shapes` alone.

    :raises ModelError: the classes on an axis do not repeat alike
    """
    on_axis = {key: members for key, members in spec.members_on().items() if key[0] in shapes}
    roots = _joined(spec, on_axis)
    patterns: dict[str, list[Pattern]] = {}
    parts: dict[str, list[Part]] = {}
    known: dict[tuple[object, ...], int] = {}
    for (tensor, axis), members in on_axis.items():
        for cover, places in _covers(members, shapes[tensor][axis], tensor, axis):
            root = roots[next(iter(cover))]
            key = (root, *((name, units.tobytes()) for name, units in cover.items()))
            if key not in known:
                known[key] = len(patterns.setdefault(root, []))
                patterns[root].append(Pattern(cover, _moves(cover, places, members, shapes[tensor][axis])))
            parts.setdefault(root, []).append(Part(tensor, axis, known[key], torch.from_numpy(places)))
    return tuple(
        Family(
            root,
            tuple(group for group in spec.classes if roots[group.name] == root),
            tuple(patterns[root]),
            tuple(parts[root]),
        )
        for root in patterns
    )


def axes_of(spec: PermutationSpec, shapes: Mapping[str, Sequence[int]]) -> dict[str, dict[int, AxisUse]]:
    """Tensor -> its permuted axes."""
    axes: dict[str, dict[int, AxisUse]] = {}
    for (tensor, axis), members in spec.members_on().items():
        if tensor in shapes:
            axes.setdefault(tensor, {})[axis] = AxisUse(tuple(members), shapes[tensor][axis])
    return axes


def _is_axis(group: PermutationClass, member: Axis, length: int) -> bool:
    """Whether the class's units are the axis in its order: most are."""
    return (group.blocks, group.size) == (1, length) and (member.start, member.outer, member.inner) == (0, 1, 1)


def _grid(group: PermutationClass, member: Axis) -> Indices:
    """(blocks, outer / blocks, size, inner): the axis positions of the class's units."""
    outer = np.arange(member.outer) * (member.stride or group.size * member.inner)
    units = np.arange(group.size) * member.inner
    places: Indices = member.start + outer[:, None, None] + units[:, None] + np.arange(member.inner)
    return places.reshape(group.blocks, member.outer // group.blocks, group.size, member.inner)


def _joined(
    spec: PermutationSpec, on_axis: Mapping[tuple[str, int], list[tuple[PermutationClass, Axis]]]
) -> dict[str, str]:
    """Class -> the first class of its family."""
    roots = {group.name: group.name for group in spec.classes}

    def join(first: str, second: str) -> None:
        old, new = roots[second], roots[first]
        if old != new:
            roots.update({name: new for name, root in roots.items() if root == old})

    for group in spec.classes:
        if group.within:
            join(group.within, group.name)
    for members in on_axis.values():
        if len(members) > 1:
            ranges = [(group.name, _grid(group, member)) for group, member in members]
            for place, (name, positions) in enumerate(ranges):
                for other, beside in ranges[:place]:
                    if roots[name] != roots[other] and np.isin(positions, beside).any():
                        join(other, name)
    return roots


def _covers(
    members: Sequence[tuple[PermutationClass, Axis]], length: int, tensor: str, axis: int
) -> list[tuple[dict[str, Indices], Indices]]:
    """Parts of an axis covered by the same classes: units by site, and positions (sites, copies)."""
    if len(members) == 1 and _is_axis(*members[0], length):
        return [({members[0][0].name: np.arange(length)}, np.arange(length)[:, None])]
    names = tuple(dict.fromkeys(group.name for group, _ in members))
    table = np.full((length, len(names)), -1, np.int64)
    for group, member in members:
        places = _grid(group, member)
        numbers = np.arange(group.blocks * group.size).reshape(group.blocks, 1, group.size, 1)
        table[places.reshape(-1), names.index(group.name)] = np.broadcast_to(numbers, places.shape).reshape(-1)
    kinds = (table >= 0) @ (1 << np.arange(len(names)))
    found = []
    for kind in np.unique(kinds[kinds > 0]):
        positions = np.flatnonzero(kinds == kind)
        covering = [place for place in range(len(names)) if kind >> place & 1]
        rows = table[positions][:, covering]
        keys = rows @ (1 + table.max()) ** np.arange(len(covering))[::-1]
        ordered = np.argsort(keys, kind="stable")
        sites = len(np.unique(keys))
        together = keys[ordered].reshape(sites, -1) if len(keys) % sites == 0 else keys[None]
        if (together != together[:, :1]).any():
            raise ModelError(f"the permutation classes on axis {axis} of {tensor} do not repeat alike; check the spec")
        firsts = rows[ordered].reshape(sites, -1, len(covering))[:, 0]
        units = {names[place]: firsts[:, column].copy() for column, place in enumerate(covering)}
        found.append((units, positions[ordered].reshape(sites, -1)))
    return found


def _moves(
    cover: Mapping[str, Indices], places: Indices, members: Sequence[tuple[PermutationClass, Axis]], length: int
) -> dict[str, Indices]:
    """See `Pattern.moved`; left out for a class alone, whose sites are its units."""
    if len(cover) == 1:
        return {}
    site_of = np.full(length, -1, np.int64)
    site_of[places] = np.arange(len(places))[:, None]
    row_of = np.full(length, -1, np.int64)
    row_of[places[:, 0]] = np.arange(len(places))
    moved: dict[str, Indices] = {}
    for group, member in members:
        if group.name not in cover:
            continue
        table = moved.setdefault(group.name, np.zeros((len(places), group.size), np.int64))
        grid = _grid(group, member)  # (blocks, repeats, size, inner)
        rows = row_of[grid]
        alternatives = site_of[grid].swapaxes(2, 3)[:, :, None]  # (blocks, repeats, 1, inner, size)
        shape = (*grid.shape, group.size)
        table[rows[rows >= 0]] = np.broadcast_to(alternatives, shape)[rows >= 0]
    return moved
