"""Activation matching: planted permutations are found by what units do, on inputs without labels."""

from __future__ import annotations

import pytest
import torch

from p2pmarket.alignment import PermutationSpec, apply, identity, inverse
from p2pmarket.alignment.activations import match_activations
from p2pmarket.errors import BadSnapshot, ModelError
from p2pmarket.models import build_model, permutation_spec

MODELS = [
    ("mlp", {"inputs": 20, "hidden": [16, 24, 12], "outputs": 4}, (200, 20)),
    ("wide_resnet", {"depth": 10, "width": 1, "outputs": 4}, (20, 3, 8, 8)),
    ("resnet20", {"outputs": 4, "norm": "batch"}, (20, 3, 8, 8)),
]


@pytest.mark.parametrize(("reference", "arguments", "shape"), MODELS)
def test_planted_units_are_found_and_the_model_stays_as_it_is(
    reference: str, arguments: dict[str, object], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = build_model(reference, arguments, False)
    spec = permutation_spec(reference, arguments, model)
    assert spec is not None
    model.train()
    buyer = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    planted = {name: torch.randperm(size) for name, size in spec.sizes.items()}
    seller = apply(spec, planted, buyer)
    state = torch.get_rng_state()
    found = match_activations(
        model, spec, buyer, seller, (torch.randn(shape, generator=torch.Generator()),), batch_size=64
    )
    assert torch.equal(torch.get_rng_state(), state)
    undo = inverse(spec, planted)
    assert all(torch.equal(found[name], undo[name]) for name in spec.sizes)
    assert all(torch.equal(tensor, buyer[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())


def _mlp() -> tuple[torch.nn.Module, PermutationSpec, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = build_model(*MODELS[0][:2], False)
    spec = permutation_spec(*MODELS[0][:2], model)
    assert spec is not None
    return model, spec, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_units_that_nothing_shows_stay_where_they_are() -> None:
    model, spec, buyer = _mlp()
    constant = (torch.zeros(5, 20),)  # every unit is constant: nothing correlates
    planted = {name: torch.randperm(size) for name, size in spec.sizes.items()}
    found = match_activations(model, PermutationSpec(()), buyer, apply(spec, planted, buyer), constant)
    assert found == {}
    hidden = {name: tensor for name, tensor in buyer.items() if name.startswith("layers.3")}
    kept = match_activations(model, spec, buyer, hidden, constant, start=planted)
    assert all(torch.equal(kept[name], planted[name]) for name in ("hidden.0", "hidden.1"))


def test_another_head_does_not_matter() -> None:
    model, spec, buyer = _mlp()
    planted = {name: torch.randperm(size) for name, size in spec.sizes.items()}
    seller = apply(spec, planted, buyer)
    seller["layers.3.weight"], seller["layers.3.bias"] = torch.randn(7, 12), torch.randn(7)
    found = match_activations(model, spec, buyer, seller, (torch.randn(200, 20),))
    undo = inverse(spec, planted)
    assert all(torch.equal(found[name], undo[name]) for name in spec.sizes)


def test_bad_inputs_and_bad_weights_are_told() -> None:
    model, spec, buyer = _mlp()
    with pytest.raises(ModelError, match="does not run"):
        match_activations(model, spec, buyer, buyer, (torch.randn(5, 19),))
    with pytest.raises(BadSnapshot, match="not finite"):
        match_activations(
            model, spec, buyer, {**buyer, "layers.0.weight": torch.full((16, 20), torch.nan)}, (torch.randn(5, 20),)
        )
    assert match_activations(model, spec, buyer, buyer, (torch.randn(50, 20),)).keys() == identity(spec).keys()
