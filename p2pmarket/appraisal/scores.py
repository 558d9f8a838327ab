"""What a pair promises, cheaply: a score from two models' losses, a probe of a few merges, and a fair list by scores.

Knows: losses and parameters. Refuses to know: which pairs there are, how they were aligned, how many stages a score
goes through (ranking). A loss that is no number promises nothing. Fails as the evaluator does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.merging import merge, mergeable

Key = TypeVar("Key", bound=Hashable)


def complementarity(buyer: Tensor, seller: Tensor) -> float:
    """What a buyer would gain if it answered with the mean of both models' probabilities; losses (S,), paired.

    Exact for cross entropy, whose losses are -log of the right class' probability; for other losses only an order.
    """
    together = math.log(2) - torch.logaddexp(-buyer, -seller)
    return float((buyer - together).mean())


def shortlist(scores: Mapping[tuple[Key, Key], float], budget: int) -> tuple[tuple[Key, Key], ...]:
    """At most `budget` (buyer, seller) pairs to look at more closely, the same for the same scores in the same order.

    Every buyer's best pair first, then every buyer's second best, ...; within such a row the higher score first. Pairs
    whose score is not above zero (or no number) promise nothing and are left out.
    """
    ranked: dict[Key, list[tuple[float, Key]]] = {}
    for (buyer, seller), score in scores.items():
        if score > 0:
            ranked.setdefault(buyer, []).append((score, seller))
    rows: list[tuple[int, float, tuple[Key, Key]]] = []
    for buyer, pairs in ranked.items():
        pairs.sort(key=lambda pair: -pair[0])
        rows += [(place, -score, (buyer, seller)) for place, (score, seller) in enumerate(pairs)]
    rows.sort(key=lambda row: row[:2])
    return tuple(pair for _, _, pair in rows[: max(budget, 0)])


def least_loss(
    evaluator: Evaluator,
    buyer: Mapping[str, Tensor],
    sellers: Sequence[Mapping[str, Tensor]],
    tradable: Collection[str],
    alphas: Sequence[float],
    inputs: Tensor,
    targets: Tensor,
) -> float:
    """The lowest mean loss of the merges at `alphas` on the lines from the buyer to each of `sellers`.

    :param sellers: the same seller, each time aligned in another way
    :param inputs, targets: on the evaluator's device
    """
    names = mergeable(buyer, sellers[0], tradable)
    placed = evaluator.place(buyer)
    least = math.inf
    for aligned in sellers:
        other = evaluator.place({name: aligned[name] for name in names})
        for alpha in alphas:
            merged = merge(placed, other, alpha, names)
            if evaluator.has_statistics():
                merged = evaluator.reset_statistics(merged, inputs, names)
            loss = evaluator.measure(merged, inputs, targets).loss
            least = min(least, math.inf if math.isnan(loss) else loss)
    return least
