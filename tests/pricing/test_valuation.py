"""A buyer pays for gain it was shown, and never more than it has; a seller asks for what the sale costs it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.valuation import seller_cost, value_of_gain

gains = st.floats(-100, 100, allow_nan=False)
weights = st.integers(0, 10**12)
budgets = st.integers(0, MAX_AMOUNT)


@given(gains, gains, weights, budgets)
def test_value_is_an_amount_within_the_budget(one: float, other: float, per_unit: int, budget: int) -> None:
    low, gain = sorted((one, other))
    value = value_of_gain(gain, low, per_unit=per_unit, budget=budget)
    careful = value_of_gain(gain, low, per_unit=per_unit, budget=budget, cautious=True)
    assert type(value) is int and 0 <= careful <= value <= budget


@given(gains, gains, weights)
def test_value_rises_with_the_gain(one: float, other: float, per_unit: int) -> None:
    low, high = sorted((one, other))
    values = [value_of_gain(gain, gain, per_unit=per_unit, budget=MAX_AMOUNT) for gain in (low, high)]
    assert values[0] <= values[1]


def test_no_gain_is_worth_nothing() -> None:
    for gain in (0.0, -0.0, -1e-9, -5.0):
        assert value_of_gain(gain, gain, per_unit=10**9, budget=10**9) == 0


def test_known_values() -> None:
    assert value_of_gain(0.25, 0.125, per_unit=1_000_000, budget=10**9) == 250_000
    assert value_of_gain(0.25, 0.125, per_unit=1_000_000, budget=10**9, cautious=True) == 125_000
    assert value_of_gain(0.25, 0.125, per_unit=1_000_000, budget=7) == 7
    assert value_of_gain(0.25, -0.5, per_unit=1_000_000, budget=10**9, cautious=True) == 0
    assert value_of_gain(0.1, 0.1, per_unit=30, budget=10**9) == 3
    assert value_of_gain(0.3, 0.3, per_unit=10, budget=10**9) == 2, "0.3 is a little below three tenths: rounded down"


@pytest.mark.parametrize("gain, low", [(math.nan, 0.0), (math.inf, 0.0), (1.0, -math.inf), (1.0, math.nan), (1.0, 2.0)])
def test_refuses_gains_that_are_no_interval(gain: float, low: float) -> None:
    with pytest.raises(ValueError, match=r"gain"):
        value_of_gain(gain, low, per_unit=1, budget=1)


@pytest.mark.parametrize("per_unit, budget", [(-1, 1), (1, -1), (1, MAX_AMOUNT + 1)])
def test_refuses_negative_money(per_unit: int, budget: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        value_of_gain(1.0, 1.0, per_unit=per_unit, budget=budget)


@pytest.mark.parametrize(("before", "after"), [(0.7, 0.7), (0.7, 0.9), (1e-6, 1e-6), (50.0, 1e3)])
def test_a_ratio_pays_for_nothing_and_this_does_not(before: float, after: float) -> None:
    """Equation 3 as a value: 1 for a purchase that changes nothing, and above 0 for one that harms."""
    ratio = before / after
    assert round(ratio * 1_000_000) > 0
    assert value_of_gain(before - after, before - after, per_unit=1_000_000, budget=10**9) == 0


shares = st.floats(0, 1, allow_nan=False)


@given(gains, shares, weights)
def test_cost_is_an_amount_rounded_up(gain: float, overlap: float, per_unit: int) -> None:
    cost = seller_cost(gain, overlap=overlap, per_unit=per_unit)
    exact = Fraction(overlap) * per_unit * max(Fraction(0), Fraction(gain))
    assert type(cost) is int and 0 <= cost <= MAX_AMOUNT
    assert 0 <= cost - exact < 1 or cost == MAX_AMOUNT < exact


@given(gains, gains, shares, shares, weights)
def test_cost_rises_with_gain_and_overlap(one: float, other: float, share: float, more: float, per_unit: int) -> None:
    (low, high), (little, much) = sorted((one, other)), sorted((share, more))
    costs = [seller_cost(gain, overlap=part, per_unit=per_unit) for gain, part in ((low, little), (high, much))]
    assert costs[0] <= costs[1]


def test_known_costs() -> None:
    assert seller_cost(0.25, overlap=0.5, per_unit=1_000_000) == 125_000
    assert seller_cost(0.25, overlap=0.0, per_unit=10**12) == 0, "a copy that hurts nobody"
    assert seller_cost(-0.25, overlap=1.0, per_unit=10**12) == 0, "a buyer that gets worse is no rival"
    assert seller_cost(1e-9, overlap=1.0, per_unit=1) == 1
    assert seller_cost(1e300, overlap=1.0, per_unit=10**12) == MAX_AMOUNT


def test_full_rivals_do_not_trade() -> None:
    """A seller that loses as much as its buyer gains asks at least what the buyer bids at most."""
    for gain in (0.1, 0.25, 3.0):
        bid = value_of_gain(gain, gain, per_unit=1_000_000, budget=10**9)
        assert seller_cost(gain, overlap=1.0, per_unit=1_000_000) >= bid


@pytest.mark.parametrize(
    ("gain", "overlap", "per_unit"), [(math.nan, 0.5, 1), (math.inf, 0.5, 1), (1.0, 1.1, 1), (1.0, -0.1, 1), (1, 1, -1)]
)
def test_refuses_costs_that_are_none(gain: float, overlap: float, per_unit: int) -> None:
    with pytest.raises(ValueError, match="finite|share|negative"):
        seller_cost(gain, overlap=overlap, per_unit=per_unit)
