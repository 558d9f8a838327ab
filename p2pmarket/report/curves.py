"""Rounds as charts: how agents learnt by each method, what their balances were, what the promises were worth.

Knows: `RoundRow`s in groups. Refuses to know: trades, how charts are drawn. Pure functions that fail on nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from p2pmarket.experiments.recording import RoundRow
from p2pmarket.report.deal_charts import EIGHT_OF_TEN, RANGE, kept_promises, mean_by
from p2pmarket.report.groups import Group, Score, last_rows
from p2pmarket.report.points import span
from p2pmarket.report.story import BASELINE, Axis, Chart, Dots, Line
from p2pmarket.report.words import known, shown
from p2pmarket.units import CREDIT

MAX_AGENTS = 6
"""With a chart of their own."""
MAX_LINES = 8
MAX_ROUNDS = 120
"""Points of a line."""
MAX_TASKS = 4
DECADE = 10
"""Losses that differ by more are on a logarithmic axis."""

Value = Callable[[RoundRow], float]


def learning(groups: Sequence[Group], score: Score) -> list[Chart]:
    """One chart an agent where they are few, else one a task; a line for each group."""
    compared = groups[:MAX_LINES]
    agents = sorted({agent for group in compared for agent in group.agents})
    rows = [row for group in compared for run in group.runs for row in run.rounds]
    log = not score.accuracy and spans_decades([score.of(row) for row in rows])
    if len(agents) <= MAX_AGENTS:
        return [
            _curves(
                shown(agent) if len(agent) > 2 else f"Agent {shown(agent)}",
                compared,
                [row for row in rows if row.agent == agent],
                score,
                agent=agent,
                log=log,
            )
            for agent in agents
        ]
    tasks = sorted({row.task for row in rows})
    return [
        _curves(
            f"All agents of {shown(task)}" if len(tasks) > 1 else everybody(compared),
            compared,
            [row for row in rows if row.task == task],
            score,
            task=task,
            log=log,
        )
        for task in tasks[:MAX_TASKS]
    ]


def ends(groups: Sequence[Group], score: Score) -> list[Chart]:
    """How every agent of each task ended, where they are too many for a chart each."""
    compared = groups[:MAX_LINES]
    rows = [row for group in compared for run in group.runs for row in run.rounds]
    if len({row.agent for row in rows}) <= MAX_AGENTS:
        return []
    return [_ends(compared, task, score) for task in sorted({row.task for row in rows})[:MAX_TASKS]]


def everybody(groups: Sequence[Group]) -> str:
    """Who is in the mean over all agents: as many as there are in a run, which may differ from run to run."""
    runs = [{row.agent for row in run.rounds} for group in groups for run in group.runs]
    names: set[str] = set().union(*runs)
    if all(one == names for one in runs):
        return f"All {len(names):,} agents"
    return f"All agents of each run: {span(map(len, runs))} of {len(names):,}"


def balances(group: Group) -> Chart:
    """Balances after each round: a line for each agent, or for many the middle and the ends."""
    agents = group.agents
    lines: tuple[Line, ...]
    if len(agents) <= MAX_LINES:
        lines = tuple(
            _line(group, _balance, _is_of(agent), shown(agent), place, band=_range(group))
            for place, agent in enumerate(agents)
        )
        caption = "After each round, fees paid" + ("; mean and range over seeds." if group.seeds > 1 else ".")
    else:
        values = _values(group, _balance, _has_account)
        x = tuple(sorted(values))

        def at(part: float) -> tuple[float, ...]:
            return tuple(float(np.quantile(values[place], part)) for place in x)

        lines = (
            Line("the richest", x, at(1), 2),
            Line("the median; the band holds 8 of 10", x, at(0.5), 0, at(0.1), at(0.9)),
            Line("the poorest", x, at(0), 1),
        )
        caption = f"Of {len(agents)} agents after each round, fees paid."
    return Chart("Balances", caption, "round", "credits", tuple(line for line in lines if line.x), whole_x=True)


def promises(group: Group) -> Chart:
    """What agents bought in a round as gain, against how their loss on test data changed in that round."""
    pairs = []
    for run in group.runs:
        before: dict[str, float] = {}
        for row in sorted(run.rounds, key=lambda one: one.round):
            if row.bought and row.agent in before:
                pairs.append((row.gain, before[row.agent] - row.loss))
            before[row.agent] = row.loss
    return kept_promises(
        pairs,
        "One dot for each agent and round in which it bought: the gains that the broker reported, against the fall of "
        "its loss on test data in that round, its own training included.",
    )


def _curves(
    title: str,
    groups: Sequence[Group],
    rows: Sequence[RoundRow],
    score: Score,
    *,
    agent: str = "",
    task: str = "",
    log: bool,
) -> Chart:

    def mine(row: RoundRow) -> bool:
        return row.agent == agent if agent else row.task == task

    lines = [_line(group, score.of, mine, band=_range(group) if agent else EIGHT_OF_TEN) for group in groups]
    who = f"{score.name[:1].upper()}{score.name[1:]} on test data"
    band = "the band is the range over seeds" if agent else "the band holds 8 of 10 agents"
    caption = f"{who} after each round, mean over {'seeds' if agent else 'agents and seeds'}"
    caption += f"; {band}." if any(line.low for line in lines) else "."
    caption += " The axis is logarithmic." if log else ""
    caption += _without_numbers([score.of(row) for row in rows])
    marks = tuple(sorted((line for line in lines if line.x), key=lambda line: line.color != BASELINE))
    y_axis: Axis = "percent" if score.accuracy else "number"
    return Chart(title, caption, "round", score.name, marks, y_axis=y_axis, whole_x=True, log_y=log)


def _ends(groups: Sequence[Group], task: str, score: Score) -> Chart:
    """How every agent of a task ended, ordered by the last group: whoever is alone, where that was run."""
    finals = []
    for group in groups:
        values: dict[str, list[float]] = defaultdict(list)
        for run in group.runs:
            for row in last_rows(run).values():
                if row.task == task and known(score.of(row)):
                    values[row.agent].append(score.of(row))
        finals.append({agent: float(np.mean(found)) for agent, found in values.items()})
    order = sorted({agent for one in finals for agent in one}, key=lambda agent: finals[-1].get(agent, 0.0))
    place = {agent: float(number) for number, agent in enumerate(order, 1)}
    marks = tuple(
        Dots(group.label, tuple(place[agent] for agent in final), tuple(final.values()), group.color)
        for group, final in zip(groups, finals, strict=True)
        if final
    )
    caption = f"One dot for each agent, after the last round; from left to right by {groups[-1].label}."
    return Chart(
        f"Every agent of {shown(task)} at the end", caption, "agents", score.name, marks,
        y_axis="percent" if score.accuracy else "number", whole_x=True,
    )  # fmt: skip


def _line(
    group: Group, value: Value, fits: Value, label: str = "", color: int | None = None, *, band: float | None
) -> Line:
    """Means by round of the rows that fit."""
    color = group.color if color is None else color
    line = mean_by(_values(group, value, fits), label or group.label, color, band=band)
    return dataclasses.replace(line, dashed=not label and group.method == "alone")


def _values(group: Group, value: Value, fits: Value) -> dict[float, list[float]]:
    """By round, evenly thinned where there are many, the values of all rows that fit."""
    rows = [row for run in group.runs for row in run.rounds if fits(row)]
    rounds = sorted({row.round for row in rows})
    kept = {*rounds[:: math.ceil(len(rounds) / MAX_ROUNDS)], rounds[-1]} if rounds else set()
    values: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        if row.round in kept and known(value(row)):
            values[float(row.round)].append(value(row))
    return values


def spans_decades(values: Iterable[float]) -> bool:
    """Whether only a logarithmic axis shows all of them."""
    found = [value for value in values if known(value)]
    return bool(found) and min(found) > 0 and max(found) > DECADE * min(found)


def _without_numbers(values: Sequence[float]) -> str:
    """What a caption says of values that its means are without."""
    lost = sum(not known(value) for value in values)
    return f" {lost:,} of {len(values):,} values are no finite numbers and count for nothing." if lost else ""


def _has_account(row: RoundRow) -> bool:
    """Before its first round an agent may not have joined."""
    return row.round > 0 or row.balance > 0


def _is_of(agent: str) -> Value:
    return lambda row: row.agent == agent and _has_account(row)


def _range(group: Group) -> float | None:
    return RANGE if group.seeds > 1 else None


def _balance(row: RoundRow) -> float:
    return row.balance / CREDIT
