"""Beliefs made of a normal distribution: cut at both ends, or of the logarithm.

Knows: the two distributions and where their expected revenue peaks. Refuses to know: what they are used for. Both have
one peak of revenue whatever the seller's cost, because (price - cost) f / (1 - F) rises with the price: a truncated
normal's f / (1 - F) rises, a lognormal's price f / (1 - F) does. Everything is computed with logarithms of
probabilities, so a support deep in a tail costs no accuracy. Parameters outside the domain raise ValueError.
"""

from __future__ import annotations

import dataclasses
import math

from scipy.special import log_ndtr, ndtr, ndtri, ndtri_exp

from p2pmarket.pricing.amounts import is_finite
from p2pmarket.pricing.reserve import check_cost, check_interval, check_probability, checked_value, last_true

_LOG_ROOT_OF_TAU = 0.5 * math.log(2 * math.pi)
_LARGEST_MU, _SMALLEST_SIGMA, _LARGEST_SIGMA = 100.0, 1e-6, 20.0
"""The reserve is about exp(mu + sigma^2): with more it would pass the largest float, with less a step of z no float."""


@dataclasses.dataclass(frozen=True)
class TruncatedNormal:
    """A normal of this `mean` and `deviation` given that it lies in `low` ... `high`; `high` may be infinite."""

    mean: float
    deviation: float
    low: float
    high: float

    def __post_init__(self) -> None:
        check_interval("truncated normal prior", self.low, self.high, endless=True)
        if not (is_finite(self.mean) and is_finite(self.deviation) and self.deviation > 0):
            raise ValueError(f"a normal prior needs a finite mean and a finite deviation above 0, not {self}")
        if not math.isfinite(self._log_mass_above(self.low)):
            raise ValueError(
                f"a normal of mean {self.mean} has no mass that a float holds in {self.low} ... {self.high}"
            )

    def _standard(self, value: float) -> float:
        return (value - self.mean) / self.deviation

    def _log_mass_above(self, value: float) -> float:
        return _log_normal_mass(self._standard(value), self._standard(self.high))

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def cdf(self, value: float) -> float:
        value = checked_value(value)
        value = min(self.high, max(self.low, value))
        below = _log_normal_mass(self._standard(self.low), self._standard(value))
        return min(1.0, math.exp(below - self._log_mass_above(self.low)))

    def survival(self, value: float) -> float:
        value = checked_value(value)
        value = min(self.high, max(self.low, value))
        return min(1.0, math.exp(self._log_mass_above(value) - self._log_mass_above(self.low)))

    def density(self, value: float) -> float:
        value = checked_value(value)
        if not self.low <= value <= self.high:
            return 0.0
        log_density = _log_normal_density(self._standard(value)) - math.log(self.deviation)
        return math.exp(log_density - self._log_mass_above(self.low))

    def quantile(self, probability: float) -> float:
        check_probability(probability)
        if probability in (0.0, 1.0):
            return self.support[int(probability)]
        low, high = self._standard(self.low), self._standard(self.high)
        sign = 1.0
        if low > 0:  # in the upper tail count from above, where floats are fine enough
            low, high, probability, sign = -high, -low, 1 - probability, -1.0
        inside = math.log(probability) + _log_normal_mass(low, high)
        value = self.mean + self.deviation * sign * float(ndtri_exp(_log_sum(float(log_ndtr(low)), inside)))
        return min(self.high, max(self.low, value))

    def reserve(self, cost: float = 0.0) -> float:
        check_cost(cost)
        if cost >= self.high:
            return cost
        log_deviation = math.log(self.deviation)

        def too_cheap(price: float) -> bool:
            """(price - cost) f / (1 - F) is below 1."""
            if price <= cost:
                return True
            log_hazard = _log_normal_density(self._standard(price)) - log_deviation - self._log_mass_above(price)
            return math.log(price - cost) + log_hazard < 0

        lowest = max(self.low, cost)
        if not too_cheap(lowest):
            return lowest
        highest, step = self.high, self.deviation
        if math.isinf(highest):
            highest = max(lowest, self.mean) + step
            while too_cheap(highest):
                step *= 2
                highest += step
        return last_true(too_cheap, lowest, highest)


@dataclasses.dataclass(frozen=True)
class Lognormal:
    """The exponential of a normal of mean `mu` and deviation `sigma`: gains that vary by factors."""

    mu: float
    sigma: float

    def __post_init__(self) -> None:
        if not (abs(self.mu) <= _LARGEST_MU and _SMALLEST_SIGMA <= self.sigma <= _LARGEST_SIGMA):
            raise ValueError(
                f"a lognormal prior needs mu in -100 ... 100 and sigma above 0, in 1e-6 ... 20, not {self}"
            )

    def _standard(self, value: float) -> float:
        return (math.log(value) - self.mu) / self.sigma if value > 0 else -math.inf

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, math.inf

    def cdf(self, value: float) -> float:
        value = checked_value(value)
        return float(ndtr(self._standard(value)))

    def survival(self, value: float) -> float:
        value = checked_value(value)
        return float(ndtr(-self._standard(value)))

    def density(self, value: float) -> float:
        value = checked_value(value)
        if value <= 0:
            return 0.0
        return math.exp(_log_normal_density(self._standard(value)) - math.log(self.sigma) - math.log(value))

    def quantile(self, probability: float) -> float:
        check_probability(probability)
        return math.exp(self.mu + self.sigma * float(ndtri(probability))) if probability < 1 else math.inf

    def reserve(self, cost: float = 0.0) -> float:
        """exp(mu + sigma z): without a cost z is where phi(z) / (1 - Phi(z)) = sigma."""
        check_cost(cost)

        def too_cheap(z: float) -> bool:
            price = math.exp(self.mu + self.sigma * z)
            if price <= cost:
                return True
            log_hazard = _log_normal_density(z) - float(log_ndtr(-z)) - math.log(self.sigma)
            return math.log1p(-cost / price) + log_hazard < 0

        lowest = max(-40.0, self._standard(cost))
        highest = lowest + 1
        while too_cheap(highest):
            highest += 1
        return math.exp(self.mu + self.sigma * last_true(too_cheap, lowest, highest))


def _log_normal_density(z: float) -> float:
    """Of the standard normal."""
    return -0.5 * z * z - _LOG_ROOT_OF_TAU


def _log_normal_mass(low: float, high: float) -> float:
    """Logarithm of the standard normal's probability of low ... high."""
    if low >= high:
        return -math.inf
    if low > 0:
        low, high = -high, -low
    if high > 0:
        outside = float(ndtr(low)) + float(ndtr(-high))
        return math.log1p(-outside) if outside < 1 else -math.inf
    log_high = float(log_ndtr(high))
    ratio = float(log_ndtr(low)) - log_high
    return log_high + math.log(-math.expm1(ratio)) if ratio < 0 else -math.inf


def _log_sum(one: float, other: float) -> float:
    """Logarithm of exp(one) + exp(other)."""
    large, small = max(one, other), min(one, other)
    return large + math.log1p(math.exp(small - large))
