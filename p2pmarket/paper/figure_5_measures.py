"""Figure 5's measures: what was bid for parameters, what became of it, and how far prices were from optimal ones.

Knows: bids, asks and prices in a run's rows, and what other estimates would have made of the same rows. Refuses to
know: the paper, scenarios, plots. A measure of no bids at all is nan.

Two readings of a lost trade, one whose ask was above the bid. In `gap` it is the whole optimal price, so that nobody
comes nearer to the optimum by losing trades; in `gap_where_prices_stay` the last price stays, as in the paper's plot.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from p2pmarket.experiments.recording import TradeRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.strategies import GAIN, RATIO, RatioTrader
from p2pmarket.pricing.bargaining import strike
from p2pmarket.units import CREDIT

AGENTS = ("A", "B")
PER_RATIO = {RATIO: CREDIT, GAIN: 1000 * CREDIT}
"""Micro-credits for 1 of what a buyer pays for; gains are some millionths to thousandths."""


@dataclasses.dataclass(frozen=True)
class Offer:
    """One bid and what became of it; micro-credits."""

    round: int
    optimal: int
    """The price where the seller values its parameters as their buyer does: the bid."""
    price: int | None
    """None: the ask was above the bid."""

    @property
    def gap(self) -> int:
        """From the price to the optimal one; all of it, where no price was agreed on."""
        return self.optimal - (self.price or 0)


Offers = Sequence[Offer]

# ---- what was bid ---------------------------------------------------------------------------------------------------


def offers_of(run: RunResult, seller: str | None = None) -> list[Offer]:
    """Every bid of a run for one seller's parameters, or for anybody's, in order."""
    rows = (row for row in run.trades if row.bid is not None and seller in (None, row.seller))
    return [Offer(row.round, row.bid or 0, row.price) for row in rows]


def offers_by(run: RunResult, seller: str, kind: str, value: str) -> list[Offer]:
    """What one seller's bids would have become had it asked by another estimate (`RatioTrader.asked`), in the same
    run: exact for sellers that lose no trade, for then a price changes nothing that is learned.
    """
    trader = RatioTrader(value_is=value, seller=kind, credits_per_ratio=PER_RATIO[value])
    mirror = {(row.round, row.buyer): row for row in run.trades}
    found = []
    for row in run.trades:
        if row.bid is None or row.seller != seller:
            continue
        price = strike(row.bid, trader.asked(*_told(row, mirror)), 0)
        found.append(Offer(row.round, row.bid, price.price if price else None))
    return found


def _told(row: TradeRow, mirror: Mapping[tuple[int, str], TradeRow]) -> tuple[float | None, float, float | None]:
    """What the paper's broker tells the seller: its own weight, the buyer's, its own ratio."""
    own = mirror.get((row.round, row.seller))
    if own is None or not own.weight:
        return None, row.weight, None
    return own.weight, row.weight, own.loss_before / own.loss_after


# ---- measures, one number of a run ----------------------------------------------------------------------------------


def gap(offers: Offers) -> float:
    """The mean gap, in per cent of the mean optimal price."""
    return _part(sum(one.gap for one in offers), sum(one.optimal for one in offers))


def gap_where_prices_stay(offers: Offers) -> float:
    """The same where a lost trade leaves the last price as it was (0 before the first)."""
    last, total = 0, 0
    for one in offers:
        last = last if one.price is None else one.price
        total += abs(one.optimal - last)
    return _part(total, sum(one.optimal for one in offers))


def lost(offers: Offers) -> float:
    """Trades lost because the ask was above the bid, in per cent of bids."""
    return _part(sum(one.price is None for one in offers), len(offers))


def above_no_gain(offers: Offers) -> float:
    """By how many per cent optimal prices are above the price of a ratio of 1, which is no gain, where buyers pay the
    ratio.
    """
    return _part(sum(max(0, one.optimal - CREDIT) for one in offers), CREDIT * len(offers))


def _part(some: int, whole: int) -> float:
    """In per cent; nan of nothing."""
    return 100.0 * some / whole if whole else math.nan


def leader_is_dearer(run: RunResult, amount: Callable[[TradeRow], int | None]) -> float:
    """In how many per cent of the rounds with both trades the agent that has the smaller error sells dearer."""
    rows = {(row.round, row.seller): row for row in run.trades if row.bid is not None and row.price is not None}
    right = []
    for number in {number for number, _ in rows}:
        if all((number, agent) in rows for agent in AGENTS):
            a, b = (rows[number, agent] for agent in AGENTS)
            a_leads = b.loss_before < a.loss_before  # each row's losses are its buyer's: of B's parameters, A
            right.append(((amount(a) or 0) > (amount(b) or 0)) == a_leads)
    return 100.0 * statistics.fmean(right) if right else math.nan


def over(runs: Sequence[RunResult], measure: Callable[[Offers], float]) -> list[float]:
    """A measure of each run."""
    return [measure(offers_of(one)) for one in runs]


def gaps_with(runs: Sequence[RunResult], kind: str, value: str) -> list[float]:
    """Each run's gap, had its sellers asked by another estimate."""
    return [gap([one for agent in AGENTS for one in offers_by(run, agent, kind, value)]) for run in runs]
