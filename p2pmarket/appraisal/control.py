"""Whether a merge's gain is the seller's knowledge: it must beat merges with sellers who know nothing.

Knows: such sellers. Refuses to know: REPORT. Coefficients chosen on the broker's data teach the buyer something
whatever they multiply: an agent that is too sure of itself gets calmer by smaller weights, and hundreds of coefficients
learn what they can from SELECT even with noise at the other end. That is worth nothing that a seller knows. So each
control gets the seller's own treatment (same granularity, same learning), and as much room as the seller gives.

What the seller has in common with the buyer, its projection on the buyer's values tensor by tensor, the buyer knows
already; the rest is what the seller could add. A control has the rest shuffled within each tensor: the same numbers at
the same distance, and no knowledge (as in a permutation test). A stranger has hardly anything in common, and the
control is nearly the seller's values in a random order; for a seller close to the buyer the control is close as well,
and for zeros it is zeros. The merge must beat every control beyond chance on the part of SELECT that no gradient has
seen. Several, as one draw may happen to be a poor one. docs/decisions/0008-learned-coefficients.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.gain import paired_gain
from p2pmarket.appraisal.plan import choose

BEYOND_CHANCE = 0.99
"""Confidence of the comparison, two-sided: a seller who adds nothing is taken for one who does one time in 200."""

DRAWS = 2
"""Controls: each costs as much as choosing the plan."""


def beats_controls(bench: Bench, seller: Mapping[str, Tensor], after: Tensor, granularity: str, *, seed: int) -> bool:
    """Whether `after` is lower than every control's losses, beyond chance, on HELD.

    :param seller: aligned as it is merged, on the bench's device
    :param after: (S,) losses on SELECT of what would be delivered
    :param granularity: the merge's own
    """
    for control in controls(bench.buyer, seller, seed):
        plan = choose(bench, {"identity": control}, granularity=granularity, seed=seed)
        reached = bench.on_select(bench.merged(control, plan.coefficients))
        if not paired_gain(reached[bench.held], after[bench.held], BEYOND_CHANCE).low > 0:
            return False
    return True


def controls(buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor], seed: int) -> Iterator[dict[str, Tensor]]:
    """Sellers who add nothing: what is common, and the rest in a random order."""
    generator = torch.Generator().manual_seed(seed)
    common = {name: _common(buyer[name], tensor) for name, tensor in seller.items()}
    for _ in range(DRAWS):
        yield {name: common[name] + _shuffled(seller[name] - common[name], generator) for name in seller}


def _common(buyer: Tensor, seller: Tensor) -> Tensor:
    """The seller's projection on the buyer."""
    own, other = buyer.double().flatten(), seller.double().flatten()
    square = float(own @ own)
    return buyer * (float(own @ other) / square if square > 0 else 0.0)


def _shuffled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.reshape(-1)[order].reshape(tensor.shape)
