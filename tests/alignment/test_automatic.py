"""Symmetries found automatically: as large as those written by hand, on layouts of every kind, and never wrong."""

from __future__ import annotations

import dataclasses
import logging
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from p2pmarket.alignment import PermutationSpec, Symmetry, find_symmetry, verify_spec
from p2pmarket.alignment.automatic import given_symmetry
from p2pmarket.errors import ModelError
from p2pmarket.models import build_model, permutation_spec

BY_HAND = [
    ("mlp", {"inputs": 12, "hidden": [9, 9, 5], "outputs": 4}, (4, 12)),
    ("wide_resnet", {"depth": 10, "width": 1, "outputs": 4}, (2, 3, 4, 4)),
    ("wide_resnet", {"depth": 16, "width": 2, "outputs": 4}, (2, 3, 4, 4)),
    ("resnet20", {"outputs": 4}, (2, 3, 4, 4)),
    ("resnet20", {"outputs": 4, "norm": "batch"}, (2, 3, 4, 4)),
]


def found(model: nn.Module, *shapes: tuple[int, ...]) -> Symmetry:
    torch.manual_seed(0)
    return find_symmetry(model, tuple(torch.randn(shape) for shape in shapes))


def partition(spec: PermutationSpec) -> set[frozenset[tuple[str, int]]]:
    """The axes of each class."""
    return {frozenset((member.tensor, member.axis) for member in group.members) for group in spec.classes}


def sizes(symmetry: Symmetry) -> list[tuple[int, int]]:
    """(units, blocks) of each class, sorted."""
    return sorted((group.size, group.blocks) for group in symmetry.spec.classes)


def reasons(symmetry: Symmetry) -> set[str]:
    return {pinned.reason for pinned in symmetry.pinned}


@pytest.mark.parametrize(("reference", "arguments", "shape"), BY_HAND)
def test_it_finds_what_was_written_by_hand(
    reference: str, arguments: dict[str, object], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = build_model(reference, arguments, False)
    by_hand = permutation_spec(reference, arguments, model)
    assert by_hand is not None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    symmetry = found(model, shape)
    assert partition(symmetry.spec) == partition(by_hand)
    assert sorted(symmetry.spec.sizes.values()) == sorted(by_hand.sizes.values())
    assert symmetry.method == "graph" and symmetry.coverage > 0.98 and symmetry.notes == ()
    assert model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class Tokens(nn.Module):
    """A transformer's layer whose fused projection is laid out in one of the usual ways."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.embed = nn.Linear(5, 12)
        self.places = nn.Parameter(torch.randn(1, 7, 12))
        self.norm = nn.LayerNorm(12)
        self.qkv = nn.Linear(12, 36)
        self.out = nn.Linear(12, 12)
        self.up, self.down = nn.Linear(12, 20), nn.Linear(20, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.embed(tokens) + self.places
        q, k, v = self._heads(self.qkv(self.norm(stream)))
        stream = stream + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        stream = stream + self.down(F.gelu(self.up(stream)))
        answer: Tensor = self.head(stream.mean(1))
        return answer

    def _heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        if self.layout == "third outermost":
            return tuple(qkv.reshape(2, 7, 3, 3, 4).permute(2, 0, 3, 1, 4))
        if self.layout == "third inside heads":
            return qkv.view(2, 7, 3, 3, 4).permute(3, 0, 2, 1, 4).unbind(0)
        if self.layout == "chunk":
            return tuple(part.view(2, 7, 3, 4).transpose(1, 2) for part in qkv.chunk(3, -1))
        return qkv.view(2, 7, 3, 12).transpose(1, 2).chunk(3, -1)


@pytest.mark.parametrize("layout", ["third outermost", "third inside heads", "chunk", "chunk inside heads"])
def test_attention_has_heads_and_each_head_its_own_inner_units(layout: str) -> None:
    symmetry = found(Tokens(layout), (2, 7, 5))
    # The stream, the feed-forward, three heads, and in each head four keys and four values.
    assert sizes(symmetry) == [(3, 1), (4, 3), (4, 3), (12, 1), (20, 1)]
    (heads,) = (group for group in symmetry.spec.classes if group.size == 3)
    inner = [group for group in symmetry.spec.classes if group.blocks == 3]
    assert all(group.within == heads.name for group in inner)
    on_outputs = [any(member.tensor == "out.weight" for member in group.members) for group in inner]
    assert sorted(on_outputs) == [False, True]  # values reach the output projection, keys do not


class Rotary(nn.Module):
    """Two groups of two query heads that share keys and values, with rotary position embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.q, self.k, self.v = nn.Linear(8, 16), nn.Linear(8, 8), nn.Linear(8, 8)
        self.out = nn.Linear(16, 3)
        angles = torch.arange(7.0)[:, None] / torch.tensor([1.0, 100.0])
        self.register_buffer("angles", torch.cat([angles, angles], -1), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.embed(tokens)
        q = self._turned(self.q(stream).view(2, 7, 4, 4).transpose(1, 2))
        k = self._turned(self.k(stream).view(2, 7, 2, 4).transpose(1, 2))
        v = self.v(stream).view(2, 7, 2, 4).transpose(1, 2)
        k = k[:, :, None].expand(2, 2, 2, 7, 4).reshape(2, 4, 7, 4)
        mixed = F.scaled_dot_product_attention(q, k, v.repeat_interleave(2, 1), is_causal=True)
        answer: Tensor = self.out(mixed.transpose(1, 2).reshape(2, 7, 16).mean(1))
        return answer

    def _turned(self, x: Tensor) -> Tensor:
        half = torch.cat([-x[..., 2:], x[..., :2]], -1)
        return x * self.angles.cos() + half * self.angles.sin()


def test_rotary_embedding_pins_keys_and_leaves_heads_groups_and_values_free() -> None:
    symmetry = found(Rotary(), (2, 7, 5))
    # Stream; two groups; in each two query heads, and four values.
    assert sizes(symmetry) == [(2, 1), (2, 2), (4, 2), (8, 1)]
    assert "a constant differs along it" in reasons(symmetry)


def test_flattened_channels_are_units_of_several_features() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 5), nn.Linear(5, 2)
    )
    symmetry = found(model, (2, 3, 6, 6))
    channels = next(group for group in symmetry.spec.classes if group.size == 8)
    assert {(member.tensor, member.axis, member.inner) for member in channels.members} == {
        ("0.weight", 0, 1), ("0.bias", 0, 1), ("4.weight", 1, 9),
    }  # fmt: skip
    assert any(
        pinned.op == "conv2d" and pinned.tensor == "0.weight" and pinned.axis == 2 and "conv" in pinned.source
        for pinned in symmetry.pinned
    )


