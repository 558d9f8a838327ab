"""What a reserve is made from: any belief, smooth or of observed values, also for the type checker."""

from __future__ import annotations

from p2pmarket.pricing.empirical import Empirical
from p2pmarket.pricing.priors import Uniform
from p2pmarket.pricing.reserve import Belief, Prior


def revenue(belief: Belief, price: float) -> float:
    return price * belief.survival(price)


def test_observed_values_are_a_belief_and_a_family_is_a_prior() -> None:
    smooth: Prior = Uniform(0.0, 2.0)
    beliefs: list[Belief] = [smooth, Empirical([1.0, 1.0, 2.0])]
    assert [revenue(belief, belief.reserve()) for belief in beliefs] == [0.5, 1.0]
    assert not hasattr(beliefs[1], "density")
