"""How one pair is merged: an alignment and coefficients, all chosen on SELECT, and the same plan seen by the seller.

Knows: which candidates there are and that samples decide which no gradient has seen. Refuses to know: REPORT, what
the merge is worth, whether it beats a control (appraise). Equal inputs give equal plans.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from p2pmarket.alignment import Permutations, PermutationSpec, apply, inverse, is_identity, match
from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.flat import FlatMerge
from p2pmarket.appraisal.learned import learn
from p2pmarket.appraisal.line_search import search_lines
from p2pmarket.appraisal.merging import Coefficients
from p2pmarket.appraisal.validation import Validation
from p2pmarket.errors import ModelError

GRANULARITIES = ("none", "model", "tensor", "row")
"""From no purchase to one coefficient for each output row."""
SAMPLES_PER_COEFFICIENT = 1.0
"""SELECT samples below which a granularity is not tried. Above it HELD decides: with 1.7 samples for each row of a
small network on digits, rows brought twice the gain of one coefficient for each tensor on samples not seen."""
LOW, HIGH = -1.0, 2.0
"""Bounds of learned coefficients. c and 1 - c are both inside, so that a plan can be seen from the other side."""

Progress = Callable[[str, float], None]
"""Called with what is being done, in words, and the finished part, 0 ... 1."""


@dataclasses.dataclass(frozen=True)
class MergePlan:
    """What to do with a pair, without its tensors."""

    alignment: str
    """"identity", "weights" or "activations"."""
    granularity: str
    """One of GRANULARITIES. "none": every coefficient is 0, no merge helps."""
    alpha: float
    """The best single coefficient, whether or not more of them were better."""
    coefficients: Coefficients
    """For every tensor that is bought (without BatchNorm's statistics, which are computed anew)."""
    repair: bool = False
    """Whether the merge gets REPAIR's statistics."""

    def check_fits(self, shapes: Mapping[str, torch.Size], alignments: Collection[str]) -> None:
        """:raises ModelError: the plan is of other tensors than these, or needs an alignment that is not there"""
        fits = self.coefficients.keys() == shapes.keys() and all(
            coefficient.shape in (torch.Size(), shapes[name][:1]) for name, coefficient in self.coefficients.items()
        )
        if not fits:
            raise ModelError("the merge plan is of other tensors than this pair's; plan the pair anew")
        if self.alignment not in alignments:
            raise ModelError(f"the merge plan needs the alignment {self.alignment!r}, which was not given with it")


def plan_merge(
    evaluator: Evaluator,
    validation: Validation,
    spec: PermutationSpec | None,
    buyer: Mapping[str, Tensor],
    seller: Mapping[str, Tensor],
    *,
    tradable: Collection[str],
    alignment: Permutations | None = None,
    activations: Permutations | None = None,
    repair: bool = False,
    seed: int,
    granularity: str = "auto",
    low: float = LOW,
    high: float = HIGH,
    progress: Progress = lambda doing, done: None,
) -> MergePlan:
    """The best merge of the pair on SELECT. REPORT is not looked at.

    :param alignment: `align_pair`'s, where the caller has it already
    :param activations: another alignment for the same race: `alignment.match_activations`'s, on SELECT's inputs
    :param repair: merges get REPAIR's statistics (statistics.repair): for deep networks without BatchNorm
    :param granularity: "auto", or the finest that may be used
    :raises ModelError: model, spec and data do not fit each other, or an unknown granularity
    """
    bench = Bench(evaluator, validation, buyer, seller, tradable, seed=seed, repair=repair)
    if alignment is None and spec is not None:
        alignment = match(spec, buyer, seller, seed=seed)
    sellers = candidates(bench, spec, alignment, seller, activations)
    return choose(bench, sellers, granularity=granularity, low=low, high=high, seed=seed, progress=progress)


def candidates(
    bench: Bench,
    spec: PermutationSpec | None,
    alignment: Permutations | None,
    seller: Mapping[str, Tensor],
    activations: Permutations | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Alignment's name -> the seller's tensors so aligned, on the device; the identity is always one."""
    sellers = {"identity": bench.place(seller)}
    for label, permutations in (("weights", alignment), ("activations", activations)):
        if spec is not None and permutations is not None and not is_identity(permutations):
            sellers[label] = bench.place(apply(spec, permutations, seller))
    return sellers


def choose(
    bench: Bench,
    sellers: Mapping[str, Mapping[str, Tensor]],
    *,
    granularity: str,
    low: float = LOW,
    high: float = HIGH,
    seed: int,
    progress: Progress = lambda doing, done: None,
) -> MergePlan:
    """One race for the best single coefficient of all alignments, then more of them for the winner; HELD decides.

    The race compares single coefficients, 0 among them, on all of SELECT; more are compared with its winner by exact
    losses on HELD, and so is no purchase where the race ran in rounded numbers. The finest granularity is learned
    first, and a coarser one only where it is no clear success.
    """
    if granularity not in ("auto", *GRANULARITIES):
        raise ModelError(f"unknown granularity {granularity!r}: choose auto, {', '.join(GRANULARITIES)}")
    progress("searching", 0.0)
    bench.calibrate(sellers.values())
    index, found = search_lines([bench.line(seller) for seller in sellers.values()], bench.samples)
    label, seller = list(sellers.items())[index]
    plain = "model" if found.alpha > 0 and granularity != "none" else "none"
    options = {plain: _constant(bench, "model", found.alpha if plain == "model" else 0.0)}
    if bench.evaluator.rounds:
        options["none"] = _constant(bench, "model", 0.0)
    learnable = _learnable(bench, granularity)
    if len(options) + len(learnable) == 1:
        return MergePlan(label if plain != "none" else "identity", plain, found.alpha, options[plain], bench.repair)
    progress("learning", 0.3)
    losses = {name: bench.on_held(seller, option) for name, option in options.items()}
    for fineness in learnable:
        line = FlatMerge(bench.buyer, seller, bench.free, rows=fineness == "row")
        start = torch.full((line.count,), found.alpha, device=bench.evaluator.device)
        learned, losses[fineness] = learn(
            functools.partial(bench.slope, line),
            functools.partial(_held, bench, seller, line),
            start,
            parts=bench.parts,
            low=low,
            high=high,
            seed=seed,
        )
        options[fineness] = line.named(learned)
        if all(_better(losses[fineness], losses[name]) for name in losses.keys() & {"none", "model"}):
            break
    # A tie goes to the coarser.
    best = min(sorted(options, key=GRANULARITIES.index), key=lambda name: _finite(float(losses[name].mean())))
    if best == "none":
        label = "identity"
    return MergePlan(label, best, found.alpha, options[best], bench.repair)


def reverse(plan: MergePlan, spec: PermutationSpec | None, permutations: Permutations | None) -> MergePlan:
    """The same merged function seen by the seller, who buys from the buyer: 1 - c, its rows in the seller's order.

    Valid where every tensor of the model that is not a statistic or a counter is in the plan: what is not traded stays
    each one's own, and two such merges are two functions.

    :param permutations: those that brought the seller to the buyer; the other direction is aligned by their inverse
    """
    turned = {name: 1.0 - coefficient for name, coefficient in plan.coefficients.items()}
    if plan.alignment != "identity" and spec is not None and permutations is not None:
        rows = {name: coefficient for name, coefficient in turned.items() if coefficient.ndim}
        turned.update(apply(_rows_of(spec, rows), inverse(spec, permutations), rows))
    constant = {float(value) for coefficient in turned.values() for value in coefficient.reshape(-1)[:1]}
    uniform = plan.granularity in ("none", "model")
    granularity = "none" if uniform and constant == {0.0} else "model" if uniform else plan.granularity
    return MergePlan(plan.alignment, granularity, 1.0 - plan.alpha, turned, plan.repair)


def _rows_of(spec: PermutationSpec, rows: Collection[str]) -> PermutationSpec:
    """The spec as it acts on vectors of one number a row: other axes are not there."""
    return PermutationSpec(
        tuple(
            dataclasses.replace(
                group,
                members=tuple(
                    member if member.axis == 0 else member._replace(tensor=f"{member.tensor} (not in rows)")
                    for member in group.members
                ),
            )
            for group in spec.classes
        )
    )


def _held(bench: Bench, seller: Mapping[str, Tensor], line: FlatMerge, coefficients: Tensor) -> Tensor:
    return bench.on_held(seller, line.named(coefficients))


def _better(losses: Tensor, others: Tensor) -> bool:
    """Whether the paired differences say so beyond one standard error: a coarser granularity is not worth its time."""
    differences = others - losses
    return float(differences.mean()) > float(differences.std(correction=0)) / math.sqrt(len(differences))


def _learnable(bench: Bench, granularity: str) -> tuple[str, ...]:
    """The granularities that there are enough samples for, the finest first."""
    return tuple(
        fineness
        for fineness in ("row", "tensor")
        if GRANULARITIES.index(fineness) <= GRANULARITIES.index("row" if granularity == "auto" else granularity)
        and bench.samples >= SAMPLES_PER_COEFFICIENT * count(bench, fineness)
        and bench.free
    )


def count(bench: Bench, fineness: str) -> int:
    """Free coefficients."""
    return sum(coefficient.numel() for coefficient in _constant(bench, fineness, 0.0).values())


def _constant(bench: Bench, fineness: str, alpha: float) -> dict[str, Tensor]:
    return {name: torch.full(bench.buyer[name].shape[:1] if fineness == "row" else (), alpha) for name in bench.free}


def _finite(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
