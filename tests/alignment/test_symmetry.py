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
    compose,
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
        (Axis("layers.3.bias", 0), "9 units"),
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
    back = apply(spec, inverse(spec, permutations), there)
    assert not torch.equal(there["layers.0.bias"], state["layers.0.bias"])
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert torch.equal(there["layers.3.bias"], state["layers.3.bias"])
    assert is_identity(identity(spec)) and not is_identity(permutations)
    assert all(torch.equal(apply(spec, identity(spec), state)[name], state[name]) for name in state)


class _Heads(nn.Module):
    """Attention with fused qkv, two heads of width three, written out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(5, 18)
        self.out = nn.Linear(6, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        return self.out(torch.softmax(q @ k.mT, -1).matmul(v).transpose(1, 2).flatten(2))


def _heads_spec() -> PermutationSpec:
    def on(axis: int, *starts: int, outer: int = 1, inner: int = 1) -> list[Axis]:
        names = ("qkv.weight", "qkv.bias") if axis == 0 else ("out.weight",)
        return [Axis(name, axis, start, outer, inner) for name in names for start in starts]

    return PermutationSpec(
        (
            PermutationClass("heads", 2, (*on(0, 0, 6, 12, inner=3), *on(1, 0, inner=3))),
            PermutationClass("keys", 3, (*on(0, 0, 6, outer=2),), blocks=2, within="heads"),
            PermutationClass("values", 3, (*on(0, 12, outer=2), *on(1, 0, outer=2)), blocks=2, within="heads"),
        )
    )


def test_heads_move_with_their_inner_units_which_are_permuted_one_by_one() -> None:
    torch.manual_seed(0)
    model, spec = _Heads(), _heads_spec()
    verify_spec(model, spec, (torch.randn(2, 7, 5),))
    permutations = {
        "heads": torch.tensor([1, 0]),
        "keys": torch.tensor([[0, 1, 2], [2, 0, 1]]),
        "values": torch.tensor([[2, 1, 0], [1, 2, 0]]),
    }
    state = model.state_dict()
    there = apply(spec, permutations, state)
    # New head 1 is the old head 0; its first value is that head's second.
    assert torch.equal(there["out.weight"][:, 3], state["out.weight"][:, 1])
    back = apply(spec, inverse(spec, permutations), there)
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert is_identity(compose(spec, permutations, inverse(spec, permutations)))
    twice = apply(spec, compose(spec, permutations, permutations), state)
    assert all(torch.equal(twice[name], tensor) for name, tensor in apply(spec, permutations, there).items())


def test_heads_whose_keys_are_left_behind_are_refused() -> None:
    spec = _heads_spec()
    heads = dataclasses.replace(spec.classes[0], members=spec.classes[0].members[1:])
    with pytest.raises(ModelError, match="'heads' is not a symmetry"):
        verify_spec(_Heads(), PermutationSpec((heads, *spec.classes[1:])), (torch.randn(2, 7, 5),))


def test_blocks_need_room_and_a_class_around_them() -> None:
    heads, keys, _ = _heads_spec().classes
    with pytest.raises(ModelError, match="within 'heads'"):
        PermutationSpec((keys,))
    with pytest.raises(ModelError, match="2 blocks of 3 units do not fit"):
        PermutationSpec((heads, dataclasses.replace(keys, members=(Axis("qkv.weight", 0, 0, 3),))))
    with pytest.raises(ModelError, match="inside a unit of another"):
        PermutationSpec((heads, PermutationClass("across", 4, (Axis("qkv.weight", 0, 1),))))
