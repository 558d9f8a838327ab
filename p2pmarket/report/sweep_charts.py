"""A sweep over one number as charts: how agents ended and what fees were, against that number.

Knows: groups, and what differs between them. Refuses to know: rounds, trades. Pure functions that fail on nothing.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from p2pmarket.experiments.spread import mean_and_spread
from p2pmarket.report.groups import Group, Score, color_of_method, count, last_rows, scores_of
from p2pmarket.report.points import paths_of, point_of
from p2pmarket.report.story import Chart, Line
from p2pmarket.report.words import known, method_name
from p2pmarket.units import CREDIT

MAX_TICKS = 10
"""Values of the number up to which each is marked."""
DECADES = 16
"""Where the largest value is so many times the smallest, the axis is logarithmic."""
FEW_SEEDS = 2
"""Of so few, Student's interval is many times wider than they lie apart, and would be all that is seen."""

Runs = Mapping[str, Mapping[float, Sequence[float]]]
"""By method and place, one value a run."""


def all_of(groups: Sequence[Group]) -> tuple[Chart, ...]:
    """What there is to show of a sweep over one number; nothing where it is none."""
    found = _places(groups)
    if found is None:
        return ()
    charts = [_ends(groups, *found, score) for score in scores_of(groups)]
    fees = _fees(groups, *found)
    return (*charts, fees) if fees else tuple(charts)


def _ends(groups: Sequence[Group], path: str, places: Sequence[float], score: Score) -> Chart:
    """How agents ended against the number that was swept."""
    values: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    diverged = 0
    for group, place in zip(groups, places, strict=True):
        for run in group.runs:
            finals = [score.of(row) for row in last_rows(run).values()]
            kept = [one for one in finals if known(one)]
            diverged += len(finals) - len(kept)
            values[group.method][place] += [sum(kept) / len(kept)] if kept else []
    caption = f"After the last round, mean over agents and seeds; {_whiskers(values)}."
    caption += f" {diverged:,} agents of all runs diverged: means are over the others." if diverged else ""
    title = f"{score.name[:1].upper()}{score.name[1:]} at the end, by {path}"
    chart = _chart(title, caption, path, places, score.name, values)
    return dataclasses.replace(chart, y_axis="percent" if score.accuracy else "number")


def _fees(groups: Sequence[Group], path: str, places: Sequence[float]) -> Chart | None:
    """What a run's broker kept against that number; None where there were no fees."""
    values: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for group, place in zip(groups, places, strict=True):
        if group.has_broker:
            values[group.method][place] += [count(run.facts, "ledger", "fees") / CREDIT for run in group.runs]
    if not any(fee for by_place in values.values() for fees in by_place.values() for fee in fees):
        return None
    caption = f"What the broker kept of all prices of a run: mean over seeds; {_whiskers(values)}."
    return _chart(f"Fees, by {path}", caption, path, places, "credits", values)


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


def _chart(title: str, caption: str, path: str, places: Sequence[float], y_label: str, values: Runs) -> Chart:
    lines = (_line(values, method) for method in values)
    ticks = sorted({*places})
    return Chart(
        title, caption, path, y_label, tuple(line for line in lines if line.x),
        log_x=ticks[0] > 0 and ticks[-1] >= DECADES * ticks[0], x_ticks=tuple(ticks) if len(ticks) <= MAX_TICKS else (),
    )  # fmt: skip


def _line(values: Runs, method: str) -> Line:
    """A method's mean over seeds at each place, with how far it may be off."""
    x = sorted(place for place, found in values[method].items() if found)
    found = [np.asarray(values[method][place]) for place in x]
    y = [float(one.mean()) for one in found]
    if _intervals(values):
        halves = [mean_and_spread(one.tolist())[1] or 0.0 for one in found]
        low, high = ([mean + sign * half for mean, half in zip(y, halves, strict=True)] for sign in (-1, 1))
    else:
        low, high = [float(one.min()) for one in found], [float(one.max()) for one in found]
    return Line(
        method_name(method), tuple(x), tuple(y), color_of_method(method), tuple(low), tuple(high),
        dashed=method == "alone", whiskers=True,
    )  # fmt: skip


def _intervals(values: Runs) -> bool:
    """Whether there are seeds enough everywhere."""
    return min((len(one) for places in values.values() for one in places.values() if one), default=0) > FEW_SEEDS


def _whiskers(values: Runs) -> str:
    return "bars are the mean's 95 % interval over seeds" if _intervals(values) else "bars are the range over seeds"
