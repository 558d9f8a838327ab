"""The line search: never above a full grid's loss, never caught by the nearer valley, and far fewer samples."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
import torch
from appraisal_examples import bench, trained
from torch import Tensor

from p2pmarket.alignment import apply, match
from p2pmarket.appraisal.line_search import LineMinimum, search_line
from p2pmarket.appraisal.merging import merge

GRID = [index / 9 for index in range(10)]
TENTHS = [index / 10 for index in range(11)]
MIDDLES = [0.05 + index / 10 for index in range(10)]


class Sampled:
    """A curve whose samples differ in height, in where their minimum is, and by noise that depends on the point."""

    def __init__(self, curve: Callable[[float], float], samples: int, spread: float = 0.5, tilt: float = 0.1) -> None:
        generator = torch.Generator().manual_seed(3)
        self.curve = curve
        self.height = spread * torch.rand(samples, generator=generator, dtype=torch.float64)
        self.tilt = tilt * torch.randn(samples, generator=generator, dtype=torch.float64)
        self.asked: list[tuple[float, int, int]] = []

    def all_at(self, alpha: float) -> Tensor:
        return self.curve(alpha) + self.height + self.tilt * alpha

    def __call__(self, alphas: Sequence[float], start: int, stop: int) -> list[Tensor]:
        self.asked += [(alpha, start, stop) for alpha in alphas]
        return [self.all_at(alpha)[start:stop] for alpha in alphas]

    def best_of(self, alphas: Sequence[float]) -> float:
        return min(float(self.all_at(alpha).mean()) for alpha in alphas)


CURVES: dict[str, Callable[[float], float]] = {
    "valley": lambda a: 1 + 3 * (a - 0.37) ** 2,
    "valley near the buyer": lambda a: 1 + 3 * (a - 0.06) ** 2,
    "valley near the seller": lambda a: 1 + 3 * (a - 0.93) ** 2,
    "lopsided": lambda a: 1 + 0.2 * math.exp(6 * a) / 50 - a,
    "barrier, seller better": lambda a: 1 + math.sin(math.pi * a) - 0.2 * a,
    "barrier, buyer better": lambda a: 1 + math.sin(math.pi * a) + 0.2 * a,
    "barrier inside, two valleys": lambda a: 2 - math.cos(4 * math.pi * a) * -0.5 + 0.1 * a,
    "barrier and a valley by the seller": lambda a: (
        2 + math.cos(2 * math.pi * a) * 0.6 * (a < 0.5) + 8 * (a - 0.85) ** 2
    ),
    "only down": lambda a: 3 - a,
    "only up": lambda a: 1 + a,
}


@pytest.mark.parametrize("samples", [40, 300, 1000, 5000])
@pytest.mark.parametrize("name", CURVES)
def test_the_loss_is_never_above_the_full_grids(name: str, samples: int) -> None:
    sampled = Sampled(CURVES[name], samples)
    found = search_line(sampled, samples)
    best = sampled.best_of([*GRID, *TENTHS, *MIDDLES])
    assert found.loss <= best * (1 + 1e-4)
    torch.testing.assert_close(found.losses, sampled.all_at(found.alpha))


def test_random_curves_with_noise_that_depends_on_the_point() -> None:
    passes = []
    for seed in range(60):
        chance = random.Random(seed)
        samples = chance.choice([300, 1000, 5000])
        middle, steep, height = chance.uniform(-0.2, 1.2), 10 ** chance.uniform(-2, 1), chance.uniform(-1, 1)

        def curve(alpha: float, m: float = middle, c: float = steep, h: float = height, seed: int = seed) -> float:
            if seed % 3 == 0:
                return 1 + c * math.sin(math.pi * alpha) ** 2 + h * alpha
            return 1 + c * (alpha - m) ** 2 + (seed % 3 - 1) * c * h * (alpha - m) ** 3

        sampled = Sampled(curve, samples, tilt=10 ** chance.uniform(-2, 0))
        found = search_line(sampled, samples)
        assert found.loss <= sampled.best_of([*GRID, *TENTHS, *MIDDLES]) * (1 + 1e-4), seed
        passes.append(found.evaluations / samples)
    assert sum(passes) / len(passes) < 5


def test_a_search_costs_a_few_passes_and_asks_for_no_sample_twice() -> None:
    sampled = Sampled(CURVES["valley"], 1000)
    found = search_line(sampled, 1000)
    assert found.evaluations == sum(stop - start for _, start, stop in sampled.asked) <= 4500
    assert len(sampled.asked) == len(set(sampled.asked))
    big = Sampled(CURVES["valley"], 50_000)
    assert search_line(big, 50_000).evaluations < 4 * 50_000


def test_a_barrier_is_dropped_after_the_first_part() -> None:
    sampled = Sampled(CURVES["barrier, seller better"], 5000)
    assert search_line(sampled, 5000).alpha == 1.0
    assert all(stop <= 128 for alpha, _, stop in sampled.asked if alpha in (0.25, 0.5, 0.75))


def test_a_point_that_only_looks_worse_in_the_first_samples_stays_in_the_race() -> None:
    """A negative control of the race: the first 128 samples like 0 a little better, all the others like 1."""
    preference = torch.cat([torch.full((128,), 0.02), torch.full((1872,), -0.1)]).double()
    noise = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def losses_at(alphas: Sequence[float], start: int, stop: int) -> list[Tensor]:
        return [(2 + a * (preference + noise) + 3 * a * (1 - a))[start:stop] for a in alphas]

    assert search_line(losses_at, 2000).alpha == 1.0


def test_ties_are_no_purchase_and_numbers_that_are_none_are_infinite() -> None:
    assert search_line(Sampled(lambda a: 1.0, 600, tilt=0.0), 600).alpha == 0.0
    assert search_line(Sampled(lambda a: 1.0 if a == 0 else math.nan, 600), 600).alpha == 0.0
    assert search_line(Sampled(lambda a: 1.0 if a == 1 else math.inf, 600), 600).alpha == 1.0
    assert search_line(Sampled(lambda a: 1.0 if 0.4 < a < 0.6 else math.nan, 600), 600).alpha == pytest.approx(
        0.5, abs=0.1
    )
    nothing = search_line(Sampled(lambda a: math.nan, 600), 600)
    assert nothing.alpha == 0.0 and math.isnan(nothing.loss)


def test_extrapolation_only_where_it_is_allowed() -> None:
    curve = Sampled(lambda a: 1 + (a - 1.3) ** 2, 800, tilt=0.0)
    assert search_line(curve, 800).alpha == 1.0
    assert search_line(curve, 800, low=-0.5, high=1.5).alpha == pytest.approx(1.3, abs=0.01)
    before = Sampled(lambda a: 1 + (a + 0.2) ** 2, 800, tilt=0.0)
    assert search_line(before, 800, low=-0.5, high=1.5).alpha == pytest.approx(-0.2, abs=0.01)
    with pytest.raises(ValueError, match="bounds"):
        search_line(curve, 800, low=0.1)


def test_equal_searches_are_equal_and_a_few_samples_are_enough_to_run() -> None:
    for samples in (1, 2, 3, 10, 255, 256, 257):
        one, two = (search_line(Sampled(CURVES["valley"], samples), samples) for _ in range(2))
        assert (one.alpha, one.tried) == (two.alpha, two.tried)
        assert len(one.losses) == samples and {0.0, 1.0} <= set(one.tried)


def _digits_line(aligned: bool) -> tuple[Callable[[float], Tensor], Callable[..., LineMinimum]]:
    evaluator, validation, spec = bench()
    buyer, seller = trained(0, 1), trained(5, 2)
    if aligned:
        seller = apply(spec, match(spec, buyer, seller, seed=0), seller)
    names = sorted(buyer)

    def at(alpha: float) -> Tensor:
        merged = merge(buyer, seller, alpha, names)
        return evaluator.measure(merged, validation.select_inputs, validation.select_targets).losses

    def losses_at(alphas: Sequence[float], start: int, stop: int) -> list[Tensor]:
        inputs, targets = validation.select_inputs[start:stop], validation.select_targets[start:stop]
        sets = [merge(buyer, seller, alpha, names) for alpha in alphas]
        return [measured.losses for measured in evaluator.measure_many(sets, inputs, targets)]

    return at, lambda **options: search_line(losses_at, len(validation.select_inputs), **options)


@pytest.mark.parametrize("aligned", [True, False])
def test_on_digits_the_search_is_at_least_as_good_as_the_full_grid(aligned: bool) -> None:
    at, search = _digits_line(aligned)
    found = search(stages=(64, 128))
    assert found.loss <= min(float(at(alpha).mean()) for alpha in GRID + MIDDLES) * (1 + 1e-4)
    assert found.loss == pytest.approx(float(at(found.alpha).mean()), rel=1e-5)
