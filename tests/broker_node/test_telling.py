"""What a member is told of its findings: nothing that the told numbers do not say already."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.appraisal.appraise import Appraisal
from p2pmarket.appraisal.gain import ClassGain
from p2pmarket.appraisal.ladder import Told
from p2pmarket.appraisal.plan import MergePlan
from p2pmarket.broker_node.appraiser import NOTHING, Finding
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.telling import as_told
from p2pmarket.messages import ClassChange, GroupChange, TaskChange
from p2pmarket.records import encode

STEPS = 16
KNOWN = Told(loss=1.0, metric=0.5, gain=STEPS)
"""What the member was told before: rungs are 16, 8, 4, 2, 1 sixteenths."""


def submission(agent: str) -> Submission:
    return Submission(b"s" * 16, agent, b"d" * 32, "t", 1, 100, True, True, 0, b"", "booked", 1, 0)


def finding(
    number: int,
    gain: float,
    *,
    before: float = 1.0,
    low: float | None = None,
    high: float | None = None,
    merit: tuple[float, float, float] = (0.0, 0.0, 0.0),
    metric: tuple[float, float] = (0.5, 0.6),
    weight: float = 0.4,
    upon: int | None = None,
    reason: str = "",
    noise: float = 0.0,
) -> Finding:
    """A measured finding; `noise` changes what must not be told."""
    result = Appraisal(
        alpha=weight,
        alignment="identity",
        plan=MergePlan("identity", "model", weight, {}),
        loss_before=before,
        loss_after=before - gain,
        select_gain=gain + noise,
        gain=gain,
        low=gain / 2 if low is None else low,
        high=gain * 2 if high is None else high,
        merit=merit[0],
        merit_low=merit[1],
        merit_high=merit[2],
        adds=noise > 0.5,
        confidence=0.95,
        metric_before=metric[0],
        metric_after=metric[1],
        per_class=(ClassGain(0, 10, noise, None, 0.5, 0.5),),
        samples=100,
        delivered={},
        left_out=(),
        reason=reason,
    )
    return Finding(
        trade=bytes([number]) * 16,
        market="m",
        buyer=submission("b" * 52),
        seller=submission("s" * 52),
        delivery=NOTHING if weight == 0 else b"p" * 32,
        data=b"v" * 32,
        after=None if upon is None else bytes([upon]) * 16,
        result=result,
        classes=(ClassChange(0, 10, noise, 0.5, 0.5),),
        groups=(GroupChange("g", noise),),
        tasks=(TaskChange("u", noise, noise, noise),),
    )


def tell(findings: Sequence[Finding], state: Told = KNOWN) -> list[Finding]:
    return as_told(findings, state, STEPS, metric_is_loss=False)[0]


inside = st.floats(0.01, 0.99)
"""Where in its cell a number lies."""
cells = st.tuples(
    st.sampled_from([0, 1, 2, 4, 8]),  # the gain's rung; 0: below a step
    st.integers(0, 3),  # fours of steps of its lower limit
    st.integers(0, 5),
    st.sampled_from([0, 1, 2, 4, 8]),  # the merit's rung
    st.integers(-3, 3),
    st.integers(0, 5),
    st.integers(-2, 1),  # quarters of the metric's change
    st.integers(0, 3),  # quarters of the weight
)
places = st.lists(inside, min_size=10, max_size=10)


def measured(number: int, cell: tuple[int, ...], place: list[float], own: float, upon: int | None = None) -> Finding:
    """A finding somewhere in its cell: `place` says where, and all that must not be told follows it too."""
    rung, low, high, merit, merit_low, merit_high, metric, weight = cell
    step = 1 / STEPS
    gain = step * (place[0] if rung == 0 else rung * (1 + place[0]))
    limits = step * 4 * (low + place[1]), step * 4 * (high + place[2])
    merits = (
        step * (merit * (1 + place[3]) if merit else 2 * place[3] - 1),
        step * 4 * (merit_low + place[4]),
        step * 4 * (merit_high + place[5]),
    )
    change = metric / 4 + place[6] / 4
    return finding(
        number,
        gain,
        before=own,
        low=limits[0],
        high=limits[1],
        merit=merits,
        metric=(place[7], place[7] + change),
        weight=weight / 4 + place[8] / 4,
        reason="some stage refused" if rung == 0 and place[9] > 0.5 else "",
        noise=place[9],
        upon=upon,
    )


@given(st.lists(st.tuples(cells, places, places), min_size=1, max_size=6), inside, inside, st.randoms())
def test_findings_that_are_told_alike_are_told_in_the_same_bytes(
    rows: list[tuple[tuple[int, ...], list[float], list[float]]], one: float, other: float, shuffle: random.Random
) -> None:
    """Two sets of measurements in the same cells: no byte of the reports, nor their order, tells them apart."""
    first = [measured(number, cell, place, 0.95 + one / 20) for number, (cell, place, _) in enumerate(rows)]
    second = [measured(number, cell, place, 0.95 + other / 20) for number, (cell, _, place) in enumerate(rows)]
    shuffle.shuffle(second)
    told = [[encode(one.report(5)) for one in tell(findings)] for findings in (first, second)]
    assert told[0] == told[1]
    assert as_told(first, KNOWN, STEPS, metric_is_loss=False)[1] == KNOWN


@given(cells, places, places, st.integers(1, 6), inside, inside)
def test_a_chain_says_no_more_of_its_first_merge_than_that_merges_report(
    cell: tuple[int, ...], place: list[float], other: list[float], steps: int, here: float, there: float
) -> None:
    """The first merge's loss anywhere in its cell, the gain upon it anywhere in its own: one report."""
    told = []
    for inner, part in ((place, here), (other, there)):
        base = measured(1, cell, inner, 0.97)
        gain = tell([base])[0].result.loss_after / STEPS * (steps + part)
        chained = finding(
            2, gain, before=base.result.loss_after, low=1e-6, high=1.1, metric=(inner[7], inner[7] + 0.1), upon=1,
            noise=inner[9],
        )  # fmt: skip
        told.append([encode(one.report(5)) for one in tell([base, chained])])
    assert told[0] == told[1]


