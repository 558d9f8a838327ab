"""Two snapshots -> one, on the line between them, with one coefficient for all or one for each tensor or output row.

Knows: tensors by name. Refuses to know: losses, alignment (the seller comes aligned), statistics (evaluator).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

Coefficients = Mapping[str, Tensor]
"""Tensor name -> the seller's portion: shape (), or (rows,) with one for each index of axis 0."""


def mergeable(
    buyer: Mapping[str, Tensor],
    seller: Mapping[str, Tensor],
    tradable: Collection[str],
    kept: Collection[str] = (),
) -> tuple[str, ...]:
    """Names, sorted, of what can be bought: tradable, of floating point, and of equal shape and type in both.

    Counters and other integers stay the buyer's own, and so does what `kept` names.
    """
    return tuple(
        name
        for name in sorted((set(tradable) & buyer.keys() & seller.keys()) - set(kept))
        if buyer[name].is_floating_point()
        and buyer[name].shape == seller[name].shape
        and buyer[name].dtype == seller[name].dtype
    )


def merge(
    buyer: Mapping[str, Tensor],
    seller: Mapping[str, Tensor],
    alpha: float | Coefficients,
    names: Collection[str],
) -> dict[str, Tensor]:
    """The buyer's tensors, those in `names` replaced by (1 - alpha) buyer + alpha seller; exact at 0 and at 1.

    With coefficients, alpha is the tensor's own, for all of it or row by row of axis 0; the result can be
    differentiated with respect to them.
    """
    merged = dict(buyer)
    for name in names:
        if isinstance(alpha, float | int):
            merged[name] = torch.lerp(buyer[name], seller[name], alpha)
        else:
            merged[name] = torch.lerp(buyer[name], seller[name], _spread(alpha[name], buyer[name]))
    return merged


def _spread(coefficient: Tensor, tensor: Tensor) -> Tensor:
    """The coefficient on the tensor's device, in its type, and of a shape that repeats over all axes but the first."""
    return coefficient.to(tensor).reshape(coefficient.shape + (1,) * (tensor.ndim - coefficient.ndim))
