"""A reserve learned from past trades, and the statistics of past trades that a broker may tell.

Knows: what earlier buyers were ready to pay, exactly or within bounds, who they were and when. Refuses to know: why
they were, which family of beliefs fits (there is none), and the time, which is passed in. Money is micro-credits.
Fails with ValueError on amounts that are none and bounds the wrong way round.

A buyer's own history never sets its own price: whatever it bid, the price it meets later is the same, so bidding less
now to pay less later gains nothing. That holds for one buyer. Many names that act together can lower each other's price
by low bids, which cost nothing while they lose; nothing here sees through that. And what is learned is the price that
suits bids: where buyers shade (the midpoint rule invites them to), bids are below values.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.amounts import check_amount, check_whole, is_finite
from p2pmarket.pricing.bargaining import MILLION, check_millionths
from p2pmarket.pricing.empirical import Empirical

ENOUGH = 10.0
"""Observations, discounted, from which they count more than the bound's interval."""
K_ANONYMOUS = 5
"""Distinct buyers without whom no statistics are told."""
LEVELS_PPM = tuple(25_000 + 47_500 * step for step in range(21))
"""The quantiles that are told, from 2.5 % to 97.5 %, in millionths."""
_EXACT = 1000
"""A bound that is no wider than this part of the value counts as the value."""
_UNSEEN_POINTS = 16
"""Prices below all that were seen, among which what is known to lie there is spread evenly."""
_MOST_ROUNDS = 2000
_BETWEEN = 10
"""Values put between two quantiles."""


@dataclasses.dataclass(frozen=True)
class Observation:
    """`buyer` was ready to pay `value` at `at_ms`; or, with `at_most`, something from `value` to `at_most`."""

    value: int
    buyer: str
    at_ms: int
    at_most: int | None = None

    def __post_init__(self) -> None:
        highest = self.value if self.at_most is None else self.at_most
        check_whole("an observed value", self.value)
        check_whole("the upper end of an observed value", highest)
        if not is_finite(self.at_ms):
            raise ValueError(f"an observation at {self.at_ms} ms is at no time")
        if not 0 <= self.value <= highest <= MAX_AMOUNT:
            raise ValueError(f"{self.value} ... {highest} micro-credits is no interval in 0 ... {MAX_AMOUNT}")

    @classmethod
    def sold(cls, price: int, ask: int, k_ppm: int, buyer: str, at_ms: int) -> Observation:
        """What a seller learns from the price of its sale: see `implied_bid`."""
        low, high = implied_bid(price, ask, k_ppm)
        return cls(low, buyer, at_ms, high)

    @classmethod
    def unsold(cls, ask: int, buyer: str, at_ms: int) -> Observation:
        """The buyer was offered it for `ask` and did not buy. (Nobody refuses a price of 0: ValueError.)"""
        check_amount("ask", ask)
        return cls(0, buyer, at_ms, ask - 1)

    @property
    def is_exact(self) -> bool:
        """The bounds are so close that they are one value."""
        return self.at_most is None or (self.at_most - self.value) * _EXACT <= self.value


