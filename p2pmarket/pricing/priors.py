"""Families of beliefs about a buyer's value, in credits: what a seller's reserve is computed from.

Knows: each family's distribution and its reserve, in closed form where there is one. Refuses to know: how a belief is
learned from past trades, and which one fits. Parameters outside a family's domain raise ValueError when the record is
made, so a prior that exists has a reserve.

Values of money are never negative, so no support begins below 0. Where equation 2 fails, the reserve of `Prior` holds:
the price with the highest expected revenue. Beta and Mixture may have several peaks of revenue and are searched; the
others have one, whatever the cost. The families made of a normal are in normal_priors.py, mixtures in mixture.py;
all are imported from here.
"""

from __future__ import annotations

import dataclasses
import math

from scipy.special import betainc, betaincinv, betaln

from p2pmarket.pricing.amounts import is_finite
from p2pmarket.pricing.mixture import Mixture
from p2pmarket.pricing.normal_priors import Lognormal, TruncatedNormal
from p2pmarket.pricing.reserve import (
    Prior,
    best_price,
    check_cost,
    check_interval,
    check_probability,
    checked_value,
    last_true,
    to_ask,
)  # fmt: skip

__all__ = [
    "Beta",
    "Exponential",
    "Lognormal",
    "Mixture",
    "Pareto",
    "Prior",
    "TruncatedNormal",
    "Uniform",
    "to_ask",
]

