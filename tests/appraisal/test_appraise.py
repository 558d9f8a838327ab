"""One pair appraised on real digits: a true gain is found, a false one is not, REPORT chooses nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from appraisal_examples import Tensors, bench, trained, untrained
from torch import nn

from p2pmarket.alignment import PermutationSpec, apply, inverse, is_identity
from p2pmarket.appraisal import Appraisal, Evaluator, Validation, align_pair, appraise, gain_on, plan_merge
from p2pmarket.appraisal.evaluator import Measured
from p2pmarket.appraisal.gain import measured_gain
from p2pmarket.appraisal.plan import MergePlan
from p2pmarket.errors import BadSnapshot, ModelError
from p2pmarket.parameters import round_trip, take_snapshot

pytest.importorskip("sklearn")


def _appraise(buyer: Tensors, seller: Tensors, *, codec: str = "none", **changes: Any) -> Appraisal:
    evaluator, validation, spec = bench()
    options: dict[str, Any] = {
        "validation": validation,
        "spec": spec,
        "tradable": buyer.keys(),
        "encode_decode": lambda tensors: round_trip(tensors, codec),
        "confidence": 0.95,
        "seed": 1,
        **changes,
    }
    return appraise(evaluator, buyer=buyer, seller=seller, **options)


def _same(first: Appraisal, second: Appraisal) -> bool:
    numbers = [{**vars(one), "delivered": None, "plan": one.plan.granularity} for one in (first, second)]
    return numbers[0] == numbers[1] and all(
        torch.equal(tensor, second.delivered[name]) for name, tensor in first.delivered.items()
    )


@pytest.mark.parametrize("codec", ["none", "bfloat16", "int8"])
def test_agents_that_know_different_classes_help_each_other(codec: str) -> None:
    first, second = trained(0, 1), trained(5, 2)
    for buyer, seller in ((first, second), (second, first)):
        appraisal = _appraise(buyer, seller, codec=codec)
        assert 0 < appraisal.alpha <= 1
        assert 0 < appraisal.low < appraisal.gain < appraisal.high
        assert appraisal.gain == pytest.approx(appraisal.loss_before - appraisal.loss_after)
        assert appraisal.metric_after > appraisal.metric_before
        assert appraisal.left_out == () and appraisal.delivered.keys() == buyer.keys()


@pytest.mark.parametrize("codec", ["none", "bfloat16", "int8"])
def test_what_is_delivered_is_what_was_measured(codec: str) -> None:
    evaluator, validation, _ = bench()
    appraisal = _appraise(trained(0, 1), trained(5, 2), codec=codec)
    decoded = round_trip(appraisal.delivered, codec)
    assert all(torch.equal(decoded[name], tensor) for name, tensor in appraisal.delivered.items())
    measured = evaluator.measure(decoded, validation.report_inputs, validation.report_targets)
    assert (measured.loss, measured.metric) == (appraisal.loss_after, appraisal.metric_after)


@pytest.mark.parametrize("seed", range(5))
def test_random_weights_have_no_merit(seed: int) -> None:
    """Hundreds of coefficients learn something from SELECT whatever they multiply; it is not the seller's."""
    appraisal = _appraise(trained(0, 1), untrained(seed))
    assert appraisal.merit < 0.05 * max(appraisal.gain, 0.1)


@pytest.mark.parametrize(("buyer", "seller"), [((0, 1), (5, 2)), ((5, 2), (0, 1)), ((0, 3), (5, 4))])
def test_who_knows_what_the_buyer_does_not_has_merit(buyer: tuple[int, int], seller: tuple[int, int]) -> None:
    appraisal = _appraise(trained(*buyer), trained(*seller))
    assert appraisal.merit_low > 0 and appraisal.merit > 0.15 * appraisal.gain
    assert appraisal.merit_low < appraisal.merit < appraisal.merit_high


