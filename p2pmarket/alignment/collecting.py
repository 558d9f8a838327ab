"""From axes as terms to permutation classes: where each leaf lies on each tensor, and which lie inside which.

Knows: terms and the records of p2pmarket/permutation. Refuses to know: graphs, modules. A leaf that lies inside the
same other leaf wherever it lies is proposed as a class with blocks: each head permutes its own width. That is more
than unification proves; the caller tests it, and asks again with the class among the `shared`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from p2pmarket.alignment import axes
from p2pmarket.alignment.axes import Leaf, Product, Term
from p2pmarket.alignment.op_rules import Dims
from p2pmarket.errors import ModelError
from p2pmarket.permutation import Axis, PermutationClass, PermutationSpec


@dataclasses.dataclass(frozen=True)
class Level:
    """A factor around a leaf: `count` repeats, `stride` positions apart."""

    leaf: Leaf | None
    count: int
    stride: int


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a leaf lies on an axis of a tensor."""

    names: tuple[str, ...]
    axis: int
    start: int
    inner: int
    levels: tuple[Level, ...]
    """Outermost first."""


def places(term: Term) -> Iterator[tuple[Leaf, int, int, tuple[Level, ...]]]:
    """(leaf, start, inner, levels) for every leaf of an axis."""
    return _walk(axes.resolve(term), 0, 1, ())


def _walk(
    term: Term, start: int, inner: int, levels: tuple[Level, ...]
) -> Iterator[tuple[Leaf, int, int, tuple[Level, ...]]]:
    if isinstance(term, Leaf):
        yield term, start, inner, levels
    elif isinstance(term, Product):
        left = term.size
        for factor in term.factors:
            left //= factor.size
            yield from _walk(factor, start, inner * left, levels)
            levels = (*levels, Level(factor if isinstance(factor, Leaf) else None, factor.size, inner * left))
    else:
        for part in term.parts:
            yield from _walk(part, start, inner, levels)
            start += part.size * inner


def found_places(tensors: Mapping[tuple[str, ...], Dims]) -> dict[Leaf, list[Place]]:
    """Every leaf of more than one unit -> its places, in the order of the tensors (all names of one -> its axes)."""
    found: dict[Leaf, list[Place]] = {}
    for names, dims in tensors.items():
        for axis, term in enumerate(dims):
            for leaf, start, inner, levels in places(term):
                if leaf.size > 1:
                    found.setdefault(leaf, []).append(Place(names, axis, start, inner, levels))
    return found


class Proposal:
    """The classes that a set of leaves makes."""

    def __init__(self, found: Mapping[Leaf, Sequence[Place]], shared: Collection[Leaf] = ()) -> None:
        """:param shared: leaves whose blocks, if any, must be permuted alike"""
        self._found = {leaf: list(at) for leaf, at in found.items() if leaf.pin is None}
        self._all = found
        self._shared = shared
        self._chains: dict[Leaf, tuple[Leaf, ...]] = {}
        self.names = _names(self._found)

    def spec(self, leaves: Collection[Leaf]) -> PermutationSpec:
        """The spec of those leaves; one whose surroundings are left out is left out too.

        :raises ModelError: classes that lie across one another
        """
        made: dict[Leaf, PermutationClass] = {}
        for leaf in sorted(self._found, key=lambda leaf: len(self.chain(leaf))):
            around = self.chain(leaf)
            within = around[-1] if around and around[-1].pin is None else None
            if leaf in leaves and (within is None or within in made):
                made[leaf] = self._class(leaf, around, within)
        return PermutationSpec(tuple(made.values()))

    def chain(self, leaf: Leaf) -> tuple[Leaf, ...]:
        """The leaves that lie around this one wherever it lies, outermost first; empty: it has no blocks."""
        if leaf not in self._chains:
            self._chains[leaf] = ()  # in case a leaf lies around itself
            self._chains[leaf] = self._chain(leaf)
        return self._chains[leaf]

    def _chain(self, leaf: Leaf) -> tuple[Leaf, ...]:
        at = self._all[leaf]
        common = [level.leaf for level in at[0].levels]
        for place in at[1:]:
            here = [level.leaf for level in place.levels]
            common = [known for known in common if known in here]
        known = tuple(known for known in common if known is not None and known is not leaf)
        if leaf in self._shared or len(set(known)) < len(known):
            return ()
        options = [known[first:last] for last in range(len(known), 0, -1) for first in range(last)]
        return next((option for option in options if self._fits(option, at)), ())

    def _fits(self, option: tuple[Leaf, ...], at: Sequence[Place]) -> bool:
        *before, last = option
        if last.pin is None:
            if last not in self._found or self.chain(last) != tuple(before):
                return False
        elif any(other.pin is None for other in before):
            return False
        return all(_nested([level for level in place.levels if level.leaf in option], option) for place in at)

    def _class(self, leaf: Leaf, around: tuple[Leaf, ...], within: Leaf | None) -> PermutationClass:
        members = tuple(
            dict.fromkeys(
                member
                for place in self._found[leaf]
                for name in place.names
                for member in _members(leaf, place, name, around)
            )
        )
        blocks = math.prod(other.size for other in around)
        return PermutationClass(
            self.names[leaf], leaf.size, members, blocks, self.names[within] if within is not None else ""
        )


