"""What an agent is told of a measured gain: in coarse steps, and anew only when it has become better.

Knows: numbers, and what one agent was told before. Refuses to know: models, peers, where the state is kept. Pure rules
over frozen states; nothing here fails.

Exact losses on chosen snapshots give the broker's data away: a loss that is quadratic in d parameters is known after
(d + 1)(d + 2) / 2 readings, and so is its optimum. Two rules stand against it, and a third that is the broker's: how
many reports an agent gets in an hour (the terms' submissions_per_hour, max_sellers and max_chain).

* The ladder (Blum & Hardt 2015, "The Ladder: a reliable leaderboard for machine learning competitions", section 3): an
  agent's own loss is told anew only when it is better than the best it was told by more than a step. Gains are told
  over that best, so that a worse snapshot, however it was made, tells nothing, and a gain that is not beyond chance is
  not told at all (their section 4 takes the standard error for a step, for the same reason). What is not told is not
  sold: the report then is the one of no purchase.
* Relative steps: a step is a part of the agent's own told loss. Steps of a fixed size would be fine ones for an
  attacker whose weights, and so whose losses, are a million times too large.

Equal questions get equal answers, so asking again and averaging brings nothing. All rounding is against the gain: told
<= true for `gain` and `low`, told >= true for `loss_after`, and the interval told holds the true one of the gain over
the best. Merits are told on the gains' rungs. A purchase upon another begins with what was told of that one: its own
report of the loss between the two would be a second and finer one. An honest agent whose loss falls sees its best gain
understated, and its own loss overstated, by at most two steps: a gain of a third of its loss is told with a relative
error below 2 * 3 / `steps`.

What remains possible: every told report is a reading of log2(steps) bits or so, and a coalition has one for every pair
of its snapshots that the terms allow. It may climb: propose sellers at random, keep what is reported as a gain. Each
such step is a true improvement of at least a step on REPORT, and costs a report, so what is to be had is the optimum
slowly, as every training run has it. New identities begin with an empty state: they must cost something, or the market
must admit its agents. Nothing is hidden from a buyer that buys: the delivery is the merge itself. Measured on
quadratics in 30 dimensions, from losses and gains (no merits, no chains), with the best of many regressions (part of
the way to the optimum that is left; 0 without these rules): 496 snapshots of one agent 0.78 to 1; one poor buyer with
sellers at chosen parameters, 64 reports 0.4 to 1, and 496 of them (eight agents, or eight hours) 0.12 to 0.5; 496 new
identities with a snapshot each 0.1 to 0.23.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

_RATIO = 0.5
"""From one rung to the next below the greatest gain told."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """How much a market tells."""

    steps: int = 16
    """A step is one `steps`-th of the agent's told loss. An agent's own metric is told in `steps`-ths; limits of
    intervals in fours of steps, changes of the metric and weights in quarters."""


@dataclasses.dataclass(frozen=True)
class Told:
    """What one agent was told, for one task and one validation digest; the empty one for a newcomer."""

    loss: float = math.inf
    """The lowest loss of its own snapshots it was told; inf: none yet."""
    metric: float = 0.0
    """The metric told with that loss."""
    gain: int = 0
    """The greatest gain told over that loss, in steps."""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The numbers of a report, exact or told; named as in `Appraisal`."""

    loss_before: float
    loss_after: float
    gain: float
    low: float
    high: float
    metric_before: float
    """Higher is better, as for accuracy. Where the metric is the loss, tell the told losses instead."""
    metric_after: float
    weight: float
    """The seller's portion; 0: nothing would be delivered, and told numbers are those of no purchase."""
    merit: float = 0.0
    """Told on the rungs of the gain, never above it; less than a step, and less than nothing, is told as none."""
    merit_low: float = 0.0
    """Told in fours of steps, rounded down and never above the merit told."""
    merit_high: float = 0.0
    """Told in fours of steps, rounded up."""


def told(state: Told, exact: Numbers, rule: Rule) -> tuple[Numbers, Told]:
    """What the buyer is told of `exact`, and its new state; a round's reports by `told_round`.

    Told numbers keep `gain == loss_before - loss_after` up to float error.
    """
    state = _own(state, exact, rule)
    steps = _tellable(state.loss, exact, rule)
    state = dataclasses.replace(state, gain=max(state.gain, steps))
    return _coarse(state, steps, exact, rule), state


