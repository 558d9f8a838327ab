"""What a purchase is worth to a buyer: money for measured gain, never more than is left to spend.

Knows: the gain of a report and the buyer's own money weight. Refuses to know: the paper's ratios (equation 3 gives
"no gain" the value 1, so a buyer that pays the ratio pays for nothing), the seller, the price.
Fails with ValueError on numbers that are not finite or are negative where that has no meaning.
"""

from __future__ import annotations

import math
from fractions import Fraction

from p2pmarket.limits import MAX_AMOUNT


def value_of_gain(gain: float, gain_low: float, *, per_unit: int, budget: int, cautious: bool = False) -> int:
    """The buyer's value of a purchase in micro-credits, rounded down: its highest honest bid.

    `per_unit` micro-credits for each unit of gain (of loss, or of an accuracy point: the unit of the report);
    `gain` is the report's mean and `gain_low` the lower end of its interval, which a cautious buyer pays for instead.
    At most `budget`, what the buyer may still spend. Computed exactly: a float is a rational number.

    :raises ValueError: a gain that is not finite, an interval above its mean, a negative weight or budget
    """
    if not (math.isfinite(gain) and math.isfinite(gain_low)):
        raise ValueError(f"gain {gain} with lower end {gain_low} is not finite")
    if gain_low > gain:
        raise ValueError(f"the lower end {gain_low} of the interval is above the gain {gain}")
    if per_unit < 0 or not 0 <= budget <= MAX_AMOUNT:
        raise ValueError(f"{per_unit} micro-credits a unit with a budget of {budget}: neither may be negative")
    paid_for = Fraction(gain_low if cautious else gain)
    return min(budget, math.floor(per_unit * max(Fraction(0), paid_for)))
