"""Plans: one serves both directions, granularity follows the data, 0 and 1 are candidates, equal inputs equal plans."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from appraisal_examples import Tensors, bench, trained

from p2pmarket.alignment import apply, match
from p2pmarket.appraisal import MergePlan, Validation, plan_merge, reverse
from p2pmarket.appraisal.flat import FlatMerge
from p2pmarket.appraisal.learned import learn
from p2pmarket.appraisal.merging import merge
from p2pmarket.errors import ModelError

pytest.importorskip("sklearn")


@functools.cache
def _planned(granularity: str = "auto") -> MergePlan:
    evaluator, validation, spec = bench()
    first, second = trained(0, 1), trained(5, 2)
    return plan_merge(
        evaluator, validation, spec, first, second, tradable=first.keys(), seed=1, granularity=granularity
    )


def test_rows_are_chosen_where_the_data_bear_them_and_stay_in_their_bounds() -> None:
    plan = _planned()
    first = trained(0, 1)
    assert plan.granularity == "row"
    assert all(coefficient.shape == first[name].shape[:1] for name, coefficient in plan.coefficients.items())
    values = torch.cat(list(plan.coefficients.values()))
    assert -1.0 <= float(values.min()) < 0.0 and 1.0 < float(values.max()) <= 2.0


@pytest.mark.parametrize("granularity", ["none", "model", "tensor"])
def test_the_finest_granularity_can_be_bounded(granularity: str) -> None:
    plan = _planned(granularity)
    assert plan.granularity == granularity
    assert all(coefficient.ndim == 0 for coefficient in plan.coefficients.values())


def test_few_samples_fall_back_to_one_coefficient() -> None:
    evaluator, validation, spec = bench()
    first, second = trained(0, 1), trained(5, 2)
    few = Validation.of(
        validation.select_inputs[:5],
        validation.select_targets[:5],
        validation.report_inputs,
        validation.report_targets,
    )
    plan = plan_merge(evaluator, few, spec, first, second, tradable=first.keys(), seed=1)
    assert plan.granularity in ("none", "model")


def test_the_sellers_parameters_whole_are_a_candidate() -> None:
    evaluator, validation, _ = bench()
    good = trained(5, 2)
    noise = {name: 3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) for name, x in good.items()}
    plan = plan_merge(evaluator, validation, None, noise, good, tradable=good.keys(), seed=1, granularity="model")
    merged = merge(noise, good, plan.coefficients, good.keys())
    assert plan.alpha > 0.9 and all(torch.allclose(merged[name], good[name], atol=0.4) for name in good)


def test_one_plan_serves_both_directions() -> None:
    """The two merges are one function, with rows learned and the seller's units in another order."""
    evaluator, validation, spec = bench()
    first = trained(0, 1)
    generator = torch.Generator().manual_seed(3)
    turn = {name: torch.randperm(size, generator=generator) for name, size in spec.sizes.items()}
    second = apply(spec, turn, trained(5, 2))
    permutations = match(spec, first, second, seed=1)
    plan = plan_merge(evaluator, validation, spec, first, second, tradable=first.keys(), seed=1, alignment=permutations)
    assert plan.alignment == "weights" and plan.granularity == "row"
    back = reverse(plan, spec, permutations)
    aligned = {"there": apply(spec, permutations, second), "back": apply(spec, _inverse(spec, permutations), first)}
    there = merge(first, aligned["there"], plan.coefficients, first.keys())
    other = merge(second, aligned["back"], back.coefficients, first.keys())
    assert not torch.allclose(there["layers.0.weight"], other["layers.0.weight"], atol=1e-3)
    inputs, targets = validation.select_inputs, validation.select_targets
    torch.testing.assert_close(
        evaluator.measure(there, inputs, targets).losses, evaluator.measure(other, inputs, targets).losses,
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip
    unturned = reverse(plan, None, None)  # the control: rows left in the buyer's order are another function
    wrong = merge(second, aligned["back"], unturned.coefficients, first.keys())
    assert evaluator.measure(wrong, inputs, targets).loss > evaluator.measure(there, inputs, targets).loss + 0.05
    twice = reverse(back, spec, _inverse(spec, permutations))
    assert all(
        torch.allclose(twice.coefficients[name], plan.coefficients[name], atol=1e-6) for name in plan.coefficients
    )


def _inverse(spec: object, permutations: Tensors) -> Tensors:
    return {name: torch.argsort(indices) for name, indices in permutations.items()}


def test_another_alignment_runs_in_the_same_race() -> None:
    """Two copies of one model under noise of their own, its own answers as targets: the right alignment takes the noise
    out, the wrong one destroys the model, whichever of the two is called the activations'."""
    evaluator, validation, spec = bench()
    generator = torch.Generator().manual_seed(3)
    turn = {name: torch.randperm(size, generator=generator) for name, size in spec.sizes.items()}
    clean = trained(0, 1)
    noisy = [{name: x + 0.1 * torch.randn(x.shape, generator=generator) for name, x in clean.items()} for _ in range(2)]
    second = apply(spec, turn, noisy[1])
    inputs = validation.select_inputs
    answers = torch.func.functional_call(evaluator.module, clean, (inputs,)).argmax(1)
    data = Validation.of(inputs, answers, validation.report_inputs, validation.report_targets)
    right, wrong = _inverse(spec, turn), turn
    for alignment, activations, label in ((wrong, right, "activations"), (right, wrong, "weights")):
        plan = plan_merge(
            evaluator, data, spec, noisy[0], second, tradable=second.keys(), seed=1,
            alignment=alignment, activations=activations, granularity="model",
        )  # fmt: skip
        assert 0.0 < plan.alpha < 1.0 and plan.alignment == label


def test_no_purchase_seen_from_the_other_side_is_the_whole() -> None:
    nothing = MergePlan("identity", "none", 0.0, {"a": torch.tensor(0.0)})
    whole = reverse(nothing, None, None)
    assert (whole.granularity, whole.alpha, float(whole.coefficients["a"])) == ("model", 1.0, 1.0)
    assert reverse(whole, None, None) == nothing


def test_equal_inputs_give_equal_plans_and_leave_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    first = _planned.__wrapped__()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first.coefficients[name], other) for name, other in _planned().coefficients.items())


