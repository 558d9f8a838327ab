"""Prices among several: which parcels one buyer takes, how a joint price is shared, what many buyers are asked.

Knows: the worth of any set of sellers as a function that is passed in, amounts in micro-credits, random numbers, also
passed in. Refuses to know: how worth is measured, how alike two parcels are (a function too), who is who.
Fails with ValueError on amounts and weights that mean nothing.

Parameters can be copied, so no buyer takes anything from another; but two sellers may teach the same thing, so their
worths do not add. The Shapley value (1953) is the one rule that shares all of the worth, treats equals equally, gives
nothing to who adds nothing, and adds over markets. It also pays a seller for joining twice: parcels can be copied.
`clone_groups` and `similarity_discount` are two answers to that, each giving up something.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from fractions import Fraction

from p2pmarket.pricing.amounts import check_amount, check_whole, is_finite
from p2pmarket.pricing.reserve import Belief

EXACT_PLAYERS = 8
"""Up to this many, all 2^n sets are valued; a value may be a pass over validation data."""

Worth = Callable[[frozenset[str]], float]


@dataclasses.dataclass(frozen=True)
class Basket:
    """What a buyer takes, in the order of choice, what each added when it was chosen, and what all cost together."""

    sellers: tuple[str, ...]
    marginal: tuple[int, ...]
    cost: int


@dataclasses.dataclass(frozen=True)
class Shapley:
    """Each player's Shapley value and the standard error of it: 0 where it is exact."""

    values: dict[str, float]
    errors: dict[str, float]


# ---- one buyer, several sellers -----------------------------------------------------------------------------------


def greedy_basket(worth: Callable[[frozenset[str]], int], prices: Mapping[str, int], *, budget: int) -> Basket:
    """Adds the seller with the largest marginal worth above its price, while there is one that the budget pays for.

    `worth` of a set of sellers is micro-credits the buyer would pay for all of it, measured held-out and jointly. Ties
    go to the name that sorts first. With diminishing worth the last marginal is the smallest; where two parcels are
    worth something together only, this finds neither (so does every rule that looks one step ahead).

    :raises ValueError: a price or budget that is no amount, a worth that is no whole number of micro-credits
    """
    check_amount("a budget", budget)
    for price in prices.values():
        check_amount("a price", price)

    def valued(members: frozenset[str]) -> int:
        found = worth(members)
        check_whole("the worth of a set of sellers", found)
        return found

    taken: list[str] = []
    marginal: list[int] = []
    left, reached = budget, valued(frozenset())
    while True:
        added = {
            seller: valued(frozenset((*taken, seller))) - reached
            for seller, price in sorted(prices.items())
            if seller not in taken and price <= left
        }
        best = max(added, key=lambda seller: added[seller] - prices[seller], default=None)
        if best is None or added[best] <= prices[best]:
            return Basket(tuple(taken), tuple(marginal), budget - left)
        taken.append(best)
        marginal.append(added[best])
        left -= prices[best]
        reached += added[best]


def shapley(
    worth: Worth, players: Collection[str], *, random: random.Random | None = None, samples: int = 200
) -> Shapley:
    """What each player adds, averaged over all orders of joining.

    Exact up to EXACT_PLAYERS. Above, over `samples` pairs of a random order and its reverse (antithetic: the pair
    varies less than two orders drawn apart); the standard error is over pairs. No set is valued twice.

    :raises ValueError: a player named twice; more players than EXACT_PLAYERS without `random`; fewer than 2 samples; a
        worth that is not finite
    """
    names = sorted(players)
    if len(set(names)) != len(names):
        raise ValueError("a player is named twice")
    known: dict[frozenset[str], float] = {}

    def valued(members: frozenset[str]) -> float:
        if members not in known:
            known[members] = _finite("the worth of a set of players", worth(members))
        return known[members]

    if len(names) <= EXACT_PLAYERS:
        return Shapley({name: _exact(valued, name, names) for name in names}, dict.fromkeys(names, 0.0))
    if random is None or samples < 2:
        raise ValueError(f"{len(names)} players are too many to value every set of; pass `random` and samples >= 2")
    draws: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(samples):
        order = random.sample(names, len(names))
        forth, back = _joining(valued, order), _joining(valued, order[::-1])
        for name in names:
            draws[name].append((forth[name] + back[name]) / 2)
    means = {name: math.fsum(drawn) / samples for name, drawn in draws.items()}
    spread = {name: math.fsum((one - means[name]) ** 2 for one in drawn) for name, drawn in draws.items()}
    return Shapley(means, {name: math.sqrt(spread[name] / (samples - 1) / samples) for name in names})


def _finite(name: str, number: float) -> float:
    if not is_finite(number):
        raise ValueError(f"{name} is {number}, which is not finite")
    return number


def _exact(worth: Worth, name: str, names: list[str]) -> float:
    others = [other for other in names if other != name]
    terms = []
    for size in range(len(others) + 1):
        orders = len(names) * math.comb(len(others), size)
        for chosen in itertools.combinations(others, size):
            before = frozenset(chosen)
            terms.append((worth(before | {name}) - worth(before)) / orders)
    return math.fsum(terms)


def _joining(worth: Worth, order: list[str]) -> dict[str, float]:
    """What each adds when they join in this order."""
    reached = [worth(frozenset(order[:count])) for count in range(len(order) + 1)]
    return {name: after - before for name, before, after in zip(order, reached, reached[1:], strict=False)}


