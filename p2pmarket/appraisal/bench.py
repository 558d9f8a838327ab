"""One buyer's parameters and one task's data on the evaluator's device, with SELECT's held-back part.

Knows: which samples are for gradients (LEARN) and which decide (HELD), both of SELECT; how a merge is made whole
(BatchNorm statistics). Refuses to know: who wins. Equal seeds hold back the same samples.
Fails with BadSnapshot where the buyer's parameters are not the model's or give no number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from p2pmarket.appraisal.evaluator import Evaluator, Measured
from p2pmarket.appraisal.flat import FlatMerge
from p2pmarket.appraisal.line_search import STATISTICS_SAMPLES, LossesAt
from p2pmarket.appraisal.merging import Coefficients, merge, mergeable
from p2pmarket.appraisal.statistics import own_buffers, repair, statistics_of
from p2pmarket.appraisal.validation import Validation
from p2pmarket.errors import BadSnapshot

HELD_FRACTION = 0.25
"""Of SELECT: what no gradient sees."""
BATCH = 256
"""Samples at most in one step's slope."""


class Bench:
    """Measures merges of one buyer."""

    def __init__(
        self,
        evaluator: Evaluator,
        validation: Validation,
        buyer: Mapping[str, Tensor],
        seller: Mapping[str, Tensor],
        tradable: Collection[str],
        *,
        seed: int,
        repair: bool = False,
    ) -> None:
        """`repair`: merges get REPAIR's statistics (statistics.repair), but for the slopes.

        :raises BadSnapshot: a tensor of the buyer's has not the model's shape
        """
        model = evaluator.module
        for name, tensor in model.state_dict().items():
            if name in buyer and buyer[name].shape != tensor.shape:
                raise BadSnapshot(
                    f"the buyer's tensor {name} has the shape {tuple(buyer[name].shape)}; the model needs "
                    f"{tuple(tensor.shape)}"
                )
        self.evaluator = evaluator
        self.data, self._inputs, self._targets = evaluator.keep(
            b"%d " % seed + validation.digest, lambda: _in_random_order(validation.to(evaluator.device), seed)
        )
        self.buyer = evaluator.place(buyer)
        self.names = mergeable(buyer, seller, tradable, own_buffers(model))
        """What is bought, BatchNorm's statistics included."""
        self.free = tuple(name for name in self.names if name not in statistics_of(model))
        """What has a coefficient."""
        self._statistics = tuple(name for name in self.names if name not in self.free)
        self.repair = repair
        """Whether merges get REPAIR's statistics."""
        count = len(self._targets)
        learn = count - max(1, round(HELD_FRACTION * count))
        self._held = slice(learn, count)
        self.parts = max(1, -(-learn // BATCH))
        """Parts of LEARN, each for one slope."""
        cuts = [learn * part // self.parts for part in range(self.parts + 1)]
        self._cuts = [slice(*pair) for pair in zip(cuts, cuts[1:], strict=False)]

    @property
    def samples(self) -> int:
        """Of SELECT."""
        return len(self._targets)

    def shapes(self) -> dict[str, torch.Size]:
        """Of the tensors that have a coefficient."""
        return {name: self.buyer[name].shape for name in self.free}

    def place(self, seller: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The seller's part of what is bought, on the device."""
        return self.evaluator.place({name: seller[name] for name in self.names})

    def calibrate(self, sellers: Iterable[Mapping[str, Tensor]]) -> None:
        """Checks that losses which only choose may be rounded, with the buyer's and each seller's parameters."""
        for tensors in ({}, *sellers):
            self.evaluator.calibrate({**self.buyer, **tensors}, self._inputs, self._targets)
            if not self.evaluator.rounds:
                return

    def merged(self, seller: Mapping[str, Tensor], alpha: float | Coefficients) -> dict[str, Tensor]:
        """The merge, with statistics of its own; the buyer as it is where every coefficient is 0."""
        return self._whole(seller, alpha, self.data.select_inputs)

    def _whole(self, seller: Mapping[str, Tensor], alpha: float | Coefficients, inputs: Tensor) -> dict[str, Tensor]:
        tensors = merge(self.buyer, seller, alpha, self.free)
        nothing = alpha == 0 if isinstance(alpha, float | int) else not any(map(torch.any, alpha.values()))
        if nothing:
            return tensors
        if self.repair:
            tensors = repair(self.evaluator.module, tensors, self.buyer, seller, alpha, inputs)
        if self._statistics:
            return self.evaluator.reset_statistics(tensors, inputs, self.names)
        return tensors

    def line(self, seller: Mapping[str, Tensor]) -> LossesAt:
        """The losses on the way to the seller, on SELECT in the bench's own order, for choosing only.

        BatchNorm's statistics come from a part of SELECT.
        """
        few = self._inputs[:STATISTICS_SAMPLES]
        changed = self.names if self.repair else self._statistics
        known: dict[float, dict[str, Tensor]] = {}

        def at(alpha: float) -> dict[str, Tensor]:
            if changed and alpha not in known:
                whole = self._whole(seller, alpha, few)
                known[alpha] = {name: whole[name] for name in changed}
            return {**merge(self.buyer, seller, alpha, self.free), **known.get(alpha, {})}

        def losses_at(alphas: Sequence[float], start: int, stop: int) -> list[Tensor]:
            sets = [at(alpha) for alpha in alphas]
            inputs, targets = self._inputs[start:stop], self._targets[start:stop]
            return [one.losses for one in self.evaluator.measure_many(sets, inputs, targets, exact=False)]

        return losses_at

    def on_select(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(S,) losses on SELECT, float64 on the CPU."""
        return self.evaluator.measure(tensors, self.data.select_inputs, self.data.select_targets).losses

    def on_held(self, seller: Mapping[str, Tensor], alpha: float | Coefficients) -> Tensor:
        """(held,) losses of a merge on the held-back part of SELECT, float64 on the CPU."""
        tensors = self._whole(seller, alpha, self._inputs[:STATISTICS_SAMPLES])
        return self.evaluator.measure(tensors, self._inputs[self._held], self._targets[self._held]).losses

    def on_report(self, tensors: Mapping[str, Tensor]) -> Measured:
        """What REPORT says: for the one look at the end."""
        return self.evaluator.measure(tensors, self.data.report_inputs, self.data.report_targets)

    def slope(self, line: FlatMerge, coefficients: Tensor, part: int) -> Tensor:
        """(C,) of the mean loss on one part of LEARN.

        BatchNorm's statistics are the part's own, taken as constants.
        """
        inputs, targets = self._inputs[self._cuts[part]], self._targets[self._cuts[part]]

        def loss_of(merged: dict[str, Tensor]) -> Tensor:
            tensors = {**self.buyer, **merged}
            if self._statistics:
                fixed = {name: tensor.detach() for name, tensor in tensors.items()}
                fresh = self.evaluator.reset_statistics(fixed, inputs, self._statistics)
                tensors.update({name: fresh[name] for name in self._statistics})
            return self.evaluator.mean_loss(tensors, inputs, targets)

        return line.slope(coefficients, loss_of)


def _in_random_order(data: Validation, seed: int) -> tuple[Validation, Tensor, Tensor]:
    """The data, and SELECT's in an order that says nothing about them: every part of it is then a slice.

    One copy serves every pair of the same data and seed.
    """
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data.select_targets)))
    order = order.to(data.select_targets.device)
    return data, data.select_inputs[order], data.select_targets[order]
