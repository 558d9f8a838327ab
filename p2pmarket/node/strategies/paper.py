"""A seller that is told what the paper's broker tells: for markets whose terms disclose weights and ratio.

Knows: what an AskRequest discloses, and the reserve for an interval (section 4 of the paper). Refuses to know: how much
the buyer values a gain, which nobody tells. In a market that discloses nothing it is the default strategy.
"""

from __future__ import annotations

import dataclasses

from p2pmarket.messages import AskRequest
from p2pmarket.node.strategy import Strategy, check_amounts
from p2pmarket.units import CREDIT


@dataclasses.dataclass(frozen=True)
class PaperSeller(Strategy):
    """Bounds its buyer's ratio by Theorem 4.1 from both purchased weights and its own ratio, and asks the reserve of a
    value that may be anything between; never below `reserve` or `harm`.

    A buyer that loses the part 1 - 1 / Delta_b of its loss is believed to pay `credits_per_loss` times that part: the
    paper's buyer pays the ratio itself, and so pays for no gain (docs/pricing.md). The theorem is of linear models and
    squared distances; with losses of other models it is a rule of thumb. Where its own purchase was not appraised, or
    would not help, it knows nothing and asks its lowest.
    """

    harm: int = 0
    """Micro-credits that a copy in another's hands costs this agent."""
    credits_per_loss: int = 10 * CREDIT
    """Micro-credits: the most that a buyer may pay to lose all of its loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_amounts(harm=self.harm, credits_per_loss=self.credits_per_loss)

    def standing_ask(self) -> int | None:
        return None

    def ask(self, request: AskRequest) -> int | None:
        if not self.sell:
            return None
        lowest = max(self.reserve, self.harm)
        if request.weight is None or request.own_weight is None or request.own_ratio is None:
            return lowest
        if not (0 < request.weight <= 1 and 0 < request.own_weight <= 1 and request.own_ratio > 0):
            return lowest  # what a broker tells is its word, not a reason to fail
        # Late: it brings scipy, which no other strategy needs.
        from p2pmarket.pricing.reserve import to_ask
        from p2pmarket.pricing.theorem import bounds, reserve_between

        ratio = bounds(request.own_weight, request.weight, request.own_ratio)
        low, high = (
            self.credits_per_loss * max(0.0, 1 - 1 / end) / CREDIT for end in (max(ratio.lower, 1e-9), ratio.upper)
        )
        return max(lowest, to_ask(reserve_between(low, high, self.harm / CREDIT)))
