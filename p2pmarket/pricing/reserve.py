"""The price a seller should ask of a buyer it only has a belief about: Myerson's reserve, for any belief.

Knows: what a belief must be able to say (`Belief`), and how to find the one best price for it. Refuses to know: which
family a belief comes from (priors.py), whose belief it is, and money; `to_ask` is the border where credits, which are
floats here, become micro-credits. Fails with ValueError on a cost or a reserve that is no amount of money.

Equation 2 of Train 'n Trade (section 4, after Myerson 1981), P = (1 - F(P)) / f(P), is where the slope of the expected
revenue is zero. With a cost c to the seller it reads P - (1 - F(P)) / f(P) = c. A zero slope may be a minimum, one of
several maxima, or not exist, so the definition here is the revenue itself: the reserve is the price P of the support
that maximises (P - c)(1 - F(P)), and never below c.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Protocol, runtime_checkable

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.amounts import is_finite
from p2pmarket.units import CREDIT

MAX_COST = MAX_AMOUNT / CREDIT
"""Credits: all the money one trade can move."""
_CERTAIN = 1e-6
"""Share of the best revenue that the search for it may leave unseen."""
_NARROW = 1e-12
"""Width of an interval, relative to its upper end, below which it is one price."""
_HALVINGS = 10_000
"""At most; a smooth peak takes some two thousand."""


class Belief(Protocol):
    """What a seller believes about the highest price a buyer would pay, in credits, as a distribution.

    Values outside the support, infinite ones too, have a probability; NaN has none and raises ValueError.
    """

    @property
    def support(self) -> tuple[float, float]:
        """Lowest and highest value that is possible; the highest may be infinite."""

    def cdf(self, value: float) -> float:
        """F: the probability of at most `value`."""

    def survival(self, value: float) -> float:
        """1 - F, accurate where F is nearly 1: the probability that a price of `value` is paid."""

    def quantile(self, probability: float) -> float:
        """The lowest value with at least this cdf: of a uniform random number, a random value.

        :raises ValueError: a probability outside 0 ... 1
        """

    def reserve(self, cost: float = 0.0) -> float:
        """The price in the support that maximises (price - cost) survival(price); the cost itself, at which nobody
        is believed to buy, where that is not below the whole support.

        :raises ValueError: a cost that is negative, not finite or above MAX_COST
        """


@runtime_checkable
class Prior(Belief, Protocol):
    """A belief that is spread smoothly; one of observed values (`Empirical`) is a `Belief` alone."""

    def density(self, value: float) -> float:
        """F'; 0 outside the support."""


def checked_value(value: float) -> float:
    """The value as a float; an integer beyond the largest float as infinite.

    :raises ValueError: NaN, which no probability belongs to
    """
    if value != value:
        raise ValueError("a value of nan has no probability; ask about a number")
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check_cost(cost: float) -> None:
    """:raises ValueError: a cost that is no amount of credits"""
    if not 0 <= cost <= MAX_COST:
        raise ValueError(f"a cost of {cost} credits is outside 0 ... {MAX_COST:.0f}")


def check_probability(probability: float) -> None:
    """:raises ValueError: not in 0 ... 1"""
    if not 0 <= probability <= 1:
        raise ValueError(f"a probability of {probability} is outside 0 ... 1")


def check_interval(name: str, low: float, high: float, *, endless: bool = False) -> None:
    """:raises ValueError: not 0 <= low < high, or an end that no float holds; `endless` allows high to be infinite"""
    if not (is_finite(low) and (is_finite(high) or (endless and high == math.inf)) and 0 <= low < high):
        raise ValueError(f"a {name} needs 0 <= low < high{'' if endless else ', finite'}, not {low} ... {high}")


def best_price(survival: Callable[[float], float], lowest: float, highest: float, cost: float) -> float:
    """The price in lowest ... highest (both finite) that maximises (price - cost) survival(price).

    No shape is assumed. Survival never rises, so no price of an interval x ... y can earn more than
    (y - cost) survival(x): intervals that cannot beat the best price seen are dropped, the most promising one is
    halved, until nothing left could earn a millionth more. An interval at a peak is dropped only when it is about a
    millionth of its price wide, so that is how near the best price the answer is, and its revenue far nearer. Where
    thousands of prices earn nearly the same, the search ends after `_HALVINGS` with one of them.
    """
    lowest = max(lowest, cost)
    if lowest >= highest:
        return lowest

    def revenue(price: float) -> float:
        return (price - cost) * survival(price)

    best = max(lowest, highest, key=revenue)
    earned = revenue(best)
    waiting = [((cost - highest) * survival(lowest), lowest, highest, survival(lowest))]
    for _ in range(_HALVINGS):
        if not waiting or -waiting[0][0] <= earned * (1 + _CERTAIN):
            break
        _, left, right, sold_left = heapq.heappop(waiting)
        if right - left <= _NARROW * right:
            continue
        middle = left + (right - left) / 2
        sold_middle = survival(middle)
        if (middle - cost) * sold_middle > earned:
            earned, best = (middle - cost) * sold_middle, middle
        heapq.heappush(waiting, ((cost - middle) * sold_left, left, middle, sold_left))
        heapq.heappush(waiting, ((cost - right) * sold_middle, middle, right, sold_middle))
    return best


def last_true(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds at `low` and fails at `high` turns, by halving: to the last bit of a float."""
    while low < (middle := low + (high - low) / 2) < high:
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def to_ask(reserve: float) -> int:
    """The ask in micro-credits of a reserve in credits: rounded up, so that it never asks less; at most MAX_AMOUNT,
    which nobody can pay. Exact: a float is a rational number, and 0.1 is a little above one tenth.

    :raises ValueError: negative or not finite
    """
    if not 0 <= reserve < math.inf:
        raise ValueError(f"a reserve of {reserve} credits is no amount of money")
    return min(MAX_AMOUNT, math.ceil(Fraction(reserve) * CREDIT))
