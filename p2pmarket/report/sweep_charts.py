"""A sweep over one number as charts: how agents ended and what fees were, against that number.

Knows: groups, and what differs between them. Refuses to know: rounds, trades. Pure functions that fail on nothing.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

from p2pmarket.report.deal_charts import EIGHT_OF_TEN, RANGE, mean_by
from p2pmarket.report.groups import Group, color_of_method, count, ends_of_group, is_accuracy
from p2pmarket.report.points import paths_of, point_of
from p2pmarket.report.story import Chart, Line
from p2pmarket.report.words import known, method_name
from p2pmarket.units import CREDIT


def by_setting(groups: Sequence[Group]) -> Chart | None:
    """How a sweep over one number went: the metric at the end against that number; None where it is none."""
    found = _places(groups)
    if found is None:
        return None
    path, places = found
    values: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    diverged = 0
    for group, place in zip(groups, places, strict=True):
        ends = ends_of_group(group)
        values[group.method][place] += ends.values
        diverged += ends.diverged
    accuracy = is_accuracy([row for group in groups for run in group.runs for row in run.rounds])
    caption = "After the last round, mean over agents and seeds; the band holds 8 of 10."
    caption += f" {diverged:,} agents of all runs diverged: means are over the others." if diverged else ""
    return Chart(
        f"At the end, by {path}", caption, path, "accuracy" if accuracy else "loss",
        _by_method(values, EIGHT_OF_TEN), y_axis="percent" if accuracy else "number",
    )  # fmt: skip


def fees_by_setting(groups: Sequence[Group]) -> Chart | None:
    """What a run's broker kept against the number that was swept; None where there were no fees, or it is no number."""
    found = _places(groups)
    values: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, place in zip(groups, found[1] if found else (), strict=found is not None):
        if group.has_broker:
            values[group.method][place] += [count(run.facts, "ledger", "fees") / CREDIT for run in group.runs]
    if found is None or not any(fee for places in values.values() for fees in places.values() for fee in fees):
        return None
    caption = "What the broker kept of all prices of a run: mean and range over seeds."
    return Chart(f"Fees, by {found[0]}", caption, found[0], "credits", _by_method(values, RANGE))


def _places(groups: Sequence[Group]) -> tuple[str, list[float]] | None:
    """The only path in which settings differ and each group's number there, or None."""
    paths = paths_of(groups)
    if len(paths) != 1:
        return None
    try:
        places = [float(point_of(group, paths)[0][1]) for group in groups]
    except ValueError:
        return None
    return (paths[0], places) if all(map(known, places)) else None


def _by_method(values: Mapping[str, Mapping[float, Sequence[float]]], band: float) -> tuple[Line, ...]:
    lines = [
        dataclasses.replace(
            mean_by(found, method_name(method), color_of_method(method), band=band), dashed=method == "alone"
        )
        for method, found in values.items()
    ]
    return tuple(line for line in lines if line.x)
