"""A buyer pays for gain it was shown, and never more than it has."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.valuation import value_of_gain

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
