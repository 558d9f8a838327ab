"""The built-in trainer: repeatable, it learns, and data that do not fit are told in a sentence."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from p2pmarket.datasets import Dataset
from p2pmarket.errors import DataError
from p2pmarket.node.trainers import Trainer, loss_of, score


def halves(samples: int = 64) -> Dataset:
    """Points in the plane, of the class that says on which side of a line they are."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, 2, generator=generator)
    return Dataset(inputs, (inputs[:, 0] > inputs[:, 1]).long())


def trainer_of(model: nn.Module, data: Dataset, **changes: object) -> Trainer:
    settings = {"loss": "cross_entropy", "optimizer": "sgd", "learning_rate": 0.5, "momentum": 0.0, "batch_size": 10}
    return Trainer(model, data, **{**settings, "seed": 3, **changes})


def fresh() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adam", "learning_rate": 0.05}, {"momentum": 0.9}])
def test_it_learns(changes):
    model, data = fresh(), halves()
    trainer = trainer_of(model, data, **changes)
    losses = [trainer.epoch() for _ in range(10)]
    assert losses[-1] < losses[0] / 2
    assert score(model, data, "cross_entropy") > 90


def test_it_learns_numbers_too():
    inputs = halves().inputs
    data = Dataset(inputs, inputs @ torch.tensor([[1.0], [2.0]]))
    model = nn.Linear(2, 1)
    trainer = trainer_of(model, data, loss="mse", learning_rate=0.1)
    for _ in range(20):
        trainer.epoch()
    assert score(model, data, "mse") < 1e-3


def test_twins_with_one_seed_take_the_same_steps_and_others_do_not():
    model, data = fresh(), halves()
    twin, other = copy.deepcopy(model), copy.deepcopy(model)
    for one, seed in ((model, 3), (twin, 3), (other, 4)):
        trainer_of(one, data, seed=seed).epoch()
    assert torch.equal(model.weight, twin.weight)
    assert not torch.equal(model.weight, other.weight)


def test_every_sample_is_seen_once_an_epoch():
    seen = []

    class Listening(nn.Linear):
        def forward(self, inputs):
            seen.append(inputs)
            return super().forward(inputs)

    data = halves(25)
    trainer_of(Listening(2, 2), data).epoch()
    assert [len(batch) for batch in seen] == [10, 10, 5]
    assert torch.equal(torch.cat(seen).sort(dim=0).values, data.inputs.sort(dim=0).values)


def test_scoring_leaves_dropout_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9))
    data = halves()
    model.train()
    assert score(model, data, "cross_entropy") == score(model, data, "cross_entropy")


def test_data_of_another_shape_are_the_datas_fault():
    with pytest.raises(DataError, match=r"the data of shape \(3,\) does not fit the model"):
        trainer_of(fresh(), Dataset(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))).epoch()


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        ("cross_entropy", torch.tensor([0, 5])),
        ("cross_entropy", torch.tensor([0, -1])),
        ("mse", torch.ones(2, 3)),
    ],
)
def test_targets_that_the_model_does_not_have(loss, targets):
    with pytest.raises(DataError, match="targets do not fit the model"):
        loss_of(loss, torch.zeros(2, 2), targets)
