"""Heads and what is inside them are matched together: planted permutations of the whole product are found."""

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
    inverse,
    match,
    match_activations,
    verify_spec,
)

Tensors = dict[str, torch.Tensor]
WIDTH, HEADS, SIZE, INNER = 24, 4, 6, 40


class _Transformer(nn.Module):
    """Two blocks with LayerNorm, attention in which `groups` heads share keys and values, and an MLP."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.words, self.head = nn.Embedding(30, WIDTH), nn.Linear(WIDTH, 7)
        kv = HEADS // groups * SIZE
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(WIDTH),
                    "q": nn.Linear(WIDTH, HEADS * SIZE),
                    "k": nn.Linear(WIDTH, kv),
                    "v": nn.Linear(WIDTH, kv),
                    "out": nn.Linear(HEADS * SIZE, WIDTH),
                    "up": nn.Linear(WIDTH, INNER),
                    "down": nn.Linear(INNER, WIDTH),
                }
            )
            for _ in range(2)
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        stream = self.words(tokens)
        for block in self.blocks:
            assert isinstance(block, nn.ModuleDict)
            normal = block["norm"](stream)
            q, k, v = (block[name](normal).unflatten(-1, (-1, SIZE)).transpose(1, 2) for name in "qkv")
            k, v = (part.repeat_interleave(self.groups, 1) for part in (k, v))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            stream = stream + block["out"](mixed)
            stream = stream + block["down"](torch.relu(block["up"](stream)))
        outputs: torch.Tensor = self.head(stream)
        return outputs


def _spec(groups: int) -> PermutationSpec:
    stream = [Axis("words.weight", 1), Axis("head.weight", 1)]
    classes = []
    shared = HEADS // groups
    for place in range(2):
        path = f"blocks.{place}"

        def rows(names: str, *numbers: int, path: str = path) -> list[Axis]:
            return [Axis(f"{path}.{name}.{part}", 0, *numbers) for name in names for part in ("weight", "bias")]

        stream += [Axis(f"{path}.{name}.weight", 1) for name in ("q", "k", "v", "up")]
        for name in ("out", "down", "norm"):
            stream += [Axis(f"{path}.{name}.{part}", 0) for part in ("weight", "bias")]
        inner = [Axis(f"{path}.up.weight", 0), Axis(f"{path}.up.bias", 0), Axis(f"{path}.down.weight", 1)]
        out = f"{path}.out.weight"
        top = f"{path}.groups"
        heads = [*rows("q", 0, 1, groups * SIZE), *rows("kv", 0, 1, SIZE), Axis(out, 1, 0, 1, groups * SIZE)]
        classes += [PermutationClass(f"{path}.inner", INNER, tuple(inner)), PermutationClass(top, shared, tuple(heads))]
        if groups > 1:
            queries = (*rows("q", 0, shared, SIZE), Axis(out, 1, 0, shared, SIZE))
            classes.append(PermutationClass(f"{path}.queries", groups, queries, shared, top))
        keys = (*rows("q", 0, HEADS), *rows("k", 0, shared))
        values = (*rows("v", 0, shared), Axis(out, 1, 0, HEADS))
        classes.append(PermutationClass(f"{path}.keys", SIZE, keys, shared, top))
        classes.append(PermutationClass(f"{path}.values", SIZE, values, shared, top))
    return PermutationSpec((PermutationClass("stream", WIDTH, tuple(stream)), *classes))


def _random(spec: PermutationSpec, seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for group in spec.classes:
        blocks = torch.stack([torch.randperm(group.size, generator=generator) for _ in range(group.blocks)])
        found[group.name] = blocks[0] if group.blocks == 1 else blocks
    return found


def _pair(groups: int, noise: float) -> tuple[PermutationSpec, Tensors, Tensors, Tensors]:
    torch.manual_seed(groups)
    model, spec = _Transformer(groups), _spec(groups)
    verify_spec(model, spec, (torch.randint(30, (2, 5)),))
    buyer = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    planted = _random(spec, 5)
    seller = {
        name: tensor + noise * tensor.std() * torch.randn(tensor.shape) if noise and tensor.ndim > 1 else tensor
        for name, tensor in apply(spec, planted, buyer).items()
    }
    return spec, buyer, seller, inverse(spec, planted)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("restarts", [1, 2])
def test_planted_heads_and_inner_units_are_found(groups: int, noise: float, restarts: int) -> None:
    spec, buyer, seller, undo = _pair(groups, noise)
    found = match(spec, buyer, seller, seed=1, restarts=restarts)
    assert all(torch.equal(found[name], undo[name]) for name in undo)


def test_without_the_heads_the_inner_units_are_not_found() -> None:
    """Negative control: classes of keys and values alone cannot undo heads that moved."""
    spec, buyer, seller, undo = _pair(1, 0.0)
    assert not torch.equal(undo["blocks.0.groups"], torch.arange(HEADS))
    names = {group.name for group in spec.classes if not group.name.endswith("groups")}
    headless = PermutationSpec(
        tuple(dataclasses.replace(group, within=None) for group in spec.classes if group.name in names)
    )
    aligned = apply(headless, match(headless, buyer, seller, seed=1, restarts=3), seller)
    assert not torch.equal(aligned["blocks.0.q.weight"], buyer["blocks.0.q.weight"])
    whole = apply(spec, match(spec, buyer, seller, seed=1, restarts=3), seller)
    assert torch.equal(whole["blocks.0.q.weight"], buyer["blocks.0.q.weight"])


def test_activations_show_heads_and_what_is_inside_them() -> None:
    spec, buyer, seller, undo = _pair(1, 0.0)
    tokens = torch.randint(30, (60, 5), generator=torch.Generator().manual_seed(1))
    found = match_activations(_Transformer(1), spec, buyer, seller, (tokens,))
    assert all(torch.equal(found[name], undo[name]) for name in undo)
    generator = torch.Generator().manual_seed(2)
    fresh = {f"blocks.0.{name}.weight": torch.randn(WIDTH, WIDTH, generator=generator) for name in "qk"}
    found = match_activations(_Transformer(1), spec, buyer, {**seller, **fresh}, (tokens,))
    assert not torch.equal(found["blocks.0.keys"], undo["blocks.0.keys"])  # negative control: they show nothing now
    assert torch.equal(found["blocks.0.values"], undo["blocks.0.values"])


def test_random_pairs_only_rise_and_threads_change_nothing() -> None:
    spec, buyer, _, _ = _pair(2, 0.0)
    torch.manual_seed(9)
    seller = {name: tensor.detach() for name, tensor in _Transformer(2).state_dict().items()}
    one, many = (match(spec, buyer, seller, seed=3, restarts=2, threads=threads) for threads in (1, 4))
    assert all(torch.equal(one[name], many[name]) for name in one)

    def objective(aligned: Tensors) -> float:
        return sum(float((buyer[name].double() * aligned[name].double()).sum()) for name in buyer)

    assert objective(apply(spec, one, seller)) > objective(seller)


def test_flattened_channels_and_independent_blocks() -> None:
    """Channels of nine pixels each, and two groups of a grouped convolution, each permuted by itself."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv": (6, 2, 3, 3), "fc": (5, 54), "grouped": (8, 3), "after": (4, 8)}
    buyer = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    spec = PermutationSpec(
        (
            PermutationClass("channels", 6, (Axis("conv", 0), Axis("fc", 1, 0, 1, 9))),
            PermutationClass("groups", 4, (Axis("grouped", 0, 0, 2), Axis("after", 1, 0, 2)), 2),
        )
    )
    planted = _random(spec, 1)
    found = match(spec, buyer, apply(spec, planted, buyer), seed=0)
    undo = inverse(spec, planted)
    assert found["groups"].shape == (2, 4) and all(torch.equal(found[name], undo[name]) for name in undo)
