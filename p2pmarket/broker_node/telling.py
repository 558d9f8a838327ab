"""What a member is told of its findings, where the terms say that reports are coarse.

Knows: findings, the rules of appraisal/ladder, one agent's state. Refuses to know: where the state is kept, messages.
What is not told is not sold: such a finding becomes one of no purchase. Pure; nothing here fails.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from p2pmarket.appraisal.ladder import Numbers, Rule, Told, told, told_round
from p2pmarket.broker_node.appraiser import NOTHING, Finding

UNTOLD = "no gain that this market tells: its steps are a {steps}th of your loss"


def as_told(
    findings: Sequence[Finding], state: Told, steps: int, *, metric_is_loss: bool
) -> tuple[list[Finding], Told]:
    """One member's findings with the numbers it is told, and its new state.

    :param findings: those upon another purchase come after it
    :param steps: of the terms; 0: everything is told as measured
    :param metric_is_loss: the task's metric is the loss, and told as it is
    """
    if steps == 0:
        return list(findings), state
    rule = Rule(steps=steps)
    alone = [finding for finding in findings if finding.after is None]
    numbers, state = told_round(state, [_numbers(finding) for finding in alone], rule)
    known = {finding.trade: number for finding, number in zip(alone, numbers, strict=True)}
    for finding in findings:
        if finding.after is None:
            continue
        before = known[finding.after]
        if before.weight > 0:
            known[finding.trade], _ = told(Told(before.loss_after, metric=before.metric_after), _numbers(finding), rule)
        else:
            known[finding.trade] = before
    return [_with(finding, _metrics(known[finding.trade], metric_is_loss), steps) for finding in findings], state


def _metrics(numbers: Numbers, metric_is_loss: bool) -> Numbers:
    if not metric_is_loss:
        return numbers
    return dataclasses.replace(numbers, metric_before=numbers.loss_before, metric_after=numbers.loss_after)


def _numbers(finding: Finding) -> Numbers:
    result = finding.result
    return Numbers(
        result.loss_before,
        result.loss_after,
        result.gain,
        result.low,
        result.high,
        result.metric_before,
        result.metric_after,
        result.alpha,
    )


def _with(finding: Finding, numbers: Numbers, steps: int) -> Finding:
    """The finding with these numbers; what changes for classes, groups and tasks would be finer than they are."""
    nothing = numbers.weight == 0
    step = numbers.loss_before / steps
    merits = (finding.result.merit, finding.result.merit_low, finding.result.merit_high)
    merit, low, high = (0.0, 0.0, 0.0) if nothing or step <= 0 else (step * math.floor(part / step) for part in merits)
    result = dataclasses.replace(
        finding.result,
        loss_before=numbers.loss_before,
        loss_after=numbers.loss_after,
        gain=numbers.gain,
        low=numbers.low,
        high=numbers.high,
        merit=min(merit, numbers.gain),
        merit_low=min(low, numbers.gain),
        merit_high=high,
        metric_before=numbers.metric_before,
        metric_after=numbers.metric_after,
        alpha=numbers.weight,
        reason=finding.result.reason or UNTOLD.format(steps=steps) if nothing else "",
    )
    delivery = NOTHING if nothing else finding.delivery
    return dataclasses.replace(finding, delivery=delivery, result=result, classes=(), groups=(), tasks=())
