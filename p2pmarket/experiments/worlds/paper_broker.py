"""The paper's broker (section 3.2 and its published settings): one coefficient from a grid, units matched by weights.

Knows: which merges the paper's broker looks at, and that the least loss on its data wins. Refuses to know: whose data
these are, and how a gain is told, bid for and delivered: that is the broker's as it is. Fails as the appraiser does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from p2pmarket.alignment import Permutations, PermutationSpec
from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.plan import MergePlan, Progress, candidates
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.benches import TaskBench
from p2pmarket.broker_node.merges import Alignments
from p2pmarket.broker_node.pairs import Pair
from p2pmarket.market import MarketTerms

GRID = tuple(round(0.05 + 0.1 * step, 2) for step in range(10))
""".05, .15 ... .95, as in the published settings."""


class PaperAppraiser(Appraiser):
    """Appraises as the paper's broker does. All of a gain is the seller's merit."""

    _controlled = False

    def __init__(
        self,
        terms: MarketTerms,
        benches: Mapping[str, TaskBench],
        *,
        seed: int,
        coefficients: Sequence[float] = GRID,
        aligned: bool = True,
    ) -> None:
        """:param coefficients: the seller's portions that are tried
        :param aligned: whether the seller's units are matched to the buyer's first
        """
        if not aligned:
            why = "units are not aligned in this experiment"
            benches = {
                task: dataclasses.replace(bench, spec=None, symmetries=why) for task, bench in benches.items()
            }  # fmt: skip
        super().__init__(terms, benches, seed=seed, matching_seconds=math.inf)
        self._coefficients = tuple(coefficients)

    def _align(self, pair: Pair, progress: Progress) -> Alignments:
        """Units are matched where both what writes to them and what reads them is for sale (Table 2).

        The paper does not say what it does with units of which only one side is sold; examples/paper/table-2.toml has
        what was measured.
        """
        found, spec = super()._align(pair, progress), pair.bench.spec
        if found.weights is None or spec is None:
            return found
        return Alignments(inside(spec, found.weights, pair.tradable), None)

    def _plan(self, pair: Pair, aligned: Alignments) -> MergePlan:
        """The coefficient of the grid that leaves the least loss on SELECT, the same for every tensor."""
        bench = pair.bench
        measured = Bench(
            bench.evaluators[pair.worker], bench.validation, pair.ours, pair.theirs, pair.tradable, seed=self._seed
        )
        sellers = candidates(measured, bench.spec, aligned.weights, pair.theirs)
        label = "weights" if "weights" in sellers else "identity"

        def loss(coefficient: float) -> float:
            return float(measured.on_select(measured.merged(sellers[label], coefficient)).mean())

        best = min(self._coefficients, key=loss)
        return MergePlan(label, "model", best, {name: torch.tensor(best) for name in measured.free})


def inside(spec: PermutationSpec, found: Permutations, names: Collection[str]) -> dict[str, Tensor]:
    """The permutations of those classes of units of which every tensor is named; the identity for the others."""
    whole = {one.name for one in spec.classes if all(axis.tensor in names for axis in one.members)}
    return {name: order if name in whole else torch.arange(len(order)) for name, order in found.items()}
