"""Weight matching: the permutation of a seller's units that brings its weights closest to a buyer's.

Knows: which models can be compared, how many ascents are made and from where, which result is returned; Ainsworth,
Hayase, Srinivasa 2022, "Git Re-Basin", Algorithm 1. Refuses to know: how an ascent goes (ascent), data, losses, torch's
generators (a private numpy generator orders the visits, so alignment never changes a training stream, and equal inputs
give equal permutations, however many threads there are). Fails with BadSnapshot on weights that are no numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from p2pmarket.alignment.ascent import Ascent, Progress
from p2pmarket.alignment.families import Family, axes_of, families_of
from p2pmarket.alignment.similarity import Pair
from p2pmarket.alignment.symmetry import check_fits, identity
from p2pmarket.errors import BadSnapshot, ModelError
from p2pmarket.permutation import PermutationSpec

_CHEAP = 2e10
"""Multiplications of a sweep up to which a second ascent is made unasked: about a second on two cores."""


def match(
    spec: PermutationSpec,
    buyer: Mapping[str, Tensor],
    seller: Mapping[str, Tensor],
    *,
    seed: int,
    restarts: int | None = None,
    max_visits: int = 10_000,
    time_budget_seconds: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
    threads: int = 2,
    device: str | torch.device = "cpu",
) -> dict[str, Tensor]:
    """Permutations that bring `seller` to `buyer`; `inverse` of them brings the buyer to the seller.

    Never worse than the identity. The first ascent begins from the inputs and outputs, others from the identity: the
    second with the heaviest families first, further ones in random orders; the best wins. Tensors that one model lacks,
    or that have another shape on an axis without symmetry (another task's head), are left out.

    :param restarts: ascents; None: a second only where the first leaves the models unlike and a sweep costs little;
        one that ends below the identity is always followed by a second
    :param max_visits: bound on the families visited in one ascent
    :param time_budget_seconds: when it is spent the best so far is returned
    :param threads: families matched at the same time
    :param device: where the products are computed; assignments are solved on the CPU
    :raises ModelError: the spec does not fit the tensors, or the widths differ
    :raises BadSnapshot: a weight is not a finite float32 number, or so large that its square is none
    """
    check_fits(spec, buyer)
    check_fits(spec, seller)
    _check_widths(spec, buyer, seller)
    names = [
        name
        for name in dict.fromkeys(name for name, _ in spec.members_on())
        if name in buyer and name in seller and buyer[name].shape == seller[name].shape
    ]
    shapes = {name: tuple(buyer[name].shape) for name in names}
    families = families_of(spec, shapes)
    best = identity(spec)
    if not families:
        return best
    pair = Pair(_prepared(buyer, names, device), _prepared(seller, names, device), axes_of(spec, shapes))
    _check_finite(pair, buyer, seller)
    deadline = clock() + time_budget_seconds
    generator = np.random.default_rng(seed)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        first = Ascent(pair, families, identity(spec))
        first.limit(max_visits, lambda: clock() >= deadline, progress)
        first.spread(pool)
        if first.finished():
            return first.permutations
        first.climb(pool, generator)
        before, after = pair.products(pair.orders(best)), first.products()
        reached = max(sum(before.values()), sum(after.values()))
        worse = sum(after.values()) < reached
        if not worse:
            best = first.permutations
        again = worse or (_work(families, shapes) <= _CHEAP and not pair.alike(after))
        ascents = (2 if again else 1) if restarts is None else max(restarts, 2 if worse else 1)
        del first
        for restart in range(1, ascents):
            if clock() >= deadline:
                break
            ascent = Ascent(pair, families, identity(spec))
            ascent.limit(max_visits, lambda: clock() >= deadline, progress)
            ascent.climb(pool, generator, heaviest_first=restart == 1)
            objective = sum(ascent.products().values())
            if objective > reached:
                best, reached = ascent.permutations, objective
    return {name: best[name].clone() for name in best}


def _work(families: Sequence[Family], shapes: Mapping[str, Sequence[int]]) -> float:
    """Multiplications of one sweep over all families."""
    return sum(
        math.prod(shapes[part.tensor]) * len(part.places) / family.classes[0].blocks
        for family in families
        for part in family.parts
    )


def _check_widths(spec: PermutationSpec, buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor]) -> None:
    """:raises ModelError: an axis with interchangeable units has another length in the seller's model"""
    for name, axis in spec.members_on():
        if name in buyer and name in seller and buyer[name].shape[axis] != seller[name].shape[axis]:
            raise ModelError(
                f"axis {axis} of {name} has {buyer[name].shape[axis]} units in the buyer's model and "
                f"{seller[name].shape[axis]} in the seller's; only models of equal widths can be aligned"
            )


def _prepared(tensors: Mapping[str, Tensor], names: Sequence[str], device: str | torch.device) -> dict[str, Tensor]:
    """Float32 on the device; no copy where they are that already."""
    return {name: tensors[name].detach().to(device, torch.float32).contiguous() for name in names}


def _check_finite(pair: Pair, buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor]) -> None:
    """:raises BadSnapshot: a weight is not a finite float32 number, or so large that its square is none"""
    for name, bound in pair.bounds.items():
        if math.isfinite(bound):
            continue
        for whose, given, used in (("buyer", buyer, pair.buyer), ("seller", seller, pair.seller)):
            if not torch.linalg.vector_norm(used[name]).isfinite():
                large = bool(given[name].isfinite().all())
                wrong = "weights too large for float32 products" if large else "NaN or infinite weights"
                raise BadSnapshot(f"{name} of the {whose}'s model holds {wrong}, so it cannot be aligned")
