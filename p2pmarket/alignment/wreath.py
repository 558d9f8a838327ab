"""Matching one family of classes, everything outside it held still: heads first, then what is inside them.

Knows: similarity matrices and the family's tables. For a class with others within it the likeness of unit i to unit j
is that of their best inner assignment, found by the same procedure one level down: exact for plain attention; grouped
queries, where two classes inside a head share positions, need coordinate ascent.
Refuses to know: tensors and models. Does not fail on finite numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from p2pmarket.alignment.families import Family, Pattern
from p2pmarket.permutation import PermutationClass

Indices = NDArray[np.int64]
Matrix = NDArray[np.float32]
Choice = dict[str, Indices]
"""Class -> (blocks, size)."""

_SWEEPS = 20
_RISE = 1e-7
"""Smallest relative rise that counts among float32 likenesses."""


def solve(family: Family, matrices: Sequence[Matrix], current: Choice) -> Choice:
    """The better of two ascents: from nothing, and from `current`."""
    problem = _Problem(family.classes, family.patterns)
    anew = problem.ascend(matrices, None)
    kept = problem.ascend(matrices, current)
    return anew if problem.total(matrices, anew) > problem.total(matrices, kept) else kept


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Some classes and the patterns of the sites they cover; patterns may be covered by none."""

    classes: Sequence[PermutationClass]
    patterns: Sequence[Pattern]

    def ascend(self, matrices: Sequence[Matrix], start: Choice | None) -> Choice:
        """Coordinate ascent over the outermost classes; with no start, first by what is certain already."""
        names = {group.name for group in self.classes}
        tops = [group for group in self.classes if group.within not in names]
        choice = {group.name: _in_place(group) for group in self.classes} if start is None else dict(start)
        if start is None:
            decided: set[str] = set()
            for top in sorted(tops, key=lambda top: self._shared(top, tops)):
                choice |= self._best(top, matrices, choice, decided, tops)
                decided.add(top.name)
        if len(tops) == 1:
            return choice if start is None else {**choice, **self._best(tops[0], matrices, choice, None, tops)}
        total = self.total(matrices, choice)
        for _ in range(_SWEEPS):
            before = total
            for top in tops:
                tried = {**choice, **self._best(top, matrices, choice, None, tops)}
                reached = self.total(matrices, tried)
                if reached > total + _RISE * abs(total):
                    choice, total = tried, reached
            if total == before:
                break
        return choice

    def total(self, matrices: Sequence[Matrix], choice: Choice) -> float:
        """Likeness of all sites under a choice."""
        return sum(
            float(
                matrix[np.arange(len(matrix)), self._order(pattern, self.classes, choice, len(matrix))].sum(dtype=float)
            )
            for pattern, matrix in zip(self.patterns, matrices, strict=True)
        )

    def _shared(self, top: PermutationClass, tops: Sequence[PermutationClass]) -> int:
        """How many sites are known only with other outermost classes: those with the fewest come first."""
        others = {other.name for other in tops} - {top.name}
        own = [pattern for pattern in self.patterns if top.name in pattern.units]
        return min((len(others & set(pattern.units)) for pattern in own), default=0)

    def _order(self, pattern: Pattern, classes: Sequence[PermutationClass], choice: Choice, sites: int) -> Indices:
        """(sites,): which of the seller's sites stands at each site."""
        order = np.arange(sites)
        for group in classes:
            if group.name in pattern.units:
                wanted = choice[group.name].reshape(-1)[pattern.units[group.name]]
                moved = pattern.moved.get(group.name)
                if moved is None:  # alone: its sites are its units
                    wanted = wanted + pattern.units[group.name] // group.size * group.size
                    order = order[wanted]
                else:
                    order = order[moved[np.arange(sites), wanted]]
        return order

    def _best(
        self,
        top: PermutationClass,
        matrices: Sequence[Matrix],
        choice: Choice,
        decided: set[str] | None,
        tops: Sequence[PermutationClass],
    ) -> Choice:
        """The best choice for `top` and all within it, its neighbours as they are."""
        inside = _inside(top, self.classes)
        names = {group.name for group in inside}
        used = [
            place
            for place, pattern in enumerate(self.patterns)
            if top.name in pattern.units or names & set(pattern.units)
        ]
        if decided is not None:
            others = {other.name for other in tops} - {top.name} - decided
            certain = [place for place in used if not others & set(self.patterns[place].units)]
            used = certain or used
        framed = [self._framed(place, matrices[place], top, names, choice) for place in used]
        patterns = [self.patterns[place] for place in used]
        if inside:
            return _outer(top, inside, patterns, framed)
        scores = np.zeros((top.blocks, top.size, top.size), np.float64)
        for pattern, matrix in zip(patterns, framed, strict=True):
            units = pattern.units[top.name]
            moved = pattern.moved.get(top.name)
            if moved is None:
                blocks = matrix.reshape(top.blocks, top.size, top.blocks, top.size)
                scores += blocks[np.arange(top.blocks), :, np.arange(top.blocks)]
            else:
                alike = np.take_along_axis(matrix, moved, 1)
                np.add.at(scores.reshape(-1, top.size), units, alike)
        return {top.name: np.stack([linear_sum_assignment(block, maximize=True)[1] for block in scores])}

    def _framed(self, place: int, matrix: Matrix, top: PermutationClass, inside: set[str], choice: Choice) -> Matrix:
        """The matrix as `top` sees it: classes before it bring the seller's sites, those after it (but for those
        inside) the buyer's."""
        pattern = self.patterns[place]
        index = self.classes.index(top)
        before = self._order(pattern, self.classes[:index], choice, len(matrix))
        after = [group for group in self.classes[index + 1 :] if group.name not in inside]
        behind = self._order(pattern, after, choice, len(matrix))
        if (np.diff(before) == 1).all() and (np.diff(behind) == 1).all():
            return matrix
        framed: Matrix = matrix[np.ix_(np.argsort(behind), before)]
        return framed


