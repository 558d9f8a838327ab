"""One buyer's parameters and one task's data on the evaluator's device, with SELECT's held-back part.

Knows: which samples are for gradients (LEARN) and which decide (HELD), both of SELECT; how a merge is made whole
(BatchNorm statistics). Refuses to know: who wins. Equal seeds hold back the same samples.
Fails with BadSnapshot where the buyer's parameters are not the model's or give no number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from p2pmarket.appraisal.evaluator import Evaluator, Measured
from p2pmarket.appraisal.merging import Coefficients, merge, mergeable
from p2pmarket.appraisal.statistics import module_of, own_buffers, statistics_of
from p2pmarket.appraisal.validation import Validation
from p2pmarket.errors import BadSnapshot

HELD_FRACTION = 0.25
"""Of SELECT: what no gradient sees."""


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
    ) -> None:
        """:raises BadSnapshot: a tensor of the buyer's has not the model's shape"""
        model = module_of(evaluator)
        for name, tensor in model.state_dict().items():
            if name in buyer and buyer[name].shape != tensor.shape:
                raise BadSnapshot(
                    f"the buyer's tensor {name} has the shape {tuple(buyer[name].shape)}; the model needs "
                    f"{tuple(tensor.shape)}"
                )
        self.evaluator = evaluator
        self.data = validation.to(evaluator.device)
        self.buyer = evaluator.place(buyer)
        self.names = mergeable(buyer, seller, tradable, own_buffers(model))
        """What is bought, BatchNorm's statistics included."""
        self.free = tuple(name for name in self.names if name not in statistics_of(model))
        """What has a coefficient."""
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self.data.select_targets)))
        held = max(1, round(HELD_FRACTION * len(order)))
        self.held, self.learn = order[:held].sort().values, order[held:].sort().values
        """Indices of SELECT, sorted."""

    def shapes(self) -> dict[str, torch.Size]:
        """Of the tensors that have a coefficient."""
        return {name: self.buyer[name].shape for name in self.free}

    def place(self, seller: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The seller's part of what is bought, on the device."""
        return self.evaluator.place({name: seller[name] for name in self.names})

    def merged(self, seller: Mapping[str, Tensor], alpha: float | Coefficients) -> dict[str, Tensor]:
        """The merge, with BatchNorm statistics of its own; the buyer as it is where every coefficient is 0."""
        tensors = merge(self.buyer, seller, alpha, self.free)
        nothing = alpha == 0 if isinstance(alpha, float | int) else not any(map(torch.any, alpha.values()))
        if nothing or not self.evaluator.has_statistics():
            return tensors
        return self.evaluator.reset_statistics(tensors, self.data.select_inputs, self.names)

    def on_select(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(S,) losses on SELECT, float64 on the CPU."""
        return self.evaluator.measure(tensors, self.data.select_inputs, self.data.select_targets).losses

    def on_held(self, tensors: Mapping[str, Tensor]) -> float:
        """Mean loss on the held-back part of SELECT."""
        where = self.held.to(self.evaluator.device)
        return self.evaluator.measure(tensors, self.data.select_inputs[where], self.data.select_targets[where]).loss

    def on_report(self, tensors: Mapping[str, Tensor]) -> Measured:
        """What REPORT says: for the one look at the end."""
        return self.evaluator.measure(tensors, self.data.report_inputs, self.data.report_targets)

    def learning_loss(self, seller: Mapping[str, Tensor], coefficients: Coefficients, batch: Tensor) -> Tensor:
        """Mean loss of the merge on the samples number `batch` of LEARN; can be differentiated.

        BatchNorm's statistics are the batch's own, taken as constants.
        """
        where = self.learn[batch].to(self.evaluator.device)
        inputs, targets = self.data.select_inputs[where], self.data.select_targets[where]
        tensors = merge(self.buyer, seller, coefficients, self.free)
        if self.evaluator.has_statistics():
            fixed = {name: tensor.detach() for name, tensor in tensors.items()}
            fresh = self.evaluator.reset_statistics(fixed, inputs, self.names)
            tensors.update({name: fresh[name] for name in set(self.names) - set(self.free)})
        return self.evaluator.mean_loss(tensors, inputs, targets)
