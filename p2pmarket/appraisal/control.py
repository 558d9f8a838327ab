"""What of a gain is the seller's merit: how much further the merge comes than one with a seller who knows nothing.

Knows: such a seller, the control. Refuses to know: REPORT, prices. Coefficients chosen on the broker's data teach the
buyer something whatever they multiply: an agent that is too sure of itself gets calmer by smaller weights, and hundreds
of coefficients learn what they can from SELECT even with noise at the other end. The buyer is really better for it, and
may have it, but it is no seller's merit. So the control gets the seller's own treatment (same granularity, same
learning), and as much room as the seller gives.

What the seller has in common with the buyer, its projection on the buyer's values tensor by tensor, the buyer knows
already; the rest is what the seller could add. In the control the rest is shuffled within each tensor: the same numbers
at the same distance, and no knowledge (as in a permutation test). docs/decisions/0009-merit-instead-of-a-gate.md
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.plan import choose


def merged_with_control(
    bench: Bench, seller: Mapping[str, Tensor], granularity: str, *, seed: int
) -> dict[str, Tensor]:
    """The buyer's best merge with the control, the buyer itself where none helps; on the bench's device.

    :param seller: aligned as it is merged, on the bench's device
    :param granularity: the finest that the merge with the seller has
    """
    nobody = control(bench.buyer, seller, seed)
    plan = choose(bench, {"identity": nobody}, granularity=granularity, seed=seed)
    return bench.merged(nobody, plan.coefficients)


def control(buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A seller who adds nothing: the common part, and the rest shuffled."""
    generator = torch.Generator().manual_seed(seed)
    common = {name: _common(buyer[name], tensor) for name, tensor in seller.items()}
    return {name: common[name] + _shuffled(seller[name] - common[name], generator) for name in seller}


def _common(buyer: Tensor, seller: Tensor) -> Tensor:
    """The seller's projection on the buyer."""
    own, other = buyer.double().flatten(), seller.double().flatten()
    square = float(own @ own)
    return buyer * (float(own @ other) / square if square > 0 else 0.0)


def _shuffled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.reshape(-1)[order].reshape(tensor.shape)
