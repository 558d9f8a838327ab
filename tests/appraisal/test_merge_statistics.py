"""Buffers are never averaged blindly, and rows with fresh BatchNorm statistics work on a small convolutional net."""

from __future__ import annotations

import pytest
import torch
from appraisal_examples import digits
from torch import nn
from torch.nn import functional

from p2pmarket.appraisal import Evaluator, Validation, plan_merge
from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.statistics import own_buffers, statistics_of
from p2pmarket.datasets import subset_by_class
from p2pmarket.parameters import take_snapshot


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.last = nn.Linear(16, 10)
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        values = functional.relu(self.norm(self.first(inputs.reshape(-1, 1, 8, 8)))) * self.scale
        logits: torch.Tensor = self.last(functional.relu(self.second(values)).mean((2, 3)))
        return logits


def _trained(first_class: int, seed: int, start: int) -> dict[str, torch.Tensor]:
    data = subset_by_class(digits()[0], {label: 0.1 for label in range(first_class, first_class + 5)}, seed=seed)
    torch.manual_seed(start)
    model = _Net()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        for batch in torch.randperm(len(data)).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(data.inputs[batch]), data.targets[batch]).backward()
            optimiser.step()
    model.scale.fill_(1.0 + seed / 100)
    model.seen.fill_(seed)
    return take_snapshot(model)


def test_buffers_are_told_apart() -> None:
    model = _Net()
    assert statistics_of(model) == {"norm.running_mean", "norm.running_var"}
    assert own_buffers(model) == {"norm.num_batches_tracked", "scale", "seen"}
    assert statistics_of(nn.BatchNorm1d(2)) == {"running_mean", "running_var"}


def test_rows_and_fresh_statistics_on_a_convolutional_net() -> None:
    pytest.importorskip("sklearn")
    buyer, seller = _trained(0, 1, 7), _trained(5, 2, 7)
    inputs, targets = digits()[1].inputs, digits()[1].targets
    validation = Validation.split(inputs, targets, select_fraction=0.5, seed=1)
    evaluator = Evaluator(_Net(), loss="cross_entropy", metric="accuracy", device="cpu")
    bench = Bench(evaluator, validation, buyer, seller, buyer.keys(), seed=1)
    losses, accuracies = {}, {}
    for granularity in ("none", "model", "auto"):
        plan = plan_merge(
            evaluator, validation, None, buyer, seller, tradable=buyer.keys(), seed=1, granularity=granularity
        )
        merged = bench.merged(seller, plan.coefficients)
        measured = bench.on_report(merged)
        losses[plan.granularity], accuracies[plan.granularity] = measured.loss, measured.metric
    assert losses["row"] < losses["model"] < losses["none"]
    assert accuracies["row"] > accuracies["none"] + 0.1
    # What is not BatchNorm's own statistics stays the buyer's; the statistics are neither's.
    assert all(torch.equal(merged[name], buyer[name]) for name in ("norm.num_batches_tracked", "scale", "seen"))
    assert set(bench.names).isdisjoint({"norm.num_batches_tracked", "scale", "seen"})
    mean = merged["norm.running_mean"]
    assert not torch.equal(mean, buyer["norm.running_mean"]) and not torch.equal(mean, seller["norm.running_mean"])
