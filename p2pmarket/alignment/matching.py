"""Weight matching: the permutation of a seller's units that brings its weights closest to a buyer's.

Knows: Ainsworth, Hayase, Srinivasa 2022, "Git Re-Basin", Algorithm 1: coordinate ascent over permutation classes,
each step a linear assignment problem. Refuses to know: data, losses, torch's generators (a private numpy generator
orders the visits, so alignment never changes a training stream, and equal inputs give equal permutations).

The similarity of a class is kept for each (tensor, axis) and computed again only when a class on another axis of
that tensor has changed; a class is visited again only when a neighbour has. Sums are float64.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from p2pmarket.alignment.symmetry import check_fits
from p2pmarket.errors import ModelError
from p2pmarket.permutation import Axis, PermutationSpec

Matrix = NDArray[np.float64]
Indices = NDArray[np.int64]

_RISE = 1e-9
"""Smallest relative rise of the objective that counts: far above float64 noise, so that the ascent ends."""


def match(
    spec: PermutationSpec,
    buyer: Mapping[str, Tensor],
    seller: Mapping[str, Tensor],
    *,
    seed: int,
    restarts: int = 1,
    max_visits: int = 10_000,
) -> dict[str, Tensor]:
    """Permutations that bring `seller` to `buyer`; `inverse` of them brings the buyer to the seller.

    Starts from the identity each time, in another order of classes; the best of `restarts` wins. `max_visits` bounds
    the assignment problems solved.

    :raises ModelError: the spec does not fit the tensors
    """
    check_fits(spec, buyer)
    check_fits(spec, seller)
    _check_widths(spec, buyer, seller)
    generator = np.random.default_rng(seed)
    problem = _Problem(spec, buyer, seller)
    best: dict[str, Indices] = {}
    best_objective = -np.inf
    for _ in range(restarts):
        ascent = _Ascent(problem)
        ascent.run(generator, max_visits)
        objective = problem.objective(ascent.permutations, problem.tensors)
        if objective > best_objective:
            best, best_objective = ascent.permutations, objective
    return {name: torch.from_numpy(best[name].copy()) for name in spec.sizes}


def _check_widths(spec: PermutationSpec, buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor]) -> None:
    """:raises ModelError: an axis with interchangeable units has another length in the seller's model"""
    for name, axis in spec.members_on():
        if name in buyer and name in seller and buyer[name].shape[axis] != seller[name].shape[axis]:
            raise ModelError(
                f"axis {axis} of {name} has {buyer[name].shape[axis]} units in the buyer's model and "
                f"{seller[name].shape[axis]} in the seller's; only models of equal widths can be aligned"
            )


class _Problem:
    """Both models' tensors in float64, and which classes meet in them."""

    def __init__(self, spec: PermutationSpec, buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor]) -> None:
        self.sizes = spec.sizes
        self.axes: dict[str, dict[int, str]] = {}
        for (name, axis), [(group, _), *_] in spec.members_on().items():
            if name in buyer and name in seller and buyer[name].shape == seller[name].shape:
                self.axes.setdefault(name, {})[axis] = group.name
        self.tensors = tuple(self.axes)
        self.buyer = {name: _array(buyer[name]) for name in self.axes}
        self.seller = {name: _array(seller[name]) for name in self.axes}
        self.members = {
            group.name: tuple(member for member in group.members if member.tensor in self.axes)
            for group in spec.classes
        }
        self.neighbours = {
            name: {group for member in members for group in self.axes[member.tensor].values()}
            for name, members in self.members.items()
        }

    def meets_itself(self, group: str) -> bool:
        """Whether the class is on two axes of one tensor: its assignment problem is then only a linearisation."""
        tensors = [member.tensor for member in self.members[group]]
        return len(set(tensors)) < len(tensors)

    def objective(self, permutations: Mapping[str, Indices], tensors: tuple[str, ...]) -> float:
        """Sum over `tensors` of the inner product of the buyer's and the permuted seller's weights."""
        return float(sum(np.vdot(self.buyer[name], self.permuted(name, permutations)) for name in tensors))

    def permuted(self, name: str, permutations: Mapping[str, Indices], *, but: int = -1) -> Matrix:
        """The seller's tensor with every class axis permuted, `but` one."""
        values = self.seller[name]
        for axis, group in self.axes[name].items():
            if axis != but:
                values = np.take(values, permutations[group], axis=axis)
        return values


class _Ascent:
    """One run of the coordinate ascent from the identity."""

    def __init__(self, problem: _Problem) -> None:
        self._problem = problem
        self.permutations: dict[str, Indices] = {name: np.arange(size) for name, size in problem.sizes.items()}
        self._versions = dict.fromkeys(problem.sizes, 0)
        self._terms: dict[Axis, tuple[tuple[int, ...], Matrix]] = {}

    def run(self, generator: np.random.Generator, max_visits: int) -> None:
        """Visits classes in a random order until none can rise."""
        open_classes = {name for name, members in self._problem.members.items() if members}
        visits = 0
        while open_classes:
            for name in generator.permutation(sorted(open_classes)).tolist():
                open_classes.discard(name)
                if visits >= max_visits:
                    return
                visits += 1
                if self._improve(name):
                    open_classes |= self._problem.neighbours[name] - {name}
                    if self._problem.meets_itself(name):
                        open_classes.add(name)

    def _improve(self, name: str) -> bool:
        size = self._problem.sizes[name]
        similarity: Matrix = np.zeros((size, size))
        for member in self._problem.members[name]:
            similarity += self._term(member, name)
        old = self.permutations[name]
        rows, new = linear_sum_assignment(similarity, maximize=True)
        before, after = similarity[rows, old].sum(), similarity[rows, new].sum()
        if self._problem.meets_itself(name):
            tensors = tuple({member.tensor: None for member in self._problem.members[name]})
            before = self._problem.objective(self.permutations, tensors)
            after = self._problem.objective({**self.permutations, name: new}, tensors)
        if after <= before + _RISE * abs(before):
            return False
        self.permutations[name] = new
        self._versions[name] += 1
        return True

    def _term(self, member: Axis, name: str) -> Matrix:
        """(size, size): similarity of buyer's unit i to seller's unit j in one tensor, other axes as they are now."""
        others = tuple(
            self._versions[group] for axis, group in self._problem.axes[member.tensor].items() if axis != member.axis
        )
        kept = self._terms.get(member)
        if kept is not None and kept[0] == others:
            return kept[1]
        size = self._problem.sizes[name]
        buyer = np.moveaxis(self._problem.buyer[member.tensor], member.axis, 0).reshape(size, -1)
        permuted = self._problem.permuted(member.tensor, self.permutations, but=member.axis)
        term: Matrix = buyer @ np.moveaxis(permuted, member.axis, 0).reshape(size, -1).T
        self._terms[member] = (others, term)
        return term


def _array(tensor: Tensor) -> Matrix:
    array: Matrix = tensor.detach().cpu().to(torch.float64).numpy()
    return array
