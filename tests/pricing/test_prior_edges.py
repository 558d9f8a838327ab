"""Every belief at the edges of the numbers: a value has a probability or is refused, a record is sound or not made."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.empirical import Empirical
from p2pmarket.pricing.priors import Beta, Exponential, Lognormal, Mixture, Pareto, TruncatedNormal, Uniform, to_ask
from p2pmarket.pricing.reserve import Belief, Prior
from p2pmarket.pricing.theorem import bounds, printed_bounds, printed_upper, ratio_at_optimal_weights, reserve_between

HUGE = 10**400
"""An integer that no float holds."""
ODD = (math.nan, math.inf, -math.inf, HUGE, -HUGE)

BELIEFS: dict[str, Belief] = {
    "uniform": Uniform(1, 3),
    "exponential": Exponential(2, 1),
    "normal": TruncatedNormal(1, 0.5, 0, 2),
    "normal, upper tail": TruncatedNormal(0, 1, 6, 8),
    "normal, endless": TruncatedNormal(1, 0.5, 0, math.inf),
    "lognormal": Lognormal(0, 1),
    "beta": Beta(0.5, 0.5),
    "beta, stretched": Beta(2, 3, 1, 4),
    "pareto": Pareto(1, 2),
    "pareto, capped": Pareto(1, 0.5, 10),
    "mixture": Mixture((1, 2), (Uniform(0, 1), Lognormal(0, 1))),
    "mixture of a mixture": Mixture((1,), (Mixture((1, 2), (Exponential(1), Beta(2, 2))),)),
    "empirical": Empirical([1, 2, 2, 5]),
}
every_belief = pytest.mark.parametrize("name", BELIEFS)


@every_belief
def test_nothing_is_known_of_no_number(name: str) -> None:
    belief = BELIEFS[name]
    asked: list[Callable[[float], float]] = [belief.cdf, belief.survival]
    if isinstance(belief, Prior):
        asked.append(belief.density)
    assert len(asked) == (2 if name == "empirical" else 3)
    for method in asked:
        for value in (math.nan, np.float64("nan"), np.float32("nan")):
            with pytest.raises(ValueError, match="nan"):
                method(value)
    for probability in ODD:
        with pytest.raises(ValueError, match="probability"):
            belief.quantile(probability)
    for cost in ODD:
        with pytest.raises(ValueError, match="cost"):
            belief.reserve(cost)


@every_belief
def test_all_is_below_infinity_and_nothing_below_minus_infinity(name: str) -> None:
    belief = BELIEFS[name]
    for value, below in ((math.inf, 1), (HUGE, 1), (-math.inf, 0), (-HUGE, 0)):
        assert (belief.cdf(value), belief.survival(value)) == (below, 1 - below)
        if isinstance(belief, Prior):
            assert belief.density(value) == 0


FAMILIES: dict[str, tuple[type[Prior], tuple[float, ...]]] = {
    "uniform": (Uniform, (1, 3)),
    "exponential": (Exponential, (2, 1)),
    "normal": (TruncatedNormal, (1, 0.5, 0, 2)),
    "lognormal": (Lognormal, (0, 1)),
    "beta": (Beta, (0.5, 0.5, 1, 4)),
    "pareto": (Pareto, (2, 2)),
    "pareto, capped": (Pareto, (1, 0.5, 10)),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


@every_family
def test_a_parameter_that_no_float_holds_is_refused(name: str) -> None:
    family, sound = FAMILIES[name]
    family(*sound)
    for at, odd in itertools.product(range(len(sound)), ODD):
        parameters = [*sound[:at], odd, *sound[at + 1 :]]
        if (family, at, odd) == (TruncatedNormal, 3, math.inf):
            family(*parameters)  # endless above: the one that may be
            continue
        with pytest.raises(ValueError, match="prior needs"):
            family(*parameters)


@every_family
def test_a_record_that_is_made_answers_everything(name: str) -> None:
    """With a probability, an amount, or a density that may be infinite."""
    family, sound = FAMILIES[name]
    made = 0
    for parameters in itertools.product((0.0, 1e-3, 1.0, 60.0, 1e6), repeat=len(sound)):
        try:
            prior = family(*parameters)
        except ValueError:
            continue
        made += 1
        for cost in (0.0, 1.0):
            assert cost <= prior.reserve(cost) < math.inf, prior
        for value in (-1.0, 0.0, 5e-324, 1e-3, 1.0, 60.0, 1e6, 1.7e308, math.inf):
            assert 0 <= prior.cdf(value) <= 1 and 0 <= prior.survival(value) <= 1, (prior, value)
            assert 0 <= prior.density(value) <= math.inf, (prior, value)
        assert prior.support[0] <= prior.quantile(0.5) <= prior.support[1], prior
    assert made


def test_refusals_say_what_is_needed() -> None:
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: Exponential(1, math.inf), "needs a finite shift of at least 0"),
        (lambda: Exponential(1, -1), "needs a finite shift of at least 0"),
        (lambda: Exponential(math.inf), "needs a finite rate above 0"),
        (lambda: Exponential(1e-320), "a finite mean"),
        (lambda: Lognormal(0, 0), "sigma above 0"),
        (lambda: Lognormal(0, 21), "in 1e-6 ... 20"),
        (lambda: Uniform(0, HUGE), "needs 0 <= low < high, finite"),
    ]
    for made, says in refused:
        with pytest.raises(ValueError, match=says):
            made()


@pytest.mark.parametrize("part", [1, None, "uniform", Uniform, Empirical([1, 2]), (Uniform(0, 1),)])
def test_a_mixture_is_of_priors(part: Any) -> None:
    with pytest.raises(ValueError, match="no prior"):
        Mixture((1, 1), (Uniform(0, 1), part))


@pytest.mark.parametrize("weight", [*ODD, 0, -1, 1.7e308])
def test_the_weights_of_a_mixture_can_be_summed(weight: float) -> None:
    with pytest.raises(ValueError, match="weights"):
        Mixture((1.7e308, weight), (Uniform(0, 1), Uniform(0, 2)))


def test_observed_values_are_numbers() -> None:
    for odd in ODD:
        with pytest.raises(ValueError, match="observed value"):
            Empirical([1.0, odd])
        with pytest.raises(ValueError, match="weight"):
            Empirical([1.0, 2.0], [1.0, odd])
        with pytest.raises(ValueError, match="size"):
            Empirical([1.0], size=odd)


def test_an_ask_of_more_than_any_float_is_what_nobody_pays() -> None:
    assert to_ask(HUGE) == MAX_AMOUNT
    for odd in (math.nan, math.inf, -math.inf, -HUGE):
        with pytest.raises(ValueError, match="no amount"):
            to_ask(odd)


def test_the_theorem_is_told_numbers() -> None:
    for odd in ODD:
        for told in (bounds, printed_bounds, printed_upper):
            for arguments in ((odd, 0.5, 2.0), (0.5, odd, 2.0), (0.5, 0.5, odd)):
                with pytest.raises(ValueError, match="weight|ratio"):
                    told(*arguments)
        for weight, ratio in ((odd, 2.0), (0.5, odd)):
            with pytest.raises(ValueError, match="weight|ratio"):
                ratio_at_optimal_weights(weight, ratio)
        for low, high, cost in ((odd, 1.0, 0.0), (0.0, odd, 0.0), (odd, odd, 0.0), (0.0, 1.0, odd)):
            with pytest.raises(ValueError):
                reserve_between(low, high, cost)
    assert bounds(1.0, 1.0, 1.7e308).upper > 0 and bounds(1e-9, 1.0, 1e-300).upper > 0
