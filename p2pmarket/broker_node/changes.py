"""What a delivery changes, in parts: by class, by parameter group, on other tasks.

Knows: which parts a report may tell, and how many. Refuses to know: what the delivery is worth as a whole (appraisal),
whether a market tells this at all (terms). Fails as the evaluator does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from p2pmarket.appraisal.appraise import Appraisal, gain_on
from p2pmarket.appraisal.gain import ClassGain
from p2pmarket.appraisal.groups import divide, gain_of_groups, marginal_gains
from p2pmarket.broker_node.benches import TaskBench
from p2pmarket.market import ParameterGroup
from p2pmarket.messages import ClassChange, GroupChange, TaskChange
from p2pmarket.parameters.snapshot import matching

MOST_CLASSES, MOST_TASKS = 64, 16
"""Told in one report."""


def by_class(classes: Sequence[ClassGain]) -> tuple[ClassChange, ...]:
    """The classes that change most, weighed by their samples, in the order of their labels."""
    most = sorted(classes, key=lambda one: -abs(one.gain) * one.samples)[:MOST_CLASSES]
    return tuple(
        ClassChange(one.label, one.samples, one.gain, one.metric_before, one.metric_after)
        for one in sorted(most, key=lambda one: one.label)
    )


def by_group(
    groups: Sequence[ParameterGroup], bench: TaskBench, buyer: Mapping[str, Tensor], result: Appraisal, worker: int
) -> tuple[GroupChange, ...]:
    """What each group adds, of those that have a tensor in the delivery; within the loss that the buyer has.

    A group without which there would be no finite loss is left out: what it adds is no number.
    """
    present = {group.name: group.patterns for group in groups if matching(group.patterns, result.delivered)}
    if not present:
        return ()
    divided = divide(present, result.delivered)
    gain_of = gain_of_groups(bench.evaluators[worker], bench.validation, buyer, result.delivered, divided)
    gains = marginal_gains(divided, gain_of, most=result.loss_before)
    return tuple(GroupChange(name, gain) for name, gain in gains.items())


def by_task(
    own: str,
    benches: Mapping[str, TaskBench],
    buyer: Mapping[str, Tensor],
    result: Appraisal,
    worker: int,
) -> tuple[TaskChange, ...]:
    """What the delivery changes on the tasks that have the same model as the buyer's own."""
    changes = []
    for name, bench in benches.items():
        if name != own and bench.schema == benches[own].schema and result.delivered:
            found = gain_on(bench.evaluators[worker], bench.validation, buyer, result.delivered, result.confidence)
            changes.append(TaskChange(name, found.gain.mean, found.gain.low, found.gain.high))
    return tuple(changes[:MOST_TASKS])
