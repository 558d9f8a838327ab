"""Losses and metrics against torch's own, BatchNorm statistics, and sentences for what does not fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from p2pmarket.appraisal import Evaluator
from p2pmarket.errors import ModelError
from p2pmarket.parameters import take_snapshot


def _linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def test_losses_and_accuracy_are_torchs_own_whatever_the_batch() -> None:
    model = _linear()
    inputs, targets = torch.randn(50, 4), torch.randint(0, 3, (50,))
    expected = functional.cross_entropy(model(inputs), targets, reduction="none").detach()
    correct = (model(inputs).argmax(1) == targets).double()
    tensors = take_snapshot(model)
    for batch_size in (1, 7, 50, 1000):
        evaluator = Evaluator(
            nn.Linear(4, 3), loss="cross_entropy", metric="accuracy", device="cpu", batch_size=batch_size
        )
        measured = evaluator.measure(tensors, inputs, targets)
        torch.testing.assert_close(measured.losses, expected.double())
        assert torch.equal(measured.metrics, correct)
        assert measured.metric == pytest.approx(float(correct.mean()))


def test_mean_squared_error_never_broadcasts() -> None:
    evaluator = Evaluator(nn.Linear(4, 1), loss="mse", metric="loss", device="cpu")
    tensors = take_snapshot(nn.Linear(4, 1))
    inputs, targets = torch.randn(6, 4), torch.randn(6)
    expected = (inputs @ tensors["weight"].T + tensors["bias"]).flatten() - targets
    measured = evaluator.measure(tensors, inputs, targets)
    torch.testing.assert_close(measured.losses, expected.square().double())
    assert measured.metric == measured.loss
    with pytest.raises(ModelError, match="targets of shape"):
        evaluator.measure(tensors, inputs, torch.randn(6, 2))


def test_the_models_own_parameters_stay_out_of_it() -> None:
    model = _linear()
    evaluator = Evaluator(model, loss="mse", metric="loss", device="cpu")
    before = take_snapshot(model)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    assert evaluator.measure(zeros, torch.ones(2, 4), torch.zeros(2, 3)).loss == 0.0
    assert all(torch.equal(before[name], tensor) for name, tensor in take_snapshot(model).items())


def test_statistics_are_those_of_the_data_and_only_where_they_are_traded() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu", batch_size=100)
    tensors = take_snapshot(model)
    inputs = 5 + 2 * torch.randn(400, 3)
    fresh = evaluator.reset_statistics(tensors, inputs, tensors.keys())
    torch.testing.assert_close(fresh["0.running_mean"], inputs.mean(0))
    torch.testing.assert_close(fresh["0.running_var"], inputs.var(0), rtol=0.05, atol=0)
    assert torch.equal(fresh["0.num_batches_tracked"], tensors["0.num_batches_tracked"])
    assert not tensors["0.running_mean"].any() and not model[0].running_mean.any()
    assert model[0].momentum == 0.1 and not model[0].training
    assert evaluator.reset_statistics(tensors, inputs, ["1.weight"])["0.running_mean"] is tensors["0.running_mean"]


@pytest.mark.parametrize(
    ("inputs", "targets", "words"),
    [
        (torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), r"inputs of torch.float32 and shape \(N, 3\)"),
        (torch.randn(5, 4), torch.full((5,), 3), r"classes 3 ... 3; the model knows 0 ... 2"),
        (torch.randn(5, 4), torch.full((5,), -1), "classes -1"),
        (torch.randn(5, 4), torch.zeros(5), "integer targets"),
        (torch.randn(5, 4), torch.zeros(5, 1, dtype=torch.int64), "integer targets"),
    ],
)
def test_data_that_does_not_fit_the_model(inputs: torch.Tensor, targets: torch.Tensor, words: str) -> None:
    model = _linear()
    evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu")
    with pytest.raises(ModelError, match=words):
        evaluator.measure(take_snapshot(model), inputs, targets)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "hinge", "metric": "loss"}, "cross_entropy, mse"),
        ({"loss": "mse", "metric": "f1"}, "accuracy, loss"),
        ({"loss": "mse", "metric": "accuracy"}, "needs classes"),
        ({"loss": "mse", "metric": "loss", "device": "abacus"}, "'abacus' cannot be used"),
    ],
)
def test_choices_are_named(options: dict[str, str], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Evaluator(_linear(), **options)
