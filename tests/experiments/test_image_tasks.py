"""Agents with different tasks on the same images: what crosses from one task to another, who has which labels, and the
scenarios of three and five agents.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.errors import ScenarioError
from p2pmarket.experiments.document import Document, digest_of, points_of, read_document, with_value
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.run import RunPlan, run_once
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.experiments.worlds.contract import Place
from p2pmarket.experiments.worlds.image_learner import ImageLearner
from p2pmarket.experiments.worlds.images import Images

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

EXAMPLES = Path(__file__).parents[2] / "examples" / "scenarios"
TRUNK = {"layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"}
HEAD = {"layers.2.weight", "layers.2.bias"}


def document(seller: Mapping[str, Any] | None = None, **changes: Any) -> Document:
    """A buyer of parity with few images, and a seller with many."""
    many: dict[str, Any] = {"name": "seller", "share": 0.6, "seed": 7, "knobs": {"buy": False}, **(seller or {})}
    few = {"name": "buyer", "task": "parity", "share": 0.05, "seed": 7, **changes.pop("buyer", {})}
    return {
        "scenario": {"name": "tasks", "rounds": 4, "trade_from": 4},
        "images": {
            "data": "digits",
            "model": "mlp",
            "arguments": {"hidden": [16, 16]},
            "learning_rate": 0.1,
            "batch_size": 16,
            "broker_images": 300,
            "tasks": {"digits": "all", "parity": [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]},
        },
        "agent": [{"strategy": "collaborative", **one} for one in (few, many)],
        "terms": {"pricing": {"rule": "posted"}},
        **changes,
    }


def run(made: Document, seed: int = 0) -> RunResult:
    return run_once(RunPlan(0, {}, digest_of(made), parse_scenario(made), seed))


def world(made: Document, seed: int = 0) -> Images:
    scenario = parse_scenario(made)
    built = scenario.world.build(scenario.agents, method="market", protocol="honest", seed=seed, place=Place())
    assert isinstance(built, Images)
    return built


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The names of what buyers loaded, purchase by purchase."""
    found: list[set[str]] = []
    load = ImageLearner.load

    def noted(self: ImageLearner, tensors: Mapping[str, Tensor]) -> None:
        found.append(set(tensors))
        load(self, tensors)

    monkeypatch.setattr(ImageLearner, "load", noted)
    return found


@pytest.fixture
def left_out(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What appraisals say is not part of the purchase."""
    found: list[set[str]] = []
    appraise = Appraiser.appraise

    def noted(self: Appraiser, *values: Any, **named: Any) -> Any:
        finding = appraise(self, *values, **named)
        found.append(set(finding.result.left_out))
        return finding

    monkeypatch.setattr(Appraiser, "appraise", noted)
    return found


def test_across_tasks_the_trunk_is_bought_and_the_head_is_left_out(
    loaded: list[set[str]], left_out: list[set[str]]
) -> None:
    result = run(document({"task": "digits"}))
    assert result.facts["ledger"]["settled"] > 0
    assert loaded and all(names == TRUNK for names in loaded)
    assert left_out and all(names == HEAD for names in left_out)


def test_within_a_task_the_head_is_bought_too(loaded: list[set[str]], left_out: list[set[str]]) -> None:
    run(document({"task": "parity"}))
    assert loaded and all(names == TRUNK | HEAD for names in loaded)
    assert not any(left_out)


def test_who_asks_for_a_part_gets_that_part(loaded: list[set[str]]) -> None:
    groups = {"groups": {"bottom": ["layers.0.*"], "top": ["layers.1.*", "layers.2.*"]}}
    made = document(
        {"task": "parity"},
        buyer={"knobs": {"buy_groups": ["bottom"]}},
        terms={"pricing": {"rule": "posted"}, "trade": groups},
    )
    run(made)
    assert loaded and all(names == {"layers.0.weight", "layers.0.bias"} for names in loaded)


def test_a_gain_across_tasks_is_in_the_buyers_loss() -> None:
    result = run(document({"task": "digits"}))
    assert {trade.task for trade in result.trades} == {"parity"}
    losses = [row.loss for row in result.rounds if row.agent == "buyer"]
    assert all(abs(trade.loss_before - losses[-2]) < 0.4 for trade in result.trades if not trade.after)
    assert result.facts["agents"]["seller"]["task"] == "digits"


def test_equal_seeds_of_agents_give_equal_trunks_under_different_heads() -> None:
    buyer, seller = (learner.snapshot() for learner in world(document({"task": "digits"})).learners)
    assert all(torch.equal(buyer[name], seller[name]) for name in TRUNK)
    assert buyer["layers.2.weight"].shape == (2, 16) and seller["layers.2.weight"].shape == (10, 16)
    _, other = (learner.snapshot() for learner in world(document({"task": "digits", "seed": 8})).learners)
    assert not torch.equal(buyer["layers.0.weight"], other["layers.0.weight"])


def test_shuffled_labels_are_the_same_labels_on_other_images() -> None:
    _, plain = world(document({"task": "digits"})).learners
    _, dealt = world(document({"task": "digits", "shuffled": True})).learners
    _, again = world(document({"task": "digits", "shuffled": True})).learners
    before, after = plain._trainer._data, dealt._trainer._data
    assert torch.equal(before.inputs, after.inputs)
    assert torch.equal(before.targets.bincount(), after.targets.bincount())
    assert 0.02 < float((before.targets == after.targets).double().mean()) < 0.25
    assert torch.equal(after.targets, again._trainer._data.targets)
    assert torch.equal(plain._test.targets, dealt._test.targets)
    assert "shuffled" in dealt.about and "shuffled" not in plain.about


def test_shuffled_is_yes_or_no() -> None:
    with pytest.raises(ScenarioError, match="shuffled"):
        parse_scenario(document({"task": "digits", "shuffled": 0.5}))


@pytest.mark.parametrize(
    ("file", "agents"),
    [("digits-three-agents.toml", 3), ("digits-five-agents.toml", 5), ("digits-parts.toml", 4)],
)
def test_the_examples_of_digits_run_and_their_books_are_right(file: str, agents: int) -> None:
    point = points_of(read_document(EXAMPLES / file))[0].document
    assert point["scenario"]["method"] == "market"
    result = run(with_value(point, "scenario.rounds", point["scenario"]["trade_from"]))
    ledger = result.facts["ledger"]
    assert len(result.facts["final"]) == agents
    assert ledger["settled"] > 0 and ledger["verified"] and not ledger["problems"]
    assert not {row.problem for row in result.rounds} - {""}
    assert sum(final["balance"] for final in result.facts["final"].values()) + ledger["fees"] == agents * 100_000_000
