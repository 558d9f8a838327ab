"""When to buy, what to bid, what to ask: a small object with documented defaults.

Knows: gain reports and money. Refuses to know: the network, tensors. Subclass `Strategy` and override `bid`,
`standing_ask` or `ask` to trade otherwise; a strategy only ever names amounts, it moves nothing.
"""

from __future__ import annotations

import dataclasses

from p2pmarket.errors import SettingsError
from p2pmarket.messages import AskRequest, GainReport
from p2pmarket.pricing.valuation import value_of_gain
from p2pmarket.units import CREDIT

NOISE = 1e-6
"""Of the buyer's loss: a smaller gain is no gain."""


@dataclasses.dataclass(frozen=True)
class Wallet:
    """What an agent may spend, in micro-credits."""

    balance: int
    spent: int
    """In all trades of this agent so far, with whichever broker, bids that are not answered yet included."""


@dataclasses.dataclass(frozen=True)
class Strategy:
    """The default: pay in proportion to the gain that is sure, sell every snapshot at a fixed reserve.

    A purchase is considered when the lower end of the reported gain's interval is above `minimum_gain`; the bid is
    `credits_per_gain` times that part of the gain which is the seller's merit (pricing.valuation, after section 3.4 of
    the paper), and never above the balance or what is left of the `budget`. A seller who adds nothing is bid nothing;
    a gain below a millionth of the loss is float noise, and declined.
    """

    buy: bool = True
    sell: bool = True
    minimum_gain: float = 0.0
    """In the unit of the task's loss."""
    credits_per_gain: int = 10 * CREDIT
    """Micro-credits for a gain of 1.0 in the task's loss."""
    budget: int | None = None
    """Micro-credits this agent may spend in all, with whichever broker; None: all it has."""
    reserve: int = 0
    """Standing ask in micro-credits: sells at this price or above."""
    buy_groups: tuple[str, ...] = ()
    """Buy only these parameter groups of the market's terms; none named: all that is tradable."""
    sell_groups: tuple[str, ...] = ()
    """Sell only these."""

    def __post_init__(self) -> None:
        amounts = {"credits_per_gain": self.credits_per_gain, "budget": self.budget or 0, "reserve": self.reserve}
        for name, amount in amounts.items():
            if amount < 0:
                raise SettingsError(f"{name} is {amount}; it cannot be negative")

    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        """The most to pay for a reported gain, in micro-credits; None to decline."""
        noise = report.gain < NOISE * report.loss_before
        if report.weight == 0 or noise or report.gain_low <= self.minimum_gain:
            return None
        left = wallet.balance if self.budget is None else min(wallet.balance, self.budget - wallet.spent)
        paid_for = min(report.gain, report.merit)
        low = min(paid_for, report.gain_low, report.merit_low)
        return value_of_gain(paid_for, low, per_unit=self.credits_per_gain, budget=max(0, left))

    def standing_ask(self) -> int | None:
        """The ask that goes with a snapshot; None to be asked at every bid."""
        return self.reserve

    def ask(self, request: AskRequest) -> int | None:
        """The ask for one bid, where there is no standing ask; None to refuse."""
        return self.reserve if self.sell else None
