"""The appraiser alone: groups are checked at its start, matchings can be stopped, one bad snapshot spoils no others."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from p2pmarket.alignment import apply
from p2pmarket.broker_node import pairs
from p2pmarket.broker_node.appraiser import Appraiser, Finding
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.service import build_appraiser
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.datasets import Dataset
from p2pmarket.errors import TermsError
from p2pmarket.market import MarketTerms, parse_terms
from p2pmarket.messages import Submit
from p2pmarket.models import build_model, permutation_spec
from p2pmarket.parameters.packing import digest_of, pack
from p2pmarket.parameters.snapshot import take_snapshot

ARGUMENTS = {"inputs": 8, "hidden": [16], "outputs": 4}
TASK = {"name": "task", "loss": "cross_entropy", "metric": "accuracy"}
OTHER = {**TASK, "name": "other", "arguments": {"outputs": 2}}

Tensors = dict[str, Tensor]


def terms(tasks: tuple[dict[str, Any], ...] = (TASK,), *, max_sellers: int = 8, **trade: Any) -> MarketTerms:
    return parse_terms(
        {
            "market": {"name": "points"},
            "model": {"name": "mlp", "arguments": ARGUMENTS},
            "trade": {"delivery_codec": "none", **trade},
            "appraisal": {"coefficients": "model"},
            "task": [dict(task) for task in tasks],
            "limits": {"max_sellers": max_sellers},
        }
    )


@functools.cache
def points(count: int, seed: int, classes: int = 4) -> Dataset:
    centres = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 4, (count,), generator=random)
    return Dataset(centres[targets] + torch.randn(count, 8, generator=random), targets % classes)


def built(given: MarketTerms) -> Appraiser:
    data = {task.name: points(400, 9, 2 if task.name == "other" else 4) for task in given.tasks}
    return build_appraiser(given, data, device="cpu", seed=1)


@functools.cache
def trained(*known: int, seed: int) -> Tensors:
    """Knows two of the classes; from an initialisation of its own."""
    data = points(600, seed)
    data = data.take(torch.isin(data.targets, torch.tensor(known)).nonzero()[:, 0])
    torch.manual_seed(seed)
    model = build_model("mlp", ARGUMENTS, False)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        optimiser.zero_grad()
        functional.cross_entropy(model(data.inputs), data.targets).backward()
        optimiser.step()
    return take_snapshot(model)


def shuffled(tensors: Tensors, seed: int) -> Tensors:
    spec = permutation_spec("mlp", ARGUMENTS, build_model("mlp", ARGUMENTS, False))
    assert spec is not None
    generator = torch.Generator().manual_seed(seed)
    return apply(spec, {n: torch.randperm(size, generator=generator) for n, size in spec.sizes.items()}, tensors)


class Book:
    """Snapshots as they lie on a broker's disk."""

    def __init__(self, folder: Path, *snapshots: Tensors) -> None:
        self._folder = folder
        self.members = [self._submitted(number, tensors) for number, tensors in enumerate(snapshots)]

    def path(self, submission: bytes) -> Path:
        return self._folder / submission.hex()

    def _submitted(self, number: int, tensors: Tensors) -> Submission:
        identity, one = Identity.generate(), number.to_bytes(16, "big")
        manifest = pack(
            tensors, self.path(one), market="points", task="task", step=0, codec="none", zstd=False, salt=one
        )
        size = sum(tensor.nbytes for tensor in tensors.values())
        common: dict[str, Any] = {
            "task": "task", "step": 0, "snapshot": digest_of(manifest), "plain_bytes": size,
            "buy": True, "sell": True, "ask": None,
        }  # fmt: skip
        request = Submit(
            message_id=one, market="points", submission=one, buy_groups=(), sell_groups=(), issued_ms=1, **common
        )
        return Submission(
            id=one, agent=identity.peer_id, signed=sign(identity, request), state="booked", submitted_ms=1, round=0,
            **common,
        )  # fmt: skip

    def appraised(self, appraiser: Appraiser, buyer: int, seller: int, **options: Any) -> Finding:
        one, other = self.members[buyer], self.members[seller]
        paths = (self.path(one.id), self.path(other.id), self._folder / f"delivery {buyer} {seller}")
        return appraiser.appraise(bytes(16), one, other, *paths, **options)


# ---- groups --------------------------------------------------------------------------------------------------------


def test_groups_that_divide_what_is_for_sale_are_taken() -> None:
    built(terms(groups={"trunk": ["layers.0.*"], "head": ["layers.1.*"]}))
    built(terms(groups={"trunk": ["layers.0.*"]}, tradable=["layers.*"]))  # the rest is in no group


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"trunk": ["layers.*"], "head": ["layers.1.*"]}, "a tensor belongs to one group"),
        ({"trunk": ["layers.0.*"], "head": ["laiers.1.*"]}, "'head' holds no tensor"),
    ],
)
@pytest.mark.parametrize("tasks", [(TASK,), (TASK, OTHER)])
def test_other_groups_are_refused_at_the_start(
    groups: dict[str, list[str]], says: str, tasks: tuple[dict[str, Any], ...]
) -> None:
    with pytest.raises(TermsError, match=rf"^groups in \[trade\]: .*{says}"):
        built(terms(tasks, groups=groups))


def test_a_group_of_what_is_not_for_sale_is_refused() -> None:
    with pytest.raises(TermsError, match="'head' holds no tensor that is for sale"):
        built(terms(groups={"trunk": ["layers.0.*"], "head": ["layers.1.*"]}, tradable=["layers.0.*"]))


