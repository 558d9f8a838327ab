"""What a market's tasks are measured with, tried out before anybody joins.

Knows: each task's model, data, device and symmetries, and which of its tensors are for sale. Refuses to know: snapshots
of agents. Fails with TermsError where the terms' groups do not divide what is for sale, ModelError or DataError where
model, data and spec do not fit each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import nn

from p2pmarket.alignment import PermutationSpec, verify_spec
from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.groups import divide
from p2pmarket.appraisal.validation import Validation
from p2pmarket.errors import ModelError, TermsError
from p2pmarket.market import MarketTerms
from p2pmarket.parameters.snapshot import matching, take_snapshot
from p2pmarket.parcel import Schema

SELF_TEST_SAMPLES = 4


@dataclasses.dataclass(frozen=True)
class TaskBench:
    """What one task is measured with. Tasks may have different models: what is equal in them is traded."""

    model: nn.Module
    spec: PermutationSpec | None
    symmetries: str
    """Where the spec comes from, in words."""
    evaluators: tuple[Evaluator, ...]
    """One for each worker, on a device of its own."""
    validation: Validation
    schema: Schema


def tradable_names(terms: MarketTerms, schema: Schema, *restrictions: Sequence[str]) -> list[str]:
    """Names of what a purchase may change; each restriction names groups, or none for all."""
    return [
        spec.name
        for spec in schema.tensors
        if all(terms.is_tradable(spec.name, groups) for groups in restrictions or ((),))
    ]


def try_out(bench: TaskBench, *, seed: int) -> None:
    """Evaluates the fresh model on the task's data and proves the permutation spec on a few samples.

    :raises ModelError: model, data and spec do not fit each other
    """
    for evaluator in bench.evaluators:
        data = bench.validation.to(evaluator.device)
        tensors = evaluator.place(take_snapshot(bench.model))
        evaluator.measure(tensors, data.select_inputs, data.select_targets)
        evaluator.measure(tensors, data.report_inputs, data.report_targets)
    if bench.spec is not None:
        inputs = bench.validation.select_inputs[:SELF_TEST_SAMPLES]
        verify_spec(bench.model, bench.spec, (inputs,), seed=seed)


def check_groups(terms: MarketTerms, schemas: Mapping[str, Schema]) -> None:
    """Whether the groups divide what is for sale, in every task. A group may be of one task only: another's head.

    :raises TermsError: a tensor in two groups, or a group that holds none in any task
    """
    groups = {group.name: group.patterns for group in terms.groups}
    names = {task: tradable_names(terms, schema) for task, schema in schemas.items()}
    everything = list(dict.fromkeys(name for of_task in names.values() for name in of_task))
    try:
        divide({group: patterns for group, patterns in groups.items() if not matching(patterns, everything)}, ())
        for of_task in names.values():
            divide({group: patterns for group, patterns in groups.items() if matching(patterns, of_task)}, of_task)
    except ModelError as error:
        raise TermsError(f"groups in [trade]: {error}") from None
