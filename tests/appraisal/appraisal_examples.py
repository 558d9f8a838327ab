"""Agents, data and a broker's bench for the appraisal tests: real digits, real training, a second or so."""

from __future__ import annotations

import functools

import torch
from torch.nn import functional

from p2pmarket.appraisal import Evaluator, Validation
from p2pmarket.datasets import Dataset, split, subset_by_class
from p2pmarket.models import build_model, permutation_spec
from p2pmarket.parameters import take_snapshot
from p2pmarket.permutation import PermutationSpec

ARGUMENTS = {"inputs": 64, "hidden": (64, 32), "outputs": 10}

Tensors = dict[str, torch.Tensor]


@functools.cache
def digits() -> tuple[Dataset, Dataset]:
    """(the agents' training data, the broker's validation data)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    whole = Dataset(torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target))
    training, validation = split(whole, (0.6, 0.4), seed=0)
    return training, validation


@functools.cache
def trained(first_class: int, seed: int) -> Tensors:
    """An agent with 10 % of the five classes from `first_class` on and all of the others, trained for a few epochs."""
    data = subset_by_class(digits()[0], {label: 0.1 for label in range(first_class, first_class + 5)}, seed=seed)
    torch.manual_seed(seed)
    model = build_model("mlp", ARGUMENTS, False)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(5):
        for batch in torch.randperm(len(data)).split(32):
            optimiser.zero_grad()
            functional.cross_entropy(model(data.inputs[batch]), data.targets[batch]).backward()
            optimiser.step()
    return take_snapshot(model)


def untrained(seed: int) -> Tensors:
    torch.manual_seed(seed)
    return take_snapshot(build_model("mlp", ARGUMENTS, False))


@functools.cache
def bench(device: str = "cpu") -> tuple[Evaluator, Validation, PermutationSpec]:
    model = build_model("mlp", ARGUMENTS, False)
    spec = permutation_spec("mlp", ARGUMENTS, model)
    assert spec is not None
    evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device=device)
    validation = digits()[1]
    return evaluator, Validation.split(validation.inputs, validation.targets, select_fraction=0.5, seed=1), spec
