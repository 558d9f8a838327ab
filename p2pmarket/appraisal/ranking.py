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
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from p2pmarket.alignment import Permutations, PermutationSpec, apply, compose, inverse, is_identity, match
from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.plan import Progress
from p2pmarket.appraisal.scores import complementarity, least_loss, shortlist
from p2pmarket.appraisal.validation import Validation
from p2pmarket.errors import BadSnapshot, MarketError, ModelError

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
    """Bring the snapshot to the market's reference; None without a spec, or while it is only measured."""
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


class Scout:
    """Finds the pairs worth a full appraisal, for one task of a market.

    ::

        scout = Scout(evaluator, validation, spec, tradable=names, seed=1)
        for digest in snapshots:
            scout.measure(digest, load(digest))    # once, however many rounds it stays
        refused = scout.settle(load)               # aligned to the best of them, once too while that one stays
        for buyer, seller in scout.pairs(wanted, load, budget=len(wanted) * 8):
            appraise(...)
        scout.keep(digests_still_in_the_book)

    The reference is the snapshot of lowest loss among those there when it is chosen; when it is no longer kept, another
    is chosen and all are aligned anew. A model that never trained makes a poor one: on digits a pair's gain by way of
    noise or zeros was 0.579 or 0.440, by way of a trained model 0.673, and 0.689 where the pair itself was matched.
    That is why `alignment` serves the ranking, and a full appraisal had better match its pair.
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
        time_budget_seconds: float = math.inf,
    ) -> None:
        """:param time_budget_seconds: for each matching to the reference; when it is spent the best so far is used"""
        self._evaluator = evaluator
        self._validation = validation.to(evaluator.device)
        self._spec = spec
        self._tradable = tuple(tradable)
        self._seed = seed
        self._stages = tuple(stages)
        self._time_budget_seconds = time_budget_seconds
        self._reference: tuple[bytes, Mapping[str, Tensor]] | None = None
        self._profiles: dict[bytes, Profile] = {}
        self._order = torch.randperm(len(validation.select_targets), generator=torch.Generator().manual_seed(seed)).to(
            evaluator.device
        )

    @property
    def reference(self) -> bytes | None:
        """Digest of the snapshot that all are aligned to; None before there is one."""
        return None if self._reference is None else self._reference[0]

    def measure(self, digest: bytes, tensors: Mapping[str, Tensor]) -> Profile:
        """Measures the snapshot on SELECT, unless that was done before.

        :raises BadSnapshot: its losses are no numbers
        :raises ModelError: the tensors do not fit the model
        """
        if digest not in self._profiles:
            data = self._validation
            measured = self._evaluator.measure(self._evaluator.place(tensors), data.select_inputs, data.select_targets)
            if not math.isfinite(measured.loss):
                raise BadSnapshot("the parameters give a loss that is not a number on the validation data")
            self._profiles[digest] = Profile(None, measured.losses)
        return self._profiles[digest]

    def settle(self, load: Load, progress: Progress = lambda doing, done: None) -> dict[bytes, MarketError]:
        """Aligns all measured snapshots to the reference, which is chosen first where none is among them.

        Returns those that cannot be aligned, forgotten by now, and why.

        :raises MachineFault: this machine failed; and whatever `progress` raises
        """
        refused: dict[bytes, MarketError] = {}
        if self._spec is None:
            return refused

        def align(digest: bytes, tensors: Mapping[str, Tensor], to: Mapping[str, Tensor]) -> bool:
            try:
                self._align(digest, tensors, to, progress)
            except (BadSnapshot, ModelError) as error:
                refused[digest] = error
                del self._profiles[digest]
            return digest not in refused

        if self.reference not in self._profiles:
            self._reference = None
            self._profiles = {digest: Profile(None, kept.losses) for digest, kept in self._profiles.items()}
            for digest in sorted(self._profiles, key=lambda one: (float(self._profiles[one].losses.mean()), one)):
                tensors = _copy(load(digest))
                if align(digest, tensors, tensors):
                    self._reference = digest, tensors
                    break
        waiting = [digest for digest, kept in self._profiles.items() if kept.to_reference is None]
        for place, digest in enumerate(waiting):
            progress("aligning to the reference", place / len(waiting))
            assert self._reference is not None  # without one all were refused
            align(digest, load(digest), self._reference[1])
        return refused

    def add(self, digest: bytes, tensors: Mapping[str, Tensor]) -> Profile:
        """Measures the snapshot and aligns it to the reference, unless that was done before; the first becomes it.

        For snapshots known to be trained, one at a time: `measure` and `settle` choose a reference among many.

        :raises BadSnapshot: its losses are no numbers, or it cannot be aligned
        :raises ModelError: the tensors do not fit the model or the spec
        """
        profile = self.measure(digest, tensors)
        if self._spec is None or profile.to_reference is not None:
            return profile
        reference = (digest, _copy(tensors)) if self._reference is None else self._reference
        try:
            self._align(digest, tensors, reference[1], lambda doing, done: None)
        except (BadSnapshot, ModelError):
            del self._profiles[digest]
            raise
        self._reference = reference
        return self._profiles[digest]

    def keep(self, digests: Collection[bytes]) -> None:
        """Forgets all snapshots but these."""
        self._profiles = {digest: kept for digest, kept in self._profiles.items() if digest in digests}

    def _align(
        self, digest: bytes, tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor], progress: Progress
    ) -> None:
        assert self._spec is not None
        found = match(
            self._spec,
            reference,
            tensors,
            seed=self._seed,
            device=self._evaluator.device,
            time_budget_seconds=self._time_budget_seconds,
            progress=lambda *visits: progress("aligning to the reference", 0.0),
        )
        self._profiles[digest] = dataclasses.replace(self._profiles[digest], to_reference=found)

    def alignment(self, buyer: bytes, seller: bytes) -> Permutations | None:
        """Brings the seller to the buyer by way of the reference; None without a spec. Both must have been aligned."""
        first, second = self._profiles[buyer].to_reference, self._profiles[seller].to_reference
        return None if self._spec is None or first is None or second is None else between(self._spec, first, second)

    def pairs(
        self,
        wanted: Mapping[bytes, Sequence[bytes]],
        load: Load,
        *,
        budget: int,
        progress: Progress = lambda doing, done: None,
    ) -> tuple[tuple[bytes, bytes], ...]:
        """At most `budget` (buyer, seller) pairs for a full appraisal, of all that are `wanted` (buyer -> its sellers).

        The most promising first. A buyer for whom some probe promises a gain has at least one, where the budget has
        room for one each. All digests must have been aligned.
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
            scores = self._probe(entering, load, stage, progress)
        return shortlist(scores, budget)

    def _probe(
        self, pairs: Collection[tuple[bytes, bytes]], load: Load, stage: Stage, progress: Progress
    ) -> dict[tuple[bytes, bytes], float]:
        chosen = self._order[: stage.samples]
        inputs, targets = self._validation.select_inputs[chosen], self._validation.select_targets[chosen]
        scores: dict[tuple[bytes, bytes], float] = {}
        for buyer in dict.fromkeys(buyer for buyer, _ in pairs):
            own = load(buyer)
            before = float(self._profiles[buyer].losses[chosen.cpu()].mean())
            for seller in (seller for other, seller in pairs if other == buyer):
                progress("ranking", len(scores) / len(pairs))
                others = [load(seller)]
                alignment = self.alignment(buyer, seller)
                if self._spec is not None and alignment is not None and not is_identity(alignment):
                    others.append(apply(self._spec, alignment, others[0]))
                after = least_loss(self._evaluator, own, others, self._tradable, stage.alphas, inputs, targets)
                scores[buyer, seller] = before - after
        return scores


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