def told_upon(before: Numbers, exact: Numbers, rule: Rule) -> Numbers:
    """What the buyer is told of a purchase upon another one.

    The exact loss after that other purchase is no loss of the buyer's own, and its ladder does not look at it: what was
    told to be reached is what this report begins with, and gains are told over it.

    :param before: what was told of the other purchase; where that was nothing, nothing is told of this one
    :param exact: `loss_before` and `metric_before` are those after the other purchase
    """
    steps = _tellable(before.loss_after, exact, rule) if before.weight > 0 else 0
    return _coarse(Told(before.loss_after, before.metric_after, steps), steps, exact, rule)


def told_round(state: Told, exact: Sequence[Numbers], rule: Rule) -> tuple[tuple[Numbers, ...], Told]:
    """`told` for all reports that one snapshot gets at one time, in their order.

    The best is told first, so that it is told in full and the others relative to it.
    """
    numbers = list(exact)
    for index in sorted(range(len(exact)), key=lambda index: -exact[index].gain):
        numbers[index], state = told(state, exact[index], rule)
    return tuple(numbers), state


def _tellable(before: float, exact: Numbers, rule: Rule) -> int:
    """The gain over the told loss `before`, in whole steps; 0: not told."""
    excess = _excess(before, exact)
    if exact.weight == 0 or exact.low - excess <= 0:
        return 0
    return max(0, _steps(exact.gain - excess, before / rule.steps))


def _excess(before: float, exact: Numbers) -> float:
    """What of the gain is not over the best that was told: what a worse snapshot adds is the agent's own doing."""
    return max(0.0, exact.gain - (before - exact.loss_after))


def _coarse(state: Told, steps: int, exact: Numbers, rule: Rule) -> Numbers:
    """The numbers told of a gain of so many steps over the told loss; of no purchase for 0."""
    before, metric = state.loss, state.metric
    if steps < 1:
        return Numbers(before, before, 0.0, 0.0, 0.0, metric, metric, 0.0)
    step, excess = before / rule.steps, _excess(before, exact)
    gain = step * _rung(state.gain, steps)
    merits = min(steps, _steps(exact.merit, step))
    merit = step * _rung(state.gain, merits) if merits >= 1 else 0.0
    return Numbers(
        loss_before=before,
        loss_after=before - gain,
        gain=gain,
        low=min(gain, _four_below(exact.low - excess, step)),
        high=_four_above(exact.high - excess, step),
        metric_before=metric,
        metric_after=metric + math.floor(4 * (exact.metric_after - exact.metric_before)) / 4,
        weight=max(1, math.ceil(4 * min(1.0, exact.weight))) / 4,
        merit=merit,
        merit_low=min(merit, _four_below(exact.merit_low, step)),
        merit_high=max(merit, _four_above(exact.merit_high, step)),
    )


def _rung(best: int, steps: int) -> int:
    """The greatest rung that `steps` reaches, in steps: the best, then each `_RATIO` of the one above, rounded down."""
    rung = best
    while rung > steps:
        rung = min(rung - 1, math.floor(rung * _RATIO))
    return max(rung, 1)


def _own(state: Told, exact: Numbers, rule: Rule) -> Told:
    """The state after a look at the agent's own loss: a new step of its ladder, or the old one."""
    ratio = 1 + 1 / rule.steps
    if exact.loss_before * ratio >= state.loss:
        return state
    loss = _grid_above(exact.loss_before, ratio)
    if loss >= state.loss:
        return state
    return dataclasses.replace(
        state, loss=loss, gain=0, metric=math.floor(exact.metric_before * rule.steps) / rule.steps
    )


def _grid_above(loss: float, ratio: float) -> float:
    """The least power of `ratio` that is not below a loss >= 0."""
    if loss <= 0:
        return 0.0
    power = math.ceil(math.log(loss) / math.log(ratio) - 1e-9)
    while ratio**power < loss:  # what the logarithm rounded away
        power += 1
    return ratio**power


def _four_below(value: float, step: float) -> float:
    """The next limit of an interval, in fours of steps, that is not above `value`."""
    return step * 4 * math.floor(value / (4 * step))


def _four_above(value: float, step: float) -> float:
    return step * 4 * math.ceil(value / (4 * step))


def _steps(value: float, step: float) -> int:
    return math.floor(value / step) if step > 0 else 0
