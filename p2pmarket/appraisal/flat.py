"""A merge and its slope with everything in one vector: what learning many coefficients takes at each step.

Knows: where each tensor's numbers and each coefficient's numbers lie. Refuses to know: losses, steps. A step on ten
small tensors spends its time in calls, one or two for each tensor and operation; on one vector it is a few in all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


class FlatMerge:
    """The line from the buyer to the seller, float32, with coefficients (C,) in the order of `names` and their rows."""

    def __init__(
        self, buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor], names: Sequence[str], *, rows: bool
    ) -> None:
        """`rows`: one coefficient for each index of axis 0, else one for each tensor; `seller` holds all `names`."""
        self._shapes = {name: buyer[name].shape for name in names}
        self._types = {name: buyer[name].dtype for name in names}
        self._coefficients = {name: buyer[name].shape[:1] if rows else torch.Size() for name in names}
        self._own = torch.cat([buyer[name].reshape(-1).float() for name in names])
        self._away = torch.cat([seller[name].reshape(-1).float() for name in names]) - self._own
        counts = [
            count
            for name in names
            for count in [buyer[name].numel() // self._coefficients[name].numel()] * self._coefficients[name].numel()
        ]
        self._counts = torch.tensor(counts, device=self._own.device)
        self._where = torch.arange(len(counts), device=self._own.device, dtype=torch.int32).repeat_interleave(
            self._counts
        )
        self.count = len(counts)
        """Free coefficients."""

    def slope(self, coefficients: Tensor, loss_of: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
        """(C,) the derivative of the merge's loss with respect to the coefficients.

        :param loss_of: named tensors -> a scalar that can be differentiated with respect to them
        """
        values = torch.addcmul(self._own, self._away, coefficients.index_select(0, self._where)).requires_grad_()
        parts = torch.split(values, [shape.numel() for shape in self._shapes.values()])
        tensors = {
            name: part.view(shape).to(self._types[name])
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        (slope,) = torch.autograd.grad(loss_of(tensors), values)
        found: Tensor = torch.segment_reduce(slope * self._away, "sum", lengths=self._counts)
        return found

    def named(self, coefficients: Tensor) -> dict[str, Tensor]:
        """The coefficients tensor by tensor, on the CPU."""
        parts = torch.split(coefficients.cpu(), [shape.numel() for shape in self._coefficients.values()])
        return {
            name: part.reshape(shape).clone()
            for (name, shape), part in zip(self._coefficients.items(), parts, strict=True)
        }
