"""Each prior is the distribution it says, and its reserve earns what no price of a fine grid beats.

The judge is not the code: distributions come from scipy.stats, the best price from trying every price of a grid.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.priors import (
    Beta,
    Exponential,
    Lognormal,
    Mixture,
    Pareto,
    Prior,
    TruncatedNormal,
    Uniform,
    to_ask,
)
from p2pmarket.pricing.reserve import MAX_COST, best_price

CASES: dict[str, tuple[Prior, Any]] = {
    "uniform": (Uniform(0, 1), stats.uniform(0, 1)),
    "uniform, low above half of high": (Uniform(3, 5), stats.uniform(3, 2)),
    "exponential": (Exponential(2), stats.expon(0, 0.5)),
    "exponential, shifted": (Exponential(2, 1.5), stats.expon(1.5, 0.5)),
    "normal": (TruncatedNormal(1, 0.3, 0, 2), stats.truncnorm(-10 / 3, 10 / 3, 1, 0.3)),
    "normal, wide": (TruncatedNormal(0.5, 1, 0, 1), stats.truncnorm(-0.5, 0.5, 0.5, 1)),
    "normal, narrow": (TruncatedNormal(2, 0.1, 1, 3), stats.truncnorm(-10, 10, 2, 0.1)),
    "normal, endless": (TruncatedNormal(-1, 1, 0, math.inf), stats.truncnorm(1, math.inf, -1, 1)),
    "normal, upper tail": (TruncatedNormal(0, 1, 6, 8), stats.truncnorm(6, 8, 0, 1)),
    "normal, lower tail": (TruncatedNormal(9, 1, 1, 3), stats.truncnorm(-8, -6, 9, 1)),
    "lognormal 0.5": (Lognormal(0, 0.5), stats.lognorm(0.5)),
    "lognormal 1": (Lognormal(0, 1), stats.lognorm(1)),
    "lognormal 2": (Lognormal(0, 2), stats.lognorm(2)),
    "beta 1 4": (Beta(1, 4), stats.beta(1, 4)),
    "beta 3 2": (Beta(3, 2), stats.beta(3, 2)),
    "beta .5 .5": (Beta(0.5, 0.5), stats.beta(0.5, 0.5)),
    "beta .2 .2": (Beta(0.2, 0.2), stats.beta(0.2, 0.2)),
    "beta, two peaks": (Beta(0.3, 0.3, 1, 3), stats.beta(0.3, 0.3, 1, 2)),
    "pareto 2": (Pareto(1, 2), stats.pareto(2)),
    "pareto 1.2": (Pareto(3, 1.2), stats.pareto(1.2, 0, 3)),
    "pareto .5 capped": (Pareto(1, 0.5, 10), stats.truncpareto(0.5, 10)),
    "pareto 1 capped": (Pareto(2, 1, 10), stats.truncpareto(1, 5, 0, 2)),
    "pareto 2 capped": (Pareto(1, 2, 10), stats.truncpareto(2, 10)),
}
COSTS = (0.0, 0.2, 0.7, 2.5, 7.0)
everyone = pytest.mark.parametrize("name", CASES)


def revenue_on_a_grid(survival: Any, low: float, high: float, cost: float, points: int = 20_001) -> tuple[float, float]:
    """The best price of a grid, evenly spaced in price and in its logarithm above the start, and what it earns."""
    start = max(low, cost)
    reach = high - start
    prices = np.concatenate([np.linspace(start, high, points), start + np.geomspace(1e-9, 1, points) * reach])
    revenues = (prices - cost) * survival(prices)
    best = int(np.argmax(revenues))
    return float(prices[best]), float(revenues[best])


@everyone
def test_reserve_earns_what_no_price_of_a_grid_beats(name: str) -> None:
    prior, judge = CASES[name]
    low, high = prior.support
    for cost in COSTS:
        if cost >= high:
            continue
        reach = high if math.isfinite(high) else 50 * (prior.reserve(cost) + float(judge.ppf(0.999)))
        price, earned = revenue_on_a_grid(judge.sf, low, reach, cost)
        reserve = prior.reserve(cost)
        assert max(low, cost) <= reserve <= high
        assert (reserve - cost) * float(judge.sf(reserve)) >= earned * (1 - 1e-9), (name, cost, reserve, price)


@everyone
def test_distribution_is_the_one_it_says(name: str) -> None:
    prior, judge = CASES[name]
    low, high = prior.support
    assert (low, high) == pytest.approx(judge.support())
    for value in (*judge.ppf([1e-6, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1 - 1e-6]), low, low / 2, low - 1, high + 1):
        assert prior.cdf(value) == pytest.approx(judge.cdf(value), rel=1e-7, abs=1e-12)
        assert prior.survival(value) == pytest.approx(judge.sf(value), rel=1e-7, abs=1e-12)
        assert prior.density(value) == pytest.approx(judge.pdf(value), rel=1e-7, abs=1e-12) or value in (low, high)
    assert (prior.cdf(low), prior.survival(low), prior.survival(high)) == (0, 1, 0)


@everyone
def test_quantile_undoes_the_cdf(name: str) -> None:
    prior, judge = CASES[name]
    assert (prior.quantile(0), prior.quantile(1)) == prior.support
    for probability in (1e-9, 0.001, 0.2, 0.5, 0.8, 0.999):
        assert prior.quantile(probability) == pytest.approx(judge.ppf(probability), rel=1e-7, abs=1e-12)
    for probability in (-1e-9, 1.1, math.nan):
        with pytest.raises(ValueError, match="probability"):
            prior.quantile(probability)


@everyone
def test_cost_raises_the_reserve_and_never_above_what_is_lost(name: str) -> None:
    prior, _ = CASES[name]
    reserves = [prior.reserve(cost) for cost in (0, 0.1, 0.3, 0.6, 0.9, 1.5, 2.9, 6, 12)]
    assert all(before <= after * (1 + 1e-6) for before, after in zip(reserves, reserves[1:], strict=False))
    high = prior.support[1]
    if math.isfinite(high):
        assert prior.reserve(high) == high and prior.reserve(high + 1) == high + 1, "sold to nobody, never at a loss"
    for cost in (-1e-9, math.nan, math.inf, 2 * MAX_COST):
        with pytest.raises(ValueError, match="cost"):
            prior.reserve(cost)


@pytest.mark.parametrize(
    ("prior", "cost", "reserve"),
    [
        (Uniform(0, 1), 0, 0.5),
        (Uniform(3, 5), 0, 3),
        (Uniform(0, 1), 0.5, 0.75),
        (Uniform(3, 5), 2, 3.5),
        (Exponential(2), 0, 0.5),
        (Exponential(2, 1.5), 0, 1.5),
        (Exponential(2, 1.5), 2, 2.5),
        (TruncatedNormal(1, 0.3, 0, 2), 0, 0.77374),
        (TruncatedNormal(0.5, 1, 0, 1), 0, 0.48997),
        (TruncatedNormal(2, 0.1, 1, 3), 0, 1.80026),
        (Lognormal(0, 0.5), 0, 0.77186),
        (Lognormal(0, 1), 0, 1.35341),
        (Lognormal(0, 2), 0, 23.19),
        (Beta(1, 1), 0, 1 / 2),
        (Beta(1, 4), 0, 1 / 5),
        (Beta(1, 9), 0, 1 / 10),
        (Beta(0.5, 0.5), 0, 0.63059),
        (Beta(0.2, 0.2), 0, 0.81324),
        (Pareto(3, 1.2), 0, 3),
        (Pareto(1, 2), 0.7, 1.4),
        (Pareto(1, 2), 0.3, 1),
        (Pareto(1, 0.5, 10), 0, 2.5),
        (Pareto(1, 2, 10), 0, 1),
    ],
)
def test_check_values(prior: Prior, cost: float, reserve: float) -> None:
    assert prior.reserve(cost) == pytest.approx(reserve, rel=2e-5)


def stretched(prior: Prior, by: float) -> Prior:
    """The prior of `by` times the value."""
    if isinstance(prior, Uniform):
        return Uniform(prior.low * by, prior.high * by)
    if isinstance(prior, Exponential):
        return Exponential(prior.rate / by, prior.shift * by)
    if isinstance(prior, TruncatedNormal):
        return TruncatedNormal(prior.mean * by, prior.deviation * by, prior.low * by, prior.high * by)
    if isinstance(prior, Lognormal):
        return Lognormal(prior.mu + math.log(by), prior.sigma)
    if isinstance(prior, Beta):
        return Beta(prior.a, prior.b, prior.low * by, prior.high * by)
    assert isinstance(prior, Pareto)
    return Pareto(prior.minimum * by, prior.shape, None if prior.cap is None else prior.cap * by)


def shifted(prior: Prior, by: float) -> Prior | None:
    """The prior of the value plus `by`, where its family has one."""
    if isinstance(prior, Uniform):
        return Uniform(prior.low + by, prior.high + by)
    if isinstance(prior, Exponential):
        return Exponential(prior.rate, prior.shift + by)
    if isinstance(prior, TruncatedNormal):
        return TruncatedNormal(prior.mean + by, prior.deviation, prior.low + by, prior.high + by)
    return Beta(prior.a, prior.b, prior.low + by, prior.high + by) if isinstance(prior, Beta) else None


@everyone
@pytest.mark.parametrize("by", [1e-5, 40.0])
def test_reserve_scales_with_the_unit(name: str, by: float) -> None:
    prior, _ = CASES[name]
    for cost in (0.0, 0.3):
        assert stretched(prior, by).reserve(cost * by) == pytest.approx(by * prior.reserve(cost), rel=1e-6)


@everyone
def test_reserve_shifts_with_value_and_cost(name: str) -> None:
    prior, _ = CASES[name]
    moved = shifted(prior, 2.0)
    if moved is not None:
        for cost in (0.0, 0.3):
            assert moved.reserve(cost + 2) == pytest.approx(prior.reserve(cost) + 2, rel=1e-6)


def test_tails_keep_their_accuracy() -> None:
    for z in (10.0, 30.0, 37.0):
        assert Lognormal(0, 1).survival(math.exp(z)) == pytest.approx(stats.norm.sf(z), rel=1e-9, abs=0)
        ratio = float(stats.norm.sf(z + 0.5) / stats.norm.sf(z))
        assert TruncatedNormal(0, 1, z, math.inf).survival(z + 0.5) == pytest.approx(ratio, rel=1e-9, abs=0)
    far = TruncatedNormal(0, 1, 100, 101)
    assert integrate.quad(far.density, 100, 101, limit=200, points=[100.1])[0] == pytest.approx(1, rel=1e-6)
    assert 100 < far.quantile(0.5) < far.quantile(0.999) < 100.1
    assert Exponential(1).survival(700) == math.exp(-700) and Pareto(1, 2).survival(1e30) == pytest.approx(
        1e-60, rel=1e-9, abs=0
    )
    assert Beta(2, 3).survival(1 - 1e-6) == pytest.approx(4e-18, rel=1e-5, abs=0)
    for prior in (Lognormal(0, 1), Exponential(1), TruncatedNormal(0, 1, 0, math.inf), TruncatedNormal(0, 1, 0, 1e4)):
        cost = 30.0 if not isinstance(prior, Lognormal) else 1e9
        assert prior.reserve(cost) > cost and math.isfinite(prior.reserve(cost)), "of what nearly nobody pays"


def test_mixture_finds_the_better_of_two_peaks() -> None:
    """Equation 2 has two roots here, and the lower one earns a twentieth of what 60 does."""
    crowd = Mixture((9.0, 1.0), (Uniform(0, 1), Uniform(60, 80)))
    poor, rich = crowd.reserve(), 60.0
    assert poor == pytest.approx(rich)
    low_root = 1 / 1.8
    assert low_root - crowd.survival(low_root) / crowd.density(low_root) == pytest.approx(0, abs=1e-12)
    assert low_root * crowd.survival(low_root) == pytest.approx(0.2778, abs=1e-4)
    assert rich * crowd.survival(rich) == pytest.approx(6)
    assert Mixture((9.0, 1.0), (Uniform(0, 1), Uniform(1, 2))).reserve() == pytest.approx(low_root, rel=1e-6)


def test_mixture_against_a_grid() -> None:
    random = np.random.default_rng(5)
    families: list[Any] = [
        lambda: Uniform(low := float(random.uniform(0, 5)), low + float(random.uniform(0.1, 5))),
        lambda: Exponential(float(random.uniform(0.2, 3)), float(random.uniform(0, 3))),
        lambda: TruncatedNormal(float(random.uniform(0, 9)), float(random.uniform(0.1, 3)), 0, 9),
        lambda: Lognormal(float(random.uniform(-1, 1)), float(random.uniform(0.2, 1.2))),
        lambda: Beta(float(random.uniform(0.2, 4)), float(random.uniform(0.2, 4)), 1, float(random.uniform(1.5, 10))),
        lambda: Pareto(float(random.uniform(0.5, 3)), float(random.uniform(1.3, 5))),
    ]
    for _ in range(16):
        parts = tuple(families[index]() for index in random.integers(0, len(families), random.integers(1, 4)))
        crowd = Mixture(tuple(map(float, random.uniform(0.1, 3, len(parts)))), parts)
        cost = float(random.choice([0.0, 0.5, 3.0]))
        reserve = crowd.reserve(cost)
        reach = min(crowd.support[1], 40.0)
        survival = np.vectorize(crowd.survival)
        _, earned = revenue_on_a_grid(survival, crowd.support[0], reach, cost, points=1501)
        assert (reserve - cost) * crowd.survival(reserve) >= earned * (1 - 1e-9)


def test_mixture_looks_beyond_the_reserves_of_its_parts() -> None:
    """Half of the first part's buyers pay 1.9; alone it does better at 1. With the second part, whose reserve is 1.54,
    the best price is near 1.9, above both reserves."""
    split, others = Beta(0.005, 0.005, 1, 1.9), Lognormal(math.log(2), 0.5)
    assert split.reserve() == pytest.approx(1, abs=1e-3) and others.reserve() == pytest.approx(1.5437, abs=1e-4)
    assert 1.85 < Mixture((1.0, 1.0), (split, others)).reserve() < 1.9


def test_mixture_is_the_mean_of_its_parts() -> None:
    parts = (Uniform(0, 2), Exponential(1, 0.5), Mixture((1.0, 1.0), (Beta(2, 2), Lognormal(0, 1))))
    crowd = Mixture((2.0, 1.0, 1.0), parts)
    for value in (0.1, 0.7, 1.3, 6.0):
        for what in ("cdf", "survival", "density"):
            told = [getattr(part, what)(value) for part in parts]
            assert getattr(crowd, what)(value) == pytest.approx(np.average(told, weights=(2, 1, 1)))
    assert crowd.support == (0, math.inf)
    for probability in (0.01, 0.5, 0.99):
        assert crowd.cdf(crowd.quantile(probability)) == pytest.approx(probability)
    assert (crowd.quantile(0), crowd.quantile(1)) == crowd.support
    assert Mixture((3.0,), (Lognormal(0, 1),)).reserve(0.4) == pytest.approx(Lognormal(0, 1).reserve(0.4))


def test_search_ends_where_every_price_earns_the_same() -> None:
    price = best_price(lambda price: 1 / price, 1.0, 1000.0, 0.0)
    assert 1 <= price <= 1000
    assert best_price(lambda price: 0.0, 1.0, 9.0, 2.0) in (2.0, 9.0)


def test_samples_come_from_the_prior() -> None:
    random = np.random.default_rng(1)
    draws: NDArray[np.float64] = random.uniform(size=4000)
    for prior, judge in CASES.values():
        assert stats.kstest([prior.quantile(float(draw)) for draw in draws], judge.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("family", "arguments", "says"),
    [
        (Uniform, (1, 1), "low < high"),
        (Uniform, (-1, 1), "0 <= low"),
        (Uniform, (0, math.inf), "finite"),
        (Uniform, (math.nan, 1), "low < high"),
        (Exponential, (0,), "rate"),
        (Exponential, (1, -1), "shift"),
        (Exponential, (math.inf,), "rate"),
        (TruncatedNormal, (0, 0, 0, 1), "deviation"),
        (TruncatedNormal, (math.nan, 1, 0, 1), "mean"),
        (TruncatedNormal, (0, 1, 1, 0), "low < high"),
        (TruncatedNormal, (0, 1e-200, 1, 2), "no mass"),
        (Lognormal, (0, 0), "sigma"),
        (Lognormal, (0, 21), "sigma"),
        (Lognormal, (math.inf, 1), "mu"),
        (Beta, (0, 1), "a and b"),
        (Beta, (1, math.inf), "a and b"),
        (Beta, (1, 1, 2, 1), "low < high"),
        (Pareto, (0, 2), "minimum"),
        (Pareto, (1, 0), "shape"),
        (Pareto, (1, 1), "no price is best"),
        (Pareto, (1, 0.5), "no price is best"),
        (Pareto, (1, 2, 1), "low < high"),
        (Mixture, ((), ()), "weight for each"),
        (Mixture, ((1.0,), (Uniform(0, 1), Uniform(0, 2))), "weight for each"),
        (Mixture, ((1.0, 0.0), (Uniform(0, 1), Uniform(0, 2))), "above 0"),
    ],
)
def test_refuses_what_is_no_distribution(family: Any, arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        family(*arguments)


def test_pareto_without_a_cap_is_refused_for_a_reason() -> None:
    """Shape 1/2: a hundred times the price sells a tenth as often, so it earns ten times as much, and so on."""
    revenues = [price * float(stats.pareto(0.5).sf(price)) for price in (1, 100, 10_000)]
    assert revenues == pytest.approx([1, 10, 100])


def test_an_ask_is_rounded_up_and_bounded() -> None:
    assert [to_ask(reserve) for reserve in (0.0, 0.5, 1.25, 1e-12, 2.0000001)] == [0, 500_000, 1_250_000, 1, 2_000_001]
    assert to_ask(0.1) == 100_001, "the float is a little above one tenth"
    assert to_ask(1e300) == MAX_AMOUNT == to_ask(MAX_COST * 1.01)
    for reserve in (-1e-9, math.nan, math.inf):
        with pytest.raises(ValueError, match="no amount"):
            to_ask(reserve)
