"""When to buy, what to bid, what to ask: a small object with documented defaults.

Knows: gain reports and money. Refuses to know: the network, tensors, the journal; what an agent knows is handed to it
as data. Subclass `Strategy` and override `bid`, `raise_bid`, `standing_ask`, `ask` or `lower_ask` to trade otherwise; a
strategy only ever names amounts, it moves nothing. Ready ones are in strategies/.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from p2pmarket.errors import SettingsError
from p2pmarket.messages import AskRequest, GainReport, Unmatched
from p2pmarket.pricing.history import PriceStatistics
from p2pmarket.pricing.valuation import value_of_gain
from p2pmarket.units import CREDIT

NOISE = 1e-6
"""Of the buyer's loss: a smaller gain is no gain."""


@dataclasses.dataclass(frozen=True)
class Wallet:
    """What an agent may spend, in micro-credits."""

    balance: int
    """What of the account is not held."""
    spent: int
    """In all trades of this agent so far, with whichever broker, bids that are not answered yet included."""
    spent_today: int = 0
    """Of it, in the last 24 hours."""
    spent_this_visit: int = 0
    """Of it, since this visit to the market began."""
    visit: int = 1
    """Which visit of this process it is: 1, 2, ..."""


@dataclasses.dataclass(frozen=True)
class PastAsk:
    """One time that this agent's parameters were bid for, in micro-credits."""

    ask: int | None
    """What was asked; None: not known any more."""
    price: int | None
    """What the buyer paid; None: it was not sold."""
    buyer: str
    """Who bid, as `AskRequest.buyer` names it, in hexadecimal. Where nothing but sales by a standing ask is known of a
    buyer, its peer id."""
    at_ms: int


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What a seller knows before it names a price."""

    now_ms: int
    k_ppm: int
    """Of the market's terms: where between ask and bid the price falls, in millionths."""
    fee_ppm: int
    """Of the market's terms: the broker's part of a price, in millionths."""
    past: tuple[PastAsk, ...] = ()
    statistics: PriceStatistics | None = None
    """Of the task, where the market publishes prices and enough buyers bid."""


@dataclasses.dataclass(frozen=True)
class Strategy:
    """The default: pay in proportion to the gain that is sure, sell every snapshot at a fixed reserve.

    A purchase is considered when the lower end of the reported gain's interval is above `minimum_gain`; the bid is
    `credits_per_gain` times that part of the gain which is the seller's merit (pricing.valuation, after section 3.4 of
    the paper), and never above the balance or what is left of the `budget`. A seller who adds nothing is bid nothing;
    a gain below a millionth of the loss is float noise, and declined. Both values are named at once: a bid is not
    raised, an ask not lowered.
    """

    learns: ClassVar[bool] = False
    """Whether `informed` makes something of what it is told, so that it is worth finding out."""

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
        budget = 0 if self.budget is None else self.budget
        check_amounts(credits_per_gain=self.credits_per_gain, budget=budget, reserve=self.reserve)
        if math.isnan(self.minimum_gain):
            raise SettingsError("minimum_gain is nan; it is a number, in the unit of the task's loss")

    # ---- buying -------------------------------------------------------------------------------------------------

    def wants(self, report: GainReport) -> bool:
        """Whether the gain is sure enough to bid for."""
        noise = report.gain < NOISE * report.loss_before
        return report.weight != 0 and not noise and report.gain_low > self.minimum_gain

    def left(self, wallet: Wallet) -> int:
        """Micro-credits that may still be spent."""
        left = wallet.balance if self.budget is None else min(wallet.balance, self.budget - wallet.spent)
        return max(0, left)

    def value(self, report: GainReport, wallet: Wallet) -> int:
        """What a purchase is worth, as far as it can be paid, in micro-credits."""
        paid_for = min(report.gain, report.merit)
        low = min(paid_for, report.gain_low, report.merit_low)
        return value_of_gain(paid_for, low, per_unit=self.credits_per_gain, budget=self.left(wallet))

    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        """The most to pay for a reported gain, in micro-credits; None to decline."""
        return self.value(report, wallet) if self.wants(report) else None

    def raise_bid(self, report: GainReport, unmatched: Unmatched, last_bid: int, wallet: Wallet) -> int | None:
        """The next bid, above `last_bid`, which was below the ask; None to leave it. The wallet is without that bid."""
        return None

    # ---- selling ------------------------------------------------------------------------------------------------

    def informed(self, knowledge: Knowledge) -> Strategy:
        """This strategy, knowing that; called before every visit where it `learns`."""
        return self

    def standing_ask(self) -> int | None:
        """The ask that goes with a snapshot; None to be asked at every bid."""
        return self.reserve

    def ask(self, request: AskRequest) -> int | None:
        """The ask for one bid, where there is no standing ask; None to refuse."""
        return self.reserve if self.sell else None

    def lower_ask(self, request: AskRequest, last_ask: int) -> int | None:
        """The next ask, below `last_ask`, when a buyer raised a bid below it; None to stay with that."""
        return None


def check_amounts(**amounts: int) -> None:
    """:raises SettingsError: one of them is no whole number of micro-credits, or negative"""
    for name, amount in amounts.items():
        if type(amount) is not int:
            raise SettingsError(f"{name} is {amount!r}; it is in whole micro-credits, {CREDIT} to the credit")
        if amount < 0:
            raise SettingsError(f"{name} is {amount}; it cannot be negative")
