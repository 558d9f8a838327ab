"""A chain of purchases: every step an ordinary appraisal on the step before, REPORT chooses nothing."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from appraisal_examples import ARGUMENTS, Tensors, bench, digits, trained, untrained
from torch import nn

from p2pmarket.appraisal import Appraisal, Validation, appraise
from p2pmarket.appraisal.soup import Candidate, Step, delivered, greedy_soup, in_turn, joins
from p2pmarket.models import build_model
from p2pmarket.parameters import round_trip, take_snapshot

pytest.importorskip("sklearn")

light = functools.partial(appraise, granularity="model")


def _soup(buyer: Tensors, sellers: Sequence[tuple[str, Tensors]], **changes: Any) -> tuple[Step[str], ...]:
    evaluator, validation, spec = bench()
    options: dict[str, Any] = {
        "tradable": buyer.keys(),
        "encode_decode": lambda tensors: round_trip(tensors, "bfloat16"),
        "confidence": 0.95,
        "seed": 1,
        "appraise_step": light,
        "validation": validation,
        **changes,
    }
    candidates = [Candidate(key, tensors) for key, tensors in sellers]
    return greedy_soup(evaluator, buyer=buyer, candidates=candidates, **{"spec": spec, **options})


def _sellers() -> list[tuple[str, Tensors]]:
    return [("first", trained(5, 2)), ("noise", untrained(3)), ("second", trained(3, 4)), ("third", trained(6, 5))]


def test_steps_follow_one_another_and_their_gains_add_up() -> None:
    evaluator, validation, _ = bench()
    buyer = trained(0, 1)
    steps = _soup(buyer, _sellers())
    assert steps and steps[0].key == "third" and "noise" not in [step.key for step in steps]
    held = buyer
    for step, following in zip(steps, (*steps[1:], None), strict=True):
        held = {**held, **step.appraisal.delivered}
        measured = evaluator.measure(held, validation.report_inputs, validation.report_targets)
        assert measured.loss == step.appraisal.loss_after
        if following is not None:
            assert following.appraisal.loss_before == step.appraisal.loss_after
    total = steps[0].appraisal.loss_before - steps[-1].appraisal.loss_after
    assert sum(step.appraisal.gain for step in steps) == pytest.approx(total)
    assert all(torch.equal(held[name], tensor) for name, tensor in delivered(steps).items())
    assert delivered(steps).keys() == buyer.keys()


def test_two_sellers_who_hold_different_tensors_are_both_bought() -> None:
    """The buyer lost two layers; one seller has the one, one the other."""
    evaluator, validation, _ = bench()
    whole = knowing_all()
    generator = torch.Generator().manual_seed(0)
    lost = ("layers.0.weight", "layers.1.weight")
    buyer = {
        name: tensor + tensor.std() * torch.randn(tensor.shape, generator=generator) if name in lost else tensor
        for name, tensor in whole.items()
    }
    sellers = [(name, {name: whole[name]}) for name in lost]
    steps = _soup(buyer, [*sellers, ("noise", {lost[0]: torch.randn(64, 64, generator=generator)})], spec=None)
    assert sorted(step.key for step in steps) == list(lost)
    turned = _soup(buyer, sellers[::-1], spec=None)
    assert [step.key for step in turned] == [step.key for step in steps], "by SELECT, not as they are given"
    assert all(step.appraisal.low > 0 for step in steps)
    first, second = (step.appraisal for step in steps)
    assert second.loss_before == first.loss_after
    assert first.loss_before - second.loss_after == pytest.approx(first.gain + second.gain)
    together = delivered(steps)
    assert together.keys() == set(lost)
    measured = evaluator.measure({**buyer, **together}, validation.report_inputs, validation.report_targets)
    assert measured.loss == second.loss_after
    assert len(_soup(buyer, sellers, spec=None, most=1)) == 1


def knowing_all() -> Tensors:
    torch.manual_seed(0)
    model = build_model("mlp", ARGUMENTS, False)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    data = digits()[0]
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data.inputs), data.targets).backward()
        optimiser.step()
    return take_snapshot(model)


def test_a_chain_of_one_is_that_sellers_appraisal() -> None:
    evaluator, validation, spec = bench()
    buyer = trained(0, 1)
    (step,) = _soup(buyer, _sellers(), most=1)
    alone = light(
        evaluator, validation, spec, buyer, trained(6, 5),
        tradable=buyer.keys(), encode_decode=lambda t: round_trip(t, "bfloat16"), confidence=0.95, seed=1,
    )  # fmt: skip
    assert step.appraisal.gain == alone.gain and step.appraisal.low == alone.low


def test_what_brings_nothing_is_no_step() -> None:
    buyer = trained(0, 1)
    assert _soup(buyer, [("itself", buyer), ("noise", untrained(3))]) == ()
    assert _soup(buyer, []) == ()
    twice = _soup(buyer, [("first", trained(5, 2)), ("again", trained(5, 2))])
    gains = [step.appraisal.gain for step in twice]
    assert len(gains) == 1 or gains[1] < 0.3 * gains[0]  # what was bought is not bought again


def test_turns_are_by_the_gain_alone_on_select() -> None:
    def found(select_gain: float, gain: float = 0.0) -> Any:
        return SimpleNamespace(select_gain=select_gain, gain=gain, adds=False)

    candidates = {"a": found(0.1, 9.0), "none": found(0.0, 9.0), "b": found(0.3), "c": found(0.1), "worse": found(-1.0)}
    assert in_turn(candidates, candidates.__getitem__) == ["b", "a", "c"]
    assert joins(cast(Appraisal, SimpleNamespace(adds=True, low=-1.0)))
    assert not joins(cast(Appraisal, SimpleNamespace(adds=False, low=1.0))), "REPORT has no say"


def test_report_chooses_no_seller() -> None:
    buyer = trained(0, 1)
    _, validation, _ = bench()
    order = torch.randperm(len(validation.report_targets), generator=torch.Generator().manual_seed(1))
    blind = Validation.of(
        validation.select_inputs,
        validation.select_targets,
        validation.report_inputs,
        validation.report_targets[order],
    )
    honest, other = _soup(buyer, _sellers()), _soup(buyer, _sellers(), validation=blind)
    assert [step.key for step in honest] == [step.key for step in other]
    assert [step.appraisal.gain for step in honest] != [step.appraisal.gain for step in other]


def test_equal_inputs_give_equal_chains() -> None:
    buyer = trained(0, 1)
    first, second = _soup(buyer, _sellers()), _soup(buyer, _sellers())
    assert [(s.key, s.appraisal.gain) for s in first] == [(s.key, s.appraisal.gain) for s in second]
