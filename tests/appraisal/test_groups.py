"""What parts of a delivery are worth, and which to buy; buyers and sellers with different heads."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest
import torch
from appraisal_examples import Tensors, bench, digits, trained
from torch import nn

from p2pmarket.alignment import apply
from p2pmarket.appraisal import appraise
from p2pmarket.appraisal.groups import (
    EXACT_GROUPS,
    Basket,
    best_basket,
    divide,
    gain_of_groups,
    marginal_gains,
)
from p2pmarket.errors import ModelError
from p2pmarket.models import build_model
from p2pmarket.parameters import take_snapshot

pytest.importorskip("sklearn")

LAYERS = {f"layer {index}": (f"layers.{index}.*",) for index in range(3)}


def additive(gains: dict[str, float]) -> Callable[[frozenset[str]], float]:
    return lambda groups: sum(gains[group] for group in groups)


def micro(gain: float) -> int:
    return round(1000 * gain)


def test_patterns_divide_the_tensors() -> None:
    names = sorted(trained(0, 1))
    divided = divide(LAYERS, names)
    assert divided["layer 1"] == ("layers.1.bias", "layers.1.weight")
    assert sorted(itertools.chain(*divided.values())) == names
    with pytest.raises(ModelError, match="no tensor"):
        divide({"head": ("head.*",)}, names)
    with pytest.raises(ModelError, match="belongs to one group"):
        divide({"all": ("*",), "first": ("layers.0.*",)}, names)


@pytest.mark.parametrize("seed", range(20))
def test_the_exact_basket_is_the_best_of_all(seed: int) -> None:
    generator = random.Random(seed)
    names = "abcdef"
    prices = {name: generator.randrange(0, 400) for name in names}
    table = {
        frozenset(subset): generator.uniform(-0.2, 1.0) if subset else 0.0
        for count in range(len(names) + 1)
        for subset in itertools.combinations(names, count)
    }
    budget = generator.randrange(0, 1200)
    best = best_basket(prices, table.__getitem__, micro, budget=budget)
    assert best.price <= budget and best.surplus >= 0
    surpluses = [
        micro(gain) - sum(prices[name] for name in groups)
        for groups, gain in table.items()
        if sum(prices[name] for name in groups) <= budget and gain > 0
    ]
    assert best.surplus == max([0, *surpluses])


def test_a_larger_budget_and_lower_prices_never_leave_less() -> None:
    gains = {"a": 0.5, "b": 0.3, "c": 0.2, "d": -0.1}
    prices = {"a": 300, "b": 250, "c": 100, "d": 0}
    surpluses = [best_basket(prices, additive(gains), micro, budget=budget).surplus for budget in range(0, 800, 50)]
    assert surpluses == sorted(surpluses) and surpluses[0] == 0 and surpluses[-1] == 350
    cheaper = {name: price // 2 for name, price in prices.items()}
    assert best_basket(cheaper, additive(gains), micro, budget=800).surplus > 350
    assert best_basket(prices, additive(gains), micro, budget=800).groups == {"a", "b", "c"}


def test_nothing_is_bought_where_nothing_is_worth_its_price() -> None:
    empty = Basket(frozenset(), 0.0, 0, 0)
    assert best_basket({"a": 10}, lambda groups: 0.001, micro, budget=100) == empty
    assert best_basket({"a": 0}, lambda groups: -1.0, micro, budget=100) == empty
    assert best_basket({"a": 10}, lambda groups: 1.0, micro, budget=9) == empty
    assert best_basket({}, lambda groups: 1.0, micro, budget=9) == empty


def test_many_groups_are_added_greedily() -> None:
    names = [f"g{index:02}" for index in range(EXACT_GROUPS + 4)]
    gains = {name: 0.1 * (index % 5) for index, name in enumerate(names)}
    prices = dict.fromkeys(names, 150)
    asked: set[frozenset[str]] = set()

    def gain_of(groups: frozenset[str]) -> float:
        asked.add(groups)
        return additive(gains)(groups)

    best = best_basket(prices, gain_of, micro, budget=10_000)
    assert best.groups == {name for name in names if gains[name] > 0.15}
    assert len(asked) < 2 ** len(names) / 20
    assert best_basket(prices, gain_of, micro, budget=450).price == 450


def test_marginal_gains_are_what_would_be_missed() -> None:
    assert marginal_gains("ab", additive({"a": 0.5, "b": 0.25})) == {"a": 0.5, "b": 0.25}
    both_needed: Callable[[frozenset[str]], float] = lambda groups: 1.0 if len(groups) == 2 else 0.0  # noqa: E731
    assert marginal_gains("ab", both_needed) == {"a": 1.0, "b": 1.0}


def test_marginal_gains_are_finite_and_within_the_loss() -> None:
    gains = {"ab": 0.4, "a": -2.8e32, "b": -math.inf, "": 0.0}
    gain_of: Callable[[frozenset[str]], float] = lambda groups: gains["".join(sorted(groups))]  # noqa: E731
    assert marginal_gains("ab", gain_of, most=0.7) == {"b": 0.7}, "a is left out: without it there is no loss"
    harm: Callable[[frozenset[str]], float] = lambda groups: -9.0 if "b" in groups else 0.5  # noqa: E731
    assert marginal_gains("ab", harm, most=0.7) == {"a": 0.0, "b": -0.7}
    nothing: Callable[[frozenset[str]], float] = lambda groups: -math.inf  # noqa: E731
    assert marginal_gains("ab", nothing, most=0.7) == {}


def test_a_seller_scaled_against_itself_has_no_absurd_groups() -> None:
    """The same function, one layer a million million times larger and the next one smaller."""
    evaluator, validation, _ = bench()
    buyer, seller = trained(0, 1), dict(trained(5, 2))
    for name, factor in (("layers.0.weight", 1e16), ("layers.0.bias", 1e16), ("layers.1.weight", 1e-16)):
        seller[name] = seller[name] * factor
    divided = divide(LAYERS, seller)
    gain_of = gain_of_groups(evaluator, validation, buyer, seller, divided)
    assert max(map(abs, marginal_gains(divided, gain_of).values())) > 1e9, "what the bound is for"
    loss = evaluator.measure(buyer, validation.select_inputs, validation.select_targets).loss
    assert all(abs(gain) <= loss for gain in marginal_gains(divided, gain_of, most=loss).values())


def test_gains_of_a_real_deliverys_groups() -> None:
    evaluator, validation, spec = bench()
    buyer, seller = trained(0, 1), trained(5, 2)
    whole = appraise(
        evaluator, validation, spec, buyer, seller,
        tradable=buyer.keys(), encode_decode=dict, confidence=0.95, seed=1, granularity="model",
    )  # fmt: skip
    divided = divide(LAYERS, whole.delivered)
    gain_of = gain_of_groups(evaluator, validation, buyer, whole.delivered, divided)
    assert gain_of(frozenset()) == 0.0
    select = (validation.select_inputs, validation.select_targets)
    after = evaluator.measure(whole.delivered, *select).loss
    assert gain_of(frozenset(LAYERS)) == pytest.approx(evaluator.measure(buyer, *select).loss - after)
    marginal = marginal_gains(LAYERS, gain_of)
    assert max(marginal.values()) > 0
    best = best_basket(dict.fromkeys(LAYERS, 0), gain_of, micro, budget=0)
    assert best.gain >= gain_of(frozenset(LAYERS)) - 0.001
    # What is told of the basket: an appraisal of its own.
    names = [name for group in best.groups for name in divided[group]]
    basket = appraise(
        evaluator, validation, spec, buyer, seller,
        tradable=names, encode_decode=dict, confidence=0.95, seed=1, granularity="model",
    )  # fmt: skip
    assert set(basket.delivered) <= set(names) and basket.low > 0


def test_statistics_of_a_part_are_computed_anew() -> None:
    from p2pmarket.appraisal import Evaluator, Validation

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    inputs, targets = torch.randn(64, 4) * 5, torch.randint(0, 3, (64,))
    buyer = take_snapshot(model)
    other = {name: tensor * 3 if tensor.is_floating_point() else tensor for name, tensor in buyer.items()}
    validation = Validation.split(inputs, targets, select_fraction=0.5, seed=1)
    evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu")
    divided = divide({"first": ("0.*",), "rest": ("1.*", "3.*")}, other)
    gain_of = gain_of_groups(evaluator, validation, buyer, other, divided)
    # Three times the first layer is no change once the statistics are those of its outputs.
    reset = evaluator.reset_statistics(buyer, validation.select_inputs, list(buyer))
    same = evaluator.measure(buyer, validation.select_inputs, validation.select_targets).loss
    settled = evaluator.measure(reset, validation.select_inputs, validation.select_targets).loss
    assert gain_of(frozenset({"first"})) == pytest.approx(same - settled, abs=1e-4)


def other_task(outputs: int, drop: bool) -> Tensors:
    """A seller of another task: the trunk of `trained(5, 2)`, a head of its own, by the same names or by none."""
    seller = dict(trained(5, 2))
    head = take_snapshot(build_model("mlp", {"inputs": 64, "hidden": (64, 32), "outputs": outputs}, False))
    for part in ("layers.2.weight", "layers.2.bias"):
        del seller[part]
        if drop:
            seller[part.replace("layers.2", "head")] = head[part]
        else:
            seller[part] = head[part]
    return seller


@pytest.mark.parametrize("drop", [False, True])
def test_a_shared_trunk_is_traded_and_the_head_stays(drop: bool) -> None:
    evaluator, validation, spec = bench()
    buyer, seller = trained(0, 1), other_task(4, drop)
    trunk = {name for name in buyer if not name.startswith("layers.2")}
    appraisal = appraise(
        evaluator, validation, spec, buyer, seller,
        tradable=buyer.keys(), encode_decode=dict, confidence=0.95, seed=1, granularity="model",
    )  # fmt: skip
    assert set(appraisal.left_out) == {"layers.2.weight", "layers.2.bias"}
    assert appraisal.delivered.keys() <= trunk
    assert appraisal.samples == len(validation.report_targets)  # the buyer's task's data
    own = evaluator.measure(buyer, validation.report_inputs, validation.report_targets)
    assert appraisal.loss_before == own.loss


def knowing_all() -> Tensors:
    torch.manual_seed(0)
    model = build_model("mlp", {"inputs": 64, "hidden": (64, 32), "outputs": 10}, False)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    data = digits()[0]
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data.inputs), data.targets).backward()
        optimiser.step()
    return take_snapshot(model)


def test_a_trunk_of_another_task_helps() -> None:
    """The buyer has lost its trunk's first layer; a seller of another task has it, its units in another order."""
    evaluator, validation, spec = bench()
    whole = knowing_all()
    generator = torch.Generator().manual_seed(0)
    lost = whole["layers.0.weight"]
    buyer = {**whole, "layers.0.weight": lost + lost.std() * torch.randn(lost.shape, generator=generator)}
    shuffled = apply(spec, {n: torch.randperm(s, generator=generator) for n, s in spec.sizes.items()}, whole)
    seller = {**shuffled, **{n: t for n, t in other_task(4, False).items() if n.startswith("layers.2")}}
    appraisal = appraise(
        evaluator, validation, spec, buyer, seller,
        tradable=buyer.keys(), encode_decode=dict, confidence=0.95, seed=1, granularity="model",
    )  # fmt: skip
    assert appraisal.low > 0 and appraisal.alignment == "weights"
    assert appraisal.delivered.keys() == {name for name in buyer if not name.startswith("layers.2")}
