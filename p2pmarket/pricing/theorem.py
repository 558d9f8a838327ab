"""What a seller learns of its buyer's gain from the weights of a merge and its own gain: Theorem 4.1, corrected.

Knows: Train 'n Trade, section 4, for linear models: the gain is the ratio of equation 3, the squared distance to the
true parameters before the purchase over that after it. Refuses to know: gains in money (valuation.py), and whether a
market discloses any of this. Numbers outside the theorem's domain raise ValueError.

Let e_a, e_b be the errors of both models and m_a = (1 - a) e_a + a e_b, m_b = (1 - b) e_b + b e_a those of the merges,
a and b the purchased weights (alpha, beta), Delta_u = |e_u|^2 / |m_u|^2, s = sqrt(Delta_a). Then
a e_b = m_a - (1-a) e_a and a m_b = (1-b) m_a - (1-a-b) e_a. With |m_a| = 1, |e_a| = s, t their angle's cosine,

    Delta_b = (1 + (1-a)^2 s^2 - 2 (1-a) s t) / ((1-b)^2 + (1-a-b)^2 s^2 - 2 (1-b)(1-a-b) s t),

a quotient of two linear functions of t, which only rises or only falls: its extremes are at t = 1 and t = -1, and both
occur. The theorem as printed bounds |m_b| by a triangle inequality with 1-a-b+2ab in place of |1-a-b|. Its lower bound
holds and is loose; its upper one is false where its denominator is negative, because the difference of two lengths
bounds the length of a sum only by its absolute value.
"""

from __future__ import annotations

import dataclasses
import math

from p2pmarket.pricing.amounts import is_finite
from p2pmarket.pricing.priors import Uniform
from p2pmarket.pricing.reserve import check_cost


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The buyer's gain-from-trade Delta_b, as the ratio of equation 3, is in lower ... upper."""

    lower: float
    upper: float
    """Infinite where nothing is known."""


def bounds(weight_a: float, weight_b: float, ratio_a: float) -> Bounds:
    """What a seller A that knows both purchased weights and its own ratio Delta_a knows about Delta_b; both ends occur.

    :raises ValueError: a weight outside 0 < weight <= 1, a ratio not above 0 or not finite
    """
    s = _root_of_ratio(weight_a, weight_b, ratio_a)
    along = _quotient(1 - s * (1 - weight_a), (1 - weight_b) - s * (1 - weight_a - weight_b))
    against = _quotient(1 + s * (1 - weight_a), (1 - weight_b) + s * (1 - weight_a - weight_b))
    return Bounds(min(along, against), max(along, against))


def printed_bounds(weight_a: float, weight_b: float, ratio_a: float) -> Bounds:
    """Theorem 4.1 as the paper prints it; the upper bound is infinite where its denominator is not above 0, for there
    the printed number bounds nothing (`printed_upper` has it).

    :raises ValueError: as `bounds`
    """
    s = _root_of_ratio(weight_a, weight_b, ratio_a)
    lower = _quotient(1 - s * (1 - weight_a), (1 - weight_b) + s * _printed_length(weight_a, weight_b))
    holds = (1 - weight_b) - s * _printed_length(weight_a, weight_b) > 0
    return Bounds(lower, printed_upper(weight_a, weight_b, ratio_a) if holds else math.inf)


def printed_upper(weight_a: float, weight_b: float, ratio_a: float) -> float:
    """The number that the paper's formula for the upper bound gives, valid or not.

    :raises ValueError: as `bounds`
    """
    s = _root_of_ratio(weight_a, weight_b, ratio_a)
    return _quotient(1 + s * (1 - weight_a), (1 - weight_b) - s * _printed_length(weight_a, weight_b))


def ratio_at_optimal_weights(weight_a: float, ratio_a: float) -> float:
    """Delta_b where the broker chose both weights best and inside 0 ... 1: 1 + ((1-a)/a)^2 (Delta_a - 1), exactly.

    Both merges are then the same point, the nearest to the truth between the models, so b = 1 - a and nothing is left
    to bound: who discloses (a, Delta_a) to a seller discloses its buyer's gain.

    :raises ValueError: a weight that is not inside 0 ... 1, a ratio below 1 (a best merge is never worse) or not finite
    """
    if not 0 < weight_a < 1:
        raise ValueError(f"a weight of {weight_a} is not inside 0 ... 1")
    if not (is_finite(ratio_a) and ratio_a >= 1):
        raise ValueError(f"a ratio of {ratio_a} at the best weight is below 1 or not finite")
    return 1 + ((1 - weight_a) / weight_a) ** 2 * (ratio_a - 1)


def reserve_between(low: float, high: float, cost: float = 0.0) -> float:
    """The reserve of a seller that knows no more than an interval of its buyer's value: a uniform prior on it.

    The paper's use of the bounds (section 4, Discussion, and its experiment 6.2.1): there the value is the ratio.

    :raises ValueError: not 0 <= low <= high, high infinite (no uniform prior has it), or a cost that is no amount
    """
    check_cost(cost)
    if low == high and is_finite(low) and low >= 0:
        return max(low, cost)
    return Uniform(low, high).reserve(cost)


def _root_of_ratio(weight_a: float, weight_b: float, ratio_a: float) -> float:
    for name, weight in (("a", weight_a), ("b", weight_b)):
        if not 0 < weight <= 1:
            raise ValueError(f"a purchased weight {name} of {weight} is outside 0 < {name} <= 1")
    if not (is_finite(ratio_a) and ratio_a > 0):
        raise ValueError(f"a gain-from-trade ratio of {ratio_a} is not above 0 and finite")
    return math.sqrt(ratio_a)


def _printed_length(weight_a: float, weight_b: float) -> float:
    return 1 - weight_a - weight_b + 2 * weight_a * weight_b


def _quotient(above: float, below: float) -> float:
    """Squared; over 0 it is infinite."""
    root = above / below if below != 0 else math.inf
    return root * root