def test_a_group_may_be_of_one_task_only() -> None:
    deep = {**OTHER, "arguments": {"outputs": 2, "hidden": [16, 16]}}
    built(terms((TASK, deep), groups={"trunk": ["layers.0.*"], "last": ["layers.2.*"]}))
    with pytest.raises(TermsError, match="'last'"):
        built(terms((TASK, OTHER), groups={"trunk": ["layers.0.*"], "last": ["layers.2.*"]}))


def test_a_seller_scaled_against_itself_gets_a_report_all_the_same(tmp_path: Path) -> None:
    seller = dict(trained(2, 3, seed=2))
    for name, factor in (("layers.0.weight", 1e16), ("layers.0.bias", 1e16), ("layers.1.weight", 1e-16)):
        seller[name] = seller[name] * factor
    groups = {"trunk": ["layers.0.*"], "head": ["layers.1.*"]}
    appraiser, book = built(terms(groups=groups)), Book(tmp_path, trained(0, 1, seed=1), seller)
    for buyer, other in ((0, 1), (1, 0)):
        found = book.appraised(appraiser, buyer, other)
        report = found.report(1)
        assert all(math.isfinite(one.gain) and abs(one.gain) <= report.loss_before for one in report.groups)


# ---- matching ------------------------------------------------------------------------------------------------------


def ranked(appraiser: Appraiser, book: Book, progress: Callable[[str, float], None] | None = None) -> None:
    wanted = {one: [other for other in book.members if other is not one] for one in book.members}
    options = {} if progress is None else {"progress": progress}
    chosen = appraiser.shortlist(wanted, book.path, **options)
    assert all(len(sellers) == 1 for sellers in chosen.values())


@pytest.mark.parametrize("bad", ["zeros", "noise"])
def test_one_bad_snapshot_leaves_the_others_aligned(bad: str, tmp_path: Path) -> None:
    first = trained(0, 1, seed=1)
    second = shuffled({name: t + 0.01 for name, t in first.items()}, 5)
    random = torch.Generator().manual_seed(0)
    spoilt = {n: torch.randn(t.shape, generator=random) * (bad == "noise") for n, t in first.items()}
    appraiser = built(terms(max_sellers=1))
    book = Book(tmp_path, spoilt, first, second, trained(2, 3, seed=2))
    ranked(appraiser, book)
    found = book.appraised(appraiser, 3, 2)
    alone = Book(tmp_path, trained(2, 3, seed=2), second).appraised(built(terms()), 0, 1)
    assert found.result.gain == alone.result.gain and found.result.alignment == "weights"


def test_both_directions_share_one_matching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        asked.append(options)
        return matched(*arguments, **options)

    matched = pairs.align_pair
    monkeypatch.setattr(pairs, "align_pair", counted)
    appraiser, book = built(terms()), Book(tmp_path, trained(0, 1, seed=1), trained(2, 3, seed=2))
    assert book.appraised(appraiser, 0, 1).result.gain > 0.1
    assert book.appraised(appraiser, 1, 0).result.gain > 0.1
    assert len(asked) == 1, "the other direction is the inverse"
    assert str(asked[0]["device"]) == "cpu" and 0 < asked[0]["time_budget_seconds"] <= 600
    book.members[1] = dataclasses.replace(book.members[1], buy=False)
    for _ in range(2):
        book.appraised(appraiser, 0, 1)
    assert len(asked) == 3


def test_matchings_can_be_stopped(tmp_path: Path) -> None:
    told: list[str] = []

    def stop(doing: str, done: float) -> None:
        told.append(doing)
        if doing.startswith(stopped_at):
            raise InterruptedError(doing)

    appraiser = built(terms(max_sellers=1))
    book = Book(tmp_path, trained(0, 1, seed=1), trained(2, 3, seed=2), trained(1, 2, seed=3))
    for stopped_at in ("measuring", "aligning to the reference", "ranking"):
        with pytest.raises(InterruptedError, match=stopped_at):
            ranked(appraiser, book, stop)
    ranked(appraiser, book)
    stopped_at = "aligning"
    told.clear()
    with pytest.raises(InterruptedError):
        book.appraised(appraiser, 0, 1, progress=stop)
    assert told == ["aligning"]
    stopped_at = "searching"  # the control: not stopped before, the matching was told of while it ran
    told.clear()
    with pytest.raises(InterruptedError):
        book.appraised(appraiser, 0, 1, progress=stop)
    assert told.count("aligning") > 1


def test_a_step_is_measured_upon_all_deliveries_before_it(tmp_path: Path) -> None:
    """The first brought the trunk, the second only the head: the third's buyer has both."""
    buyer, other = trained(0, 1, seed=3), trained(2, 3, seed=4)
    appraiser, book = built(terms()), Book(tmp_path, buyer, other)
    paths = []
    for number, part in enumerate(("layers.0", "layers.1")):
        paths.append((bytes([number]) * 16, tmp_path / f"delivery-{number}"))
        tensors = {name: tensor for name, tensor in other.items() if name.startswith(part)}
        pack(tensors, paths[-1][1], market="points", task="task", step=0, codec="none", zstd=False, salt=bytes(16))
    first, second = book.members
    found = appraiser.appraise(
        b"t" * 16, first, second, book.path(first.id), book.path(second.id), tmp_path / "out", upon=paths
    )
    assert found.after == paths[-1][0]
    bench = appraiser._benches["task"]
    report = bench.validation.report_inputs, bench.validation.report_targets
    assert found.result.loss_before == bench.evaluators[0].measure(other, *report).loss, "both parts are there"
    assert found.result.loss_before != bench.evaluators[0].measure(buyer, *report).loss
