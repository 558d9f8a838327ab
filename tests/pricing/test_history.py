"""What is learned from past trades follows the market, and no buyer has a hand in its own price."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.bargaining import MILLION, strike
from p2pmarket.pricing.history import (
    ENOUGH,
    K_ANONYMOUS,
    LEVELS_PPM,
    Observation,
    PastBid,
    PriceStatistics,
    implied_bid,
    likely_values,
    reserve_from,
    reserve_from_statistics,
    statistics_from,
)

DAY = 86_400_000
amounts = st.integers(0, MAX_AMOUNT)


def uniform(count: int, low: int, high: int, *, seed: int = 0, at_ms: int = 0, buyers: int = 20) -> list[Observation]:
    drawn = random.Random(seed)
    return [Observation(drawn.randint(low, high), f"buyer {drawn.randrange(buyers)}", at_ms) for _ in range(count)]


def posted(ask: int, buyer: str, *, bought: bool) -> Observation:
    return Observation(ask, buyer, 0, MAX_AMOUNT) if bought else Observation.unsold(ask, buyer, 0)


# ---- the bid behind a price ---------------------------------------------------------------------------------------


@given(amounts, amounts, st.integers(0, MILLION))
def test_implied_bid_holds_the_bid_and_both_ends_make_the_price(one: int, other: int, k_ppm: int) -> None:
    ask, bid = sorted((one, other))

    def price_of(some: int) -> int:
        struck = strike(some, ask, 0, k_ppm)
        assert struck is not None
        return struck.price

    price = price_of(bid)
    low, high = implied_bid(price, ask, k_ppm)
    assert ask <= low <= bid <= high
    assert price_of(low) == price_of(high) == price
    assert low == ask or price_of(low - 1) < price
    assert high == MAX_AMOUNT or price_of(high + 1) > price


def test_implied_bid_at_the_midpoint_is_two_amounts_and_at_k_1_one() -> None:
    assert implied_bid(7, 5, 500_000) == (9, 10)
    assert implied_bid(7, 5, MILLION) == (7, 7)
    assert implied_bid(5, 5, 0) == (5, MAX_AMOUNT)


@pytest.mark.parametrize("price, ask, k_ppm", [(4, 5, MILLION), (4, 5, 0), (4, 5, 1), (6, 5, 0)])
def test_a_price_that_no_bid_makes_is_refused(price: int, ask: int, k_ppm: int) -> None:
    with pytest.raises(ValueError, match="no bid"):
        implied_bid(price, ask, k_ppm)


# ---- the learned reserve ------------------------------------------------------------------------------------------


def test_warm_up_is_the_reserve_of_the_interval_until_there_is_enough() -> None:
    few = uniform(int(ENOUGH) - 1, 90, 100)
    assert reserve_from([], 0, low=10, high=60) == 30
    assert reserve_from(few, 0, low=40, high=60) == 40
    assert reserve_from(few, 0, low=10, high=60, cost=30) == 45
    assert reserve_from(few, 0, low=10, high=60, cost=90) == 90
    assert reserve_from([*few, few[0]], 0, low=10, high=60) >= 90


@settings(max_examples=60)
@given(st.lists(st.tuples(amounts, st.none() | amounts), max_size=30), st.integers(0, 40))
def test_a_buyer_cannot_move_its_own_price(bids: list[tuple[int, int | None]], others: int) -> None:
    market = uniform(others, 100, 200)
    own = [
        Observation(min(bid, bid if most is None else most), "own", 0, most and max(bid, most)) for bid, most in bids
    ]

    def ask(history: list[Observation]) -> int:
        return reserve_from(history, 0, low=0, high=100, excluding="own")

    assert ask([*own, *market]) == ask(market)


def test_without_the_exclusion_a_buyer_does_move_its_price() -> None:
    market = uniform(40, 100, 200, buyers=5)
    own = [Observation(500, "own", 0)] * 40
    asks = [reserve_from(seen, 0, low=0, high=100, excluding="another") for seen in ([*own, *market], market)]
    assert asks[0] != asks[1]


def test_low_bids_in_great_numbers_are_not_the_market() -> None:
    """An accomplice with one name has no more say than two buyers; with as many names as the market it has."""
    market = uniform(400, 100, 200)
    flood = [Observation(60, "accomplice", 0)] * 4_000
    names = [Observation(60, f"accomplice {index % 40}", 0) for index in range(4_000)]

    def ask(history: list[Observation]) -> int:
        return reserve_from(history, 0, low=0, high=100, excluding="own")

    assert ask([*market, *flood]) >= ask(market) >= 100
    assert ask([*market, *names]) == 60
    few = [*(Observation(150, name, 0) for name in "abcd"), *flood]
    assert ask(few) == 50  # nor does it end the warm-up


@given(st.dictionaries(st.text(max_size=2), st.integers(1, 500), min_size=12, max_size=30))
def test_one_buyer_has_no_more_say_than_two_however_often_all_bid(times: dict[str, int]) -> None:
    """With a share of more than 2/5 the loudest bid of 1000 would be the price; with its numbers it often has more."""
    loudest = max(times, key=lambda name: times[name])
    seen = [
        Observation(1_000 if buyer == loudest else 400, buyer, 0)
        for buyer, count in times.items()
        for _ in range(count)
    ]
    assert reserve_from(seen, 0, low=0, high=1_000) == 400  # 2/12 of 1000 is below 400


def test_discounting_follows_a_drift_and_no_discounting_does_not() -> None:
    old = uniform(400, 1_000, 2_000, seed=1, at_ms=0)
    new = uniform(60, 100, 200, seed=2, at_ms=30 * DAY)
    now = 31 * DAY
    forgetful = reserve_from([*old, *new], now, low=0, high=10, half_life_ms=3 * DAY)
    stubborn = reserve_from([*old, *new], now, low=0, high=10)
    assert 95 <= forgetful <= 130 and stubborn >= 1_000


def test_what_is_long_ago_is_not_enough() -> None:
    old = uniform(1_000, 1_000, 2_000)
    assert reserve_from(old, 1000 * DAY, low=0, high=10, half_life_ms=DAY) == 5
    assert reserve_from(old, 10_000 * DAY, low=0, high=10, half_life_ms=1) == 5  # weights below any float
    assert reserve_from(old, -DAY, low=0, high=10, half_life_ms=DAY) >= 1_000  # a clock that is behind


def test_a_few_wild_values_do_not_move_the_price() -> None:
    market = uniform(100, 100_000, 200_000)
    wild = [Observation(MAX_AMOUNT, f"wild {index}", 0) for index in range(3)]
    sane, shaken = (reserve_from(history, 0, low=0, high=10) for history in (market, [*market, *wild]))
    assert abs(shaken - sane) < 0.05 * sane
    loud = [Observation(MAX_AMOUNT, f"wild {index}", 0) for index in range(30)]
    assert reserve_from([*market, *loud], 0, low=0, high=10) == MAX_AMOUNT  # the control: so many are a market


@pytest.mark.parametrize("count, least", [(100, 0.96), (1_000, 0.99), (10_000, 0.997)])
def test_revenue_tends_to_the_oracles(count: int, least: float) -> None:
    earned = [reserve_from(uniform(count, 0, 10**6, seed=seed), 0, low=0, high=1) for seed in range(20)]
    revenue = np.mean([price * (1 - price / 10**6) for price in earned])
    assert revenue >= least * 250_000


def test_bounds_alone_find_the_price() -> None:
    """Posted prices to uniform buyers on 0 ... 1000: only who bought is known."""
    drawn = random.Random(3)
    seen = [
        posted(ask, f"buyer {index}", bought=drawn.randint(0, 1000) >= ask)
        for index, ask in enumerate(drawn.choice((200, 350, 500, 650, 800)) for _ in range(2000))
    ]
    assert reserve_from(seen, 0, low=0, high=10) in (350, 500, 650)


def test_a_seller_that_sells_nothing_goes_down() -> None:
    asks, seen = [1_000_000], []
    for index in range(8):
        seen += [Observation.unsold(asks[-1], f"buyer {index}", 0)] * int(ENOUGH)
        asks.append(reserve_from(seen, 0, low=0, high=2_000_000))
    assert all(after < before for before, after in pairwise(asks)) and asks[-1] < 50_000


def test_refused_asks_weigh_against_what_sold_dear() -> None:
    """Few exact bids above the ask, most refused: with the refusals left out, the price is too high."""
    drawn = random.Random(4)
    bids = [drawn.randint(0, 1_000_000) for _ in range(400)]
    asks = [drawn.choice((300_000, 700_000)) for _ in bids]
    seen = [
        Observation.sold(ask + (bid - ask) // 2, ask, 500_000, "b", 0)
        if bid >= ask
        else Observation.unsold(ask, "b", 0)
        for bid, ask in zip(bids, asks, strict=True)
    ]
    sold_only = [one for one in seen if one.value > 0]
    assert 400_000 <= reserve_from(seen, 0, low=0, high=1) <= 600_000 < reserve_from(sold_only, 0, low=0, high=1)


def test_likely_values_are_the_product_limit_by_hand() -> None:
    """Bids 2, 4 and one below 4 (1 ... 3): all of the bound lies on the 2."""
    seen = [Observation(2000, "a", 0), Observation(4000, "b", 0), Observation(0, "c", 0, 3999)]
    likely = likely_values(seen, [1.0, 1.0, 1.0], 3.0)
    assert likely.survival(4000) == pytest.approx(1 / 3, abs=1e-4)
    assert likely.survival(2000) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(
    "wrong", [{"low": 2, "high": 1}, {"low": -1, "high": 1}, {"low": 0, "high": 1, "cost": -1},
              {"low": 0, "high": MAX_AMOUNT + 1}, {"low": 0, "high": 1, "half_life_ms": 0}]
)  # fmt: skip
def test_refuses_amounts_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="amounts|half-life"):
        reserve_from([], 0, **wrong)


@pytest.mark.parametrize("value, at_most", [(-1, None), (5, 4), (0, MAX_AMOUNT + 1), (MAX_AMOUNT + 1, None)])
def test_refuses_observations_that_are_none(value: int, at_most: int | None) -> None:
    with pytest.raises(ValueError, match="interval"):
        Observation(value, "a", 0, at_most)
    with pytest.raises(ValueError, match="interval"):
        Observation.unsold(0, "a", 0)


# ---- statistics ---------------------------------------------------------------------------------------------------


def past(count: int, buyers: int, *, seed: int = 0, low: int = 100_000, high: int = 200_000) -> list[PastBid]:
    drawn = random.Random(seed)
    made = []
    for index in range(count):
        bid = drawn.randint(low, high)
        made.append(PastBid(f"buyer {index % buyers}", bid, bid - 5_000 if bid > (low + high) // 2 else None, index))
    return made


def test_fewer_buyers_than_k_are_told_nothing() -> None:
    assert statistics_from(past(400, K_ANONYMOUS - 1)) is None
    assert statistics_from(past(400, K_ANONYMOUS), excluding="buyer 0") is None
    told = statistics_from(past(400, K_ANONYMOUS))
    assert told is not None and (told.count, told.buyers) == (400, K_ANONYMOUS)
    assert statistics_from([]) is None
    with pytest.raises(ValueError, match="distinct"):
        statistics_from(past(400, 9), distinct=2)


def test_prices_need_as_many_buyers_that_bought() -> None:
    bids = [PastBid(f"buyer {index}", 100, 50 if index < K_ANONYMOUS - 1 else None, 0) for index in range(20)]
    told = statistics_from(bids)
    assert told is not None and told.prices == () and len(told.bids) == len(LEVELS_PPM)


def test_statistics_are_the_quantiles_in_two_digits() -> None:
    told = statistics_from(past(4000, 40))
    assert told is not None
    expected = np.linspace(102_500, 197_500, 21)
    assert np.abs(np.asarray(told.bids) - expected).max() < 0.06 * 150_000
    assert told.prices and min(told.prices) >= 140_000
    assert all(float(f"{amount:.1e}") == amount for amount in told.bids)


def test_who_asks_does_not_count() -> None:
    market = past(300, 30)
    own = [PastBid("own", amount, amount, 0) for amount in (1, 10**12, 10**12)]
    assert statistics_from([*market, *own], excluding="own") == statistics_from(market, excluding="own")
    assert statistics_from([*market, *own]) != statistics_from(market)  # the control


@given(st.integers(1_000_000, MAX_AMOUNT), st.integers(1_000_000, MAX_AMOUNT), st.integers(5, 60))
def test_a_lone_outlier_shows_nowhere(one: int, other: int, buyers: int) -> None:
    """Whatever its size above all others, what is told is the same, so it cannot be read off."""
    market = past(120, buyers, seed=buyers)
    told = [statistics_from([*market, PastBid("outlier", bid, bid, 0)]) for bid in (one, other)]
    assert told[0] == told[1]
    assert told[0] is not None and max(told[0].bids) <= 200_000


@given(st.integers(0, 99_000), st.integers(0, 99_000))
def test_a_lone_low_bid_shows_nowhere(one: int, other: int) -> None:
    market = past(120, 12)
    told = [statistics_from([*market, PastBid("outlier", bid, None, 0)]) for bid in (one, other)]
    assert told[0] == told[1]


def test_one_trade_more_reveals_no_exact_bid() -> None:
    market = past(99, 11)
    bid = 147_381
    before, after = statistics_from(market), statistics_from([*market, PastBid("late", bid, bid, 0)])
    assert before is not None and after is not None
    assert bid not in after.bids + after.prices
    near = [statistics_from([*market, PastBid("late", bid + more, bid + more, 0)]) for more in (-900, 900)]
    assert near[0] == after == near[1]


def test_bidding_often_does_not_move_the_statistics() -> None:
    market = past(300, 30)
    once = statistics_from([*market, PastBid("loud", 50_000, None, 0)])
    often = statistics_from([*market, *[PastBid("loud", 50_000, None, 0)] * 5_000])
    assert once is not None and often is not None and once.bids == often.bids


def test_reserve_from_statistics_is_near_the_one_from_bids() -> None:
    told = statistics_from(past(2_000, 50, low=0, high=1_000_000))
    assert told is not None
    assert 420_000 <= reserve_from_statistics(told) <= 580_000
    assert 620_000 <= reserve_from_statistics(told, 500_000) <= 850_000
    assert reserve_from_statistics(told, 5_000_000) == 5_000_000
    with pytest.raises(ValueError, match="cost"):
        reserve_from_statistics(told, -1)


@given(st.lists(st.tuples(st.integers(0, 30), amounts), min_size=1, max_size=80))
def test_statistics_always_rise_and_give_a_reserve(pairs: list[tuple[int, int]]) -> None:
    told = statistics_from(PastBid(f"{buyer}", bid, bid, 0) for buyer, bid in pairs)
    assume(told is not None)
    assert told is not None and list(told.bids) == sorted(told.bids)
    assert 0 <= reserve_from_statistics(told) <= MAX_AMOUNT


def test_statistics_that_cannot_be_are_refused() -> None:
    grid = tuple(range(21))
    for made in ((0, 0, grid, ()), (1, 2, grid, ()), (5, 5, grid[:20], ()), (5, 5, grid[::-1], ()), (5, 5, grid, (1,))):
        with pytest.raises(ValueError, match="buyers|quantiles"):
            PriceStatistics(*made)
    assert PriceStatistics(5, 5, grid, grid).bids == grid
