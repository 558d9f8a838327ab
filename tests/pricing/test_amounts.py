"""Money is whole numbers, and what is no number is refused in a sentence: in every function that takes either."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.amounts import check_amount, check_whole, is_finite
from p2pmarket.pricing.bargaining import MILLION, Exchange, Price, Values, bargain, first_overlap, nash_product, strike
from p2pmarket.pricing.history import (
    LEVELS_PPM,
    Observation,
    PastBid,
    PriceStatistics,
    implied_bid,
    reserve_from,
    reserve_from_statistics,
    statistics_from,
)
from p2pmarket.pricing.sharing import (
    clone_groups,
    greedy_basket,
    random_sampling_prices,
    shapley,
    shapley_of_groups,
    shares,
    similarity_discount,
)
from p2pmarket.pricing.valuation import seller_cost, value_of_gain

QUANTILES = tuple(range(3, 3 + len(LEVELS_PPM)))
TOLD = PriceStatistics(9, 5, QUANTILES, QUANTILES)
ONE = Values(1, 2)

MONEY: dict[str, Callable[[Any], object]] = {
    "strike, bid": lambda amount: strike(amount, 0, 0),
    "strike, ask": lambda amount: strike(9, amount, 0),
    "strike, fee": lambda amount: strike(9, 5, amount),
    "strike, k": lambda amount: strike(9, 5, 0, amount),
    "Values, own": lambda amount: Values(amount, 2),
    "Values, other": lambda amount: Values(2, amount),
    "bargain, fee": lambda amount: bargain(ONE, ONE, amount),
    "nash_product, a": lambda amount: nash_product(Values(0, 9), Values(0, 9), Exchange(Price(amount, 0), None)),
    "nash_product, b": lambda amount: nash_product(Values(0, 9), Values(0, 9), Exchange(None, Price(amount, 0))),
    "first_overlap, bid": lambda amount: first_overlap([amount], [3]),
    "first_overlap, ask": lambda amount: first_overlap([3], [amount]),
    "value_of_gain, per unit": lambda amount: value_of_gain(1.0, 1.0, per_unit=amount, budget=9),
    "value_of_gain, budget": lambda amount: value_of_gain(1.0, 1.0, per_unit=9, budget=amount),
    "seller_cost, per unit": lambda amount: seller_cost(1.0, overlap=1.0, per_unit=amount),
    "Observation, value": lambda amount: Observation(amount, "b", 0),
    "Observation, interval": lambda amount: Observation(amount, "b", 0, 9),
    "Observation, at most": lambda amount: Observation(0, "b", 0, amount),
    "Observation.unsold": lambda amount: Observation.unsold(amount, "b", 0),
    "Observation.sold, price": lambda amount: Observation.sold(amount, 0, MILLION, "b", 0),
    "Observation.sold, ask": lambda amount: Observation.sold(9, amount, MILLION, "b", 0),
    "implied_bid, price": lambda amount: implied_bid(amount, 0, MILLION),
    "implied_bid, ask": lambda amount: implied_bid(9, amount, MILLION),
    "implied_bid, k": lambda amount: implied_bid(9, 9, amount),
    "reserve_from, low": lambda amount: reserve_from([], 0, low=amount, high=9),
    "reserve_from, high": lambda amount: reserve_from([], 0, low=0, high=amount),
    "reserve_from, cost": lambda amount: reserve_from([], 0, low=0, high=9, cost=amount),
    "PastBid, bid": lambda amount: PastBid("b", amount, None, 0),
    "PastBid, price": lambda amount: PastBid("b", 9, amount, 0),
    "PriceStatistics, bids": lambda amount: PriceStatistics(9, 5, (amount, *QUANTILES[1:]), ()),
    "PriceStatistics, prices": lambda amount: PriceStatistics(9, 5, QUANTILES, (amount, *QUANTILES[1:])),
    "PriceStatistics, count": lambda count: PriceStatistics(count, 1, QUANTILES, ()),
    "PriceStatistics, buyers": lambda count: PriceStatistics(9, count, QUANTILES, ()),
    "statistics_from, distinct": lambda count: statistics_from([], distinct=count),
    "reserve_from_statistics": lambda amount: reserve_from_statistics(TOLD, amount),
    "greedy_basket, price": lambda amount: greedy_basket(len, {"s": amount}, budget=9),
    "greedy_basket, budget": lambda amount: greedy_basket(len, {"s": 1}, budget=amount),
    "greedy_basket, worth": lambda amount: greedy_basket(lambda members: amount, {"s": 1}, budget=9),
    "shares": lambda amount: shares(amount, {"s": 1.0}),
    "random_sampling_prices, bid": lambda amount: random_sampling_prices({"b": amount}, random.Random(0)),
    "random_sampling_prices, cost": lambda amount: random_sampling_prices({"b": 9}, random.Random(0), cost=amount),
}
every_amount = pytest.mark.parametrize("taker", MONEY)
NO_WHOLE_NUMBERS: tuple[Any, ...] = (
    0.5, 1.0, 5.5, math.nan, math.inf, -math.inf, Fraction(1), np.float64(1), np.int64(1), "1",
)  # fmt: skip


@every_amount
def test_money_is_whole_numbers(taker: str) -> None:
    MONEY[taker](3)  # the control: the same call with a whole number
    for amount in NO_WHOLE_NUMBERS:
        with pytest.raises(ValueError, match=r"is not a whole number of \S+, an int$"):
            MONEY[taker](amount)


@every_amount
def test_true_is_no_money(taker: str) -> None:
    with pytest.raises(ValueError, match="True is not a whole number of"):
        MONEY[taker](True)


@pytest.mark.parametrize("arguments", [(8.0, 5, 0), (8, 5.5, 0), (9, 5, 20000.5), (8, 9.5, 0)])
def test_a_float_is_refused_whether_or_not_there_would_be_a_deal(arguments: Any) -> None:
    with pytest.raises(ValueError, match="whole number"):
        strike(*arguments)


@every_amount
def test_an_amount_has_two_ends(taker: str) -> None:
    if taker == "greedy_basket, worth":
        return  # a set of parcels may harm
    with pytest.raises(ValueError):
        MONEY[taker](-1)


def test_the_check_says_which_amount_and_why() -> None:
    for amount in (0, 1, MAX_AMOUNT):
        check_amount("ask", amount)
    with pytest.raises(ValueError, match=r"^ask of 5\.5 is not a whole number of micro-credits, an int$"):
        check_amount("ask", 5.5)  # type: ignore[arg-type]
    for amount in (-1, MAX_AMOUNT + 1):
        with pytest.raises(ValueError, match=rf"^ask of {amount} micro-credits is outside 0 \.\.\. {MAX_AMOUNT}$"):
            check_amount("ask", amount)
    check_whole("bids", -7)


def test_what_a_float_holds_is_finite() -> None:
    assert all(map(is_finite, (0, -1.5, 1.7e308, -(2**1023), np.float32(1), Fraction(1, 3))))
    assert not any(map(is_finite, (math.nan, math.inf, -math.inf, 2**1024, -(10**400))))


NO_NUMBERS = (math.nan, math.inf, -math.inf)
SEEN = [Observation(5, f"buyer {index}", 0) for index in range(20)]
PLAYERS = [str(index) for index in range(9)]

NUMBERS: dict[str, Callable[[Any], object]] = {
    "value_of_gain, gain": lambda number: value_of_gain(number, 0.0, per_unit=1, budget=1),
    "value_of_gain, low": lambda number: value_of_gain(1.0, number, per_unit=1, budget=1),
    "seller_cost, gain": lambda number: seller_cost(number, overlap=0.5, per_unit=1),
    "seller_cost, overlap": lambda number: seller_cost(1.0, overlap=number, per_unit=1),
    "Observation, time": lambda number: Observation(1, "b", number),
    "reserve_from, now": lambda number: reserve_from(SEEN, number, low=0, high=9, half_life_ms=1),
    "reserve_from, now, nothing forgotten": lambda number: reserve_from([], number, low=0, high=9),
    "reserve_from, half-life": lambda number: reserve_from(SEEN, 1, low=0, high=9, half_life_ms=number),
    "shapley": lambda number: shapley(lambda members: number if "b" in members else 0.0, "abc"),
    "shapley, sampled": lambda number: shapley(lambda members: number, PLAYERS, random=random.Random(0), samples=2),
    "shapley_of_groups": lambda number: shapley_of_groups(lambda members: number, [frozenset("ab"), frozenset("c")]),
    "clone_groups, similarity": lambda number: clone_groups("ab", lambda one, other: number),
    "clone_groups, threshold": lambda number: clone_groups("ab", lambda one, other: 1.0, threshold=number),
    "similarity_discount, value": lambda number: similarity_discount({"a": number}, lambda one, other: 1.0),
    "similarity_discount, similarity": lambda number: similarity_discount({"a": 1, "b": 1}, lambda one, other: number),
    "similarity_discount, strength": lambda number: similarity_discount({}, lambda one, other: 1.0, strength=number),
    "shares, weight": lambda number: shares(5, {"a": number, "b": 1.0}),
}


@pytest.mark.parametrize("taker", NUMBERS)
def test_what_is_no_number_is_refused_in_a_sentence(taker: str) -> None:
    NUMBERS[taker](1)  # the control
    for number in (*NO_NUMBERS, 10**400):
        with pytest.raises(ValueError, match="finite|time|share|gain"):
            NUMBERS[taker](number)


def test_a_gain_or_time_far_away_is_still_a_number() -> None:
    assert value_of_gain(1e308, -1e308, per_unit=10**12, budget=7) == 7
    assert reserve_from(SEEN, 10**308, low=0, high=9, half_life_ms=1) == 4, "so old that nothing is left of it"
    assert reserve_from([Observation(5, "b", -(10**308))], 10**308, low=0, high=9, half_life_ms=1) == 4
