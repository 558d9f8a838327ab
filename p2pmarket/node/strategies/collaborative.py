"""For members who help one another: parameters cost nothing between them.

Knows: the paper's collaborative agents (section 6.1, price 0). Refuses to know: reserves, merit, budgets over time.
"""

from __future__ import annotations

import dataclasses

from p2pmarket.messages import AskRequest, GainReport
from p2pmarket.node.strategy import Strategy, Wallet
from p2pmarket.pricing.valuation import value_of_gain


@dataclasses.dataclass(frozen=True)
class Collaborative(Strategy):
    """Asks nothing, and buys every sure gain.

    It bids for the whole gain, also for what the broker's data taught and the seller did not, as far as the account
    goes: what it pays of that is the market's rule. Under `posted` it pays the ask, which among its like is 0, the
    paper's price; under `midpoint` it pays half its bid. With an empty account it bids 0, which meets an ask of 0.
    Against sellers of noise it is defenceless; it is for markets whose members know one another.
    """

    def value(self, report: GainReport, wallet: Wallet) -> int:
        return value_of_gain(report.gain, report.gain_low, per_unit=self.credits_per_gain, budget=self.left(wallet))

    def standing_ask(self) -> int | None:
        return 0

    def ask(self, request: AskRequest) -> int | None:
        return 0 if self.sell else None

    def lower_ask(self, request: AskRequest, last_ask: int) -> int | None:
        return 0
