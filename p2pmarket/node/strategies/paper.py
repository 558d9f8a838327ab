"""A seller that is told what the paper's broker tells: for markets whose terms disclose weight and ratio.

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
    """Asks the reserve for a buyer whose value is anything up to `credits_per_loss` times the part of its loss that the
    purchase takes away, and never below `reserve` or `harm`.

    In the paper a seller knows its own ratio and bounds its buyer's by Theorem 4.1 (pricing.theorem). Here it is told
    its buyer's own ratio, so no bound is left to take: what it does not know is the buyer's money for it, and that is
    the interval. This is why a market discloses nothing by default.
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
        if request.ratio is None:
            return lowest
        # Late: it brings scipy, which no other strategy needs.
        from p2pmarket.pricing.reserve import to_ask
        from p2pmarket.pricing.theorem import reserve_between

        highest = self.credits_per_loss * max(0.0, 1 - request.ratio) / CREDIT
        return max(lowest, to_ask(reserve_between(0.0, highest, self.harm / CREDIT)))