def test_grouped_depthwise_and_transposed_convolutions() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 24, 1, groups=12), nn.GroupNorm(4, 24),
        nn.ConvTranspose2d(24, 6, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2),
    )  # fmt: skip
    symmetry = found(model, (2, 3, 5, 5))
    # Four groups; two inputs of each (alike in all); three outputs of each, two for each of these; six channels.
    assert sizes(symmetry) == [(2, 1), (2, 12), (3, 4), (4, 1), (6, 1)]


class Joined(nn.Module):
    """Concatenated channels, read by one norm and one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.last = nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        one = self.one(images).relu()
        answer: Tensor = self.last(self.norm(torch.cat([self.other(one).relu(), one], 1)))
        return answer


def test_concatenated_channels_keep_their_own_permutations_and_statistics_move_with_them() -> None:
    symmetry = found(Joined(), (2, 3, 4, 4))
    starts = {
        group.name: {member.start for member in group.members if member.tensor == "norm.running_mean"}
        for group in symmetry.spec.classes
    }
    assert starts == {"one": {4}, "other": {0}}


class Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell = getattr(nn, kind)(5, 6, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, steps: Tensor) -> Tensor:
        answer: Tensor = self.head(self.cell(steps)[0][:, -1])
        return answer


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_have_a_class_for_each_layer_and_direction(kind: str, gates: int) -> None:
    symmetry = found(Recurrent(kind), (2, 7, 5))
    assert sizes(symmetry) == [(6, 1)] * 4
    rows = [member for member in symmetry.spec.classes[0].members if member[:2] == ("cell.weight_ih_l0", 0)]
    assert [member.start for member in rows] == [6 * gate for gate in range(gates)]


def test_torch_transformers() -> None:
    layer = nn.TransformerEncoderLayer(12, 2, 20, batch_first=True)
    model = nn.Sequential(nn.Linear(5, 12), nn.TransformerEncoder(layer, 1), nn.Linear(12, 2))
    assert sizes(found(model, (2, 7, 5))) == [(2, 1), (6, 2), (6, 2), (12, 1), (20, 1)]


class Tied(nn.Module):
    """Words in and out by one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.middle, self.head = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        answer: Tensor = self.head(self.embed(words) + self.middle(self.embed(words)).relu())
        return answer


