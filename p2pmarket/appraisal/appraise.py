"""One (buyer, seller) pair appraised: align, merge, choose on SELECT, measure on REPORT what would be delivered.

Knows: the order of these steps. Refuses to know: peers, prices, files. Everything is chosen on SELECT; REPORT is looked
at once, at the end, and changes nothing but the numbers told.

An agent whose data are not the broker's is overconfident there, and merging it with anything, zeros and noise
included, lowers its cross entropy: the merge is smaller, hence calmer. That is worth nothing that a seller knows, so a
merge that helps counts only if it beats the buyer's own parameters, scaled down as far as is best, beyond chance.
Fails with BadSnapshot where parameters give losses that are no numbers, ModelError where things do not fit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from p2pmarket.alignment import Permutations, PermutationSpec, apply, is_identity, match
from p2pmarket.appraisal.coefficients import search
from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.gain import NO_GAIN, paired_gain
from p2pmarket.appraisal.merging import merge, mergeable
from p2pmarket.appraisal.validation import Validation
from p2pmarket.errors import BadSnapshot

Codec = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""Tensors -> what the buyer will decode."""
Progress = Callable[[str, float], None]
"""Called with what is being done, in words, and the finished part, 0 ... 1."""


_MARGIN = 0.25
"""How much further than the control a merge must come, as a part of what the control gained (or, where that is less,
of the loss it left: a control that gains nearly everything must leave room to beat it). On digits, of 192 sellers
without knowledge (fresh, normal or shuffled weights) 156 passed without a control, 44 at a margin of 0, 7 at 0.25; of
24 true ones 19, 18 and 13 (before the rule in brackets). docs/decisions/0007-control.md"""


@dataclasses.dataclass(frozen=True)
class Appraisal:
    """What one purchase would bring the buyer, and the very parameters that were measured."""

    alpha: float
    """Purchased weight: the seller's portion. 0: no merge helps, and nothing would be delivered."""
    alignment: str
    """Which alignment won on SELECT: "identity" or "weights"."""
    loss_before: float
    """Mean loss of the buyer's own parameters on REPORT."""
    loss_after: float
    gain: float
    """loss_before - loss_after (the paper's gain-from-trade, section 3.3, in its absolute form)."""
    low: float
    high: float
    """Two-sided interval of the gain at `confidence`."""
    confidence: float
    metric_before: float
    metric_after: float
    samples: int
    """Samples in REPORT."""
    delivered: Mapping[str, Tensor]
    """What the buyer would load over its own parameters: on the CPU, as decoded. Empty where alpha is 0."""
    left_out: tuple[str, ...]
    """Names of the buyer's tensors that are not part of the purchase."""


@dataclasses.dataclass(frozen=True)
class _Candidate:
    alignment: str
    seller: Mapping[str, Tensor]
    alpha: float
    losses: Tensor
    """(S,) on SELECT, at alpha."""

    @property
    def loss(self) -> float:
        return float(self.losses.mean())


def align_pair(
    spec: PermutationSpec | None, buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor], *, seed: int
) -> Permutations | None:
    """Permutations that bring `seller` to `buyer`, None without a spec.

    `alignment.inverse` of them serves the pair's other direction: keep them, one matching is enough for both.
    """
    return None if spec is None else match(spec, buyer, seller, seed=seed)


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
    progress: Progress = lambda doing, done: None,
) -> Appraisal:
    """Appraises what `buyer` would gain from `seller`'s parameters. Equal inputs give equal results.

    `alignment` is `align_pair`'s, where the caller has it already. `encode_decode` is the delivery codec's round trip:
    what is measured is what the buyer will decode.

    :raises BadSnapshot: a loss that is not finite
    :raises ModelError: model, spec, data or codec do not fit the parameters
    """
    progress("aligning", 0.0)
    if alignment is None:
        alignment = align_pair(spec, buyer, seller, seed=seed)
    names = mergeable(buyer, seller, tradable)
    left_out = tuple(sorted(buyer.keys() - set(names)))
    bench = _Bench(evaluator, validation, buyer, names)
    before = bench.on_select(bench.buyer)
    if not math.isfinite(float(before.mean())):
        raise BadSnapshot("the buyer's parameters give a loss that is not a number on the validation data")
    sellers = {"control": {name: torch.zeros_like(buyer[name]) for name in names}, "identity": seller}
    if spec is not None and alignment is not None and not is_identity(alignment):
        sellers["weights"] = apply(spec, alignment, seller)
    candidates: dict[str, _Candidate] = {}
    for label, aligned in sellers.items():
        progress(f"searching ({label})", 0.1 + 0.7 * len(candidates) / len(sellers))
        candidates[label] = bench.search(label, aligned)
    control = candidates.pop("control")
    best = min(candidates.values(), key=lambda candidate: candidate.loss)  # a tie goes to the identity

    delivered: dict[str, Tensor] = {}
    if best.alpha > 0:
        merged = bench.merged(best.seller, best.alpha)
        delivered = encode_decode({name: merged[name].cpu() for name in names})
        after = bench.on_select({**bench.buyer, **evaluator.place(delivered)})
        if not _helps(before, control, after, confidence):
            delivered = {}
    progress("measuring", 0.8)
    appraisal = _report(bench, best, delivered, confidence, left_out)
    progress("done", 1.0)
    return appraisal


