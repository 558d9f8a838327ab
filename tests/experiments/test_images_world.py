"""Networks on images as a world of experiments: who has which images, what brokers measure on, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from p2pmarket.alignment.matching import match
from p2pmarket.appraisal.validation import Validation
from p2pmarket.datasets import Dataset, ImageData
from p2pmarket.errors import DataError, ModelError, ScenarioError
from p2pmarket.experiments.document import Document, digest_of
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.run import RunPlan, run_once
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.experiments.worlds import image_data
from p2pmarket.experiments.worlds.contract import Place
from p2pmarket.experiments.worlds.images import Images

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def document(**changes: Any) -> Document:
    scenario = {"name": "digits", "rounds": 3, "trade_from": 2, **changes.pop("scenario", {})}
    images = {
        "data": "digits",
        "model": "mlp",
        "arguments": {"hidden": [16]},
        "learning_rate": 0.1,
        "batch_size": 32,
        "broker_images": 300,
        **changes.pop("images", {}),
    }
    first, second = changes.pop("first", {}), changes.pop("second", {})
    agents = [
        {"name": "A", "scarce": "first-half", **first},
        {"name": "B", "scarce": "second-half", **second},
    ]
    return {"scenario": scenario, "images": images, "agent": agents, **changes}


def world(seed: int = 0, place: Place | None = None, **changes: Any) -> Images:
    scenario = parse_scenario(document(**changes))
    built = scenario.world.build(
        scenario.agents, method=scenario.method, protocol=scenario.protocol, seed=seed, place=place or Place()
    )
    assert isinstance(built, Images)
    return built


def run(method: str, seed: int = 0, **changes: Any) -> RunResult:
    scenario = {"method": method, **changes.pop("scenario", {})}
    made = document(scenario=scenario, **changes)
    return run_once(RunPlan(0, {}, digest_of(made), parse_scenario(made), seed))


def validation_of(made: Images, task: str = "images") -> Validation:
    return made._validations[task]


def test_agents_are_short_of_their_scarce_classes_and_have_all_of_the_others() -> None:
    a, b = world(scenario={"protocol": "paper"}).learners
    targets = [learner._trainer._data.targets for learner in (a, b)]
    low, high = ([int((one < 5).sum()) for one in targets], [int((one >= 5).sum()) for one in targets])
    assert low[0] == pytest.approx(0.1 * low[1], abs=5)
    assert high[1] == pytest.approx(0.1 * high[0], abs=5)
    assert low[1] + high[0] == pytest.approx(1348, abs=2)
    assert "10% of the classes 0, 1, 2, 3, 4" in a.about


def test_the_honest_broker_has_images_that_nobody_else_has() -> None:
    honest = world(first={"scarce": []}, second={"scarce": []})
    data = validation_of(honest)
    parts = {
        "select": data.select_inputs,
        "report": data.report_inputs,
        "A": honest.learners[0]._trainer._data.inputs,
        "test": honest.learners[0]._test.inputs,
    }
    held = {name: {part.numpy().tobytes() for part in inputs} for name, inputs in parts.items()}
    assert (len(data.select_targets), len(data.report_targets)) == (150, 150)
    names = list(held)
    common = {(one, other) for one in names for other in names if one < other and held[one] & held[other]}
    assert common == set()


def test_the_papers_broker_measures_on_the_test_images() -> None:
    paper = world(scenario={"protocol": "paper"})
    data, test = validation_of(paper), paper.learners[0]._test
    assert torch.equal(data.select_inputs, test.inputs)
    assert torch.equal(data.report_inputs, test.inputs)


def test_worlds_of_a_seed_are_equal_and_of_another_are_not() -> None:
    def parts(made: Images) -> list[torch.Tensor]:
        learner = made.learners[0]
        learner.learn()
        return [
            learner._trainer._data.inputs,
            learner.snapshot()["layers.0.weight"],
            validation_of(made).select_inputs,
        ]

    one, same, other = parts(world(1)), parts(world(1)), parts(world(2))
    assert all(map(torch.equal, one, same))
    assert not any(a.shape == b.shape and torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_seed_of_ones_own_fixes_the_first_parameters_alone() -> None:
    one, other = (world(seed, first={"seed": 321}).learners for seed in (1, 2))
    assert torch.equal(one[0].snapshot()["layers.0.weight"], other[0].snapshot()["layers.0.weight"])
    assert not torch.equal(one[1].snapshot()["layers.0.weight"], other[1].snapshot()["layers.0.weight"])
    torch.manual_seed(321)
    assert torch.equal(one[0].snapshot()["layers.0.weight"], torch.nn.Linear(64, 16).weight.detach())


def test_a_share_is_a_part_of_the_training_images() -> None:
    whole, part = (world(first={"scarce": [], "share": share}).learners[0].samples for share in (1.0, 0.25))
    assert part == pytest.approx(whole / 4, abs=1)


def test_agents_with_all_images_hold_them_once_and_others_hold_their_part() -> None:
    every: dict[str, Any] = {"scarce": []}
    one, other = world(first=every, second={**every, "shuffled": True}).learners
    first, second = one._trainer._data, other._trainer._data
    assert first.inputs.data_ptr() == second.inputs.data_ptr()
    assert not torch.equal(first.targets, second.targets)
    before = first.inputs.clone()
    other.learn()
    assert torch.equal(first.inputs, before)
    parts: list[dict[str, Any]] = [{"scarce": [1]}, {"scarce": [], "share": 0.5}]
    for has in parts:
        part = world(first=has).learners[0]._trainer._data.inputs
        assert len(part) < len(before)
        assert part.untyped_storage().nbytes() == part.nbytes


def test_agents_with_all_images_of_two_tasks_have_the_labels_of_their_own() -> None:
    tasks = {"digits": "all", "parity": [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]}
    made = world(images={"tasks": tasks}, first={"scarce": []}, second={"scarce": [], "task": "parity"})
    digits, parity = (learner._trainer._data for learner in made.learners)
    assert torch.equal(digits.inputs, parity.inputs)
    assert torch.equal(digits.targets % 2, parity.targets)


def test_fewer_images_and_another_scale() -> None:
    few = world(
        images={"train_images": 400, "test_images": 50, "broker_images": 100, "mean": [0.3], "deviation": [0.4]}
    )
    learner = few.learners[0]
    assert len(learner._test.targets) == 50
    assert learner._test.inputs.min() == pytest.approx(-0.75)
    assert learner.samples < 300


def test_tasks_of_other_labels_have_heads_of_their_own() -> None:
    tasks = {"digits": "all", "parity": [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]}
    made = world(images={"tasks": tasks}, second={"task": "parity"})
    heads = [learner.snapshot()["layers.1.weight"].shape[0] for learner in made.learners]
    assert heads == [10, 2]
    assert set(made.learners[1]._test.targets.tolist()) == {0, 1}
    assert [task["arguments"]["outputs"] for task in made.terms()["task"]] == [10, 2]


def test_agents_of_two_tasks_trade_what_their_networks_have_in_common() -> None:
    tasks = {"digits": "all", "parity": [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]}
    made = run("market", images={"tasks": tasks}, second={"task": "parity"})
    assert made.facts["ledger"]["verified"]
    assert {(trade.buyer, trade.seller) for trade in made.trades} <= {("A", "B"), ("B", "A")}
    assert {row.task for row in made.rounds} == {"digits", "parity"}


@pytest.mark.parametrize("method", ["alone", "fedavg", "unaligned", "paper", "market"])
def test_every_method_runs_and_repeats(method: str) -> None:
    one, same = run(method, seed=3), run(method, seed=3)
    assert one.rounds == same.rounds
    assert one.trades == same.trades
    assert bool(one.trades) == (method in ("unaligned", "paper", "market"))
    assert one.facts["ledger"] == same.facts["ledger"]


@pytest.mark.parametrize("method", ["paper", "market"])
def test_no_row_depends_on_how_fast_the_machine_is(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Shortlists of one seller too, which are ranked with a matching of their own."""
    scarce: dict[str, Any] = {"A": "first-half", "B": "second-half", "C": [2, 3, 6, 7]}
    agents = [{"name": name, "scarce": classes} for name, classes in scarce.items()]
    changes: dict[str, Any] = {"agent": agents, "terms": {"limits": {"max_sellers": 1}}}
    usual = run(method, **changes)
    asked: list[float] = []

    def slow() -> float:
        asked.append(1000.0 * len(asked))
        return asked[-1]

    monkeypatch.setattr(match, "__kwdefaults__", {**(match.__kwdefaults__ or {}), "clock": slow})
    again = run(method, **changes)
    assert len(asked) > 2
    assert usual.trades
    assert (again.rounds, again.trades) == (usual.rounds, usual.trades)


