"""Parameter groups: what each part of a delivery is worth, and which parts to buy for a budget.

Knows: names of tensors, gains on SELECT, prices as integers. Refuses to know: who pays, REPORT: the basket that was
chosen is appraised anew with only its tensors tradable, and that appraisal is what is told.
Fails with ModelError where groups do not divide the tensors.

A group's marginal gain is that of the whole delivery minus that of all but the group: what the buyer would miss. Groups
that only work together each show the gain of both, groups that do the same show none: marginal gains need not add up
to the whole, which is why baskets are compared as a whole.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping

from torch import Tensor

from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.validation import Validation
from p2pmarket.errors import ModelError
from p2pmarket.parameters.snapshot import matching

EXACT_GROUPS = 10
"""Up to so many groups all baskets are compared (1,024 of them); beyond, groups are added greedily."""

GainOf = Callable[[frozenset[str]], float]
"""Group names -> the gain on SELECT of buying just those."""


@dataclasses.dataclass(frozen=True)
class Basket:
    """Groups to buy together."""

    groups: frozenset[str]
    gain: float
    """Mean loss on SELECT that they take away."""
    price: int
    """Micro-credits."""
    value: int
    """Micro-credits that the gain is worth to the buyer."""

    @property
    def surplus(self) -> int:
        """What is left to the buyer; 0 for the empty basket."""
        return self.value - self.price


def divide(groups: Mapping[str, Collection[str]], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Group name -> names of its tensors, of those in `names`.

    :param groups: group name -> glob patterns as in a market's `tradable`
    :raises ModelError: a tensor in two groups, or a group without one; tensors in no group are not for sale
    """
    wanted = tuple(names)
    divided = {group: matching(patterns, wanted) for group, patterns in groups.items()}
    owners: dict[str, str] = {}
    for group, members in divided.items():
        if not members:
            raise ModelError(f"the parameter group {group!r} holds no tensor that is for sale; correct its patterns")
        for name in members:
            if owners.setdefault(name, group) != group:
                raise ModelError(
                    f"{name!r} is in the parameter groups {owners[name]!r} and {group!r}; a tensor belongs to one group"
                )
    return divided


def gain_of_groups(
    evaluator: Evaluator,
    validation: Validation,
    buyer: Mapping[str, Tensor],
    delivered: Mapping[str, Tensor],
    divided: Mapping[str, Collection[str]],
) -> GainOf:
    """Gains on SELECT of parts of a delivery (`Appraisal.delivered`), as they are, other tensors the buyer's own.

    BatchNorm's statistics are computed anew for every part. Each basket is measured once: one pass over SELECT.
    """
    data = validation.to(evaluator.device)
    own, bought = evaluator.place(buyer), evaluator.place(delivered)
    known: dict[frozenset[str], float] = {}

    def loss(tensors: Mapping[str, Tensor]) -> float:
        return evaluator.measure(tensors, data.select_inputs, data.select_targets).loss

    before = loss(own)

    def gain(groups: frozenset[str]) -> float:
        if groups not in known:
            part = {name: bought[name] for group in groups for name in divided[group] if name in bought}
            merged = {**own, **part}
            if part and evaluator.has_statistics():
                merged = evaluator.reset_statistics(merged, data.select_inputs, list(bought))
            after = loss(merged) if part else before
            known[groups] = before - after if math.isfinite(after) else -math.inf
        return known[groups]

    return gain


def marginal_gains(groups: Collection[str], gain_of: GainOf, *, most: float = math.inf) -> dict[str, float]:
    """Group name -> the gain of all groups minus that of all others: one measurement a group, and one for the whole.

    A group whose marginal gain is no number is left out: without it the others give no loss. One that is far from zero
    only says how badly the others do alone (a seller may scale one layer up and the next one down): it is held within
    `most` either way.

    :param most: the buyer's loss, say: no group adds more than all there is to lose
    """
    everything = frozenset(groups)
    whole = gain_of(everything)
    gains = {group: whole - gain_of(everything - {group}) for group in sorted(everything)}
    return {group: min(most, max(-most, gain)) for group, gain in gains.items() if math.isfinite(gain)}


def best_basket(prices: Mapping[str, int], gain_of: GainOf, value_of: Callable[[float], int], *, budget: int) -> Basket:
    """The basket of greatest surplus (value of its gain minus price) that costs at most `budget`.

    Exact up to EXACT_GROUPS groups. Beyond: from nothing, the group that adds the most surplus is added, or one that
    does harm taken out, until neither helps. A tie goes to the cheaper basket, then the smaller, then the first by
    name; where nothing has a surplus the basket is empty.

    :param prices: group name -> micro-credits, not negative
    :param value_of: gain -> micro-credits; asked for positive gains only, anything else is worth nothing
    """

    def basket(groups: Iterable[str]) -> Basket:
        chosen = frozenset(groups)
        gain = gain_of(chosen) if chosen else 0.0
        return Basket(chosen, gain, sum(prices[group] for group in chosen), value_of(gain) if gain > 0 else 0)

    names = sorted(prices)
    affordable = [name for name in names if prices[name] <= budget]
    if len(names) <= EXACT_GROUPS:
        subsets = (
            subset
            for count in range(len(affordable) + 1)
            for subset in itertools.combinations(affordable, count)
            if sum(prices[name] for name in subset) <= budget
        )
        return min(map(basket, subsets), key=_order)
    best = basket(())
    while True:
        nearby = (best.groups ^ {name} for name in affordable)
        step = min(
            (basket(groups) for groups in nearby if sum(prices[name] for name in groups) <= budget),
            key=_order,
            default=best,
        )
        if _order(step) >= _order(best):
            return best
        best = step


def _order(basket: Basket) -> tuple[int, int, int, tuple[str, ...]]:
    return (-basket.surplus, basket.price, len(basket.groups), tuple(sorted(basket.groups)))
