"""What a member is told of its findings, where the terms say that reports are coarse.

Knows: findings, the rules of appraisal/ladder, one agent's state. Refuses to know: where the state is kept, messages.
What is not told is not sold: such a finding becomes one of no purchase, and one upon another purchase is left out, as
are those upon it. Nothing that is told depends on more of a measurement than its told numbers do: not the order, not
the reason, not whether there is a report. Pure; nothing here fails.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from p2pmarket.appraisal.ladder import Numbers, Rule, Told, told_round, told_upon
from p2pmarket.broker_node.appraiser import NOTHING, Finding

UNTOLD = "no gain that this market tells: its steps are a {steps}th of your loss"


def as_told(
    findings: Sequence[Finding], state: Told, steps: int, *, metric_is_loss: bool
) -> tuple[list[Finding], Told]:
    """One member's findings with the numbers it is told, and its new state.

    Each seller alone, the greatest told gain first, equal ones by trade; then those upon another, in their order.

    :param findings: those upon another purchase come after it
    :param steps: of the terms; 0: everything is told as measured, in the order given
    :param metric_is_loss: the task's metric is the loss, and told as it is
    """
    if steps == 0:
        return list(findings), state
    rule = Rule(steps=steps)
    alone = [finding for finding in findings if finding.after is None]
    numbers, state = told_round(state, [_numbers(finding) for finding in alone], rule)
    known = {finding.trade: number for finding, number in zip(alone, numbers, strict=True)}
    alone.sort(key=lambda finding: (-known[finding.trade].gain, finding.trade))
    chained = []
    for finding in findings:
        if finding.after in known and known[finding.after].weight > 0:
            upon = told_upon(known[finding.after], _numbers(finding), rule)
            if upon.weight > 0:
                known[finding.trade] = upon
                chained.append(finding)
    return [_with(one, _metrics(known[one.trade], metric_is_loss), steps) for one in alone + chained], state


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
        result.merit,
        result.merit_low,
        result.merit_high,
    )


def _with(finding: Finding, numbers: Numbers, steps: int) -> Finding:
    """The finding with these numbers; what changes for classes, groups and tasks would be finer than they are."""
    nothing = numbers.weight == 0
    result = dataclasses.replace(
        finding.result,
        loss_before=numbers.loss_before,
        loss_after=numbers.loss_after,
        gain=numbers.gain,
        low=numbers.low,
        high=numbers.high,
        merit=numbers.merit,
        merit_low=numbers.merit_low,
        merit_high=numbers.merit_high,
        metric_before=numbers.metric_before,
        metric_after=numbers.metric_after,
        alpha=numbers.weight,
        select_gain=0.0,
        adds=False,
        per_class=(),
        # Whichever stage refused: to say which would tell more of the merge than the numbers do.
        reason=UNTOLD.format(steps=steps) if nothing else "",
    )
    delivery = NOTHING if nothing else finding.delivery
    return dataclasses.replace(finding, delivery=delivery, result=result, classes=(), groups=(), tasks=())