_SMALLEST_BETA, _LARGEST_BETA = 1e-3, 1e6


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Any value from `low` to `high` alike."""

    low: float
    high: float

    def __post_init__(self) -> None:
        check_interval("uniform prior", self.low, self.high)

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def cdf(self, value: float) -> float:
        value = checked_value(value)
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def survival(self, value: float) -> float:
        value = checked_value(value)
        return min(1.0, max(0.0, (self.high - value) / (self.high - self.low)))

    def density(self, value: float) -> float:
        value = checked_value(value)
        return 1 / (self.high - self.low) if self.low <= value <= self.high else 0.0

    def quantile(self, probability: float) -> float:
        check_probability(probability)
        return self.low + probability * (self.high - self.low)

    def reserve(self, cost: float = 0.0) -> float:
        check_cost(cost)
        return max(self.low, (self.high + cost) / 2, cost)


@dataclasses.dataclass(frozen=True)
class Exponential:
    """`shift` and above it an exponential with `rate` per credit (mean shift + 1/rate)."""

    rate: float
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not (is_finite(self.rate) and self.rate > 0 and is_finite(1 / self.rate)):
            raise ValueError(f"an exponential prior needs a finite rate above 0 and a finite mean, not {self}")
        if not (is_finite(self.shift) and self.shift >= 0):
            raise ValueError(f"an exponential prior needs a finite shift of at least 0, not {self}")

    @property
    def support(self) -> tuple[float, float]:
        return self.shift, math.inf

    def cdf(self, value: float) -> float:
        value = checked_value(value)
        return -math.expm1(-self.rate * max(0.0, value - self.shift))

    def survival(self, value: float) -> float:
        value = checked_value(value)
        return math.exp(-self.rate * max(0.0, value - self.shift))

    def density(self, value: float) -> float:
        value = checked_value(value)
        return self.rate * self.survival(value) if value >= self.shift else 0.0

    def quantile(self, probability: float) -> float:
        check_probability(probability)
        return self.shift - math.log1p(-probability) / self.rate if probability < 1 else math.inf

    def reserve(self, cost: float = 0.0) -> float:
        check_cost(cost)
        return max(self.shift, cost + 1 / self.rate)


@dataclasses.dataclass(frozen=True)
class Pareto:
    """Values above `minimum` whose probability falls as value ** -shape; with a `cap`, given that they are below it.

    A shape of at most 1 without a cap is refused: the revenue price * (minimum / price) ** shape never falls, so there
    is no best price. Equation 2 has no root for a shape above 1 either: every price above `minimum` earns less.
    """

    minimum: float
    shape: float
    cap: float | None = None

    def __post_init__(self) -> None:
        if not (is_finite(self.minimum) and self.minimum > 0 and is_finite(self.shape) and self.shape > 0):
            raise ValueError(f"a Pareto prior needs a finite minimum and a finite shape above 0, not {self}")
        if self.cap is not None:
            check_interval("capped Pareto prior", self.minimum, self.cap)
        elif self.shape <= 1:
            raise ValueError(
                f"a Pareto prior of shape {self.shape} needs a cap: at a shape of at most 1 revenue never falls with"
                " the price, so no price is best"
            )

    @property
    def support(self) -> tuple[float, float]:
        return self.minimum, math.inf if self.cap is None else self.cap

    def _log_fall(self, low: float, high: float) -> float:
        return self.shape * (math.log(high) - math.log(low)) if high < math.inf else math.inf

    def _mass(self, low: float, high: float) -> float:
        """Probability of low ... high, of a Pareto without a cap that begins at `low`."""
        return -math.expm1(-self._log_fall(low, high))

    def cdf(self, value: float) -> float:
        value = checked_value(value)
        low, high = self.support
        return self._mass(low, min(high, max(low, value))) / self._mass(low, high)

    def survival(self, value: float) -> float:
        value = checked_value(value)
        low, high = self.support
        value = min(high, max(low, value))
        if math.isinf(value):
            return 0.0
        return math.exp(-self._log_fall(low, value)) * self._mass(value, high) / self._mass(low, high)

    def density(self, value: float) -> float:
        value = checked_value(value)
        low, high = self.support
        if not low <= value <= high or math.isinf(value):
            return 0.0
        return self.shape / value * math.exp(-self._log_fall(low, value)) / self._mass(low, high)

    def quantile(self, probability: float) -> float:
        check_probability(probability)
        low, high = self.support
        if probability == 1:
            return high
        log_left = math.log1p(-probability * self._mass(low, high))
        return min(high, low * math.exp(-log_left / self.shape))

    def reserve(self, cost: float = 0.0) -> float:
        check_cost(cost)
        if self.cap is None:
            return max(self.minimum, cost / (1 - 1 / self.shape))
        if cost >= self.cap:
            return cost

        def too_cheap(price: float) -> bool:
            """The slope of (price - cost)(1 - F) is above 0."""
            return self._mass(price, high) - self.shape * (1 - cost / price) > 0 if price < high else False

        high, lowest = self.cap, max(self.minimum, cost)
        return last_true(too_cheap, lowest, high) if too_cheap(lowest) else lowest


@dataclasses.dataclass(frozen=True)
class Beta:
    """A beta distribution stretched over `low` ... `high`: values with a known floor and ceiling."""

    a: float
    b: float
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_interval("beta prior", self.low, self.high)
        if not (_SMALLEST_BETA <= self.a <= _LARGEST_BETA and _SMALLEST_BETA <= self.b <= _LARGEST_BETA):
            raise ValueError(f"a beta prior needs a and b in {_SMALLEST_BETA} ... {_LARGEST_BETA:.0f}, not {self}")

    @property
    def support(self) -> tuple[float, float]:
        return self.low, self.high

    def _inside(self, value: float) -> tuple[float, float]:
        """How far up and how far down the support, of 1."""
        width = self.high - self.low
        return min(1.0, max(0.0, (value - self.low) / width)), min(1.0, max(0.0, (self.high - value) / width))

    def cdf(self, value: float) -> float:
        value = checked_value(value)
        up, down = self._inside(value)
        return float(betainc(self.a, self.b, up)) if up <= 0.5 else 1 - float(betainc(self.b, self.a, down))

    def survival(self, value: float) -> float:
        value = checked_value(value)
        up, down = self._inside(value)
        return float(betainc(self.b, self.a, down)) if up > 0.5 else 1 - float(betainc(self.a, self.b, up))

    def density(self, value: float) -> float:
        """Infinite at an end whose parameter is below 1, and near it where no float holds it."""
        value = checked_value(value)
        if not self.low <= value <= self.high:
            return 0.0
        log_density = -float(betaln(self.a, self.b)) - math.log(self.high - self.low)
        for part, power in zip(self._inside(value), (self.a - 1, self.b - 1), strict=True):
            if part == 0 and power != 0:
                return math.inf if power < 0 else 0.0
            log_density += power * math.log(part) if power != 0 else 0.0
        return math.exp(log_density) if log_density < 709 else math.inf  # about the largest that a float holds

    def quantile(self, probability: float) -> float:
        check_probability(probability)
        return self.low + (self.high - self.low) * float(betaincinv(self.a, self.b, probability))

    def reserve(self, cost: float = 0.0) -> float:
        check_cost(cost)
        return best_price(self.survival, self.low, self.high, cost)
