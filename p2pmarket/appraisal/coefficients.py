"""The purchased weight: where on the line from the buyer to the seller the loss is least.

Knows: a function of one number. Refuses to know: models. A merge's loss need not have one minimum only (there may be a
barrier between the two models), so a grid brackets before anything refines; deterministic, never random.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import minimize_scalar

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
"""0 is no purchase, 1 the seller's parameters whole."""
REFINEMENTS = 8
"""Evaluations of the bounded search inside the bracket: alpha to about 0.01, far below what a loss can tell."""


def search(loss_at: Callable[[float], float], *, refinements: int = REFINEMENTS) -> float:
    """The alpha in [0, 1] with the least loss of all that were tried; a tie goes to the smaller.

    The grid first, then Brent's bounded method between the neighbours of the best point. A loss that is NaN counts as
    infinite.
    """
    tried: dict[float, float] = {}

    def loss_of(alpha: float) -> float:
        if alpha not in tried:
            loss = loss_at(alpha)
            tried[alpha] = math.inf if math.isnan(loss) else loss
        return tried[alpha]

    best = min(range(len(GRID)), key=lambda index: loss_of(GRID[index]))
    if math.isfinite(tried[GRID[best]]):
        bracket = (GRID[max(best - 1, 0)], GRID[min(best + 1, len(GRID) - 1)])
        minimize_scalar(
            lambda alpha: min(loss_of(float(alpha)), 1e300),
            bounds=bracket,
            method="bounded",
            options={"maxiter": refinements, "xatol": 0.002},
        )
    return min(tried, key=lambda alpha: (tried[alpha], alpha))
