"""Means over seeds: Student's interval, and none where a run diverged."""

from __future__ import annotations

import math

import pytest

from p2pmarket.experiments.spread import mean_and_spread, mean_of
from p2pmarket.paper import common


def test_half_of_a_95_per_cent_interval() -> None:
    mean, half = mean_and_spread([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert mean_and_spread([5.0]) == (5.0, None)


@pytest.mark.parametrize(
    "values",
    [[1.0, math.nan], [math.inf, 1.0], [math.inf, -math.inf], [math.nan], [1.7e308, 1.7e308], [-1.7e308, 1.7e308]],
)
def test_what_is_not_finite_has_no_mean(values: list[float]) -> None:
    mean, half = mean_and_spread(values)
    assert math.isnan(mean) and half is None


def test_a_sum_beyond_floats_has_no_mean() -> None:
    assert math.isnan(mean_of([1.7e308, 1.7e308])) and mean_of([1e307, 3e307]) == 2e307


def test_the_paper_takes_the_same() -> None:
    assert common.mean_and_spread is mean_and_spread