def test_an_unknown_granularity_is_named() -> None:
    with pytest.raises(ModelError, match="unknown granularity 'column'"):
        _planned.__wrapped__("column")


def test_learning_keeps_what_was_best_on_samples_it_has_not_seen() -> None:
    """The gradient leads away from what the held-back samples like: the start is kept."""
    start, upwards = torch.full((3,), 0.5), torch.full((3,), -1.0)
    kept, losses = learn(
        lambda now, part: upwards.clone(), lambda now: (now - 0.5).abs(), start, parts=2, low=-1.0, high=2.0, seed=1
    )
    assert torch.equal(kept, start) and torch.equal(losses, torch.zeros(3))
    moved, losses = learn(
        lambda now, part: upwards.clone(), lambda now: -now, start, parts=2, low=-1.0, high=2.0, seed=1
    )
    assert torch.equal(moved, torch.full((3,), 2.0)) and torch.equal(losses, -moved)
    assert torch.equal(start, torch.full((3,), 0.5))


def test_learning_ends_where_a_loss_is_no_number() -> None:
    start, looks = torch.full((2,), 0.5), []

    def held(now: torch.Tensor) -> torch.Tensor:
        looks.append(now)
        return now * math.nan if len(looks) > 1 else now

    kept, _ = learn(lambda now, part: torch.ones(2), held, start, parts=1, low=0.0, high=1.0, seed=1)
    assert torch.equal(kept, start) and len(looks) == 2


@pytest.mark.parametrize("rows", [True, False])
def test_the_slope_is_torchs_own_through_the_merge(rows: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"b": (3, 2, 2), "a": (4,), "unused": (2, 2)}
    buyer, seller = (
        {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} for _ in range(2)
    )
    names = ("b", "a")
    line = FlatMerge(buyer, seller, names, rows=rows)
    coefficients = torch.randn(line.count, generator=generator).requires_grad_()
    assert line.count == (7 if rows else 2)

    def loss_of(tensors: Tensors) -> torch.Tensor:
        return (tensors["b"].sum((1, 2)) ** 2).sum() * tensors["a"].square().sum()

    expected = torch.autograd.grad(loss_of(merge(buyer, seller, line.named(coefficients), names)), coefficients)[0]
    torch.testing.assert_close(line.slope(coefficients.detach(), loss_of), expected)


def test_a_merge_by_rows_is_exact_at_both_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    buyer, seller = ({"a": torch.randn(3, 4, 2, generator=generator)} for _ in range(2))
    merged = merge(buyer, seller, {"a": torch.tensor([0.0, 1.0, 0.5])}, ["a"])["a"]
    assert torch.equal(merged[0], buyer["a"][0]) and torch.equal(merged[1], seller["a"][1])
    torch.testing.assert_close(merged[2], (buyer["a"][2] + seller["a"][2]) / 2)
