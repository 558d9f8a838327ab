"""A reserve from observed values earns nearly the best, and neither luck nor a few wild values move it far."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.pricing.empirical import CAUTION, Empirical

values = st.lists(st.floats(0, 1e9), min_size=1, max_size=60)


def lognormal(count: int, sigma: float, seed: int) -> list[float]:
    return list(np.random.default_rng(seed).lognormal(0, sigma, count))


def lognormal_revenue(price: float, sigma: float) -> float:
    return price * 0.5 * math.erfc(math.log(price) / sigma / math.sqrt(2)) if price > 0 else 0.0


def unguarded(observed: list[float]) -> float:
    rising = sorted(observed)
    return max(zip(rising, range(len(rising), 0, -1), strict=True), key=lambda pair: pair[0] * pair[1])[0]


@given(values, st.floats(0, 1e9))
def test_reserve_is_an_observed_value_above_cost_or_the_cost(observed: list[float], cost: float) -> None:
    reserve = Empirical(observed).reserve(cost)
    assert reserve == cost or (reserve > cost and reserve in observed)


@given(values)
def test_reserve_is_the_maximum_of_the_stated_revenue(observed: list[float]) -> None:
    rising, n = sorted(observed), len(observed)

    def revenue(at: int) -> float:
        share = sum(value >= rising[at] for value in rising) / n
        return rising[at] * (share - CAUTION * math.sqrt(share * (1 - share) / n))

    guarded = [at for at in range(n) if at == 0 or (n - at) > math.sqrt(n) / 2]
    best = max(map(revenue, guarded))
    reserve = Empirical(observed).reserve()
    assert revenue(rising.index(reserve)) >= best * (1 - 1e-9)


@given(values, st.randoms(use_true_random=False), st.floats(0.125, 8))
def test_order_does_not_matter_and_unit_scales(observed: list[float], random: object, factor: float) -> None:
    shuffled = list(observed)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert Empirical(shuffled) == Empirical(observed)
    rescaled = Empirical([8 * value for value in observed])
    assert rescaled.reserve() == 8 * Empirical(observed).reserve()


def test_a_weight_of_two_is_the_value_twice() -> None:
    once = Empirical([1, 2, 3, 4], [1, 2, 1, 2], size=6)
    twice = Empirical([1, 2, 2, 3, 4, 4])
    assert once.reserve() == twice.reserve() and twice.size == pytest.approx(6)
    for value in (0.5, 1, 1.5, 2, 2.5, 3, 4, 5):
        assert once.cdf(value) == pytest.approx(twice.cdf(value))
        assert once.survival(value) == pytest.approx(twice.survival(value))
    assert Empirical([1, 2], [3, 1]).size == pytest.approx(1.6)
    assert Empirical([1, 2], [1, 0]).support == (1, 1)


def test_distribution_of_three_values() -> None:
    seen = Empirical([3, 1, 2])
    assert seen.support == (1, 3)
    assert [round(seen.cdf(value), 9) for value in (0, 1, 2.5, 3, 4)] == [0, 0.333333333, 0.666666667, 1, 1]
    assert [round(seen.survival(value), 9) for value in (0, 1, 2.5, 3, 4)] == [1, 1, 0.333333333, 0.333333333, 0]
    assert [seen.quantile(u) for u in (0, 1 / 3, 0.34, 2 / 3, 0.67, 1)] == [1, 1, 2, 2, 3, 3]


@given(values, st.floats(0, 1))
def test_quantile_is_the_lowest_value_with_that_cdf(observed: list[float], probability: float) -> None:
    seen = Empirical(observed)
    value = seen.quantile(probability)
    assert seen.cdf(value) >= probability - 1e-9
    assert all(seen.cdf(other) < probability + 1e-9 for other in observed if other < value)


def test_guard_keeps_wild_values_from_setting_the_price() -> None:
    sane = np.random.default_rng(0).uniform(0.5, 1.5, 97).tolist()
    wild = [*sane, 1e6, 2e6, 3e6]
    assert unguarded(wild) >= 1e6  # the control
    assert abs(Empirical(wild).reserve() - Empirical(sane).reserve()) < 0.05


def test_heavy_tail_earns_most_of_the_best_where_the_unguarded_price_does_not() -> None:
    best = max(lognormal_revenue(price, 2.0) for price in np.geomspace(1, 1000, 2000))
    draws = [lognormal(300, 2.0, seed) for seed in range(60)]
    learned = np.mean([lognormal_revenue(Empirical(drawn).reserve(), 2.0) for drawn in draws])
    control = np.mean([lognormal_revenue(unguarded(drawn), 2.0) for drawn in draws])
    assert learned > 0.9 * best > 0.85 * best > control


@pytest.mark.parametrize("count, least", [(100, 0.94), (1000, 0.985), (10_000, 0.995)])
def test_revenue_tends_to_the_best(count: int, least: float) -> None:
    best = max(lognormal_revenue(price, 1.0) for price in np.geomspace(0.1, 100, 5000))
    earned = np.mean([lognormal_revenue(Empirical(lognormal(count, 1.0, seed)).reserve(), 1.0) for seed in range(40)])
    assert earned >= least * best


def test_a_higher_cost_never_lowers_the_price() -> None:
    seen = Empirical(lognormal(200, 1.0, 7))
    reserves = [seen.reserve(cost) for cost in np.linspace(0, 50, 200).tolist()]
    assert reserves == sorted(reserves) and reserves[0] < reserves[-1]


def test_a_cost_above_what_is_guarded_still_sells_to_who_pays_more() -> None:
    seen = Empirical([1.0] * 30 + [9.0])
    assert seen.reserve(0) == 1 and seen.reserve(5) == 9 and seen.reserve(9) == 9 and seen.reserve(20) == 20


@pytest.mark.parametrize("observed", [[], [-1.0], [math.nan], [math.inf], [1.0, -1e-9]])
def test_refuses_what_is_no_value(observed: list[float]) -> None:
    with pytest.raises(ValueError, match="value"):
        Empirical(observed)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_refuses_what_is_no_weight(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        Empirical([1.0, 2.0], weights)


def test_refuses_what_is_no_cost_size_or_probability() -> None:
    seen = Empirical([1.0])
    for cost in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="cost"):
            seen.reserve(cost)
    for probability in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="probability"):
            seen.quantile(probability)
    for size in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="size"):
            Empirical([1.0], size=size)
