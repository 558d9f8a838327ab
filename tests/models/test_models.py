"""Built-in models, their arguments' bounds, and factories that only an operator's own configuration may name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from p2pmarket.errors import ModelError
from p2pmarket.models import MODEL_NAMES, build_model, permutation_spec
from p2pmarket.permutation import PermutationSpec

PAPER_MLP = {"inputs": 784, "hidden": [32, 32, 32, 16], "outputs": 10}


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_papers_models_have_the_papers_sizes() -> None:
    assert _count(build_model("mlp", PAPER_MLP, False)) == 27_930
    assert _count(build_model("wide_resnet", {"depth": 22, "width": 6, "outputs": 10}, False)) == 9_658_458


@pytest.mark.parametrize(
    ("reference", "arguments", "shape"),
    [
        ("mlp", {"inputs": 64, "hidden": (8,), "outputs": 10}, (3, 8, 8)),
        ("mlp", {"inputs": 4, "hidden": [], "outputs": 2}, (3, 4)),
        ("wide_resnet", {"depth": 10, "width": 1, "outputs": 7, "channels": 1}, (2, 1, 8, 8)),
        ("resnet20", {"outputs": 7}, (2, 3, 8, 8)),
        ("resnet20", {"outputs": 7, "norm": "batch", "width": 2}, (2, 3, 8, 8)),
    ],
)
def test_a_row_of_outputs_for_every_sample(
    reference: str, arguments: dict[str, object], shape: tuple[int, ...]
) -> None:
    model = build_model(reference, arguments, False)
    outputs = model(torch.randn(shape))
    assert outputs.shape == (shape[0], arguments["outputs"])
    spec = permutation_spec(reference, arguments, model)
    assert isinstance(spec, PermutationSpec)
    assert all(
        model.state_dict()[member.tensor].shape[member.axis] == group.size
        for group in spec.classes
        for member in group.members
    )


def test_same_seed_same_weights() -> None:
    torch.manual_seed(3)
    first = build_model("mlp", PAPER_MLP, False).state_dict()
    torch.manual_seed(3)
    second = build_model("mlp", PAPER_MLP, False).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("reference", "arguments", "words"),
    [
        ("mpl", {}, ["mpl", *MODEL_NAMES]),
        ("mlp", {"inputs": 4, "outputs": 2}, ["hidden"]),
        ("mlp", {"inputs": 4, "hidden": [2], "outputs": 2, "dropout": 1}, ["dropout", "inputs, hidden, outputs"]),
        ("mlp", {"inputs": 0, "hidden": [2], "outputs": 2}, ["inputs", "from 1"]),
        ("mlp", {"inputs": True, "hidden": [2], "outputs": 2}, ["inputs"]),
        ("mlp", {"inputs": 4, "hidden": 2, "outputs": 2}, ["hidden", "list"]),
        ("mlp", {"inputs": 4, "hidden": [2] * 2000, "outputs": 2}, ["hidden", "at most"]),
        ("mlp", {"inputs": 4, "hidden": [2**40], "outputs": 2}, ["hidden"]),
        ("mlp", {"inputs": 4, "hidden": [2**16] * 999, "outputs": 2}, ["parameters"]),
        ("resnet20", {"outputs": 10, "norm": "none"}, ["norm", "group, batch"]),
        ("wide_resnet", {"outputs": 10, "depth": 21}, ["depth", "6 n + 4"]),
        ("wide_resnet", {"outputs": 10, "depth": 4}, ["depth", "6 n + 4"]),
    ],
)
def test_what_is_wrong_is_named(reference: str, arguments: dict[str, object], words: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        build_model(reference, arguments, False)
    assert all(word in str(caught.value) for word in words)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "market_plugin_for_tests.py").write_text(
        "import torch\n"
        "from p2pmarket.permutation import Axis, PermutationClass, PermutationSpec\n"
        "def make(width): return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Linear(width, 2))\n"
        "def fail(): raise OSError('no such weights')\n"
        "def wrong(): return 7\n"
        "constant = 7\n"
        "def permutation_spec(model):\n"
        "    members = (Axis('0.weight', 0), Axis('0.bias', 0), Axis('1.weight', 1))\n"
        "    return PermutationSpec((PermutationClass('hidden', model[0].out_features, members),))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "market_plugin_for_tests"


def test_a_factory_and_its_spec(plugin: str) -> None:
    model = build_model(f"{plugin}:make", {"width": 5}, True)
    spec = permutation_spec(f"{plugin}:make", {"width": 5}, model)
    assert spec is not None and spec.sizes == {"hidden": 5}


def test_a_factory_without_a_spec_has_the_identity_only() -> None:
    model = build_model("torch.nn:Linear", {"in_features": 2, "out_features": 3}, True)
    assert permutation_spec("torch.nn:Linear", {}, model) is None


def test_nothing_a_peer_names_is_imported(plugin: str) -> None:
    with pytest.raises(ModelError, match="own configuration"):
        build_model(f"{plugin}:make", {"width": 5}, False)


@pytest.mark.parametrize(
    ("name", "words"),
    [("fail", "no such weights"), ("wrong", "int"), ("constant", "not a function"), ("missing", "has no 'missing'")],
)
def test_a_factory_that_fails(plugin: str, name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        build_model(f"{plugin}:{name}", {}, True)
    with pytest.raises(ModelError, match="cannot be imported"):
        build_model("market_no_such_module:make", {}, True)
