"""Which pairs of a round deserve a full appraisal: n passes and some small probes instead of n(n - 1) appraisals.

Knows: snapshots by digest, their losses on SELECT, one permutation each to the market's reference. Refuses to know:
agents, prices, REPORT (nothing here is told to anybody). Every choice follows from the inputs and the seed.

Pairs are thinned out by successive halving (Jamieson & Talwalkar 2016, "Non-stochastic best arm identification",
section 3): each stage looks harder at fewer pairs. The first costs one pass a snapshot: where the buyer is wrong and
the seller is right, a trade may help. The next ones merge aligned pairs and measure them on a small part of SELECT.
Fails with BadSnapshot where a snapshot gives losses that are no numbers, ModelError where things do not fit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from p2pmarket.alignment import Permutations, PermutationSpec, apply, compose, inverse, is_identity, match
from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.merging import merge, mergeable
from p2pmarket.appraisal.validation import Validation
from p2pmarket.errors import BadSnapshot

Key = TypeVar("Key", bound=Hashable)
Load = Callable[[bytes], Mapping[str, Tensor]]
"""Digest -> the snapshot's tensors on the CPU. Called many times in a round: keep what was read."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One look at the pairs that are left."""

    samples: int
    """Of SELECT, drawn by the seed, the same for all pairs."""
    alphas: tuple[float, ...]
    """Where on the line from the buyer to the seller."""
    pairs: float
    """Pairs that enter this stage, as a multiple of the budget of full appraisals."""


STAGES = (Stage(64, (0.25, 0.5, 0.75), 4.0), Stage(256, (0.25, 0.5, 0.75), 2.0))
"""Measured on digits, 16 agents with one initialisation or with 16: rank correlation of a score with the gain of a
full appraisal (one coefficient), mean over buyers: `complementarity` 0.65 and 0.42; the same with the lower of both
losses 0.57, 0.38; the seller's own loss 0.51, 0.45; the same pair's gain two epochs before 0.73, 0.37; nearness after
alignment -0.22, -0.11; a probe of 64 samples at the midpoint 0.72, 0.47, at three places 0.81, 0.66, of 256 samples
0.83, 0.73."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """What is kept of a snapshot: small, whatever the model's size."""

    to_reference: Permutations | None
    """Bring the snapshot to the market's reference; None without a spec."""
    losses: Tensor
    """(S,) its losses on SELECT, on the CPU in float64."""


def between(
    spec: PermutationSpec, to_reference_buyer: Permutations, to_reference_seller: Permutations
) -> dict[str, Tensor]:
    """Permutations that bring the seller to the buyer, from those that bring either to one reference.

    Unit i of the aligned seller is the seller's unit that went where the buyer's unit i went. Alignments through a
    reference agree round any circle of models (Crisostomi et al. 2024, "C2M3", section 3), pairwise ones do not.
    """
    return compose(spec, to_reference_seller, inverse(spec, to_reference_buyer))


def complementarity(buyer: Tensor, seller: Tensor) -> float:
    """What a buyer would gain if it answered with the mean of both models' probabilities; losses (S,), paired.

    Exact for cross entropy, whose losses are -log of the right class' probability; for other losses only an order.
    """
    together = math.log(2) - torch.logaddexp(-buyer, -seller)
    return float((buyer - together).mean())


def shortlist(scores: Mapping[tuple[Key, Key], float], budget: int) -> tuple[tuple[Key, Key], ...]:
    """At most `budget` (buyer, seller) pairs to look at more closely, the same for the same scores in the same order.

    Every buyer's best pair first, then every buyer's second best, ...; within such a row the higher score first. Pairs
    whose score is not above zero (or no number) promise nothing and are left out.
    """
    ranked: dict[Key, list[tuple[float, Key]]] = {}
    for (buyer, seller), score in scores.items():
        if score > 0:
            ranked.setdefault(buyer, []).append((score, seller))
    rows: list[tuple[int, float, tuple[Key, Key]]] = []
    for buyer, pairs in ranked.items():
        pairs.sort(key=lambda pair: -pair[0])
        rows += [(place, -score, (buyer, seller)) for place, (score, seller) in enumerate(pairs)]
    rows.sort(key=lambda row: row[:2])
    return tuple(pair for _, _, pair in rows[: max(budget, 0)])


