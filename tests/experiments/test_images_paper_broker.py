"""The paper's broker of experiments: which merges it looks at, which it takes, and that it aligns or does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from p2pmarket.alignment import apply, match
from p2pmarket.appraisal.merging import merge
from p2pmarket.broker_node.merges import Alignments
from p2pmarket.broker_node.pairs import Pair
from p2pmarket.experiments.scenario import parse_scenario, terms_of
from p2pmarket.experiments.worlds.contract import Place
from p2pmarket.experiments.worlds.images import Images
from p2pmarket.experiments.worlds.paper_broker import GRID, PaperAppraiser

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
Tensors = dict[str, Tensor]


def quiet(doing: str, done: float) -> None:
    """Hears of no progress."""


def appraiser_and_world(method: str, **images: Any) -> tuple[PaperAppraiser, Images]:
    scenario = parse_scenario(
        {
            "scenario": {"name": "digits", "rounds": 1, "method": method, "protocol": "paper"},
            "images": {
                "data": "digits",
                "model": "mlp",
                "arguments": {"hidden": [16]},
                "learning_rate": 0.2,
                "batch_size": 32,
                **images,
            },
            "agent": [{"name": "A", "scarce": "first-half"}, {"name": "B", "scarce": "second-half"}],
        }
    )
    world = scenario.world.build(scenario.agents, method=method, protocol="paper", seed=0, place=Place())
    assert isinstance(world, Images)
    appraiser = world.appraiser(terms_of(scenario, world.terms()))
    assert isinstance(appraiser, PaperAppraiser)
    return appraiser, world


def trained(world: Images) -> tuple[Tensors, Tensors]:
    for learner in world.learners:
        for _ in range(4):
            learner.learn()
    first, second = (learner.snapshot() for learner in world.learners)
    return first, second


def in_another_order(tensors: Tensors) -> Tensors:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    return {
        **tensors,
        "layers.0.weight": tensors["layers.0.weight"][order],
        "layers.0.bias": tensors["layers.0.bias"][order],
        "layers.1.weight": tensors["layers.1.weight"][:, order],
    }


def test_the_best_coefficient_of_the_grid_wins() -> None:
    appraiser, world = appraiser_and_world("paper")
    ours, theirs = trained(world)
    bench = appraiser._benches["images"]
    assert bench.spec is not None
    found = match(bench.spec, ours, theirs, seed=0)
    plan = appraiser._plan(Pair(bench, ours, theirs, list(ours), 0), Alignments(found, None))
    aligned = apply(bench.spec, found, theirs)
    data = bench.validation
    losses = {
        one: bench.evaluators[0]
        .measure(merge(ours, aligned, one, list(ours)), data.select_inputs, data.select_targets)
        .loss
        for one in GRID
    }
    assert plan.alpha == min(losses, key=losses.__getitem__)
    assert (plan.alignment, plan.granularity) == ("weights", "model")
    assert plan.coefficients.keys() == ours.keys()
    assert all(float(one) == pytest.approx(plan.alpha) for one in plan.coefficients.values())


def test_only_the_coefficients_of_the_scenario_are_tried() -> None:
    appraiser, world = appraiser_and_world("unaligned", coefficients=[0.5])
    ours, theirs = trained(world)
    plan = appraiser._plan(Pair(appraiser._benches["images"], ours, theirs, list(ours), 0), Alignments(None, None))
    assert plan.alpha == 0.5


def test_a_seller_in_another_order_is_turned_back_only_where_units_are_aligned() -> None:
    appraiser, world = appraiser_and_world("paper")
    ours, _ = trained(world)
    shuffled = in_another_order(ours)
    bench = appraiser._benches["images"]
    aligned = appraiser._align(Pair(bench, ours, shuffled, list(ours), 0), quiet)
    assert bench.spec is not None
    assert aligned.weights is not None
    back = apply(bench.spec, aligned.weights, shuffled)
    assert all(torch.equal(back[name], ours[name]) for name in ours)

    unaligned, _ = appraiser_and_world("unaligned")
    bare = unaligned._benches["images"]
    assert bare.spec is None
    assert unaligned._align(Pair(bare, ours, shuffled, list(ours), 0), quiet) == Alignments(None, None)
    assert "not aligned" in unaligned.alignment["images"]


def test_units_that_lie_alike_already_are_merged_as_they_are() -> None:
    appraiser, world = appraiser_and_world("paper")
    ours, _ = trained(world)
    pair = Pair(appraiser._benches["images"], ours, ours, list(ours), 0)
    assert appraiser._plan(pair, appraiser._align(pair, quiet)).alignment == "identity"


def test_only_units_inside_of_what_is_for_sale_are_aligned() -> None:
    appraiser, world = appraiser_and_world("paper")
    ours, _ = trained(world)
    bench = appraiser._benches["images"]
    assert bench.spec is not None
    everything = [one.name for one in bench.spec.classes]
    shuffled = in_another_order(ours)

    def turned(names: list[str]) -> list[str]:
        found = appraiser._align(Pair(bench, ours, shuffled, names, 0), quiet).weights
        assert found is not None and list(found) == everything
        return [name for name, order in found.items() if not torch.equal(order, torch.arange(len(order)))]

    assert turned(list(ours)) == everything
    first = [name for name in ours if name.startswith(("layers.0.", "layers.1."))]
    assert turned(first) == everything[:1]
    assert turned([name for name in ours if name.startswith("layers.0.")]) == []