def test_a_market_helps_agents_that_are_short_of_classes() -> None:
    scenario = {"rounds": 8, "protocol": "paper"}
    settings: dict[str, Any] = {"first": {"strategy": "collaborative"}, "second": {"strategy": "collaborative"}}
    alone, market = (
        min(one["metric"] for one in run(method, scenario=scenario, **settings).facts["final"].values())
        for method in ("alone", "market")
    )
    assert market > alone + 0.02


def test_an_optimiser_is_kept_at_a_purchase_unless_the_scenario_resets_it() -> None:
    for reset in (False, True):
        (learner, _) = world(images={"optimizer": "adam", "learning_rate": 0.001, "reset_optimizer": reset}).learners
        learner.learn()
        before = learner._trainer._optimizer
        learner.load(learner.snapshot())
        assert (learner._trainer._optimizer is before) is not reset
        assert bool(learner._trainer._optimizer.state) is not reset


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {"data": "letters"}}, "it is one of mnist"),
        ({"images": {"colour": 1}}, "unknown key 'colour' in \\[images\\]"),
        ({"images": {"mean": [0.1]}}, "both mean and deviation"),
        ({"images": {"coefficients": [0.0]}}, "coefficients in \\[images\\]"),
        ({"images": {"coefficients": ["much"]}}, "list of numbers"),
        ({"images": {"optimizer": "adam", "momentum": 0.9}}, "momentum in \\[images\\] is of sgd and means nothing to"),
        ({"images": {"arguments": {"hidden": [4], "outputs": 10}}}, "has outputs, which follows from a task's classes"),
        ({"images": {"tasks": {"odd": [[1, 3], [3, 5]]}}}, "no class in two of them"),
        ({"images": {"tasks": {"odd": [[1, 3], [11]]}}}, "from 0 to 9"),
        ({"images": {"tasks": {"odd": "some"}}}, "at least two lists"),
        ({"images": {"tasks": {"one": [[1, 2]]}}}, "at least two lists"),
        ({"first": {"scarce": "half"}}, "first-half, second-half, or a list of classes from 0 to 9"),
        ({"first": {"scarce": [10]}}, "first-half, second-half, or a list of classes from 0 to 9"),
        ({"first": {"scarce": 3}}, "first-half, second-half, or a list of classes from 0 to 9"),
        ({"first": {"share": 0}}, "no image to learn from"),
        ({"first": {"scarce": list(range(10)), "keep": 0}}, "no image to learn from"),
        ({"first": {"keep": 1.5}}, "it is from 0 to 1"),
        ({"agent": [{"keep": 0.5}]}, "has keep, .* and no scarce"),
        ({"first": {"samples": 5}}, "unknown key 'samples'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        parse_scenario(document(**changes))


def test_a_value_that_changes_nothing_may_be_named_where_it_is_none() -> None:
    """So that a sweep over optimisers or scarce classes can have it for its other points."""
    parse_scenario(document(images={"optimizer": "adam", "momentum": 0.0}))
    parse_scenario(document(first={"scarce": [], "keep": 0.5}))


def test_a_broker_that_takes_all_images_is_refused() -> None:
    with pytest.raises(ScenarioError, match="broker_images in \\[images\\] is 5000, and there are 1348"):
        world(images={"broker_images": 5000})


def test_a_data_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cifar10 is not here"):
        world(place=Place(data=tmp_path), images={"data": "cifar10"})


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="device 'quantum' cannot be used"):
        world(place=Place(device="quantum"))


