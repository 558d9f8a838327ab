"""One coordinate ascent over a pair of models: each step an assignment problem over a family of classes.

Knows: the order of the visits and when it ends. A first sweep begins where most is known already (inputs and outputs
have no symmetry), so that a permutation spreads from there; terms are updated by what changed; families that share no
tensor are matched at the same time; where the models have become equal, it ends. Products are float32; a step that they
do not show clearly to rise is decided by a float64 sum over what it changes.
Refuses to know: specs, other ascents, clocks. Fails with BadSnapshot where float32 products overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from p2pmarket.alignment.assignment import Assigner
from p2pmarket.alignment.families import Family
from p2pmarket.alignment.similarity import Pair, Similarity
from p2pmarket.alignment.wreath import as_choice, solve
from p2pmarket.errors import BadSnapshot

_Chosen = tuple[dict[str, Tensor], "float | None"]
"""A family's permutations, and by how much they are better as far as float32 sums show it."""
Progress = Callable[[int, int], None]
"""Called with visits made and families still open; may raise to stop the matching."""

_RISE = 1e-9
"""Smallest relative rise that counts: far above float64 noise, so that the ascent ends."""
_CLEAR = 1e-4
"""Relative rise from which float32 sums are believed: their error is below 1e-5."""
_NOISE = 1e-6
"""Relative rise below which float32 sums show nothing; too little to go on for."""
_SHARES = (0.0, 1e-9, 0.25)
"""Shares of a class's weights after which the rest may be shown not to matter: none new, the largest, a quarter."""
_CERTAIN = 0.9
"""A family joins the others of its step when this share of its weight meets decided units only."""


def _done(work: Callable[[], _Chosen]) -> _Chosen:
    return work()