def implied_bid(price: int, ask: int, k_ppm: int) -> tuple[int, int]:
    """Lowest and highest bid that make this price: ask + k (bid - ask), rounded down, with k in millionths.

    With k = 0 (a posted price) any bid from the ask on. At the midpoint two bids, with k = 1 one.

    :raises ValueError: no amounts, a k that is no int in 0 ... 1,000,000, or a price that no bid makes
    """
    check_amount("price", price)
    check_amount("ask", ask)
    check_millionths("k", k_ppm)
    if k_ppm == 0:
        low, high = ask, MAX_AMOUNT if price == ask else -1
    else:
        low = ask - (ask - price) * MILLION // k_ppm  # rounds up
        high = min(MAX_AMOUNT, ask + ((price - ask + 1) * MILLION - 1) // k_ppm)
    if price < ask or not low <= high:
        raise ValueError(f"no bid makes a price of {price} with an ask of {ask} and k of {k_ppm} millionths")
    return low, high


def reserve_from(
    observations: Iterable[Observation],
    now_ms: int,
    *,
    low: int,
    high: int,
    cost: int = 0,
    half_life_ms: int | None = None,
    excluding: str | None = None,
) -> int:
    """The ask of a seller to whom the copy costs `cost`, from what others were ready to pay before.

    Until there is ENOUGH, the reserve of a value that may lie anywhere in `low` ... `high` (the bound of the appraisal,
    section 4 of the paper): max(low, (high + cost) / 2). From then on `Empirical.reserve`, which is told that old
    observations are worth less: half after `half_life_ms`, a quarter after two. Nothing of the buyer `excluding`, to
    whom the ask is made, is looked at; and no buyer counts more than two that bid as often as the mean, so that low
    bids in great numbers, which cost nothing, are not the market. Bounds: see `likely_values`.

    :raises ValueError: an interval the wrong way round, a cost that is no amount, a time that is not finite, a
        half-life that is not positive and finite
    """
    for name, amount in (("low end", low), ("high end", high), ("cost", cost)):
        check_whole(name, amount)
    if not (0 <= low <= high <= MAX_AMOUNT and 0 <= cost <= MAX_AMOUNT):
        raise ValueError(f"a value in {low} ... {high} with a cost of {cost}: these are no amounts, low before high")
    if not is_finite(now_ms):
        raise ValueError(f"a clock that says {now_ms} ms tells no time")
    if half_life_ms is not None and not (is_finite(half_life_ms) and half_life_ms > 0):
        raise ValueError(f"a half-life of {half_life_ms} ms is not positive and finite")
    used = [seen for seen in observations if seen.buyer != excluding]
    ages = [max(0.0, float(now_ms) - seen.at_ms) for seen in used]
    weights = [1.0 if half_life_ms is None else 2.0 ** -(age / half_life_ms) for age in ages]
    weights = _levelled(weights, [seen.buyer for seen in used])
    total = math.fsum(weights)
    if total >= ENOUGH:
        size = total**2 / math.fsum(weight**2 for weight in weights)
        if size >= ENOUGH:
            return max(cost, round(likely_values(used, weights, size).reserve(cost)))
    return max(low, (high + cost) // 2, cost)


def _levelled(weights: list[float], buyers: list[str]) -> list[float]:
    """The weights, made less for a buyer that would count more than twice the mean of all buyers (with that one)."""
    sums: dict[str, float] = {}
    for buyer, weight in zip(buyers, weights, strict=True):
        sums[buyer] = sums.get(buyer, 0.0) + weight
    most, falling = 0.0, sorted(sums.values(), reverse=True)
    for above in range((len(falling) + 1) // 2):  # buyers that are cut down to `most`
        most = 2 * math.fsum(falling[above:]) / (len(falling) - 2 * above)
        if most >= falling[above]:
            break
    return [
        weight * min(1.0, most / sums[buyer]) if weight else 0.0 for buyer, weight in zip(buyers, weights, strict=True)
    ]


def likely_values(observations: list[Observation], weights: list[float], size: float) -> Empirical:
    """The values that make all observations, also those that are bounds, most likely: nothing else is assumed.

    The self-consistent estimate (Turnbull 1976): a bound's weight is spread over the values inside it in proportion to
    what all others put there, again and again until nothing moves. Values stand where intervals begin. Below the
    lowest of them, where a refused ask says that values are and nothing says where, they are spread evenly: so a
    seller that nobody buys from goes down, and one that never asked less learns that it could.
    """
    if all(seen.is_exact for seen in observations):
        return Empirical([seen.value for seen in observations], weights, size=size)
    starts = {seen.value for seen in observations if seen.value > 0 or seen.is_exact}
    ends = {_highest(seen) + 1 for seen in observations if not seen.is_exact}
    lowest = min((starts | ends) - {0})
    unseen = {lowest * step / _UNSEEN_POINTS for step in range(_UNSEEN_POINTS)}
    points = np.asarray(sorted(starts | unseen), dtype=np.float64)
    first = np.searchsorted(points, [seen.value for seen in observations], side="left")
    last = np.searchsorted(points, [_highest(seen) for seen in observations], side="right")
    share = np.full(len(points), 1 / len(points))
    weighed = np.asarray(weights) / math.fsum(weights)
    for _ in range(_MOST_ROUNDS):
        before = np.concatenate(([0.0], np.cumsum(share)))
        pull = weighed / np.maximum(before[last] - before[first], 1e-300)
        change = np.bincount(first, pull, len(points) + 1) - np.bincount(last, pull, len(points) + 1)
        moved = share * np.maximum(0.0, np.cumsum(change)[:-1])
        moved /= moved.sum()
        if np.abs(moved - share).sum() < 1e-6:
            break
        share = moved
    return Empirical(points.tolist(), share.tolist(), size=size)


def _highest(seen: Observation) -> int:
    return seen.value if seen.is_exact or seen.at_most is None else seen.at_most


# ---- what a broker may tell ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PastBid:
    """What a broker knows of one bid: its `price` is None where nothing was sold."""

    buyer: str
    bid: int
    price: int | None
    at_ms: int

    def __post_init__(self) -> None:
        check_amount("bid", self.bid)
        if self.price is not None:
            check_amount("price", self.price)


@dataclasses.dataclass(frozen=True)
class PriceStatistics:
    """How many bids of how many buyers, and the quantiles of bids and of prices at LEVELS_PPM, rising.

    `prices` is empty where fewer than K_ANONYMOUS buyers bought.
    """

    count: int
    buyers: int
    bids: tuple[int, ...]
    prices: tuple[int, ...]

    def __post_init__(self) -> None:
        check_whole("a count", self.count, "bids")
        check_whole("a count", self.buyers, "buyers")
        if not 1 <= self.buyers <= self.count:
            raise ValueError(f"{self.count} bids of {self.buyers} buyers are not possible")
        for grid in (self.bids, self.prices):
            for amount in grid:
                check_amount("a quantile", amount)
            if list(grid) != sorted(grid):
                raise ValueError("the quantiles do not rise")
        if len(self.bids) != len(LEVELS_PPM) or len(self.prices) not in (0, len(LEVELS_PPM)):
            raise ValueError(f"statistics have {len(LEVELS_PPM)} quantiles")


def statistics_from(
    past: Iterable[PastBid], *, excluding: str | None = None, distinct: int = K_ANONYMOUS
) -> PriceStatistics | None:
    """Statistics of the bids of all but `excluding` (who asks, and knows its own); None below `distinct` buyers.

    Against reading off one buyer's bid: every buyer counts alike however often it bids, so that none is most of a
    quantile; amounts are moved to the second highest of the buyers' highest and the second lowest of their lowest
    (winsorised), so that a lone outlier shows nowhere; and what is told has two significant digits. Against whoever
    compares two tellings around one trade it leaves the count, and that a quantile moved a step; it is not
    differential privacy.

    :raises ValueError: `distinct` below 3
    """
    check_whole("a number of distinct buyers", distinct, "buyers")
    if distinct < 3:
        raise ValueError("statistics of fewer than 3 distinct buyers would be somebody's bids")
    others = [one for one in past if one.buyer != excluding]
    buyers = len({one.buyer for one in others})
    bids = _quantiles([(one.buyer, one.bid) for one in others], distinct)
    prices = _quantiles([(one.buyer, one.price) for one in others if one.price is not None], distinct)
    return None if bids is None else PriceStatistics(len(others), buyers, bids, prices or ())


def _quantiles(amounts: list[tuple[str, int]], distinct: int) -> tuple[int, ...] | None:
    times = Counter(buyer for buyer, _ in amounts)
    if len(times) < distinct:
        return None
    rising = sorted(amounts, key=lambda pair: pair[1])
    top = sorted(dict(rising).values())[-2]  # the last of a buyer's amounts is its highest
    bottom = sorted(dict(reversed(rising)).values())[1]
    below = np.cumsum([1 / times[buyer] for buyer, _ in rising]) / len(times)
    at = np.searchsorted(below, np.asarray(LEVELS_PPM) / MILLION - 1e-9)
    return tuple(_two_digits(min(top, max(bottom, rising[index][1]))) for index in at)


def _two_digits(amount: int) -> int:
    """The nearest amount with two significant digits, halves up: 1,234,567 -> 1,200,000."""
    unit = 1
    while amount >= 100 * unit:
        unit *= 10
    return min((2 * amount + unit) // (2 * unit) * unit, MAX_AMOUNT)


def reserve_from_statistics(statistics: PriceStatistics, cost: int = 0) -> int:
    """The ask of a seller that knows only what the broker tells: `Empirical.reserve` of the bids' quantiles.

    Between two quantiles the logarithms of values are taken to be evenly spread (the values, where they begin at 0);
    beyond the last nothing is known, and nothing asked.

    :raises ValueError: a cost that is no amount
    """
    check_amount("a cost", cost)
    values = [float(statistics.bids[0])]
    for low, high in itertools.pairwise(statistics.bids):
        for step in range(1, _BETWEEN + 1):
            part = step / _BETWEEN
            values.append(low ** (1 - part) * high**part if low else part * high)
    return max(cost, round(Empirical(values, size=float(statistics.count)).reserve(float(cost))))