def test_a_seller_of_zeros_has_no_merit_though_the_merge_has_a_lower_loss() -> None:
    """The buyer, overconfident on the broker's classes, gets calmer by any smaller weights: no seller's merit."""
    buyer = trained(0, 1)
    evaluator, validation, _ = bench()
    calmer = {name: 0.8 * tensor for name, tensor in buyer.items()}
    losses = [
        evaluator.measure(tensors, validation.report_inputs, validation.report_targets).loss
        for tensors in (buyer, calmer)
    ]
    assert losses[1] < losses[0]
    for factor in (0.0, -1.0):
        appraisal = _appraise(buyer, {name: factor * tensor for name, tensor in buyer.items()})
        assert appraisal.gain > 0 and not appraisal.adds
        assert abs(appraisal.merit) < 0.05 * appraisal.gain


def test_a_seller_equal_to_the_buyer_brings_exactly_nothing() -> None:
    buyer = trained(0, 1)
    appraisal = _appraise(buyer, buyer)
    assert (appraisal.alpha, appraisal.gain, appraisal.low, appraisal.high) == (0.0, 0.0, 0.0, 0.0)
    assert appraisal.loss_after == appraisal.loss_before and not appraisal.delivered
    assert appraisal.alignment == "identity"


def test_the_buyers_own_function_in_another_order_of_units_is_no_gain() -> None:
    """Sums in another order are other float32 numbers: half of all orders "lower" the loss, by rounding alone."""
    buyer = trained(0, 1)
    evaluator, validation, spec = bench()
    whole = MergePlan("identity", "model", 1.0, {name: torch.ones(()) for name in buyer})
    own = evaluator.measure(buyer, validation.select_inputs, validation.select_targets).loss
    refused = 0
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        orders = {name: torch.randperm(size, generator=generator) for name, size in spec.sizes.items()}
        seller = apply(spec, orders, buyer)
        there = evaluator.measure(seller, validation.select_inputs, validation.select_targets).loss
        assert there == pytest.approx(own, rel=1e-7)
        appraisal = _appraise(buyer, seller, plan=whole, spec=None)
        assert (appraisal.alpha, appraisal.gain, appraisal.select_gain) == (0.0, 0.0, 0.0) and not appraisal.delivered
        refused += there < own
        assert appraisal.reason == (
            "the best merge found changes the loss by no more than rounding does"
            if there < own
            else "the best merge found does not lower the loss"
        )
    assert refused > 0, "no order of these showed a false gain; take others"
    # The control: a gain that is small but there is sold.
    small = MergePlan("identity", "model", 1e-3, {name: torch.tensor(1e-3) for name in buyer})
    appraisal = _appraise(buyer, trained(5, 2), plan=small, spec=None)
    assert appraisal.delivered and 0 < appraisal.select_gain < 0.01 * own


def test_a_codec_that_loses_the_gain_is_no_purchase() -> None:
    def destroy(tensors: Tensors) -> Tensors:
        return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}

    appraisal = _appraise(trained(0, 1), trained(5, 2), encode_decode=destroy)
    assert appraisal.alpha == 0.0 and appraisal.gain == 0.0 and not appraisal.delivered


def test_alignment_finds_a_seller_in_another_order() -> None:
    """The seller's units shuffled: without alignment one coefficient merges poorly, with it nothing is lost."""
    buyer, seller = trained(0, 1), trained(5, 2)
    _, _, spec = bench()
    generator = torch.Generator().manual_seed(3)
    shuffled = apply(spec, {n: torch.randperm(s, generator=generator) for n, s in spec.sizes.items()}, seller)
    plain, other = (_appraise(buyer, each, granularity="model") for each in (seller, shuffled))
    without = _appraise(buyer, shuffled, spec=None, granularity="model")
    assert other.alignment == "weights" and without.alignment == "identity"
    assert other.gain > without.gain
    assert other.gain == pytest.approx(plain.gain, rel=0.2)


