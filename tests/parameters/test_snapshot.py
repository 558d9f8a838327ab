"""Snapshots: copied out without ties to training, checked against a schema, loaded in place."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from p2pmarket.errors import BadSnapshot, ModelError
from p2pmarket.parameters import check_against, check_finite, load_in_place, matching, schema_of, take_snapshot
from p2pmarket.parcel import Manifest, Schema, TensorEntry


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_a_snapshot_has_nothing_to_do_with_the_model_any_more(model: nn.Module) -> None:
    snapshot = take_snapshot(model)
    before = snapshot["0.weight"].clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(snapshot["0.weight"], before)
    assert not any(tensor.requires_grad or not tensor.is_contiguous() for tensor in snapshot.values())
    assert snapshot["1.num_batches_tracked"].dtype == torch.int64


def test_loading_keeps_storage_and_optimiser(model: nn.Module) -> None:
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimiser.step()
    moments = optimiser.state[model[0].weight]["exp_avg"].clone()
    address = model[0].weight.data_ptr()
    load_in_place(model, {"0.weight": torch.full((4, 3), 2.0)})
    assert model[0].weight.data_ptr() == address and bool((model[0].weight == 2).all())
    assert torch.equal(optimiser.state[model[0].weight]["exp_avg"], moments)


def test_loading_is_all_or_nothing(model: nn.Module) -> None:
    before = take_snapshot(model)
    wrong = {
        "other": torch.zeros(1),
        "2.weight": torch.zeros(2, 5),
        "2.bias": torch.zeros(2, dtype=torch.float64),
    }
    for name, tensor in wrong.items():
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            load_in_place(model, {"0.weight": torch.zeros(4, 3), name: tensor})
    assert all(torch.equal(before[name], tensor) for name, tensor in take_snapshot(model).items())


def test_schema_is_sorted_and_the_same_from_model_and_snapshot(model: nn.Module) -> None:
    schema = schema_of(model)
    assert schema == schema_of(take_snapshot(model))
    assert [spec.name for spec in schema.tensors] == sorted(model.state_dict())
    assert ("0.weight", (4, 3), "float32") in [dataclasses.astuple(spec) for spec in schema.tensors]


def _manifest(schema: Schema) -> Manifest:
    entries = tuple(
        TensorEntry(spec.name, spec.shape, spec.dtype, "none", False, 0, 0, 0, bytes(32)) for spec in schema.tensors
    )
    return Manifest("m", "t", 0, bytes(16), 0, entries)


def test_the_first_tensor_that_does_not_fit_is_named(model: nn.Module) -> None:
    schema = schema_of(model)
    check_against(schema, take_snapshot(model))
    check_against(schema, _manifest(schema))
    short = Schema(schema.tensors[1:])
    missing = schema.tensors[0].name
    with pytest.raises(BadSnapshot, match=f"lacks the tensor '{missing}'"):
        check_against(schema, _manifest(short))
    check_against(schema, _manifest(short), partial=True)
    with pytest.raises(BadSnapshot, match=f"'{missing}' that the market's model does not have"):
        check_against(short, _manifest(schema), partial=True)
    other = take_snapshot(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)))
    with pytest.raises(ModelError, match=r"'2\.bias' .* \(3,\).* \(2,\)"):
        check_against(schema, other)
    half = {name: tensor.half() if name == "0.bias" else tensor for name, tensor in take_snapshot(model).items()}
    with pytest.raises(ModelError, match=r"'0\.bias' .*float16.*float32"):
        check_against(schema, half)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(value: float) -> None:
    tensors = {"good": torch.zeros(3), "count": torch.tensor(3), "bad": torch.tensor([0.0, value])}
    with pytest.raises(BadSnapshot, match="'bad'"):
        check_finite(tensors)
    check_finite({"good": torch.zeros(0), "half": torch.ones(3, dtype=torch.bfloat16)})


def test_what_cannot_travel_is_refused() -> None:
    with pytest.raises(ModelError, match="complex64"):
        schema_of({"a": torch.zeros(2, dtype=torch.complex64)})
    with pytest.raises(ModelError, match="sparse"):
        schema_of({"a": torch.eye(2).to_sparse()})
    with pytest.raises(ModelError, match="meta"):
        schema_of({"a": torch.zeros(2, device="meta")})
    with pytest.raises(ModelError, match="schema"):
        schema_of({})
    with pytest.raises(ModelError, match="schema"):
        schema_of({"a" * 300: torch.zeros(1)})


def test_glob_patterns() -> None:
    names = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "Head.weight"]
    assert matching(["layers.*.weight"], names) == ("layers.0.weight", "layers.1.weight")
    assert matching(["head.*"], names) == ()
    assert matching(["layers.[1-9].*", "*.bias"], names) == ("layers.0.bias", "layers.1.weight")
    assert matching([], names) == ()
