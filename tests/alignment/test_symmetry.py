"""Permutation specs: right ones leave a model's function alone, wrong ones are refused by name."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from p2pmarket.alignment import (
    Axis,
    PermutationClass,
    PermutationSpec,
    apply,
    identity,
    inverse,
    is_identity,
    verify_spec,
)
from p2pmarket.errors import ModelError
from p2pmarket.models import build_model, permutation_spec

MODELS = [
    ("mlp", {"inputs": 12, "hidden": [9, 9, 5], "outputs": 4}, (4, 12)),
    ("wide_resnet", {"depth": 10, "width": 1, "outputs": 4}, (1, 3, 4, 4)),
    ("wide_resnet", {"depth": 16, "width": 2, "outputs": 4}, (1, 3, 4, 4)),
    ("resnet20", {"outputs": 4}, (1, 3, 4, 4)),
    ("resnet20", {"outputs": 4, "norm": "batch"}, (1, 3, 4, 4)),
]


def _model(reference: str, arguments: dict[str, object]) -> tuple[nn.Module, PermutationSpec]:
    torch.manual_seed(0)
    model = build_model(reference, arguments, False)
    spec = permutation_spec(reference, arguments, model)
    assert spec is not None
    return model, spec


@pytest.mark.parametrize(("reference", "arguments", "shape"), MODELS)
def test_the_built_in_specs_are_symmetries(
    reference: str, arguments: dict[str, object], shape: tuple[int, ...]
) -> None:
    model, spec = _model(reference, arguments)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    verify_spec(model, spec, (torch.randn(shape),))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("reference", "arguments", "shape"), MODELS)
def test_a_member_left_out_is_noticed(reference: str, arguments: dict[str, object], shape: tuple[int, ...]) -> None:
    model, spec = _model(reference, arguments)
    inputs = (torch.randn(shape),)
    for index, group in list(enumerate(spec.classes))[:2]:
        for left_out in range(0, len(group.members), 3):
            members = group.members[:left_out] + group.members[left_out + 1 :]
            classes = (*spec.classes[:index], dataclasses.replace(group, members=members), *spec.classes[index + 1 :])
            with pytest.raises(ModelError, match=f"class '{group.name}' is not a symmetry"):
                verify_spec(model, PermutationSpec(classes), inputs)


def test_permuting_the_outputs_is_not_a_symmetry() -> None:
    model, _ = _model(*MODELS[0][:2])
    spec = PermutationSpec((PermutationClass("classes", 4, (Axis("layers.3.weight", 0), Axis("layers.3.bias", 0))),))
    with pytest.raises(ModelError, match="'classes' is not a symmetry"):
        verify_spec(model, spec, (torch.randn(4, 12),))


def test_a_spec_that_does_not_fit_is_refused() -> None:
    model, _ = _model(*MODELS[0][:2])
    for member, words in (
        (Axis("layers.9.bias", 0), "lacks"),
        (Axis("layers.0.bias", 1), "axis 1"),
        (Axis("layers.0.weight", 1), "9 units"),
    ):
        with pytest.raises(ModelError, match=words):
            verify_spec(model, PermutationSpec((PermutationClass("a", 9, (member,)),)), (torch.randn(4, 12),))


def test_a_spec_that_contradicts_itself_cannot_be_made() -> None:
    one = PermutationClass("a", 2, (Axis("w", 0),))
    with pytest.raises(ModelError, match="'a' and 'b'"):
        PermutationSpec((one, PermutationClass("b", 2, (Axis("w", 0),))))
    with pytest.raises(ModelError, match="twice"):
        PermutationSpec((one, one))
    with pytest.raises(ModelError, match="empty"):
        PermutationSpec((PermutationClass("a", 2, ()),))


def test_the_inverse_undoes() -> None:
    model, spec = _model(*MODELS[0][:2])
    state = model.state_dict()
    permutations = {name: torch.randperm(size) for name, size in spec.sizes.items()}
    there = apply(spec, permutations, state)
    back = apply(spec, inverse(permutations), there)
    assert not torch.equal(there["layers.0.bias"], state["layers.0.bias"])
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert torch.equal(there["layers.3.bias"], state["layers.3.bias"])
    assert is_identity(identity(spec)) and not is_identity(permutations)
    assert all(torch.equal(apply(spec, identity(spec), state)[name], state[name]) for name in state)
