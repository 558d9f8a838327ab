"""Several sellers for one buyer: a chain of purchases, each taken only where it still helps after those before it.

Knows: Wortsman et al. 2022, "Model soups", Recipe 1 (the greedy soup), told as bilateral trades. Refuses to know:
peers, prices, how candidates were ranked. Fails as `appraise` does.

A chain: the buyer of each step is the result of the step before, so each step is an ordinary appraisal with a marginal
gain of its own, for which its seller can be paid, and the gains of a chain add up to the gain of the whole. SELECT
decides which sellers are in. Each step's gain on REPORT is measured, as ever, and told; no choice looks at it.
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
    """The chain of purchases for `buyer`, the candidates taken in the order given (the most promising first).

    A candidate joins where it adds something on SELECT, beyond chance and beyond what a seller who knows nothing would
    (`Appraisal.adds`); after `most` steps no more are tried. One appraisal a candidate tried. A step that REPORT
    does not confirm is told as it is, and it is for the buyer to buy the chain up to a step of its choice (a step is
    worth nothing without those before it).

    :param appraise_step: `appraise` with other settings bound
    :raises BadSnapshot, ModelError: as `appraise`
    """
    steps: list[Step[Key]] = []
    held = dict(buyer)
    for candidate in candidates:
        if len(steps) >= most:
            break
        appraisal = appraise_step(
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
        if appraisal.adds:
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
