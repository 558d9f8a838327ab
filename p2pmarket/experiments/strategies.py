"""Strategies that only experiments need: buyers that pay the paper's gain-from-trade, sellers that estimate it.

Knows: equation 3, Theorem 4.1 and the rule that follows a buyer's bids. Refuses to know: how a run goes. Not for real
markets: who pays a ratio pays for no gain, and who follows a buyer's bids lets the buyer make its own price
(docs/decisions/0015-prices-from-a-buyers-own-bids.md). A wrong knob raises `SettingsError`.
"""

from __future__ import annotations

import dataclasses
import math

from p2pmarket.errors import SettingsError
from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.messages import AskRequest, GainReport
from p2pmarket.node.strategies.competitive import observed
from p2pmarket.node.strategy import Knowledge, Strategy, Wallet, check_amounts
from p2pmarket.pricing.theorem import bounds, printed_bounds, ratio_at_optimal_weights
from p2pmarket.pricing.tracking import tracking_ask
from p2pmarket.pricing.valuation import value_of_gain
from p2pmarket.units import CREDIT

RATIO, GAIN = "ratio", "gain"
VALUES = (RATIO, GAIN)
"""What a buyer pays for: Delta_b as the paper's buyers do (equation 3), or what it is above 1, which is no gain."""
PRINTED, TIGHT, EXACT, LEARNED, NOTHING = "printed", "tight", "exact", "learned", "nothing"
SELLERS = (PRINTED, TIGHT, EXACT, LEARNED, NOTHING)
"""What a seller asks: the lower bound of Theorem 4.1 as printed, the paper's choice in section 6.2.1; its tight lower
bound; the ratio itself, where both weights are inside 0 ... 1 and chosen best; what `tracking_ask` makes of what this
buyer did before; 0."""
_ROUNDING = 1e-9
"""Part of a ratio that is left off, so that the last bits of float64, in which linear regressions send parameters, lose
no trade. What a ratio has above 1 is some millionths in late rounds: a larger part would be all of it."""


@dataclasses.dataclass(frozen=True)
class Following(Strategy):
    """The default, but its ask follows what each buyer bid before; `reserve` before anything is known, and at least."""

    learns = True

    known: Knowledge | None = dataclasses.field(default=None, repr=False)
    """What `informed` was told; no knob."""

    def informed(self, knowledge: Knowledge) -> Strategy:
        """Keeps it: what is asked depends on who bids."""
        return dataclasses.replace(self, known=knowledge)

    def standing_ask(self) -> int | None:
        return None

    def ask(self, request: AskRequest) -> int | None:
        return self.followed(request) if self.sell else None

    def followed(self, request: AskRequest) -> int:
        """What this buyer is asked by its own past bids, in micro-credits; `reserve` under a posted price."""
        if self.known is None or self.known.k_ppm == 0:
            return self.reserve
        buyer = request.buyer.hex()
        past = sorted((one for one in self.known.past if one.buyer == buyer), key=lambda one: one.at_ms)
        seen = [found for one in past if (found := observed(one, self.known.k_ppm)) is not None]
        return tracking_ask(seen, self.known.k_ppm, lowest=self.reserve)


@dataclasses.dataclass(frozen=True)
class RatioTrader(Following):
    """Figure 5's agent: as a buyer it bids its gain-from-trade, as a seller it asks what it believes that to be.

    It needs a market whose terms disclose as the paper does, unless its seller is `learned` or `nothing`. Where its own
    purchase helps nothing it is told of no ratio of its own: then the bounds are 0, and it asks its `reserve`.
    """

    value_is: str = RATIO
    """One of VALUES."""
    seller: str = PRINTED
    """One of SELLERS."""
    credits_per_ratio: int = CREDIT
    """Micro-credits for a ratio, or a part of a ratio above 1, of 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_amounts(credits_per_ratio=self.credits_per_ratio)
        for name, word, words in (("value_is", self.value_is, VALUES), ("seller", self.seller, SELLERS)):
            if word not in words:
                raise SettingsError(f"{name} is {word!r}; it is one of {', '.join(words)}")

    def value(self, report: GainReport, wallet: Wallet) -> int:
        """Delta_b, or Delta_b - 1, in money; all that is left to a buyer whose loss would be 0."""
        left = self.left(wallet)
        if report.loss_after <= 0:
            return left
        worth = self.worth(report.loss_before / report.loss_after)
        return value_of_gain(worth, worth, per_unit=self.credits_per_ratio, budget=left)

    def ask(self, request: AskRequest) -> int | None:
        if not self.sell:
            return None
        if self.seller == LEARNED:
            return self.followed(request)
        if self.seller == NOTHING:
            return self.reserve
        return self.asked(request.own_weight, request.weight, request.own_ratio)

    def asked(self, own_weight: float | None, weight: float | None, own_ratio: float | None) -> int:
        """What it asks by its `estimate` of what it is told, in micro-credits."""
        ratio = estimate(self.seller, own_weight, weight, own_ratio)
        amount = math.floor(self.worth(ratio * (1 - _ROUNDING)) * self.credits_per_ratio)
        return min(MAX_AMOUNT, max(self.reserve, amount))

    def worth(self, ratio: float) -> float:
        """What a ratio is to a buyer, in multiples of `credits_per_ratio`."""
        return ratio if self.value_is == RATIO else max(0.0, ratio - 1)


def estimate(seller: str, own_weight: float | None, weight: float | None, own_ratio: float | None) -> float:
    """The buyer's Delta_b as a seller estimates it from what the paper's broker tells: (alpha, beta, Delta_a).

    0 where it is told too little, and for `exact` 1 where a weight is 1: the relation holds inside 0 ... 1 alone, and
    who bids gains something.

    :param seller: PRINTED, TIGHT or EXACT
    """
    if own_weight is None or weight is None or own_ratio is None:
        return 1.0 if seller == EXACT else 0.0
    if seller == EXACT:
        inside = 0 < own_weight < 1 and 0 < weight < 1 and 1 <= own_ratio < math.inf
        return ratio_at_optimal_weights(own_weight, own_ratio) if inside else 1.0
    if not (0 < own_weight <= 1 and 0 < weight <= 1 and 0 < own_ratio < math.inf):
        return 0.0  # what a broker tells is its word, not a reason to fail
    return (printed_bounds if seller == PRINTED else bounds)(own_weight, weight, own_ratio).lower