def _outer(
    top: PermutationClass, inside: list[PermutationClass], patterns: Sequence[Pattern], matrices: Sequence[Matrix]
) -> Choice:
    units = top.blocks * top.size
    within = [dataclasses.replace(group, blocks=group.blocks // units) for group in inside]
    lists = [_sites_of_units(top, pattern, inside, units) for pattern in patterns]
    small = _Problem(within, [_cut(pattern, sites[0], inside) for pattern, sites in zip(patterns, lists, strict=True)])
    choice = {
        top.name: np.empty((top.blocks, top.size), np.int64),
        **{group.name: np.empty((units, group.blocks // units, group.size), np.int64) for group in inside},
    }
    for block in range(top.blocks):
        values = np.empty((top.size, top.size))
        found: dict[tuple[int, int], Choice] = {}
        for i in range(top.size):
            for j in range(top.size):
                here, there = block * top.size + i, block * top.size + j
                parts = [
                    matrix[np.ix_(sites[here], sites[there])] for matrix, sites in zip(matrices, lists, strict=True)
                ]
                found[i, j] = small.ascend(parts, None)
                values[i, j] = small.total(parts, found[i, j])
        columns = linear_sum_assignment(values, maximize=True)[1]
        choice[top.name][block] = columns
        for i, j in enumerate(columns):
            for name, indices in found[i, j].items():
                choice[name][block * top.size + i] = indices
    return {
        name: indices if name == top.name else indices.reshape(-1, indices.shape[-1])
        for name, indices in choice.items()
    }


def _sites_of_units(top: PermutationClass, pattern: Pattern, inside: Sequence[PermutationClass], units: int) -> Indices:
    """(units, sites a unit): the sites in each of top's units, in the same order in each."""
    owner = pattern.units.get(top.name)
    if owner is None:  # sites of inner classes that their outer class does not name: their blocks tell
        group = next(group for group in inside if group.name in pattern.units)
        owner = pattern.units[group.name] // (group.size * group.blocks // units)
    return np.argsort(owner, kind="stable").reshape(units, -1)


def _cut(pattern: Pattern, sites: Indices, inside: Sequence[PermutationClass]) -> Pattern:
    """The part of a pattern in the first unit, numbered from zero."""
    number = np.full(pattern.sites, -1, np.int64)
    number[sites] = np.arange(len(sites))
    names = [group.name for group in inside if group.name in pattern.units]
    return Pattern(
        {name: pattern.units[name][sites] for name in names},
        {}
        if len(names) == 1 and len(sites) == _count(pattern, names, sites)
        else {name: number[pattern.moved[name][sites]] for name in names},
    )


def _count(pattern: Pattern, names: Sequence[str], sites: Indices) -> int:
    """How many units a lone class has among the sites."""
    return len(np.unique(pattern.units[names[0]][sites]))


def _inside(top: PermutationClass, classes: Sequence[PermutationClass]) -> list[PermutationClass]:
    names = {top.name}
    found = []
    for group in classes:
        if group.within in names:
            names.add(group.name)
            found.append(group)
    return found


def _in_place(group: PermutationClass) -> Indices:
    return np.tile(np.arange(group.size), (group.blocks, 1))


def as_choice(classes: Sequence[PermutationClass], permutations: Mapping[str, Indices]) -> Choice:
    """Permutations with a block axis throughout."""
    return {group.name: permutations[group.name].reshape(group.blocks, group.size) for group in classes}