class Ascent:
    """One coordinate ascent: the permutations, the orders of all axes under them, and the families' matrices."""

    def __init__(self, pair: Pair, families: Sequence[Family], start: Mapping[str, Tensor]) -> None:
        self._pair, self._families = pair, families
        self._similarities = [Similarity(pair, family) for family in families]
        self._assigners = [
            [Assigner() for _ in range(family.classes[0].blocks)] if family.simple else [] for family in families
        ]
        self._keys = [[(part.tensor, part.axis) for part in family.parts] for family in families]
        self._near = [
            [other for other, beside in enumerate(families) if set(family.tensors) & set(beside.tensors)]
            for family in families
        ]
        self._on = {
            name: {place for place, family in enumerate(families) if name in family.tensors} for name in pair.buyer
        }
        self._itself = [
            len(family.tensors) < len({(part.tensor, part.axis) for part in family.parts}) for family in families
        ]
        self._visits, self._most = 0, 0
        self._late: Callable[[], bool] = lambda: False
        self._progress: Progress | None = None
        self.start_from(start)

    def limit(self, most: int, late: Callable[[], bool], progress: Progress | None) -> None:
        """Sets what ends the ascent early."""
        self._most, self._late, self._progress = most, late, progress

    def start_from(self, permutations: Mapping[str, Tensor]) -> None:
        """Takes these permutations as they are."""
        self.permutations = dict(permutations)
        self._orders: dict[tuple[str, int], Tensor] = self._pair.orders(self.permutations)

    def products(self) -> dict[str, float]:
        """See `Pair.products`."""
        return self._pair.products(self._orders)

    def finished(self) -> bool:
        """Whether the models are equal under the permutations, so that nothing can be better."""
        return self._pair.equal(self._orders)

    def spread(self, pool: ThreadPoolExecutor) -> None:
        """One sweep from what has no symmetry: each family by what is decided when its turn comes."""
        waiting = set(range(len(self._families)))
        while waiting and not self._over(len(waiting)):
            shares = {place: self._decided_share(place, waiting) for place in sorted(waiting)}
            first = max(shares, key=lambda place: shares[place])
            certain = [place for place in shares if place != first and shares[place] >= _CERTAIN]
            step = self._apart([first, *certain])
            self._visit(step, pool, waiting)
            waiting -= set(step)

    def climb(self, pool: ThreadPoolExecutor, generator: np.random.Generator, *, heaviest_first: bool = False) -> None:
        """Visits families in random orders until none can rise; the first order may be by weight.

        Of two unlike models a family that lies on much gains most where the others are not yet fitted to its old place.
        """
        waiting = set(range(len(self._families)))
        while waiting:
            order: list[int] = generator.permutation(sorted(waiting)).tolist()
            if heaviest_first:
                order.sort(key=lambda place: -sum(self._pair.bounds[name] for name in self._families[place].tensors))
                heaviest_first = False
            while order:
                if self._over(len(waiting)):
                    return
                step = self._apart(order)
                order = [place for place in order if place not in step]
                waiting -= set(step)
                for place in self._visit(step, pool, None):
                    waiting |= set(self._near[place]) - (set() if self._itself[place] else {place})

    def _over(self, still_open: int) -> bool:
        if self._progress is not None:
            self._progress(self._visits, still_open)
        return self._visits >= self._most or self._late()

    def _apart(self, order: Sequence[int]) -> list[int]:
        """The first families of an order that share no tensor with one another, as many as may still be visited."""
        step: list[int] = []
        for place in order:
            if len(step) < self._most - self._visits and not any(other in self._near[place] for other in step):
                step.append(place)
        return step

    def _decided_share(self, place: int, waiting: set[int]) -> float:
        """How much of a family's weight meets no other family that is still waiting."""
        family = self._families[place]
        sizes = {name: self._pair.bounds[name] for name in family.tensors}
        decided = sum(sizes[name] for name in self._decided(place, waiting))
        return decided / (sum(sizes.values()) or 1.0)

    def _decided(self, place: int, waiting: set[int]) -> set[str]:
        return {name for name in self._families[place].tensors if not (self._on[name] & waiting) - {place}}

    def _visit(self, step: Sequence[int], pool: ThreadPoolExecutor, waiting: set[int] | None) -> list[int]:
        """Matches families at the same time; which of them changed."""
        decided = [None if waiting is None else self._decided(place, waiting) for place in step]
        begun = [self._begun(place, tensors) for place, tensors in zip(step, decided, strict=True)]
        chosen = list(pool.map(_done, begun)) if len(step) > 1 else [_done(begun[0])]
        results = [
            self._accepted(place, tensors, *choice)
            for place, tensors, choice in zip(step, decided, chosen, strict=True)
        ]
        self._visits += len(step)
        changed = []
        for place, found in zip(step, results, strict=True):
            if found is not None:
                self.permutations.update(found)
                self._orders.update(self._pair.orders(self.permutations, self._keys[place]))
                changed.append(place)
        return changed

    def _begun(self, place: int, decided: set[str] | None) -> Callable[[], _Chosen]:
        """The family's products, made here by torch's own threads; what is left needs one thread.

        With `decided`: by these tensors alone.
        """
        family, similarity = self._families[place], self._similarities[place]
        if family.simple:
            return self._assignment(place, similarity, decided or None)
        names = [group.name for group in family.classes]
        shapes = {name: self.permutations[name].shape for name in names}
        current = as_choice(family.classes, {name: self.permutations[name].numpy() for name in names})
        similarity.update(self._orders, decided or None)
        matrices = [matrix[0].cpu().numpy() for matrix in similarity.matrices]

        def solved() -> _Chosen:
            choice = solve(family, matrices, current)
            return {name: torch.from_numpy(choice[name]).reshape(shapes[name]) for name in names}, None

        return solved

    def _accepted(
        self, place: int, decided: set[str] | None, found: dict[str, Tensor], rise: float | None
    ) -> dict[str, Tensor] | None:
        """What was found if it is other than what is there, and better where all tensors were looked at."""
        if all(torch.equal(self.permutations[name], indices) for name, indices in found.items()):
            return None
        if decided is not None:
            return found
        if rise is not None and not self._itself[place] and not _NOISE < rise < _CLEAR:
            return found if rise >= _CLEAR else None
        return found if self._rises(self._families[place], found) else None

    def _assignment(self, place: int, similarity: Similarity, decided: set[str] | None) -> Callable[[], _Chosen]:
        """Finds the best permutations of a class's blocks and the relative rise that float32 sums show."""
        group = self._families[place].classes[0]
        shape = self.permutations[group.name].shape
        current = self.permutations[group.name].reshape(group.blocks, group.size)
        for share in _SHARES:
            similarity.update(self._orders, decided, share)
            favourites = similarity.matrices[0].argmax(2).cpu()
            # The first sweep needs no proof: random rows never all prefer different ones, and the climb looks again.
            if all(len(torch.unique(block)) == group.size for block in favourites) and (
                (decided is not None and share > 0.0) or similarity.settled(self._orders, favourites)
            ):
                settled: _Chosen = ({group.name: favourites.reshape(shape)}, None)
                return lambda: settled
        similarity.update(self._orders, decided)
        scores = similarity.matrices[0] if len(similarity.matrices) == 1 else torch.stack(similarity.matrices).sum(0)
        if not torch.isfinite(scores.sum()):
            raise BadSnapshot("the weights are too large for a float32 inner product, so they cannot be aligned")

        def assigned() -> _Chosen:
            chosen = [
                torch.from_numpy(assigner.best(block, indices.numpy()))
                for assigner, block, indices in zip(self._assigners[place], scores, current, strict=True)
            ]
            new = torch.stack(chosen)
            before, after = (scores.gather(2, order[..., None].to(scores.device)).double() for order in (current, new))
            size = float(before.abs().sum() + after.abs().sum())
            return {group.name: new.reshape(shape)}, float((after - before).sum()) / (size or 1.0)

        return assigned

    def _rises(self, family: Family, found: Mapping[str, Tensor]) -> bool:
        """Whether the true objective rises, in float64, summed over what changes."""
        changed = self._pair.orders({**self.permutations, **found}, [(part.tensor, part.axis) for part in family.parts])
        new = {**self._orders, **changed}
        gain, size = 0.0, 0.0
        for name in family.tensors:
            axes = [axis for tensor, axis in changed if tensor == name]
            size += self._pair.bounds[name]
            if len(axes) == 1:
                gain += self._pair.gain(name, axes[0], self._orders, new)
            else:
                gain += self._pair.inner_product(name, new) - self._pair.inner_product(name, self._orders)
        return gain > _RISE * size