def _nested(levels: Sequence[Level], option: Sequence[Leaf]) -> bool:
    """Whether these levels are the option's, in order and touching."""
    return [level.leaf for level in levels] == list(option) and all(
        outer.stride == inner.stride * inner.count for outer, inner in itertools.pairwise(levels)
    )


def _members(leaf: Leaf, place: Place, name: str, around: tuple[Leaf, ...]) -> Iterator[Axis]:
    """The place as members: levels that one stride cannot tell are written out."""
    kept = [level for level in place.levels if level.leaf in around and around]
    written = [level for level in place.levels if level not in kept]
    if kept:
        # Repeats inside of a block that touch are more outer blocks.
        while inside := [level for level in written if level.stride * level.count == kept[-1].stride]:
            kept.append(inside[0])
            written.remove(inside[0])
    else:
        while written and (not kept or written[-1].stride == kept[0].stride * kept[0].count):
            kept.insert(0, written.pop())
    outer = math.prod(level.count for level in kept)
    stride = kept[-1].stride if kept else 0
    for offsets in itertools.product(*(range(level.count) for level in written)):
        start = place.start + sum(offset * level.stride for offset, level in zip(offsets, written, strict=True))
        yield Axis(
            name,
            place.axis,
            start,
            outer,
            place.inner,
            0 if stride == leaf.size * place.inner or outer == 1 else stride,
        )


def _names(found: Mapping[Leaf, Sequence[Place]]) -> dict[Leaf, str]:
    """A class is called after the first tensor whose rows it has, else after the first that has it."""
    names: dict[Leaf, str] = {}
    taken: dict[str, int] = {}
    for leaf, at in found.items():
        first = next((place for place in at if place.axis == 0), at[0])
        name = first.names[0].removesuffix(".weight").removesuffix(".bias")
        taken[name] = taken.get(name, 0) + 1
        names[leaf] = name if taken[name] == 1 else f"{name}#{taken[name]}"
    return names


def fitting(proposal: Proposal, leaves: Sequence[Leaf]) -> tuple[list[Leaf], list[Leaf]]:
    """(leaves whose classes may stand beside one another, the others), first come first served."""
    try:
        proposal.spec(leaves)
        return list(leaves), []
    except ModelError:
        pass
    kept: list[Leaf] = []
    left: list[Leaf] = []
    for leaf in sorted(leaves, key=lambda leaf: len(proposal.chain(leaf))):
        try:
            proposal.spec([*kept, leaf])
            kept.append(leaf)
        except ModelError:
            left.append(leaf)
    return kept, left
