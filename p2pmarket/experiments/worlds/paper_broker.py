"""The paper's broker (section 3.2 and its published settings): one coefficient from a grid, units matched by weights.

Knows: which merges the paper's broker looks at, and that the least loss on its data wins. Refuses to know: whose data
these are, and how a gain is told, bid for and delivered: that is the broker's as it is. Fails as the appraiser does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.plan import MergePlan, candidates
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.benches import TaskBench
from p2pmarket.broker_node.merges import Alignments
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
        super().__init__(terms, benches, seed=seed)
        self._coefficients = tuple(coefficients)

    def _plan(
        self,
        bench: TaskBench,
        ours: Mapping[str, Tensor],
        theirs: Mapping[str, Tensor],
        tradable: Sequence[str],
        aligned: Alignments,
        worker: int,
    ) -> MergePlan:
        measured = Bench(bench.evaluators[worker], bench.validation, ours, theirs, tradable, seed=self._seed)
        sellers = candidates(measured, bench.spec, aligned.weights, theirs)
        label = "weights" if "weights" in sellers else "identity"

        def loss(coefficient: float) -> float:
            return float(measured.on_select(measured.merged(sellers[label], coefficient)).mean())

        best = min(self._coefficients, key=loss)
        return MergePlan(label, "model", best, {name: torch.tensor(best) for name in measured.free})
