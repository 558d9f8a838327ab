"""Several sellers for one buyer: a chain of purchases, each taken only where it still helps after those before it.

Knows: Wortsman et al. 2022, "Model soups", Recipe 1 (the greedy soup), told as bilateral trades. Refuses to know:
peers, prices, how candidates were ranked. Fails as `appraise` does.

A chain: the buyer of each step is the result of the step before, so each step is an ordinary appraisal with a marginal
gain of its own, for which its seller can be paid, and the gains of a chain add up to the gain of the whole. SELECT
decides which sellers are in and in which order (`in_turn`, `joins`: the broker's chains go by the same rule). Each
step's gain on REPORT is measured, as ever, and told; no choice looks at it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from torch import Tensor

from p2pmarket.alignment import Permutations, PermutationSpec
from p2pmarket.appraisal.appraise import Appraisal, Codec, appraise
from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.validation import Validation

Key = TypeVar("Key", bound=Hashable)
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Candidate(Generic[Key]):
    """One seller that may be added."""

    key: Key
    tensors: Mapping[str, Tensor]
    alignment: Permutations | None = None
    """Brings the seller to the buyer (`align_pair`, `Scout.alignment`); None: each step matches anew. Good for every
    step, as a merge stays in its buyer's frame."""


@dataclasses.dataclass(frozen=True)
class Step(Generic[Key]):
    """One purchase of a chain: what `key` adds to what the buyer holds after the steps before."""

    key: Key
    appraisal: Appraisal


def in_turn(found: Iterable[T], appraisal_of: Callable[[T], Appraisal]) -> list[T]:
    """Who is tried for a chain and in which order: those with a gain alone on SELECT, the greatest first.

    :param appraisal_of: a candidate's appraisal with the buyer as it is
    """
    gains = [(appraisal_of(one).select_gain, one) for one in found]
    return [one for gain, one in sorted(gains, key=lambda pair: -pair[0]) if gain > 0]


def joins(appraisal: Appraisal) -> bool:
    """Whether a step, appraised on the buyer after the steps before, is part of the chain."""
    return appraisal.adds


def greedy_soup(
    evaluator: Evaluator,
    validation: Validation,
    spec: PermutationSpec | None,
    buyer: Mapping[str, Tensor],
    candidates: Sequence[Candidate[Key]],
    *,
    tradable: Collection[str],
    encode_decode: Codec,
    confidence: float,
    seed: int,
    most: int = 4,
    appraise_step: Callable[..., Appraisal] = appraise,
) -> tuple[Step[Key], ...]:
    """The chain of purchases for `buyer`, the candidates taken by their gain alone on SELECT.

    A candidate joins where it adds something on SELECT, beyond chance and beyond what a seller who knows nothing would
    (`Appraisal.adds`); after `most` steps no more are tried. One appraisal a candidate alone, and one more for each
    that is tried upon another. A step that REPORT does not confirm is told as it is, and it is for the buyer to buy
    the chain up to a step of its choice (a step is worth nothing without those before it).

    :param appraise_step: `appraise` with other settings bound
    :raises BadSnapshot, ModelError: as `appraise`
    """

    def appraised(held: Mapping[str, Tensor], candidate: Candidate[Key]) -> Appraisal:
        return appraise_step(
            evaluator,
            validation,
            spec,
            held,
            candidate.tensors,
            tradable=tradable,
            encode_decode=encode_decode,
            confidence=confidence,
            seed=seed,
            alignment=candidate.alignment,
        )

    steps: list[Step[Key]] = []
    held = dict(buyer)
    alone = [(candidate, appraised(held, candidate)) for candidate in candidates]
    for candidate, first in in_turn(alone, lambda pair: pair[1]):
        if len(steps) >= most:
            break
        appraisal = appraised(held, candidate) if steps else first
        if joins(appraisal):
            steps.append(Step(candidate.key, appraisal))
            held = {**held, **appraisal.delivered}
    return tuple(steps)


def delivered(steps: Iterable[Step[Key]]) -> dict[str, Tensor]:
    """What the buyer loads after these steps: later deliveries replace earlier ones.

    Where all sellers hold the same tensors this is the last step's delivery.
    """
    tensors: dict[str, Tensor] = {}
    for step in steps:
        tensors.update(step.appraisal.delivered)
    return tensors
