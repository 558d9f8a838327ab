"""One (buyer, seller) pair appraised: align, merge, choose on SELECT, measure on REPORT what would be delivered.

Knows: the order of these steps. Refuses to know: peers, prices, files, how coefficients are found (plan), when a gain
is the seller's merit (control). Everything is chosen on SELECT: what would be delivered, whether anything would, and
why not. REPORT is looked at once, at the end, and gives nothing but the numbers of `Appraisal` that name it, and
parameters that give no number on it are refused.
Fails with BadSnapshot where parameters hold or give what is no number, ModelError where things do not fit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from p2pmarket.alignment import Permutations, PermutationSpec, match
from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.control import merged_with_control
from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.gain import NO_GAIN, ClassGain, TaskGain, measured_gain, paired_gain
from p2pmarket.appraisal.merging import Coefficients
from p2pmarket.appraisal.plan import MergePlan, Progress, candidates, choose
from p2pmarket.appraisal.validation import Validation
from p2pmarket.errors import BadSnapshot
from p2pmarket.parameters import check_finite

Codec = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Tensors -> what the buyer will decode."""

_LEAST = 0.001
"""A purchase's smallest weight: 0 says that there is none, also where learned coefficients have a mean below it."""

_NOISE = 1e-6
"""Of the loss before: a change below it is what float32 sums do to two equal functions, and is no gain. A small
network and the same one in another order of its units differ by up to 1.5e-8 of the loss."""


@dataclasses.dataclass(frozen=True)
class Appraisal:
    """What one purchase would bring the buyer, and the very parameters that were measured."""

    alpha: float
    """Purchased weight: the seller's portion, 0 ... 1; the mean over all numbers bought where there are many
    coefficients. 0: no merge helps, and nothing would be delivered."""
    alignment: str
    """Which alignment won on SELECT: "identity", "weights" or "activations"."""
    plan: MergePlan
    """What was found on SELECT, whether or not it is a purchase."""
    loss_before: float
    """Mean loss of the buyer's own parameters on REPORT."""
    loss_after: float
    select_gain: float
    """Mean loss before minus after on SELECT, which chose the merge; 0 where nothing would be delivered. For rules that
    must not look at REPORT."""
    gain: float
    """loss_before - loss_after (the paper's gain-from-trade, section 3.3, in its absolute form)."""
    low: float
    high: float
    """Two-sided interval of the gain at `confidence`."""
    merit: float
    """What of the gain is the seller's: the loss of a merge with a seller who knows nothing (control) minus loss_after.
    The rest of the gain comes from the broker's data. It may be above the gain, or below 0."""
    merit_low: float
    merit_high: float
    adds: bool
    """Whether the merit is there on SELECT too, beyond chance: what a chain of purchases goes by."""
    confidence: float
    metric_before: float
    metric_after: float
    per_class: tuple[ClassGain, ...]
    """On REPORT; empty where targets are not one class a sample."""
    samples: int
    """Samples in REPORT."""
    delivered: Mapping[str, Tensor]
    """What the buyer would load over its own parameters: on the CPU, as decoded. Empty where alpha is 0."""
    left_out: tuple[str, ...]
    """Names of the buyer's tensors that are not part of the purchase."""
    reason: str
    """Why nothing would be delivered, in words; empty where something would be."""

    @property
    def granularity(self) -> str:
        """How many coefficients the delivery has: "none", "model" (one), "tensor", "row"."""
        return self.plan.granularity if self.delivered else "none"

    @property
    def relative_gain(self) -> float:
        """gain / loss_before: the paper's gain, section 3.3; 0 where nothing is left to gain."""
        return self.gain / self.loss_before if self.loss_before > 0 else 0.0

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if not self.delivered:
            return f"no gain: {self.reason}"
        interval = f"{self.low:.4g} ... {self.high:.4g} at {self.confidence:.0%} confidence on {self.samples} samples"
        if self.low <= 0:
            return f"no gain beyond chance: the loss changes by {-self.gain:.4g} (gain {interval})"
        merit = f"{self.merit:.4g} of it is the seller's ({self.merit_low:.4g} ... {self.merit_high:.4g})"
        return f"gain: the loss falls by {self.gain:.4g} ({self.relative_gain:.0%}; {interval}), {merit}"


