"""Models of a scenario that draw from torch's own generators, as dropout does: a seed fixes their rows all the same."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from p2pmarket.experiments.document import digest_of
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.run import RunPlan, run_once
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.experiments.worlds.image_learner import Draws

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


class Noisy(nn.Module):
    """Draws while it is measured too."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + 0.01 * torch.randn_like(inputs)


def dropping(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, outputs))


def noisy(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Noisy(), nn.Linear(64, outputs))


def run(factory: str, *names: str, method: str = "alone", **scenario: Any) -> RunResult:
    """Agents with models of this file, however it was imported."""
    sys.modules.setdefault("models_that_draw", sys.modules[__name__])
    made = {
        "scenario": {"name": "draws", "rounds": 3, "method": method, **scenario},
        "images": {
            "data": "digits",
            "model": f"models_that_draw:{factory}",
            "learning_rate": 0.1,
            "broker_images": 300,
        },
        "agent": [{"name": name, "share": 0.3} for name in names],
    }
    return run_once(RunPlan(0, {}, digest_of(made), parse_scenario(made), 0))


def losses(result: RunResult, name: str = "A") -> dict[int, float]:
    return {row.round: row.loss for row in result.rounds if row.agent == name}


@pytest.mark.parametrize("factory", ["dropping", "noisy"])
def test_the_same_rows_again_whatever_was_drawn_before_and_beside_it(factory: str) -> None:
    torch.manual_seed(1)
    one = run(factory, "A")
    torch.manual_seed(2)
    assert losses(run(factory, "A")) == losses(one)
    beside = run(factory, "B", "A", "C")
    assert losses(beside) == losses(one)
    assert losses(beside, "B") != losses(beside, "C")


@pytest.mark.parametrize("factory", ["dropping", "noisy"])
def test_the_same_purchases_again(factory: str) -> None:
    torch.manual_seed(1)
    one = run(factory, "A", "B", method="market")
    torch.manual_seed(2)
    same = run(factory, "A", "B", method="market")
    assert one.trades
    assert (one.rounds, one.trades) == (same.rounds, same.trades)


def test_a_look_at_the_test_images_changes_no_training() -> None:
    often, once = (losses(run("noisy", "A", measure_every=every)) for every in (1, 3))
    assert once[3] == often[3]


def test_every_round_draws_anew_and_the_process_draws_on_as_if_nothing_had_been() -> None:
    draws = Draws(5, "cpu")

    def lent(*, keep: bool) -> float:
        with draws.lent(keep=keep):
            return float(torch.rand(()))

    torch.manual_seed(1)
    wanted = float(torch.rand(()))
    torch.manual_seed(1)
    first, look, second = lent(keep=True), lent(keep=False), lent(keep=True)
    assert float(torch.rand(())) == wanted
    assert look == second != first
    torch.manual_seed(5)
    assert first == float(torch.rand(()))


@pytest.mark.gpu
def test_a_gpus_generator_is_an_agents_own_too() -> None:
    def drawn(seed: int) -> list[float]:
        draws = Draws(5, "cuda")
        torch.cuda.manual_seed(seed)
        found = []
        for _ in range(2):
            with draws.lent(keep=True):
                found.append(float(torch.rand((), device="cuda")))
        return found

    first, second = drawn(1)
    assert first != second
    assert drawn(2) == [first, second]
