"""Whether a merge's gain is the seller's knowledge: it must beat merges with sellers who know nothing.

Knows: two such sellers. Refuses to know: REPORT. Coefficients chosen on the broker's data teach the buyer something
whatever they multiply: an agent that is too sure of itself gets calmer by smaller weights, and hundreds of coefficients
learn what they can from SELECT even with noise at the other end. That is worth nothing that a seller knows. So the
control gets the seller's own treatment (same granularity, same learning) with
* zeros: the buyer's own weights, scaled as well as can be;
* the seller's values, each tensor's shuffled: the same numbers, and no knowledge (as in a permutation test).
The merge must beat both beyond chance on the part of SELECT that no gradient has seen. docs/decisions/0008-controls.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.gain import paired_gain
from p2pmarket.appraisal.plan import choose


def beats_controls(
    bench: Bench, seller: Mapping[str, Tensor], after: Tensor, granularity: str, confidence: float, *, seed: int
) -> bool:
    """Whether `after` is lower than every control's losses, beyond chance, on HELD.

    :param seller: as it came, on the bench's device
    :param after: (S,) losses on SELECT of what would be delivered
    :param granularity: the merge's own
    """
    for control in _ignorant(seller, seed):
        plan = choose(bench, {"identity": control}, granularity=granularity, seed=seed)
        reached = bench.on_select(bench.merged(control, plan.coefficients))
        if not paired_gain(reached[bench.held], after[bench.held], confidence).low > 0:
            return False
    return True


def _ignorant(seller: Mapping[str, Tensor], seed: int) -> Iterator[dict[str, Tensor]]:
    yield {name: torch.zeros_like(tensor) for name, tensor in seller.items()}
    generator = torch.Generator().manual_seed(seed)
    yield {name: _shuffled(tensor, generator) for name, tensor in seller.items()}


def _shuffled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.reshape(-1)[order].reshape(tensor.shape)