class _Bench:
    """The buyer's parameters and the validation data on the evaluator's device."""

    def __init__(
        self, evaluator: Evaluator, validation: Validation, buyer: Mapping[str, Tensor], names: Collection[str]
    ) -> None:
        self.evaluator = evaluator
        self.validation = validation.to(evaluator.device)
        self.buyer = evaluator.place(buyer)
        self.names = names

    def search(self, label: str, seller: Mapping[str, Tensor]) -> _Candidate:
        """The best alpha for one alignment of the seller."""
        placed = self.evaluator.place({name: seller[name] for name in self.names})
        losses: dict[float, Tensor] = {}

        def loss_at(alpha: float) -> float:
            losses[alpha] = self.on_select(self.merged(placed, alpha))
            return float(losses[alpha].mean())

        alpha = search(loss_at)
        return _Candidate(label, placed, alpha, losses[alpha])

    def merged(self, seller: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
        """The merge at alpha, with BatchNorm statistics of its own; the buyer as it is at 0."""
        tensors = merge(self.buyer, seller, alpha, self.names)
        if alpha > 0 and self.evaluator.has_statistics():
            return self.evaluator.reset_statistics(tensors, self.validation.select_inputs, self.names)
        return tensors

    def on_select(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(S,) the losses on SELECT."""
        return self.evaluator.measure(tensors, self.validation.select_inputs, self.validation.select_targets).losses


def _helps(before: Tensor, control: _Candidate, after: Tensor, confidence: float) -> bool:
    """Whether `after` is better than the buyer's `before`, and by well more than the control, beyond chance."""
    if not float(after.mean()) < float(before.mean()):
        return False
    gained = before - control.losses
    if control.alpha == 0.0 or not float(gained.mean()) > 0:
        return True
    room = min(1.0, control.loss / float(gained.mean()))
    wanted = control.losses - _MARGIN * room * gained
    return paired_gain(wanted, after, confidence).low > 0


def _report(
    bench: _Bench, best: _Candidate, delivered: dict[str, Tensor], confidence: float, left_out: tuple[str, ...]
) -> Appraisal:
    """Looks at REPORT, once for the buyer and once for what would be delivered."""
    inputs, targets = bench.validation.report_inputs, bench.validation.report_targets
    before = bench.evaluator.measure(bench.buyer, inputs, targets)
    after, gain = before, NO_GAIN
    if delivered:
        after = bench.evaluator.measure({**bench.buyer, **bench.evaluator.place(delivered)}, inputs, targets)
        gain = paired_gain(before.losses, after.losses, confidence)
    if not all(map(math.isfinite, (before.loss, after.loss, gain.low, gain.high))):
        raise BadSnapshot("the parameters give a loss that is not a number on the validation data")
    return Appraisal(
        alpha=best.alpha if delivered else 0.0,
        alignment=best.alignment if delivered else "identity",
        loss_before=before.loss,
        loss_after=after.loss,
        gain=gain.mean,
        low=gain.low,
        high=gain.high,
        confidence=confidence,
        metric_before=before.metric,
        metric_after=after.metric,
        samples=len(before.losses),
        delivered=delivered,
        left_out=left_out,
    )
