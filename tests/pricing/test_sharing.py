"""Several sellers share exactly and cannot gain by copying themselves; several buyers cannot move their own price."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.empirical import Empirical
from p2pmarket.pricing.sharing import (
    Basket,
    clone_groups,
    greedy_basket,
    posted_price_per_class,
    random_sampling_prices,
    shapley,
    shapley_of_groups,
    shares,
    similarity_discount,
)

Worth = Callable[[frozenset[str]], float]
NAMES = "abcde"
tables = st.lists(st.integers(-1000, 1000), min_size=32, max_size=32)


def game(table: list[int]) -> Worth:
    """Any game of the five players: one number for each set, 0 for the empty one."""

    def worth(members: frozenset[str]) -> float:
        at = sum(1 << NAMES.index(name) for name in members)
        return float(table[at]) if at else 0.0

    return worth


def covering(knowledge: dict[str, set[int]]) -> Worth:
    """Worth is how much is known together: submodular, and a copy adds nothing."""
    return lambda members: float(len(set().union(*(knowledge[name] for name in members))))


def by_orders(worth: Worth, players: str) -> dict[str, float]:
    """The definition, over all orders."""
    total = dict.fromkeys(players, 0.0)
    orders = list(permutations(players))
    for order in orders:
        for at, name in enumerate(order):
            total[name] += worth(frozenset(order[: at + 1])) - worth(frozenset(order[:at]))
    return {name: value / len(orders) for name, value in total.items()}


# ---- Shapley ------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(tables)
def test_shapley_is_its_definition_and_efficient(table: list[int]) -> None:
    found = shapley(game(table), NAMES)
    assert found.values == pytest.approx(by_orders(game(table), NAMES), abs=1e-9)
    assert math.fsum(found.values.values()) == pytest.approx(table[-1], abs=1e-9)
    assert set(found.errors.values()) == {0.0}


@given(tables)
def test_symmetry_and_null_player(table: list[int]) -> None:
    worth = game(table)

    def alike(members: frozenset[str]) -> float:
        """b does what a does, and e does nothing."""
        swapped = frozenset({"a": "b", "b": "a"}.get(name, name) for name in members)
        return worth(members - {"e"}) + worth(swapped - {"e"})

    values = shapley(alike, NAMES).values
    assert values["a"] == pytest.approx(values["b"], abs=1e-9)
    assert values["e"] == 0


@given(tables, tables)
def test_additivity(one: list[int], other: list[int]) -> None:
    both = shapley(lambda members: game(one)(members) + game(other)(members), NAMES).values
    apart = [shapley(game(table), NAMES).values for table in (one, other)]
    assert both == pytest.approx({name: apart[0][name] + apart[1][name] for name in NAMES}, abs=1e-9)


def test_sampled_shapley_is_near_the_exact_one_within_its_error() -> None:
    """Ten players that cover facts: each fact is shared equally among those who know it."""
    drawn = random.Random(5)
    knowledge = {f"player {index}": set(drawn.sample(range(30), 8)) for index in range(10)}
    exact = {
        name: sum(1 / sum(fact in others for others in knowledge.values()) for fact in known)
        for name, known in knowledge.items()
    }
    found = shapley(covering(knowledge), knowledge, random=random.Random(0), samples=400)
    assert math.fsum(found.values.values()) == pytest.approx(math.fsum(exact.values()))
    for name in knowledge:
        assert 0 < found.errors[name] < 0.08
        assert abs(found.values[name] - exact[name]) < 4 * found.errors[name]
    few = shapley(covering(knowledge), knowledge, random=random.Random(0), samples=20)
    assert min(few.errors.values()) > max(found.errors.values())


def test_sampling_needs_randomness_and_two_samples_and_values_no_set_twice() -> None:
    players = [str(index) for index in range(9)]
    with pytest.raises(ValueError, match="random"):
        shapley(len, players)
    with pytest.raises(ValueError, match="samples"):
        shapley(len, players, random=random.Random(0), samples=1)
    with pytest.raises(ValueError, match="twice"):
        shapley(len, ["a", "a"])
    asked: list[frozenset[str]] = []

    def worth(members: frozenset[str]) -> float:
        asked.append(members)
        return float(len(members))

    shapley(worth, players, random=random.Random(0))
    assert len(asked) == len(set(asked))
    assert shapley(len, []).values == {}


# ---- clones -------------------------------------------------------------------------------------------------------

KNOWLEDGE = {"copied": {1, 2, 3, 4}, "near": {3, 4, 5, 6}, "far": {7, 8}, "other": {1, 7, 9}}


def with_clones(count: int) -> dict[str, set[int]]:
    clones = {f"copied {index}": KNOWLEDGE["copied"] for index in range(count)}
    return {**clones, **{name: known for name, known in KNOWLEDGE.items() if name != "copied"}}


def same(one: str, other: str) -> float:
    return 1.0 if one.split()[0] == other.split()[0] else 0.2


def together(values: dict[str, float]) -> float:
    return math.fsum(value for name, value in values.items() if name.startswith("copied"))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_clones_together_get_no_more_than_one_did(count: int) -> None:
    knowledge = with_clones(count)
    single = together(shapley(covering(with_clones(1)), with_clones(1)).values)
    plain = shapley(covering(knowledge), knowledge).values
    assert together(plain) > 1.1 * single  # the control: plain Shapley pays for joining twice
    grouped = shapley_of_groups(covering(knowledge), clone_groups(knowledge, same)).values
    assert together(grouped) == pytest.approx(single)
    assert math.fsum(grouped.values()) == pytest.approx(9)
    before = similarity_discount(shapley(covering(with_clones(1)), with_clones(1)).values, same)
    assert together(similarity_discount(plain, same)) <= together(before)


def test_a_discount_that_is_too_weak_leaves_a_gain_from_cloning() -> None:
    found = [shapley(covering(with_clones(count)), with_clones(count)).values for count in (1, 2)]
    one, two = (together(similarity_discount(values, same, strength=0.05)) for values in found)
    assert two > one


def test_clone_groups_join_through_others_and_stay_apart_below_the_threshold() -> None:
    close = {frozenset("ab"), frozenset("bc"), frozenset("de")}

    def similarity(one: str, other: str) -> float:
        return 0.995 if {one, other} in close else 0.5

    assert clone_groups("edcbaf", similarity) == (frozenset("abc"), frozenset("de"), frozenset("f"))
    assert clone_groups("acb", similarity) == (frozenset("abc"),)
    assert clone_groups("abc", similarity, threshold=0.999) == tuple(map(frozenset, "abc"))
    assert clone_groups("", similarity) == ()


def test_a_name_in_two_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="two groups"):
        shapley_of_groups(len, [frozenset("ab"), frozenset("bc")])
    with pytest.raises(ValueError, match="two groups"):
        shapley_of_groups(len, [frozenset("ab"), frozenset("ab")])


# ---- shares -------------------------------------------------------------------------------------------------------


@given(
    st.integers(0, MAX_AMOUNT),
    st.dictionaries(st.text(max_size=3), st.floats(-1e12, 1e12), max_size=6),
)
def test_shares_conserve_and_are_never_negative(amount: int, weights: dict[str, float]) -> None:
    if not any(weight > 0 for weight in weights.values()):
        with pytest.raises(ValueError, match="nobody"):
            shares(amount, weights)
        return
    given_to = shares(amount, weights)
    assert sum(given_to.values()) == amount and list(given_to) == list(weights)
    total = math.fsum(weight for weight in weights.values() if weight > 0)
    for name, weight in weights.items():
        assert given_to[name] >= 0 and (weight > 0 or given_to[name] == 0)
        if amount < 10**12:
            assert abs(given_to[name] - amount * max(0.0, weight) / total) < 1 + 1e-3


def test_the_largest_remainder_gets_what_is_left() -> None:
    assert shares(10, {"b": 1, "a": 1, "c": 1}) == {"b": 3, "a": 4, "c": 3}
    assert shares(10, {"a": 1, "b": 2.5}) == {"a": 3, "b": 7}
    assert shares(7, {"harm": -5.0, "good": 0.1}) == {"harm": 0, "good": 7}
    for amount, weights in ((-1, {"a": 1.0}), (MAX_AMOUNT + 1, {"a": 1.0}), (1, {"a": math.nan}), (1, {})):
        with pytest.raises(ValueError):
            shares(amount, weights)


# ---- a buyer's basket ---------------------------------------------------------------------------------------------


def worth_of(members: frozenset[str]) -> int:
    return 10 * len(set().union(*(KNOWLEDGE[name] for name in members)))


def test_basket_takes_by_marginal_worth_above_price() -> None:
    assert greedy_basket(worth_of, dict.fromkeys(KNOWLEDGE, 5), budget=1000) == Basket(
        ("copied", "far", "near", "other"), (40, 20, 20, 10), 20
    )
    assert greedy_basket(worth_of, dict.fromkeys(KNOWLEDGE, 15), budget=1000).sellers == ("copied", "far", "near")
    assert greedy_basket(worth_of, dict.fromkeys(KNOWLEDGE, 40), budget=1000).sellers == ()
    assert greedy_basket(worth_of, dict.fromkeys(KNOWLEDGE, 15), budget=44).sellers == ("copied", "far")
    assert greedy_basket(worth_of, {}, budget=1) == Basket((), (), 0)


def test_a_copy_of_what_was_taken_is_not_taken() -> None:
    worth = covering(with_clones(2))
    taken = greedy_basket(lambda members: int(worth(members)), dict.fromkeys(with_clones(2), 0), budget=10)
    assert sum(name.startswith("copied") for name in taken.sellers) == 1


@given(
    st.dictionaries(st.sampled_from(sorted(KNOWLEDGE)), st.integers(0, 60)),
    st.integers(0, 120),
)
def test_basket_never_pays_more_than_it_is_worth_or_than_the_budget(prices: dict[str, int], budget: int) -> None:
    taken = greedy_basket(worth_of, prices, budget=budget)
    assert taken.cost == sum(prices[name] for name in taken.sellers) <= budget
    assert sum(taken.marginal) == worth_of(frozenset(taken.sellers))
    assert all(added > prices[name] for name, added in zip(taken.sellers, taken.marginal, strict=True))


def test_basket_refuses_amounts_that_are_none() -> None:
    for prices, budget in (({"far": -1}, 1), ({"far": 1}, -1), ({"far": MAX_AMOUNT + 1}, 1)):
        with pytest.raises(ValueError, match="outside"):
            greedy_basket(worth_of, prices, budget=budget)


# ---- many buyers --------------------------------------------------------------------------------------------------


def test_each_class_has_its_own_reserve() -> None:
    prices = posted_price_per_class({"small": Empirical([1, 2, 2, 2]), "large": Empirical([50, 60])}, 1.0)
    assert prices == {"small": 2, "large": 50}


@given(
    st.dictionaries(st.text(max_size=2), amounts := st.integers(0, 10**9), min_size=1, max_size=8),
    amounts,
    st.integers(0, 10**6),
    st.integers(0, 2**32),
)
def test_no_bid_moves_its_own_price_so_truth_is_best(bids: dict[str, int], lie: int, cost: int, seed: int) -> None:
    offered = random_sampling_prices(bids, random.Random(seed), cost=cost)
    for name, value in bids.items():
        after = random_sampling_prices({**bids, name: lie}, random.Random(seed), cost=cost)
        assert after[name] == offered[name]
        price = offered[name]
        honest = value - price if price is not None and value >= price else 0
        lying = value - price if price is not None and lie >= price else 0
        assert honest >= lying
        assert price is None or price > cost


def test_the_best_price_of_all_bids_is_moved_by_one_of_them() -> None:
    """The control: why no buyer is offered the price that its own bid had a part in."""
    assert Empirical([100, 100]).reserve() == 100 and Empirical([60, 100]).reserve() == 60


def test_a_half_without_others_that_bid_is_offered_nothing() -> None:
    assert random_sampling_prices({"a": 100}, random.Random(0)) == {"a": None}
    assert set(random_sampling_prices(dict.fromkeys("abcdef", 0), random.Random(0)).values()) == {None}
    assert set(random_sampling_prices(dict.fromkeys("abcdef", 9), random.Random(0), cost=9).values()) == {None}


def test_random_sampling_earns_nearly_the_best_single_price_from_many() -> None:
    drawn = random.Random(1)
    bids = {f"buyer {index}": drawn.randint(0, 1_000_000) for index in range(2_000)}
    offered = random_sampling_prices(bids, random.Random(2))
    earned = sum(price for name, price in offered.items() if price is not None and bids[name] >= price)
    best = max(price * sum(bid >= price for bid in bids.values()) for price in bids.values())
    assert 0.95 * best <= earned <= best * 1.02
    assert len(set(offered.values())) == 2
    with pytest.raises(ValueError, match="outside"):
        random_sampling_prices({"a": -1}, random.Random(0))
