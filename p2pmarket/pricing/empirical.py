"""What buyers were seen to be ready to pay, as a belief: no family, only the values themselves.

Knows: values and how much each counts. Refuses to know: who offered them, when, and their unit, which is the caller's
(every price that comes out is in the unit of the values). Fails with ValueError on no values, on values that are
negative or not finite, and on weights that cannot be weighed with.

The price of the highest observed revenue is not a good reserve: where revenue hangs on the few highest values, that
maximum is mostly luck (on a lognormal of sigma = 2 it earns three quarters of what is possible, even from 1000 values).
Two things guard against luck here, and neither knows a family. The top sqrt(n)/2 values are never a price (a guarded
empirical reserve, as in Dhangwatnotai, Roughgarden and Yan 2015), and a price is judged by its observed revenue less
half a standard error of it. Two more were tried and left out. Averaging over bootstrap samples gained half a hundredth
in the mean. Smoothing over logarithms gained one hundredth where values are smooth, and lost up to a half where they
are not: round prices, zeros, groups far apart.
"""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from p2pmarket.pricing.amounts import is_finite
from p2pmarket.pricing.reserve import checked_value

CAUTION = 0.5
"""Standard errors of its observed revenue that count against a price."""


@dataclasses.dataclass(frozen=True)
class Empirical:
    """Observed `values` in rising order, the share of each (they sum to 1), and how many equally good ones they are.

    `size` is the number of values where all count alike, less where some count more (Kish 1965: the squared sum of the
    weights over the sum of their squares). Has no `density`, an atom has none: this is a `Belief` and no `Prior`.
    """

    values: tuple[float, ...]
    shares: tuple[float, ...]
    size: float
    _at_least: tuple[float, ...] = dataclasses.field(repr=False, compare=False)
    """For each value, the share of it and all after it; then 0."""

    def __init__(
        self, values: Iterable[float], weights: Iterable[float] | None = None, *, size: float | None = None
    ) -> None:
        """Values in any order with their weights (all alike when not given); a `size` known otherwise replaces Kish's.

        :raises ValueError: no values; a value or weight that is negative or not finite; weights of another number or
            that sum to nothing; a size that is not positive and finite
        """
        observed = _floats(values)
        weighed = np.ones_like(observed) if weights is None else _floats(weights)
        if not observed.size:
            raise ValueError("an empirical prior needs at least one observed value")
        if not (np.isfinite(observed).all() and (observed >= 0).all()):
            raise ValueError("an observed value is negative or not finite; a value is an amount of money")
        if weighed.shape != observed.shape:
            raise ValueError(f"{observed.size} values with {weighed.size} weights; give each value one weight")
        total = float(weighed.sum())
        if not ((weighed >= 0).all() and 0 < total < math.inf):
            raise ValueError("a weight is negative or not finite, or all are 0; a weight says how much a value counts")
        counted = weighed > 0
        observed, weighed = observed[counted], weighed[counted] / total
        order = np.argsort(observed, kind="stable")
        observed, weighed = observed[order], weighed[order]
        size = float(1 / np.square(weighed).sum()) if size is None else size
        if not (is_finite(size) and size > 0):
            raise ValueError(f"a size of {size} values is not positive and finite")
        set_field = object.__setattr__
        set_field(self, "values", tuple(observed.tolist()))
        set_field(self, "shares", tuple(weighed.tolist()))
        set_field(self, "size", size)
        at_least = np.minimum(1.0, np.cumsum(weighed[::-1])[::-1])
        at_least[0] = 1.0
        set_field(self, "_at_least", (*at_least.tolist(), 0.0))

    @property
    def support(self) -> tuple[float, float]:
        """Lowest and highest value seen."""
        return self.values[0], self.values[-1]

    def cdf(self, value: float) -> float:
        """Share of the values that are at most `value`."""
        value = checked_value(value)
        return 1 - self._at_least[bisect_right(self.values, value)]

    def survival(self, value: float) -> float:
        """Share that pays a price of `value`: those at least as high (so it and `cdf` share an atom)."""
        value = checked_value(value)
        return self._at_least[bisect_left(self.values, value)]

    def quantile(self, probability: float) -> float:
        """The lowest observed value with at least this cdf.

        :raises ValueError: a probability outside 0 ... 1
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability of {probability} is outside 0 ... 1")
        below = np.searchsorted(-np.asarray(self._at_least[1:]), probability - 1 - 1e-12, side="left")
        return self.values[min(int(below), len(self.values) - 1)]

    def reserve(self, cost: float = 0.0) -> float:
        """The observed value of highest guarded revenue above `cost`.

        Maximises (v - cost)(S - CAUTION sqrt(S (1 - S) / size)) over the values v that more than sqrt(size)/2 others
        reach, S being the share that does. Where none of them is above the cost: the lowest value that is, since
        anything earned is better than nothing, or the cost itself. Ties go to the lower price, which sells more.

        :raises ValueError: a cost that is negative or not finite
        """
        if not (is_finite(cost) and cost >= 0):
            raise ValueError(f"a cost of {cost} is no amount of money")
        values, share = np.asarray(self.values), np.asarray(self._at_least[:-1])
        doubt = np.sqrt(share * (1 - share) / self.size)
        guarded = share * self.size > math.sqrt(self.size) / 2
        guarded[0] = True
        revenue = np.where(guarded, (values - cost) * (share - CAUTION * doubt), -math.inf)
        best = int(revenue.argmax())
        if values[best] > cost:
            return self.values[best]
        above = bisect_right(self.values, cost)
        return self.values[above] if above < len(self.values) else float(cost)


def _floats(numbers: Iterable[float]) -> NDArray[np.float64]:
    """The numbers as floats, infinite where no float holds one."""
    return np.asarray([number if is_finite(number) else math.inf for number in numbers], dtype=np.float64)