def test_a_pairs_alignment_is_kept_for_both_directions() -> None:
    first, second = trained(0, 1), trained(5, 2)
    _, _, spec = bench()
    kept = align_pair(spec, first, second, seed=1)
    assert kept is not None
    assert _same(_appraise(first, second, alignment=kept), _appraise(first, second))
    back = _appraise(second, first, alignment=inverse(spec, kept))
    assert back.low > 0
    assert align_pair(None, first, second, seed=1) is None


def test_equal_inputs_give_equal_results() -> None:
    first, second = trained(0, 1), trained(5, 2)
    state = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in first.items()}
    assert _same(_appraise(first, second), _appraise(first, second))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in first.items())


def test_report_changes_nothing_but_the_numbers_told() -> None:
    first, second = trained(0, 1), trained(5, 2)
    _, validation, _ = bench()
    order = torch.randperm(len(validation.report_targets), generator=torch.Generator().manual_seed(1))
    shuffled = Validation.of(
        validation.select_inputs,
        validation.select_targets,
        validation.report_inputs,
        validation.report_targets[order],
    )
    honest, blind = _appraise(first, second), _appraise(first, second, validation=shuffled)
    chosen = [(one.alpha, one.alignment, one.select_gain, one.adds, one.reason) for one in (honest, blind)]
    assert chosen[0] == chosen[1]
    assert all(torch.equal(tensor, blind.delivered[name]) for name, tensor in honest.delivered.items())
    assert honest.gain != blind.gain
    # The control: SELECT does choose.
    swapped = Validation.of(
        validation.select_inputs,
        validation.select_targets[torch.randperm(len(validation.select_targets))],
        validation.report_inputs,
        validation.report_targets,
    )
    assert _appraise(first, second, validation=swapped).alpha != honest.alpha


def test_only_what_is_tradable_is_bought() -> None:
    first, second = trained(0, 1), trained(5, 2)
    names = ("layers.0.weight", "layers.0.bias")
    appraisal = _appraise(first, second, tradable=names)
    assert set(appraisal.left_out) == first.keys() - set(names)
    assert appraisal.delivered.keys() <= set(names)
    nothing = _appraise(first, second, tradable=())
    assert nothing.alpha == 0.0 and set(nothing.left_out) == first.keys()


