"""The corrected bounds hold for every linear model and both are reached; the printed upper bound is broken thousands
of times. The judge is the definition: error vectors, their merges, their squared lengths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from p2pmarket.pricing.theorem import (
    bounds,
    printed_bounds,
    printed_upper,
    ratio_at_optimal_weights,
    reserve_between,
)

Floats = NDArray[np.float64]
CASES = 200_000


def ratio(before: Floats, after: Floats) -> Floats:
    """Equation 3."""
    squares: Floats = (before**2).sum(-1) / (after**2).sum(-1)
    return squares


def ratios(e_a: Floats, e_b: Floats, a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Delta_a and Delta_b of models with these errors, bought with these weights."""
    merged_a = (1 - a)[..., None] * e_a + a[..., None] * e_b
    merged_b = (1 - b)[..., None] * e_b + b[..., None] * e_a
    return ratio(e_a, merged_a), ratio(e_b, merged_b)


def one(e_a: tuple[float, ...], e_b: tuple[float, ...], a: float, b: float) -> tuple[float, float]:
    delta_a, delta_b = ratios(np.array([e_a]), np.array([e_b]), np.array([a]), np.array([b]))
    return float(delta_a[0]), float(delta_b[0])


def models(dimension: int, count: int, seed: int) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """e_a, e_b, a, b, Delta_a, Delta_b: errors of any angle, lengths that differ up to a hundredfold, any weights."""
    random = np.random.default_rng(seed)
    e_a = random.normal(size=(count, dimension))
    e_b = random.normal(size=(count, dimension)) * 10 ** random.uniform(-2, 2, (count, 1))
    a, b = 1 - random.uniform(0, 1, (2, count))
    return e_a, e_b, a, b, *ratios(e_a, e_b, a, b)