def clone_groups(
    players: Collection[str], similarity: Callable[[str, str], float], *, threshold: float = 0.99
) -> tuple[frozenset[str], ...]:
    """Players that are alike, directly or through others: who joins under several names is one group.

    `similarity` of two parcels is at most 1, symmetric, and says that they teach the same (after alignment, say the
    cosine of what they change). Clones made just different enough pass: see `similarity_discount`.

    :raises ValueError: a similarity or threshold that is not finite
    """
    _finite("the threshold of similarity", threshold)
    groups: list[frozenset[str]] = []
    for name in sorted(set(players)):
        alike = [
            group
            for group in groups
            if any(_finite("a similarity", similarity(name, other)) >= threshold for other in group)
        ]
        groups = [group for group in groups if group not in alike] + [frozenset({name}).union(*alike)]
    return tuple(sorted(groups, key=min))


def shapley_of_groups(
    worth: Worth, groups: Iterable[frozenset[str]], *, random: random.Random | None = None, samples: int = 200
) -> Shapley:
    """Shapley values where each group joins as one (the quotient game of Owen 1977), shared equally inside it.

    As long as a group is worth what one of its members is, all its names together get exactly what one alone would.
    Efficient: the values sum to the worth of all.

    :raises ValueError: a name in two groups, and as `shapley`
    """
    apart = list(groups)
    if sum(map(len, apart)) != len(frozenset().union(*apart)):
        raise ValueError("a player is in two groups")
    by_first = {min(group): group for group in apart}
    joint = shapley(
        lambda firsts: worth(frozenset().union(*(by_first[first] for first in firsts))),
        tuple(by_first),
        random=random,
        samples=samples,
    )
    return Shapley(
        {name: joint.values[first] / len(group) for first, group in by_first.items() for name in group},
        {name: joint.errors[first] / len(group) for first, group in by_first.items() for name in group},
    )


def similarity_discount(
    values: Mapping[str, float], similarity: Callable[[str, str], float], *, strength: float = math.log(2)
) -> dict[str, float]:
    """Values less what is alike: each times exp(-strength x the sum of its similarities to the others).

    Agarwal, Dahleh and Sarkar (2019), section 4, algorithm 3: with the strength of log 2, k names of one parcel get no
    more together than one did, since k 2^(1 - k) is at most 1; and nearly that where they are nearly alike. What it
    takes away is paid to nobody, and an honest seller that happens to teach the same loses as well: no rule that sees
    parcels alone can tell the two apart.

    :raises ValueError: a value, similarity or strength that is not finite
    """
    _finite("the strength of the discount", strength)

    def alike(name: str) -> float:
        return math.fsum(_finite("a similarity", similarity(name, other)) for other in values if other != name)

    return {name: _finite("a value", value) * math.exp(-strength * alike(name)) for name, value in values.items()}


def shares(amount: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`amount` micro-credits shared by weights, exactly: the shares sum to it, and none is negative.

    A negative weight (a Shapley value of a parcel that harms) gets nothing and takes nothing from the others. Each
    share is rounded down, and what is left goes one by one to the largest remainders, ties to the name that sorts
    first, so a share is never a micro-credit or more from its exact part.

    :raises ValueError: not an amount; a weight that is not finite; no weight above 0 to share by
    """
    check_amount("an amount to share", amount)
    for weight in weights.values():
        _finite("a weight to share by", weight)
    positive = {name: Fraction(max(0.0, weight)) for name, weight in sorted(weights.items())}
    total = sum(positive.values(), Fraction(0))
    if not total:
        raise ValueError("no weight is above 0, so nobody has a part in the amount")
    exact = {name: amount * weight / total for name, weight in positive.items()}
    given = {name: math.floor(part) for name, part in exact.items()}
    left = amount - sum(given.values())
    for name in sorted(exact, key=lambda name: (given[name] - exact[name], name))[:left]:
        given[name] += 1
    return {name: given[name] for name in weights}


# ---- one seller, several buyers -----------------------------------------------------------------------------------


def posted_price_per_class(beliefs: Mapping[str, Belief], cost: float = 0.0) -> dict[str, float]:
    """Each class of buyers its own reserve, in the unit of the beliefs.

    Revenue-optimal for a good that can be copied, when the beliefs are right: selling to one buyer takes nothing from
    another, so each sale is Myerson's problem (1981) with one bidder. The class must be something that a buyer cannot
    choose, or all choose the cheapest.
    """
    return {name: belief.reserve(cost) for name, belief in beliefs.items()}


def random_sampling_prices(bids: Mapping[str, int], random: random.Random, *, cost: int = 0) -> dict[str, int | None]:
    """A price for each buyer from the bids of others alone, without any prior: buy when the bid reaches it.

    Random-sampling optimal price (Goldberg, Hartline, Karlin, Saks and Wright 2006, section 5): the buyers fall at
    random into two halves, and each half is offered the price that would have earned most in the other. No bid moves
    its own price, so bidding the value is the best a buyer can do. None where the other half has nobody that bids
    above the cost: no sale. At least 1/4.68 of the best single price that sells to two (Alaei, Malekian and Srinivasan
    2009), in the mean, without a cost.

    :raises ValueError: a bid or cost that is no amount
    """
    check_amount("a cost", cost)
    for bid in bids.values():
        check_amount("a bid", bid)
    side = {name: random.random() < 0.5 for name in sorted(bids)}
    price = {
        half: _best_single_price([bid for name, bid in bids.items() if side[name] is not half], cost)
        for half in (False, True)
    }
    return {name: price[side[name]] for name in bids}


def _best_single_price(bids: list[int], cost: int) -> int | None:
    """The price that earns most from these bids, the lowest of equals; None when no bid is above the cost."""
    falling = sorted((bid for bid in bids if bid > cost), reverse=True)
    earned = [((bid - cost) * count, -bid) for count, bid in enumerate(falling, start=1)]
    return -max(earned)[1] if earned else None
