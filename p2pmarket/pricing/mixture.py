"""A belief made of several: kinds of buyers, or a mind that is not made up.

Knows: how to weigh other priors. Refuses to know: which they are. Its revenue may have a peak for each part, and
equation 2 a root at each of them and between, so the reserve is searched for (reserve.py). Weights that are none raise
ValueError.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from p2pmarket.pricing.amounts import is_finite
from p2pmarket.pricing.reserve import Prior, best_price, check_cost, check_probability, checked_value, last_true


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One of several beliefs, each with its weight (above 0, of any sum): kinds of buyers, or an unsure mind.

    A part of unbounded support must have a revenue that falls beyond its own reserve, as every family here has.
    """

    weights: tuple[float, ...]
    priors: tuple[Prior, ...]

    def __post_init__(self) -> None:
        if not self.priors or len(self.weights) != len(self.priors):
            raise ValueError(f"a mixture needs a weight for each prior, not {len(self.weights)} for {len(self.priors)}")
        if not (all(is_finite(weight) and weight > 0 for weight in self.weights) and is_finite(sum(self.weights))):
            raise ValueError(f"the weights of a mixture must be finite and above 0, not {self.weights}")
        for part in self.priors:
            if isinstance(part, type) or not isinstance(part, Prior):
                raise ValueError(f"a part of a mixture is no prior: {part!r} has not all of a prior's methods")

    def _mean(self, of_parts: Iterable[float]) -> float:
        return math.fsum(weight * part for weight, part in zip(self.weights, of_parts, strict=True)) / math.fsum(
            self.weights
        )

    @property
    def support(self) -> tuple[float, float]:
        return min(prior.support[0] for prior in self.priors), max(prior.support[1] for prior in self.priors)

    def cdf(self, value: float) -> float:
        value = checked_value(value)
        return self._mean(prior.cdf(value) for prior in self.priors)

    def survival(self, value: float) -> float:
        value = checked_value(value)
        return self._mean(prior.survival(value) for prior in self.priors)

    def density(self, value: float) -> float:
        value = checked_value(value)
        return self._mean(prior.density(value) for prior in self.priors)

    def quantile(self, probability: float) -> float:
        check_probability(probability)
        if probability in (0.0, 1.0):
            return self.support[int(probability)]
        ends = [prior.quantile(probability) for prior in self.priors]
        if min(ends) == max(ends):
            return ends[0]
        return last_true(lambda value: self.cdf(value) < probability, min(ends), max(ends))

    def reserve(self, cost: float = 0.0) -> float:
        check_cost(cost)
        lowest, _ = self.support
        return best_price(self.survival, lowest, self._beyond_which_revenue_falls(cost), cost)

    def _beyond_which_revenue_falls(self, cost: float) -> float:
        ends = [cost]
        for prior in self.priors:
            if isinstance(prior, Mixture):
                ends.append(prior._beyond_which_revenue_falls(cost))
            else:
                ends.append(prior.support[1] if prior.support[1] < math.inf else prior.reserve(cost))
        return max(ends)