@pytest.fixture(scope="module")
def outcome() -> dict[str, Floats]:
    """Delta_b and every bound on it, of 200,000 models in one to four dimensions."""
    rows = []
    for dimension in (1, 2, 3, 4):
        _, _, a, b, delta_a, delta_b = models(dimension, CASES // 4, dimension)
        for one_a, one_b, ratio_a, ratio_b in zip(*(x.tolist() for x in (a, b, delta_a, delta_b)), strict=True):
            right, printed = bounds(one_a, one_b, ratio_a), printed_bounds(one_a, one_b, ratio_a)
            formula = printed_upper(one_a, one_b, ratio_a)
            rows.append((one_a + one_b, ratio_b, right.lower, right.upper, printed.lower, printed.upper, formula))
    names = ("weights", "ratio", "lower", "upper", "printed lower", "printed upper", "formula")
    return dict(zip(names, np.array(rows).T, strict=True))


def test_corrected_bounds_always_hold(outcome: dict[str, Floats]) -> None:
    told = outcome["ratio"]
    assert len(told) == CASES
    assert np.sum(told < outcome["lower"] * (1 - 1e-6) - 1e-9) == 0
    assert np.sum(told > outcome["upper"] * (1 + 1e-6) + 1e-9) == 0


def test_printed_lower_bound_holds_and_the_upper_one_does_not(outcome: dict[str, Floats]) -> None:
    told = outcome["ratio"]
    assert np.sum(told < outcome["printed lower"] * (1 - 1e-6) - 1e-9) == 0
    assert np.sum(told > outcome["formula"] * (1 + 1e-6) + 1e-9) > 5_000, "negative control: the formula as printed"
    assert np.sum(told > outcome["printed upper"] * (1 + 1e-6) + 1e-9) == 0, "never where its denominator is above 0"


def test_corrected_bounds_are_never_the_looser(outcome: dict[str, Floats]) -> None:
    assert np.all(outcome["lower"] >= outcome["printed lower"] * (1 - 1e-6) - 1e-9)
    assert np.all(outcome["upper"] <= outcome["printed upper"] * (1 + 1e-6) + 1e-9)
    assert np.mean(np.isinf(outcome["printed upper"])) > 0.3 and np.all(np.isfinite(outcome["upper"]))


def test_both_ends_are_reached() -> None:
    """In one dimension every error is a multiple of the other: each model lies at one of the two ends."""
    _, _, a, b, delta_a, delta_b = models(1, 5_000, 9)
    at_lower = at_upper = 0
    for one_a, one_b, ratio_a, ratio_b in zip(*(x.tolist() for x in (a, b, delta_a, delta_b)), strict=True):
        ends = bounds(one_a, one_b, ratio_a)
        lower, upper = (math.isclose(ratio_b, end, rel_tol=1e-5, abs_tol=1e-9) for end in (ends.lower, ends.upper))
        assert lower or upper
        at_lower, at_upper = at_lower + lower, at_upper + upper
    assert min(at_lower, at_upper) > 1_000


def test_the_simple_correction_is_valid_and_tight_only_for_weights_of_at_least_one_together() -> None:
    """|1-a-b| in place of 1-a-b+2ab: both ends are those of `bounds` for a + b >= 1, and outside them below."""
    random = np.random.default_rng(3)
    for _ in range(2_000):
        a, b, s = 1 - random.uniform(), 1 - random.uniform(), float(10 ** random.uniform(-1, 1))
        length = abs(1 - a - b)
        simple_lower = ((1 - s * (1 - a)) / ((1 - b) + s * length)) ** 2
        simple_upper = ((1 + s * (1 - a)) / ((1 - b) - s * length)) ** 2
        ends = bounds(a, b, s * s)
        if a + b >= 1:
            assert (ends.lower, ends.upper) == pytest.approx((simple_lower, simple_upper), rel=1e-6)
        else:
            assert simple_lower * (1 - 1e-9) <= ends.lower <= ends.upper <= simple_upper * (1 + 1e-9)


def test_the_counter_example() -> None:
    """Both weights are the best ones, nothing is exotic, and the printed bound is wrong by a factor of 450."""
    a, b = 64 / 257, 193 / 257
    delta_a, delta_b = one((1, 0), (-3, 0.25), a, b)
    assert (delta_a, delta_b) == pytest.approx((257, 2329.0625))
    assert printed_upper(a, b, delta_a) == pytest.approx(5.1475, abs=1e-4)
    assert printed_bounds(a, b, delta_a).upper == math.inf
    ends = bounds(a, b, delta_a)
    assert (ends.lower, ends.upper) == pytest.approx((1965.018, 2741.546), abs=1e-3)


def test_the_worked_example() -> None:
    delta_a, delta_b = one((1, 0), (0, 2), 0.2, 0.8)
    assert (delta_a, delta_b) == pytest.approx((1.25, 5))
    printed, ends = printed_bounds(0.2, 0.8, 1.25), bounds(0.2, 0.8, 1.25)
    assert (printed.lower, printed.upper) == pytest.approx((0.0358, math.inf), abs=1e-4)
    assert (ends.lower, ends.upper) == pytest.approx((0.2786, 89.7214), abs=1e-4)
    assert ratio_at_optimal_weights(0.2, 1.25) == pytest.approx(5)


def test_nothing_is_known_where_the_merge_may_be_perfect() -> None:
    ends = bounds(0.5, 0.25, 9.0)  # e_a = 3 m_a and m_b = (1-b) m_a - (1-a-b) e_a = 0
    assert ends.upper == math.inf
    assert ends.lower == pytest.approx((2.5 / 1.5) ** 2)


def test_at_optimal_weights_the_ratio_is_known_exactly() -> None:
    random = np.random.default_rng(2)
    inside = 0
    for _ in range(300):
        e_a, e_b = random.normal(size=(2, 3))
        best = [
            float(minimize_scalar(lambda w, x=x, y=y: np.sum(((1 - w) * x + w * y) ** 2), bounds=(0, 1)).x)
            for x, y in ((e_a, e_b), (e_b, e_a))
        ]
        if min(best) < 1e-3:
            continue
        inside += 1
        a, b = best
        assert a + b == pytest.approx(1, abs=1e-4)
        delta_a, delta_b = one(tuple(e_a), tuple(e_b), a, b)
        assert ratio_at_optimal_weights(a, delta_a) == pytest.approx(delta_b, rel=1e-3)
    assert inside > 100


def test_the_paper_s_use_of_the_bounds() -> None:
    assert reserve_between(1.0, 6.0) == 3.0
    assert reserve_between(4.0, 6.0) == 4.0, "half the upper end is often below the lower one"
    assert reserve_between(4.0, 6.0, cost=4.0) == 5.0
    assert reserve_between(4.0, 4.0) == 4.0 and reserve_between(4.0, 4.0, cost=5.0) == 5.0
    for low, high, cost in ((1.0, math.inf, 0.0), (2.0, 1.0, 0.0), (-1.0, 1.0, 0.0), (0.0, 1.0, -1.0)):
        with pytest.raises(ValueError):
            reserve_between(low, high, cost)


@pytest.mark.parametrize("formula", [bounds, printed_bounds, printed_upper])
def test_refuses_what_is_no_weight_and_no_ratio(formula: object) -> None:
    assert callable(formula)
    for a, b, ratio_a in ((0, 0.5, 1), (0.5, 1.1, 1), (math.nan, 0.5, 1), (0.5, 0.5, 0), (0.5, 0.5, math.inf)):
        with pytest.raises(ValueError, match="outside 0|not above 0"):
            formula(a, b, ratio_a)
    for a, ratio_a in ((0.0, 2.0), (1.0, 2.0), (0.5, 0.9), (0.5, math.nan)):
        with pytest.raises(ValueError, match="inside|below 1"):
            ratio_at_optimal_weights(a, ratio_a)
