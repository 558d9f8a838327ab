"""For agents that compete: a copy in another's hands harms its seller, and a price is what buyers were seen to pay.

Knows: Myerson's reserve (section 4 of the paper) for a belief that is learned: from this agent's own asks, from the
statistics a market publishes, else from an interval. Refuses to know: where those come from. A wrong knob raises
`SettingsError`.
"""

from __future__ import annotations

import dataclasses

from p2pmarket.errors import SettingsError
from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.messages import AskRequest, GainReport, Unmatched
from p2pmarket.node.strategy import Knowledge, PastAsk, Strategy, Wallet, check_amounts
from p2pmarket.pricing.bargaining import MILLION
from p2pmarket.pricing.history import ENOUGH, Observation, reserve_from, reserve_from_statistics
from p2pmarket.units import CREDIT

HALF_LIFE_MS = 7 * 24 * 3600 * 1000
"""What was seen a week ago counts half: gains shrink as models get better."""


@dataclasses.dataclass(frozen=True)
class Competitive(Strategy):
    """Bids what a purchase is worth to it, and asks the price with the highest expected profit.

    The ask maximises (price less fee less `harm`) times the probability that a buyer pays it, and is never below
    `reserve`. Until enough was seen that is half way between the harm and `highest_value`: the reserve of a buyer's
    value that may be anything up to there. It has no standing ask: it is asked at every bid, so it hears of each time
    it was too dear, and goes down. It sells nothing while it is offline. What it asks of a buyer it learns from all
    others, so nobody makes its own price, and a lone buyer is asked the same for ever; buyers that act together under
    many names make each other's.

    It shades nothing unless `haggle` is set: then its first bid is that part below its value and its first ask that
    part above its reserve, and both give way as the market's terms allow revisions: bids in equal steps that end at the
    value, asks by half the way each time. Under rules that let the bid move the price that pays; it also loses trades.
    """

    learns = True

    harm: int = 0
    """Micro-credits that a copy in another's hands costs this agent."""
    highest_value: int = 10 * CREDIT
    """Micro-credits: the most that a buyer may pay, as believed before anything was seen."""
    haggle: float = 0.0
    known: Knowledge | None = dataclasses.field(default=None, repr=False)
    """What `informed` was told; no knob."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_amounts(harm=self.harm, highest_value=self.highest_value)
        if not 0 <= self.haggle < 1:
            raise SettingsError(f"haggle is {self.haggle}; it is a part, from 0 to below 1")

    # ---- selling ------------------------------------------------------------------------------------------------

    def informed(self, knowledge: Knowledge) -> Strategy:
        """Keeps it for each request: what the ask is made of depends on who is asked."""
        return dataclasses.replace(self, known=knowledge)

    def lowest_ask(self, buyer: bytes) -> int:
        """Micro-credits below which it does not sell to this buyer; a bid of the buyer's own does not move it, but for
        its part of the market's statistics."""
        believed = (self.highest_value + self.harm) // 2 if self.known is None else self._learned(self.known, buyer)
        return max(self.reserve, self.harm, believed)

    def standing_ask(self) -> int | None:
        return None

    def ask(self, request: AskRequest) -> int | None:
        return min(MAX_AMOUNT, round(self.lowest_ask(request.buyer) * (1 + self.haggle))) if self.sell else None

    def lower_ask(self, request: AskRequest, last_ask: int) -> int | None:
        lowest = self.lowest_ask(request.buyer)
        return (last_ask + lowest) // 2 if last_ask > lowest else None

    def _learned(self, known: Knowledge, buyer: bytes) -> int:
        """Of what others than this buyer showed: own asks, where there are enough; else the market's statistics; else
        the interval."""
        cost, name = before_fee(self.harm, known.fee_ppm), buyer.hex()
        others = (one for one in known.past if one.buyer != name)
        seen = [observation for one in others if (observation := observed(one, known.k_ppm)) is not None]
        if len(seen) < ENOUGH and known.statistics is not None:
            found = reserve_from_statistics(known.statistics, cost)
        else:
            found = reserve_from(
                seen, known.now_ms, low=0, high=self.highest_value, cost=cost, half_life_ms=HALF_LIFE_MS
            )
        return min(MAX_AMOUNT, max(found, cost))

    # ---- buying -------------------------------------------------------------------------------------------------

    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        value = super().bid(report, wallet)
        return None if value is None else round(value * (1 - self.haggle))

    def raise_bid(self, report: GainReport, unmatched: Unmatched, last_bid: int, wallet: Wallet) -> int | None:
        value = self.value(report, wallet)
        if not self.wants(report) or value <= last_bid:
            return None
        return value - (value - last_bid) * (unmatched.revisions_left - 1) // max(1, unmatched.revisions_left)


def before_fee(amount: int, fee_ppm: int) -> int:
    """The price of which at least `amount` is left after the fee; the largest amount, where the fee takes all."""
    if amount == 0:
        return 0
    return min(MAX_AMOUNT, -(-amount * MILLION // (MILLION - fee_ppm))) if fee_ppm < MILLION else MAX_AMOUNT


def observed(past: PastAsk, k_ppm: int) -> Observation | None:
    """What one past ask says about the values of buyers; None where it says nothing."""
    if past.price is None:
        return Observation.unsold(past.ask, past.buyer, past.at_ms) if past.ask else None
    if past.ask is not None:
        try:
            return Observation.sold(past.price, past.ask, k_ppm, past.buyer, past.at_ms)
        except ValueError:  # a price by other terms than today's
            pass
    return Observation(past.price, past.buyer, past.at_ms, MAX_AMOUNT)