def test_only_the_place_differs_and_the_scenario_does_not_know_it() -> None:
    settings = parse_scenario(document()).world
    assert "data" in {field.name for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    assert not {"device", "source"} & {field.name for field in dataclasses.fields(settings)}  # type: ignore[arg-type]


def test_images_become_smaller_by_the_means_of_their_pixels() -> None:
    whole, small = (world(images={"size": size}).learners[0]._test.inputs for size in (8, 4))
    assert tuple(small.shape[1:]) == (1, 4, 4)
    assert torch.allclose(small[:, :, 0, 0], whole[:, :, :2, :2].mean((2, 3)), atol=1e-6)


def test_a_residual_network_learns_and_trades() -> None:
    network = {"model": "wide_resnet", "arguments": {"depth": 10, "width": 1}, "train_images": 300, "test_images": 60}
    training = {"optimizer": "adam", "learning_rate": 0.01, "reset_optimizer": True, "broker_images": 60, "size": 4}
    made = run("market", images={**network, **training}, scenario={"rounds": 2})
    assert made.facts["ledger"]["verified"]
    assert len(made.trades) == 2


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("tinyimagenet", 200)])
def test_coloured_images_of_any_number_of_classes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, classes: int
) -> None:
    draw = torch.Generator().manual_seed(0)

    def part(count: int) -> Dataset:
        return Dataset(torch.rand(count, 3, 8, 8, generator=draw), torch.arange(count) % classes)

    data = ImageData(name, part(800), part(200), tuple(map(str, range(classes))), (3, 8, 8), "noise")
    monkeypatch.setattr(image_data, "find_images", lambda name, data: tmp_path)
    monkeypatch.setattr(image_data, "load_images", lambda name, source, size: data)
    network = {"data": name, "model": "wide_resnet", "arguments": {"depth": 10, "width": 1}}
    made = world(images={**network, "mean": [0.5] * 3, "deviation": [0.2] * 3}, scenario={"protocol": "paper"})
    first, second = made.learners
    assert set(first._trainer._data.targets.tolist()) >= set(range(classes // 2, classes))
    assert first.samples < 800
    assert first.snapshot()["head.weight"].shape[0] == classes
    assert first.scores().metric < 0.5
    assert second.snapshot()["stem.weight"].shape[1] == 3