def test_the_order_is_that_of_told_gains_and_then_of_trades() -> None:
    findings = [finding(5, 0.30), finding(4, 0.26), finding(3, 0.44), finding(2, 0.6), finding(9, 0.03)]
    told = tell([*findings, finding(1, 0.1, before=0.4, upon=2)])
    assert [one.trade[0] for one in told] == [2, 3, 4, 5, 9, 1]
    assert [one.result.gain for one in told][:5] == [0.5, 0.25, 0.25, 0.25, 0.0]
    assert [one.trade[0] for one in as_told(findings, KNOWN, 0, metric_is_loss=False)[0]] == [5, 4, 3, 2, 9]


def test_a_chain_begins_with_what_was_told() -> None:
    base, upon = finding(1, 0.6), finding(2, 0.2, before=0.4, upon=1)
    third = finding(3, 0.1, before=0.2, upon=2)
    told = tell([base, upon, third])
    assert [one.trade[0] for one in told] == [1, 2, 3]
    for earlier, later in zip(told, told[1:], strict=False):
        assert later.result.loss_before == earlier.result.loss_after
        assert later.result.metric_before == earlier.result.metric_after
        assert later.delivery == b"p" * 32


@pytest.mark.parametrize("weight", [0.4, 0.0])
def test_what_is_upon_something_untold_or_is_untold_itself_is_left_out(weight: float) -> None:
    """A report of nothing upon a purchase would say that the broker found a chain."""
    untold = finding(1, 0.03, weight=weight)
    assert [one.trade[0] for one in tell([untold, finding(2, 0.5, before=0.97, upon=1)])] == [1]
    told = [finding(1, 0.5), finding(2, 0.001, before=0.5, upon=1), finding(3, 0.3, before=0.499, upon=2)]
    assert [one.trade[0] for one in tell(told)] == [1]


def test_every_refusal_is_told_in_one_sentence() -> None:
    refused = [
        finding(1, 0.0, weight=0.0, reason="no merge on the way to the seller's parameters lowers the loss"),
        finding(2, 0.0, weight=0.0, reason="the best merge found does not lower the loss"),
        finding(3, 0.02),
        finding(4, 0.5, low=-0.1),
    ]
    told = tell(refused)
    assert len({one.result.reason for one in told}) == 1 and "16th of your loss" in told[0].result.reason
    assert {one.delivery for one in told} == {NOTHING}
    same = [encode(dataclasses.replace(one, trade=bytes(16)).report(5)) for one in told]
    assert len(set(same)) == 1


def test_a_metric_that_is_the_loss_is_told_as_the_loss() -> None:
    told, _ = as_told(
        [finding(1, 0.5), finding(2, 0.2, before=0.5, upon=1)], KNOWN, STEPS, metric_is_loss=True
    )  # fmt: skip
    for one in told:
        assert (one.result.metric_before, one.result.metric_after) == (one.result.loss_before, one.result.loss_after)
