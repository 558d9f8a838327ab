"""An ask that follows what one buyer bids from round to round: what the paper leaves open in section 6.2.1.

Knows: what one buyer was ready to pay in earlier rounds, exactly where it bought, below the ask where it did not, and
the market's k. Refuses to know: disclosed weights and ratios (theorem.py), other buyers (history.py), why bids move.
Money is micro-credits. Fails with ValueError on a posted price, by which no sale shows a bid.

Gains shrink as models improve, jump when one model overtakes the other, and alternate where both meet in one point, so
no distribution that stays the same fits them. The rule is that of the best expert (Littlestone and Warmuth 1994) with
old rounds forgotten (Herbster and Warmuth 1998): an expert is a forecast from the bids before times a safety factor,
each is scored by the part of every bid that its ask would have earned, and the best one names the next ask.

The buyer's own bids make its price. Who bids half of its value is soon asked half, and a buyer that bids less every
time is asked nothing in the end: between two parties that meet again the rule is for a buyer that bids its value,
such as the paper's. Where there are others to learn from, `reserve_from` with the buyer excluded has no such hole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from p2pmarket.pricing.amounts import check_amount
from p2pmarket.pricing.bargaining import MILLION, check_millionths
from p2pmarket.pricing.history import Observation

FORECASTS: Mapping[str, Callable[[float, float], float]] = {
    "the last bid": lambda last, before: last,
    "the last but one": lambda last, before: before,
    "the lower of both": min,
}
"""Of the next bid, from the last bid and the one before it, both above 0. In a tie the first."""
FACTORS = (1.0, 0.9999, 0.999, 0.99, 0.98, 0.96, 0.93, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Of a forecast that an ask may be; in a tie the first."""
KEPT = 0.95
"""Of a score, a round later."""
REMEMBERED = 128
"""Rounds that are looked at; what is older counts less than a part in 700."""
DOUBT = 10.0
"""Rounds' worth of not knowing that an expert begins with."""
_REFUSED = 0.5
"""Of an ask that was refused: what the bid is believed to have been, the middle of what it may be."""


def tracking_ask(observations: Sequence[Observation], k_ppm: int, *, lowest: int = 0) -> int:
    """The next ask, at least `lowest`, to the one buyer of these observations, which are in order of time.

    With v the bid and a <= v the ask of an expert, a round's score is (a + k (v - a)) / v, and 0 for a > v. Where the
    buyer refused an ask r, v may be anything below it and the score is the mean over them, ((1 - k) a ln(r / a) +
    k (r - a)) / r. Each expert begins with DOUBT rounds in which v was anything up to twice its forecast, so the first
    ask is low: 0.3 of the only bid at k = 1/2. Without any bid the ask is `lowest`, and so is every ask after
    as many refusals as it takes, for each halves what the buyer is believed to pay.

    :raises ValueError: k is 0 or none, `lowest` is no amount
    """
    check_millionths("k", k_ppm)
    if k_ppm == 0:
        raise ValueError("a posted price shows no bid above it, and an ask that follows bids would only fall")
    check_amount("the lowest ask", lowest)
    seen = [one for one in observations if one.value > 0 or one.at_most is not None][-REMEMBERED:]
    if not seen:
        return lowest
    k = k_ppm / MILLION
    bids = [max(1.0, float(one.value) if one.value else _REFUSED * (_highest(one) + 1)) for one in seen]
    best, most = 0.0, -1.0
    for forecast in FORECASTS.values():
        guesses = [forecast(bids[at], bids[max(0, at - 1)]) for at in range(len(bids))]
        for factor in FACTORS:
            score = DOUBT * _mean_below(2.0, factor, k)
            for at in range(1, len(seen)):
                score = KEPT * score + _score(seen[at], factor * guesses[at - 1], k)
            if score > most:
                best, most = factor * guesses[-1], score
    return max(lowest, math.floor(best))


def _highest(seen: Observation) -> int:
    return seen.value if seen.at_most is None else seen.at_most


def _score(seen: Observation, ask: float, k: float) -> float:
    """What part of the bid an ask would have earned."""
    if seen.value:
        return 0.0 if math.floor(ask) > seen.value else 1 - (1 - k) * (1 - math.floor(ask) / seen.value)
    return _mean_below(float(_highest(seen) + 1), ask, k)


def _mean_below(refused: float, ask: float, k: float) -> float:
    """The same in the mean over bids from 0 to `refused`."""
    if ask >= refused:
        return 0.0
    return ((1 - k) * ask * math.log(refused / ask) + k * (refused - ask)) / refused