def align_pair(
    spec: PermutationSpec | None,
    buyer: Mapping[str, Tensor],
    seller: Mapping[str, Tensor],
    *,
    seed: int,
    device: str | torch.device = "cpu",
    time_budget_seconds: float = math.inf,
    progress: Callable[[int, int], None] | None = None,
) -> Permutations | None:
    """Permutations that bring `seller` to `buyer`, None without a spec.

    `alignment.inverse` of them serves the pair's other direction: keep them, one matching is enough for both.

    :param device: where the products are computed
    :param time_budget_seconds: when it is spent the best so far is returned
    :param progress: called with visits made and families still open; may raise to stop
    :raises BadSnapshot, ModelError: as `alignment.match`
    """
    if spec is None:
        return None
    return match(
        spec, buyer, seller, seed=seed, device=device, time_budget_seconds=time_budget_seconds, progress=progress
    )


def appraise(
    evaluator: Evaluator,
    validation: Validation,
    spec: PermutationSpec | None,
    buyer: Mapping[str, Tensor],
    seller: Mapping[str, Tensor],
    *,
    tradable: Collection[str],
    encode_decode: Codec,
    confidence: float,
    seed: int,
    alignment: Permutations | None = None,
    activations: Permutations | None = None,
    plan: MergePlan | None = None,
    granularity: str = "auto",
    repair: bool = False,
    controlled: bool = True,
    progress: Progress = lambda doing, done: None,
) -> Appraisal:
    """Appraises what `buyer` would gain from `seller`'s parameters. Equal inputs give equal results.

    `alignment` is `align_pair`'s, where the caller has it already; `plan` is `plan_merge`'s or `reverse`'s, made with
    that alignment. `encode_decode` is the delivery codec's round trip: what is measured is what the buyer will decode.
    `granularity` is the finest that may be used; "auto" is what the data can bear. `activations`
    (`match_activations`'s) and `repair` are options of `plan_merge`; a plan has its own. Without `controlled` the whole
    gain is taken for the seller's merit. `progress` may raise to stop.

    :raises BadSnapshot: a value or a loss that is not finite
    :raises ModelError: model, spec, data, plan or codec do not fit the parameters
    """
    _check(buyer, "buyer")
    _check(seller, "seller")
    repair = repair if plan is None else plan.repair
    bench = Bench(evaluator, validation, buyer, seller, tradable, seed=seed, repair=repair)
    before = bench.on_select(bench.buyer)
    if not math.isfinite(float(before.mean())):
        raise BadSnapshot("the buyer's parameters give a loss that is not a number on the validation data")
    progress("aligning", 0.0)
    if alignment is None:
        alignment = align_pair(
            spec,
            buyer,
            seller,
            seed=seed,
            device=evaluator.device,
            progress=lambda visits, left: progress("aligning", 0.0),
        )
    sellers = candidates(bench, spec, alignment, seller, activations)
    if plan is None:
        plan = choose(
            bench,
            sellers,
            granularity=granularity,
            seed=seed,
            progress=lambda doing, done: progress(doing, 0.1 + 0.5 * done),
        )
    plan.check_fits(bench.shapes(), sellers)
    delivered: dict[str, Tensor] = {}
    reason = _reason(bench, plan)
    if not reason:
        merged = bench.merged(sellers[plan.alignment], plan.coefficients)
        delivered = encode_decode({name: merged[name].cpu() for name in bench.names})
        after = bench.on_select({**bench.buyer, **evaluator.place(delivered)})
        if not float(after.mean()) < float(before.mean()):
            reason, delivered = "the best merge found does not lower the loss", {}
        elif float((before - after).mean()) < _NOISE * float(before.mean()):
            reason, delivered = "the best merge found changes the loss by no more than rounding does", {}
    control, adds, select_gain = bench.buyer, False, 0.0
    if delivered:
        select_gain = float((before - after).mean())
        if controlled:
            progress("comparing with a seller who knows nothing", 0.6)
            control = merged_with_control(bench, sellers[plan.alignment], plan.granularity, seed=seed)
        adds = paired_gain(bench.on_select(control), after, confidence).low > 0
    progress("measuring", 0.9)
    measured = _report(bench, plan, delivered, control, confidence, reason)
    appraisal = dataclasses.replace(measured, adds=adds, select_gain=select_gain)
    progress("done", 1.0)
    return appraisal