def test_tied_weights_move_under_all_their_names() -> None:
    words = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(0))
    symmetry = find_symmetry(Tied(), (words,))
    (stream,) = (group for group in symmetry.spec.classes if len(group.members) > 3)
    assert {("embed.weight", 1), ("head.weight", 1)} <= {(member.tensor, member.axis) for member in stream.members}
    assert symmetry.parameters == 11 * 8 + 72
    without = dataclasses.replace(
        stream, members=tuple(member for member in stream.members if member.tensor != "head.weight")
    )
    with pytest.raises(ModelError, match="not a symmetry"):
        verify_spec(Tied(), PermutationSpec((without,)), (words,))


class Branching(nn.Module):
    """What it computes depends on its data."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 6))
        self.second = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3))

    def forward(self, x: Tensor) -> Tensor:
        middle = self.first(x)
        answer: Tensor = self.second(middle * 2 if float(middle.sum()) > 0 else middle)
        return answer


def test_where_the_whole_cannot_be_traced_its_parts_are() -> None:
    symmetry = found(Branching(), (2, 5))
    assert symmetry.method == "submodules" and sizes(symmetry) == [(7, 1), (9, 1)]
    assert "Branching cannot be exported" in symmetry.notes[0] and 0.8 < symmetry.coverage < 1


def test_what_nothing_can_trace_is_refused_with_advice() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight if float(x.sum()) > 0 else x

    with pytest.raises(ModelError, match=r"Alone cannot be exported .*permutation_spec"):
        found(Alone(), (2, 3))
    with pytest.raises(ModelError, match="fails on the example inputs"):
        found(nn.Linear(3, 2), (2, 4))


class _Fussy(nn.Module):
    """Fails with what nobody expects."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.inner, self.failure = nn.Linear(3, 3), failure

    def forward(self, inputs: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            raise self.failure
        answer: Tensor = self.inner(inputs)
        return answer


@pytest.mark.parametrize("failure", [IndexError("out of range"), KeyError("name"), ZeroDivisionError(), OSError("no")])
def test_whatever_a_model_raises_is_one_sentence(failure: Exception) -> None:
    inputs = (torch.ones(2, 3),)
    match = rf"_Fussy fails on the example inputs 2x3:float\d+: test_automatic.py:\d+: {type(failure).__name__}"
    for find in (find_symmetry, lambda model, given: verify_spec(model, PermutationSpec(()), given)):
        with pytest.raises(ModelError, match=match) as caught:
            find(_Fussy(failure), inputs)
        assert "\n" not in str(caught.value)


def test_it_says_when_it_begins_and_how_long_it_took(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "p2pmarket.alignment"):
        found(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), (4, 3))
    before, after = (record.getMessage() for record in caplog.records if record.name.startswith("p2pmarket"))
    assert before == "looking for the symmetries of Sequential, 32 parameters"
    assert re.fullmatch(r"found the symmetries of Sequential in \d+\.\d s: 1 classes from 3 operations", after)


def test_indices_beyond_the_table_are_named() -> None:
    with pytest.raises(ModelError, match="2x2:int64 of 1 to 60: .*IndexError"):
        find_symmetry(nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 2)), (torch.tensor([[1, 2], [60, 3]]),))


def test_what_the_inputs_do_not_reach_stays() -> None:
    class Long(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.unused, self.out = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 2)
            self.places = nn.Parameter(torch.randn(9, 6))

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.out((self.embed(x) + self.places[: x.shape[1]]).relu())
            return answer

    symmetry = found(Long(), (2, 4, 5))
    assert sizes(symmetry) == [(6, 1)]
    unreached = {(p.tensor, p.axis, p.size) for p in symmetry.pinned if "do not reach" in p.reason}
    assert {("places", 0, 5), ("unused.weight", 0, 6)} <= unreached


def test_an_unknown_operation_pins_what_it_touches_and_is_reported() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            cdf = torch.cdist(self.one(x).relu(), torch.ones(6, 6))
            answer: Tensor = self.three(self.two(cdf).relu())
            return answer

    symmetry = found(Sorted(), (2, 5))
    assert sizes(symmetry) == [(7, 1)]
    (note,) = symmetry.notes
    assert note.startswith("cdist (1 times, first in test_automatic.py:")


