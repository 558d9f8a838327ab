"""Buffers are never averaged blindly, and rows with fresh BatchNorm statistics work on a small convolutional net."""

from __future__ import annotations

import pytest
import torch
from appraisal_examples import digits
from torch import nn
from torch.nn import functional

from p2pmarket.alignment import apply, match
from p2pmarket.appraisal import Evaluator, Validation, plan_merge
from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.merging import merge
from p2pmarket.appraisal.statistics import own_buffers, repair, statistics_of
from p2pmarket.datasets import subset_by_class
from p2pmarket.models import build_model, permutation_spec
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


DEEP = {"inputs": 64, "hidden": (48,) * 5, "outputs": 10}


def _deep(seed: int) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Six layers without a norm: where averaged units fade away layer by layer."""
    data = digits()[0]
    torch.manual_seed(seed)
    model = build_model("mlp", DEEP, False)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(12):
        for batch in torch.randperm(len(data)).split(50):
            optimiser.zero_grad()
            functional.cross_entropy(model(data.inputs[batch]), data.targets[batch]).backward()
            optimiser.step()
    return model, take_snapshot(model)


def test_repair_lowers_the_loss_halfway_and_leaves_the_model_what_it_is() -> None:
    pytest.importorskip("sklearn")
    (model, buyer), (_, seller) = _deep(1), _deep(2)
    spec = permutation_spec("mlp", DEEP, model)
    assert spec is not None
    aligned = apply(spec, match(spec, buyer, seller, seed=0), seller)
    inputs, targets = digits()[1].inputs, digits()[1].targets
    evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu")
    middle = merge(buyer, aligned, 0.5, buyer.keys())

    def loss(tensors: dict[str, torch.Tensor]) -> float:
        return evaluator.measure(tensors, inputs[300:], targets[300:]).loss

    repaired = repair(model, middle, buyer, aligned, 0.5, inputs[:300])
    assert loss(repaired) < 0.9 * loss(middle)
    assert {name: tensor.shape for name, tensor in repaired.items()} == {n: t.shape for n, t in buyer.items()}
    assert not any(module._forward_hooks for module in model.modules())
    # The control: the deviations of a model that knows nothing are no help.
    torch.manual_seed(5)
    strangers = take_snapshot(build_model("mlp", DEEP, False))
    assert loss(repair(model, middle, strangers, strangers, 0.5, inputs[:300])) > loss(middle)
    # A merge of a model with itself lacks nothing.
    same = repair(model, buyer, buyer, buyer, 0.5, inputs[:300])
    assert all(torch.allclose(same[name], buyer[name], atol=1e-5) for name in buyer)
    # As an option of the engine: every merge is repaired, the buyer alone is left as it is.
    validation = Validation.of(inputs[:300], targets[:300], inputs[300:], targets[300:])
    plain, bench = (
        Bench(evaluator, validation, buyer, aligned, buyer.keys(), seed=1, repair=option) for option in (False, True)
    )
    assert bench.on_select(bench.merged(aligned, 0.5)).mean() < 0.9 * plain.on_select(plain.merged(aligned, 0.5)).mean()
    assert all(torch.equal(bench.merged(aligned, 0.0)[name], buyer[name]) for name in buyer)
    plan = plan_merge(
        evaluator, validation, None, buyer, aligned, tradable=buyer.keys(), seed=1, granularity="tensor", repair=True
    )
    assert bench.on_report(bench.merged(aligned, plan.coefficients)).loss < 0.98 * bench.on_report(buyer).loss


@pytest.mark.parametrize("alpha", [0.25, {"0.weight": torch.rand(4), "2.weight": torch.tensor(0.7)}])
def test_repaired_units_have_the_mean_and_deviation_between_the_parents(alpha: object) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 3, bias=False), nn.Flatten())
    buyer, seller, middle = (
        {name: torch.randn(tensor.shape) for name, tensor in model.state_dict().items()} for _ in range(3)
    )
    inputs = torch.randn(50, 2, 6, 6)
    repaired = repair(model, middle, buyer, seller, alpha, inputs)  # type: ignore[arg-type]

    def moments(tensors: dict[str, torch.Tensor], layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        part = {name: tensor for name, tensor in tensors.items() if int(name[0]) < layer}
        units = torch.func.functional_call(model[:layer], part, (inputs,)).transpose(0, 1).flatten(1)
        return units.mean(1), units.std(1, correction=0)

    for layer in (1, 3):
        portion = alpha if isinstance(alpha, float) else alpha[f"{layer - 1}.weight"]  # type: ignore[index]
        wanted = [
            (1 - portion) * own + portion * other
            for own, other in zip(moments(buyer, layer), moments(seller, layer), strict=True)
        ]
        mean, deviation = moments(repaired, layer)
        torch.testing.assert_close(deviation, wanted[1], rtol=1e-4, atol=1e-5)
        if layer == 1:  # the other layer has no bias to bear the mean
            torch.testing.assert_close(mean, wanted[0], rtol=1e-4, atol=1e-5)
