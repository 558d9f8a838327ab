"""For a buyer whose money must last: so much a visit, so much a day.

Knows: what was spent, from the wallet. Refuses to know: the time. A budget is not exceeded whatever is offered.
"""

from __future__ import annotations

import dataclasses

from p2pmarket.errors import SettingsError
from p2pmarket.node.strategy import Strategy, Wallet, check_amounts


@dataclasses.dataclass(frozen=True)
class Budgeted(Strategy):
    """As the default, with what may be spent spread over visits and bounded by the day.

    Each visit may spend an equal part of what is left of the budget (of the account, where there is none): a
    `visits`-th at the first visit, then one of the visits that are left; what a visit saves is for the later ones. A
    process that is started anew spreads what is left anew. A gain worth more is bid for with what the visit has: the
    bid is below its value, and an ask above it is missed.
    """

    visits: int = 20
    """Visits that the budget must last for; after them, what is left may go at once."""
    budget_per_day: int | None = None
    """Micro-credits in any 24 hours; None: no bound."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_amounts(budget_per_day=self.budget_per_day or 0)
        if self.visits < 1:
            raise SettingsError(f"visits is {self.visits}; a budget lasts for at least one")

    def left(self, wallet: Wallet) -> int:
        left = super().left(wallet)
        if self.budget_per_day is not None:
            left = min(left, self.budget_per_day - wallet.spent_today)
        at_first = super().left(wallet) + wallet.spent_this_visit
        share = at_first // max(1, self.visits - wallet.visit + 1)
        return max(0, min(left, share - wallet.spent_this_visit))