def gain_on(
    evaluator: Evaluator,
    validation: Validation,
    buyer: Mapping[str, Tensor],
    delivered: Mapping[str, Tensor],
    confidence: float,
) -> TaskGain:
    """What the same delivery changes on another task: its evaluator, its REPORT data.

    :raises BadSnapshot: a loss that is not finite
    :raises ModelError: model and data do not fit the parameters
    """
    data = validation.to(evaluator.device)
    own = evaluator.place(buyer)
    before, after = (
        evaluator.measure(tensors, data.report_inputs, data.report_targets)
        for tensors in (own, {**own, **evaluator.place(delivered)})
    )
    return measured_gain(before, after, data.report_targets, confidence)


def _check(tensors: Mapping[str, Tensor], whose: str) -> None:
    try:
        check_finite(tensors)
    except BadSnapshot as reason:
        raise BadSnapshot(f"the {whose}'s {reason}") from None


def _reason(bench: Bench, plan: MergePlan) -> str:
    if not bench.names:
        return "the two models have no tradable tensor of equal name, shape and type"
    if plan.granularity == "none":
        return "no merge on the way to the seller's parameters lowers the loss"
    return ""


def _report(
    bench: Bench,
    plan: MergePlan,
    delivered: dict[str, Tensor],
    control: Mapping[str, Tensor],
    confidence: float,
    reason: str,
) -> Appraisal:
    """Looks at REPORT, once each for the buyer, what would be delivered, and the control."""
    before = bench.on_report(bench.buyer)
    after = bench.on_report({**bench.buyer, **bench.evaluator.place(delivered)}) if delivered else before
    found = measured_gain(before, after, bench.data.report_targets, confidence)
    merit = NO_GAIN
    if delivered:
        without = bench.on_report(control)
        merit = measured_gain(without, after, bench.data.report_targets, confidence).gain
    return Appraisal(
        alpha=_portion(plan.coefficients, bench.buyer) if delivered else 0.0,
        alignment=plan.alignment if delivered else "identity",
        plan=plan,
        loss_before=before.loss,
        loss_after=after.loss,
        select_gain=0.0,
        gain=found.gain.mean,
        low=found.gain.low,
        high=found.gain.high,
        merit=merit.mean,
        merit_low=merit.low,
        merit_high=merit.high,
        adds=False,
        confidence=confidence,
        metric_before=found.metric_before,
        metric_after=found.metric_after,
        per_class=found.per_class,
        samples=len(before.losses),
        delivered=delivered,
        left_out=tuple(sorted(bench.buyer.keys() - set(bench.names))),
        reason=reason,
    )


def _portion(coefficients: Coefficients, buyer: Mapping[str, Tensor]) -> float:
    """The mean coefficient over all numbers bought, held within what a weight can be."""
    sizes = {name: buyer[name].numel() for name in coefficients}
    total = sum(float(coefficient.double().mean()) * sizes[name] for name, coefficient in coefficients.items())
    return min(1.0, max(_LEAST, total / max(1, sum(sizes.values()))))