class Scout:
    """Finds the pairs worth a full appraisal, for one task of a market.

    ::

        scout = Scout(evaluator, validation, spec, tradable=names, seed=1)
        for digest in snapshots:
            scout.add(digest, load(digest))        # aligned and measured once, however many rounds it stays
        for buyer, seller in scout.pairs(wanted, load, budget=len(wanted) * 8):
            appraise(..., alignment=scout.alignment(buyer, seller))
        scout.keep(digests_still_in_the_book)

    The reference is the first snapshot added, and stays: all kept permutations lead to it, so a new one would mean all
    alignments anew, and which model it is matters little as long as it is trained like the others. A first agent that
    submits noise makes the composed alignments poor, never wrong: the identity is always tried beside them.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        validation: Validation,
        spec: PermutationSpec | None,
        *,
        tradable: Collection[str],
        seed: int,
        stages: Sequence[Stage] = STAGES,
    ) -> None:
        self._evaluator = evaluator
        self._validation = validation.to(evaluator.device)
        self._spec = spec
        self._tradable = tuple(tradable)
        self._seed = seed
        self._stages = tuple(stages)
        self._reference: dict[str, Tensor] | None = None
        self._profiles: dict[bytes, Profile] = {}
        self._order = torch.randperm(len(validation.select_targets), generator=torch.Generator().manual_seed(seed)).to(
            evaluator.device
        )

    def add(self, digest: bytes, tensors: Mapping[str, Tensor]) -> Profile:
        """Aligns the snapshot to the reference and measures it on SELECT, unless that was done before.

        :raises BadSnapshot: its losses are no numbers
        :raises ModelError: the tensors do not fit the model or the spec
        """
        known = self._profiles.get(digest)
        if known is not None:
            return known
        data = self._validation
        measured = self._evaluator.measure(self._evaluator.place(tensors), data.select_inputs, data.select_targets)
        if not math.isfinite(measured.loss):
            raise BadSnapshot("the parameters give a loss that is not a number on the validation data")
        to_reference = None
        if self._spec is not None:
            if self._reference is None:
                self._reference = {name: tensor.clone() for name, tensor in tensors.items()}
            to_reference = match(self._spec, self._reference, tensors, seed=self._seed)
        profile = Profile(to_reference, measured.losses)
        self._profiles[digest] = profile
        return profile

    def keep(self, digests: Collection[bytes]) -> None:
        """Forgets all snapshots but these; the reference stays."""
        self._profiles = {digest: kept for digest, kept in self._profiles.items() if digest in digests}

    def alignment(self, buyer: bytes, seller: bytes) -> Permutations | None:
        """Brings the seller to the buyer by way of the reference; None without a spec. Both must have been added."""
        first, second = self._profiles[buyer].to_reference, self._profiles[seller].to_reference
        return None if self._spec is None or first is None or second is None else between(self._spec, first, second)

    def pairs(
        self, wanted: Mapping[bytes, Sequence[bytes]], load: Load, *, budget: int
    ) -> tuple[tuple[bytes, bytes], ...]:
        """At most `budget` (buyer, seller) pairs for a full appraisal, of all that are `wanted` (buyer -> its sellers).

        The most promising first. A buyer for whom some probe promises a gain has at least one, where the budget has
        room for one each. All digests must have been added.
        """
        scores = {
            (buyer, seller): complementarity(self._profiles[buyer].losses, self._profiles[seller].losses)
            for buyer, sellers in wanted.items()
            for seller in sellers
            if seller != buyer
        }
        # The first order only sorts; it must not end a pair's hopes by its sign.
        lowest = min(scores.values(), default=0.0)
        scores = {pair: score - lowest + 1.0 for pair, score in scores.items()}
        for stage in self._stages:
            entering = shortlist(scores, math.ceil(stage.pairs * budget))
            scores = self._probe(entering, load, stage)
        return shortlist(scores, budget)

    def _probe(
        self, pairs: Collection[tuple[bytes, bytes]], load: Load, stage: Stage
    ) -> dict[tuple[bytes, bytes], float]:
        chosen = self._order[: stage.samples]
        inputs, targets = self._validation.select_inputs[chosen], self._validation.select_targets[chosen]
        scores: dict[tuple[bytes, bytes], float] = {}
        for buyer in dict.fromkeys(buyer for buyer, _ in pairs):
            own = load(buyer)
            before = float(self._profiles[buyer].losses[chosen.cpu()].mean())
            for seller in (seller for other, seller in pairs if other == buyer):
                after = self._least_loss(
                    own, load(seller), self.alignment(buyer, seller), stage.alphas, inputs, targets
                )
                scores[buyer, seller] = before - after
        return scores

    def _least_loss(
        self,
        buyer: Mapping[str, Tensor],
        seller: Mapping[str, Tensor],
        alignment: Permutations | None,
        alphas: Sequence[float],
        inputs: Tensor,
        targets: Tensor,
    ) -> float:
        names = mergeable(buyer, seller, self._tradable)
        sellers = [seller]
        if self._spec is not None and alignment is not None and not is_identity(alignment):
            sellers.append(apply(self._spec, alignment, seller))
        placed = self._evaluator.place(buyer)
        least = math.inf
        for aligned in sellers:
            other = self._evaluator.place({name: aligned[name] for name in names})
            for alpha in alphas:
                merged = merge(placed, other, alpha, names)
                if self._evaluator.has_statistics():
                    merged = self._evaluator.reset_statistics(merged, inputs, names)
                loss = self._evaluator.measure(merged, inputs, targets).loss
                least = min(least, math.inf if math.isnan(loss) else loss)
        return least
