"""What a purchase is worth to a buyer, and what it costs its seller: money for measured gain.

Knows: a gain and the money weights of the one who values it. Refuses to know: the paper's ratios (equation 3 gives
"no gain" the value 1, so a buyer that pays the ratio pays for nothing), the other side, the price.
Fails with ValueError on numbers that are not finite or are negative where that has no meaning.
"""

from __future__ import annotations

import math
from fractions import Fraction

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.amounts import check_whole, is_finite


def value_of_gain(gain: float, gain_low: float, *, per_unit: int, budget: int, cautious: bool = False) -> int:
    """The buyer's value of a purchase in micro-credits, rounded down: its highest honest bid.

    `per_unit` micro-credits for each unit of gain (of loss, or of an accuracy point: the unit of the report);
    `gain` is the report's mean and `gain_low` the lower end of its interval, which a cautious buyer pays for instead.
    At most `budget`, what the buyer may still spend. Computed exactly: a float is a rational number.

    :raises ValueError: a gain that is not finite, an interval above its mean, a weight or budget that is negative or no
        int
    """
    if not (is_finite(gain) and is_finite(gain_low)):
        raise ValueError(f"gain {gain} with lower end {gain_low} is not finite")
    if gain_low > gain:
        raise ValueError(f"the lower end {gain_low} of the interval is above the gain {gain}")
    check_whole("a value per unit", per_unit)
    check_whole("a budget", budget)
    if per_unit < 0 or not 0 <= budget <= MAX_AMOUNT:
        raise ValueError(f"{per_unit} micro-credits a unit with a budget of {budget}: neither may be negative")
    paid_for = Fraction(gain_low if cautious else gain)
    return min(budget, math.floor(per_unit * max(Fraction(0), paid_for)))


def seller_cost(gain: float, *, overlap: float, per_unit: int) -> int:
    """What a sale costs its seller in micro-credits, rounded up: the c of its reserve, and its lowest honest ask.

    A copy costs nothing to make; what it may cost is competition. The model is linear and our own:
    overlap * per_unit * max(0, gain). `overlap`, 0 ... 1, is the share of the seller's market in which this buyer
    competes: 0 for a buyer that hurts nobody, 1 for a rival everywhere. `per_unit` is what the seller loses there for
    each unit that the buyer's model improves, `gain` the gain it expects the buyer to have. At most MAX_AMOUNT, for
    which nothing is sold. Computed exactly.

    :raises ValueError: a gain that is not finite, an overlap outside 0 ... 1, a weight that is negative or no int
    """
    if not is_finite(gain):
        raise ValueError(f"gain {gain} is not finite")
    if not 0 <= overlap <= 1:
        raise ValueError(f"an overlap of {overlap} is no share, 0 ... 1")
    check_whole("a loss per unit", per_unit)
    if per_unit < 0:
        raise ValueError(f"{per_unit} micro-credits a unit: a loss is not negative")
    return min(MAX_AMOUNT, math.ceil(Fraction(overlap) * per_unit * max(Fraction(0), Fraction(gain))))
