"""Two snapshots -> one, on the line between them.

Knows: tensors by name. Refuses to know: losses, alignment (the seller comes aligned), statistics (evaluator).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor


def mergeable(buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor], tradable: Collection[str]) -> tuple[str, ...]:
    """Names, sorted, of what can be bought: tradable, of floating point, and of equal shape and type in both.

    Counters and other integers stay the buyer's own.
    """
    return tuple(
        name
        for name in sorted(set(tradable) & buyer.keys() & seller.keys())
        if buyer[name].is_floating_point()
        and buyer[name].shape == seller[name].shape
        and buyer[name].dtype == seller[name].dtype
    )


def merge(
    buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor], alpha: float, names: Collection[str]
) -> dict[str, Tensor]:
    """The buyer's tensors, those in `names` replaced by (1 - alpha) buyer + alpha seller; exact at 0 and at 1."""
    merged = dict(buyer)
    for name in names:
        merged[name] = torch.lerp(buyer[name], seller[name], alpha)
    return merged