def test_statistics_of_a_merge_are_reset_and_counters_stay_the_buyers() -> None:
    def model(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(600, 4, generator=generator) * 3 + 1
    targets = (inputs @ torch.randn(4, 3, generator=generator)).argmax(1)
    seller = model(2)
    optimiser = torch.optim.Adam(seller.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(seller(inputs[:200]), targets[:200]).backward()
        optimiser.step()
    appraisal = appraise(
        Evaluator(model(1), loss="cross_entropy", metric="accuracy", device="cpu"),
        Validation.split(inputs[200:], targets[200:], select_fraction=0.5, seed=1),
        None,
        take_snapshot(model(1)),
        take_snapshot(seller),
        tradable=seller.state_dict().keys(),
        encode_decode=lambda tensors: round_trip(tensors, "none"),
        confidence=0.95,
        seed=1,
    )
    assert appraisal.low > 0 and appraisal.metric_after > 0.8
    assert appraisal.left_out == ("1.num_batches_tracked",)
    assert not torch.equal(appraisal.delivered["1.running_mean"], seller.state_dict()["1.running_mean"])


def test_parameters_that_overflow_are_the_peers_fault() -> None:
    buyer = trained(0, 1)
    huge = {name: torch.full_like(tensor, 3e38) for name, tensor in buyer.items()}
    with pytest.raises(BadSnapshot, match="buyer"):
        _appraise(huge, buyer)
    with pytest.raises(BadSnapshot, match="too large"):
        _appraise(buyer, huge)
    assert _appraise(buyer, huge, spec=None).alpha == 0.0


def test_parameters_that_are_no_numbers_are_named() -> None:
    good = trained(0, 1)
    bad = {**good, "layers.1.bias": torch.full_like(good["layers.1.bias"], torch.nan)}
    with pytest.raises(BadSnapshot, match="the buyer's tensor 'layers.1.bias' has a NaN"):
        _appraise(bad, good)
    with pytest.raises(BadSnapshot, match="the seller's tensor 'layers.1.bias' has a NaN"):
        _appraise(good, bad)


def test_a_buyer_of_another_shape_is_named() -> None:
    good = trained(0, 1)
    bad = {**good, "layers.0.weight": torch.zeros(64, 63)}
    with pytest.raises(BadSnapshot, match=r"buyer's tensor layers.0.weight has the shape \(64, 63\)"):
        _appraise(bad, good, spec=None)


def test_a_seller_with_another_head_sells_the_rest_and_with_nothing_in_common_nothing() -> None:
    first, second = trained(0, 1), trained(5, 2)
    head = {"layers.2.weight": torch.zeros(7, 32), "layers.2.bias": torch.zeros(7)}
    assert _appraise(first, {**second, **head}, granularity="model").left_out == tuple(sorted(head))
    strange = {name: torch.zeros(*tensor.shape, 1) for name, tensor in second.items()}
    appraisal = _appraise(first, strange, spec=None)
    assert appraisal.verdict == "no gain: the two models have no tradable tensor of equal name, shape and type"


def test_labels_out_of_range_are_told() -> None:
    evaluator, validation, _ = bench()
    wrong = Validation.of(
        validation.select_inputs, validation.select_targets + 3, validation.report_inputs, validation.report_targets
    )
    with pytest.raises(ModelError, match="classes 3 ... 12; the model knows 0 ... 9"):
        _appraise(trained(0, 1), trained(5, 2), validation=wrong)


def test_a_metric_that_is_no_number_is_the_parameters_fault() -> None:
    losses = torch.ones(4, dtype=torch.float64)
    good, bad = Measured(losses, losses), Measured(losses, torch.full_like(losses, torch.nan))
    with pytest.raises(BadSnapshot, match="a metric that is not a number"):
        measured_gain(good, bad, torch.zeros(4, dtype=torch.int64), 0.95)


def test_the_report_tells_classes_relative_gain_and_a_plain_sentence() -> None:
    first, second = trained(0, 1), trained(5, 2)
    appraisal = _appraise(first, second)
    assert [one.label for one in appraisal.per_class] == list(range(10))
    assert sum(one.samples for one in appraisal.per_class) == appraisal.samples
    total = sum(one.gain * one.samples for one in appraisal.per_class) / appraisal.samples
    assert total == pytest.approx(appraisal.gain)
    assert appraisal.relative_gain == pytest.approx(appraisal.gain / appraisal.loss_before)
    assert appraisal.verdict.startswith("gain: the loss falls by")
    nothing = _appraise(first, first)
    assert nothing.verdict.startswith("no gain: ") and nothing.granularity == "none"


def test_the_same_delivery_on_another_task() -> None:
    """A delivery that helps with all digits, measured on those the buyer knew: per-task gains differ."""
    evaluator, validation, _ = bench()
    first, second = trained(0, 1), trained(5, 2)
    appraisal = _appraise(first, second)
    here = gain_on(evaluator, validation, first, appraisal.delivered, 0.95)
    assert here.gain.mean == pytest.approx(appraisal.gain)
    known = validation.report_targets >= 5
    other = Validation.of(
        validation.select_inputs,
        validation.select_targets,
        validation.report_inputs[known],
        validation.report_targets[known],
    )
    assert gain_on(evaluator, other, first, appraisal.delivered, 0.95).gain.mean < here.gain.mean


def test_a_plan_can_be_given_and_must_fit() -> None:
    evaluator, validation, spec = bench()
    first, second = trained(0, 1), trained(5, 2)
    plan = plan_merge(evaluator, validation, spec, first, second, tradable=first.keys(), seed=1)
    assert _same(_appraise(first, second, plan=plan), _appraise(first, second))
    with pytest.raises(ModelError, match="plan the pair anew"):
        _appraise(first, second, plan=plan, tradable=["layers.0.weight"])


def test_a_spec_of_another_model_is_refused() -> None:
    _, _, spec = bench()
    wider = PermutationSpec(tuple(dataclasses.replace(group, size=33) for group in spec.classes))
    with pytest.raises(ModelError, match="33 units"):
        _appraise(trained(0, 1), trained(5, 2), spec=wider)


def test_progress_is_told() -> None:
    told: list[tuple[str, float]] = []
    _appraise(trained(0, 1), trained(5, 2), progress=lambda doing, done: told.append((doing, done)))
    assert list(dict.fromkeys(doing for doing, _ in told)) == [
        "aligning",
        "searching",
        "learning",
        "comparing with a seller who knows nothing",
        "measuring",
        "done",
    ]
    assert [done for _, done in told] == sorted(done for _, done in told) and told[-1][1] == 1.0
    assert [doing for doing, _ in told].count("aligning") > 1


class _Stopped(Exception):
    pass


def test_progress_can_stop_a_matching() -> None:
    heard: list[str] = []

    def stop_in_the_matching(doing: str, _: float) -> None:
        heard.append(doing)
        if len(heard) == 2:
            raise _Stopped

    with pytest.raises(_Stopped):
        _appraise(trained(0, 1), trained(5, 2), progress=stop_in_the_matching)
    assert heard == ["aligning", "aligning"]


def test_a_matching_without_time_is_the_identity() -> None:
    first, second = trained(0, 1), trained(5, 2)
    _, _, spec = bench()
    found = align_pair(spec, first, second, seed=1, time_budget_seconds=0)
    assert found is not None and is_identity(found)
    assert not is_identity(align_pair(spec, first, second, seed=1) or {})


def test_the_gain_on_select_is_told_apart_from_the_reported_one() -> None:
    evaluator, validation, _ = bench()
    first, second = trained(0, 1), trained(5, 2)
    appraisal = _appraise(first, second)
    before, after = (
        evaluator.measure(tensors, validation.select_inputs, validation.select_targets).loss
        for tensors in (first, dict(appraisal.delivered))
    )
    assert appraisal.select_gain == pytest.approx(before - after)
    assert appraisal.select_gain != appraisal.gain
    assert _appraise(first, first).select_gain == 0.0


@pytest.mark.gpu
def test_cuda_and_cpu_agree() -> None:
    first, second = trained(0, 1), trained(5, 2)
    _, validation, spec = bench()
    results = [
        appraise(
            bench(device)[0], validation, spec, first, second,
            tradable=first.keys(), encode_decode=lambda tensors: round_trip(tensors, "none"), confidence=0.95, seed=1,
        )
        for device in ("cpu", "cuda")
    ]  # fmt: skip
    assert results[0].alignment == results[1].alignment
    assert results[0].alpha == pytest.approx(results[1].alpha, abs=0.02)
    assert results[0].gain == pytest.approx(results[1].gain, rel=1e-3)
    assert results[0].metric_after == pytest.approx(results[1].metric_after, abs=0.01)
    assert all(tensor.device.type == "cpu" for tensor in results[1].delivered.values())


def test_a_good_seller_is_bought_by_a_buyer_whose_loss_is_enormous() -> None:
    """The control gains nearly the whole loss here; what is left must still be enough to beat it by."""
    buyer = {name: 3 * tensor for name, tensor in trained(0, 1).items()}
    seller = trained(5, 2)
    appraisal = _appraise(buyer, seller)
    assert appraisal.loss_before > 5.0
    assert appraisal.alpha > 0.5 and appraisal.low > 0.0