def test_a_wrong_rule_is_caught_by_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    from p2pmarket.alignment import axes
    from p2pmarket.alignment.op_rules import RULES, Call, Made

    def swapped(call: Call) -> Made:
        first, second = call["tensors"]
        return (first[0], axes.join([second[1], first[1]]), *first[2:])

    monkeypatch.setitem(RULES, "cat", swapped)
    symmetry = found(Joined(), (2, 3, 4, 4))
    assert symmetry.spec.classes == ()
    assert "the self-test found that permuting it changes the outputs" in reasons(symmetry)


def test_tied_weights_that_are_not_recognised_are_caught_by_the_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    from p2pmarket.alignment import sharing

    monkeypatch.setattr(sharing, "_key", lambda tensor: object())
    assert "it shares memory with head.weight" in reasons(find_symmetry(Tied(), (torch.ones(2, 5).long(),)))
    monkeypatch.setattr(sharing, "_clashes", lambda tensors: {})
    words = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(0))
    symmetry = find_symmetry(Tied(), (words,))
    assert "the self-test found that permuting it changes the outputs" in reasons(symmetry)
    monkeypatch.undo()
    verify_spec(Tied(), symmetry.spec, (words,))


def test_blocks_that_may_not_be_permuted_one_by_one_are_permuted_alike() -> None:
    class Alike(nn.Module):
        """Heads are summed, and their sum compared unit by unit: all heads need one order."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.out = nn.Linear(5, 12), nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            heads = self.one(x).view(-1, 3, 4)
            answer: Tensor = self.out((heads * heads.sum(1, keepdim=True).relu()).flatten(1))
            return answer

    assert sizes(found(Alike(), (2, 5))) == [(3, 1), (4, 1)]


def test_a_spec_by_hand_is_tested() -> None:
    model = build_model("mlp", {"inputs": 5, "hidden": [4], "outputs": 2}, False)
    spec = permutation_spec("mlp", {}, model)
    assert spec is not None
    symmetry = given_symmetry(model, spec, (torch.randn(3, 5),))
    assert symmetry.method == "given" and symmetry.spec is spec and symmetry.coverage > 0.9
    wrong = PermutationSpec((dataclasses.replace(spec.classes[0], members=spec.classes[0].members[:1]),))
    with pytest.raises(ModelError, match="not a symmetry"):
        given_symmetry(model, wrong, (torch.randn(3, 5),))


def test_coverage_counts_elements_with_a_coordinate_in_a_class() -> None:
    symmetry = found(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)), (3, 5))
    assert symmetry.coverage == pytest.approx((20 + 4 + 8) / (20 + 4 + 8 + 2))


def test_parameters_that_cannot_be_permuted_are_refused() -> None:
    with pytest.raises(ModelError, match="no shape before"):
        find_symmetry(nn.LazyLinear(3), (torch.randn(2, 5),))
    with pytest.raises(ModelError, match="no numbers"):
        find_symmetry(nn.Linear(3, 2, device="meta"), (torch.randn(2, 3),))
    whole = nn.Linear(3, 2)
    whole.count = nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)
    with pytest.raises(ModelError, match="'count' is torch.int64"):
        find_symmetry(whole, (torch.randn(2, 3),))


def test_parameters_that_overlap_in_memory_stay() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    model[1].weight = nn.Parameter(model[0].weight.detach().t())
    symmetry = found(model, (2, 4))
    assert "it shares memory with 1.weight" in reasons(symmetry)


def test_outputs_in_containers_are_all_compared() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> dict[str, object]:
            hidden = self.one(x).relu()
            return {"logits": self.two(hidden), "more": [hidden.sum(-1)], "cache": object()}

    assert sizes(found(Pair(), (2, 5))) == [(6, 1)]


def test_a_model_that_keeps_what_it_computed_from_weights_is_tested_anew_each_time() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 2)
            self.kept: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_compiling():
                weight = self.two.weight * 2
            else:
                if self.kept is None:
                    self.kept = self.two.weight * 2
                weight = self.kept
            return F.linear(self.one(x).relu(), weight)

    assert sizes(found(Keeping(), (2, 5))) == [(6, 1)]


def test_a_model_that_draws_is_tested_with_the_same_numbers() -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.two(self.one(x + torch.rand(2, 5)).relu())
            return answer

    torch.manual_seed(3)
    state = torch.get_rng_state()
    symmetry = find_symmetry(Drawing(), (torch.ones(2, 5),))
    assert sizes(symmetry) == [(6, 1)]
    assert state.shape == torch.get_rng_state().shape
