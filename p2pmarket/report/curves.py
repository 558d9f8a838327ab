"""Rounds as charts: how agents learnt by each method, what their balances were, what the promises were worth.

Knows: `RoundRow`s in groups. Refuses to know: trades, how charts are drawn. Pure functions that fail on nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from p2pmarket.experiments.recording import RoundRow, TradeRow
from p2pmarket.report.deal_charts import EIGHT_OF_TEN, RANGE, mean_by, promised_losses, spans_decades
from p2pmarket.report.groups import Group, Score, chief, last_rows, settings_words
from p2pmarket.report.panels import as_in_panels, values_of, with_value
from p2pmarket.report.points import paths_of, point_of, span, which
from p2pmarket.report.story import BASELINE, Axis, Chart, Dots, Line
from p2pmarket.report.words import known, method_name, shown
from p2pmarket.units import CREDIT

MAX_AGENTS = 6
"""With a chart of their own."""
MAX_LINES = 8
MAX_ROUNDS = 120
"""Points of a line."""
MAX_TASKS = 4
MAX_PANELS = 6
"""Values of what is swept first, with a chart each."""
MAX_NAMES = 12
"""Agents that are named along an axis."""

Value = Callable[[RoundRow], float]


def learning(groups: Sequence[Group], score: Score) -> list[Chart]:
    """One chart an agent where they are few, else one a task, with a line for each group; of a sweep over several
    things one for each value of the first of them."""
    paths = paths_of(groups)
    if len(paths) > 1:
        return _panels(groups, paths, score)
    compared = groups[:MAX_LINES]
    agents = sorted({agent for group in compared for agent in group.agents})
    if len(agents) <= MAX_AGENTS:
        return [
            _curves(shown(agent) if len(agent) > 2 else f"Agent {shown(agent)}", compared, score, agent=agent)
            for agent in agents
        ]
    tasks = _tasks(compared)
    return [
        _curves(f"All agents of {shown(task)}" if len(tasks) > 1 else everybody(compared), compared, score, task=task)
        for task in tasks[:MAX_TASKS]
    ]


def not_drawn(groups: Sequence[Group]) -> str:
    """Which settings and methods charts of learning leave out, as a sentence; nothing where they have all."""
    paths = paths_of(groups)
    if len(paths) < 2:
        total = len(groups)
        return f"The first {MAX_LINES} of {total:,} settings and methods." if total > MAX_LINES else ""
    values = values_of(groups, paths[0])
    lines = max(len(with_value(groups, paths[0], value)) for value in values)
    left = [f"the first {MAX_PANELS} of {len(values):,} values of {paths[0]}"] if len(values) > MAX_PANELS else []
    left += [f"at each the first {MAX_LINES} of up to {lines:,} settings and methods"] if lines > MAX_LINES else []
    text = ", ".join(left)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def ends(groups: Sequence[Group], score: Score) -> list[Chart]:
    """How every agent of each task ended, where they are too many for a chart each; of a sweep at one setting."""
    first = chief(groups)
    if first is None:
        return []
    paths = paths_of(groups)
    drawn = as_in_panels(groups, paths) if len(paths) > 1 else groups
    compared = [group for group in drawn if point_of(group, paths) == point_of(first, paths)][:MAX_LINES]
    if len({agent for group in compared for agent in group.agents}) <= MAX_AGENTS:
        return []
    return [_ends(compared, task, score, which(first, groups)) for task in _tasks(compared)[:MAX_TASKS]]


def _panels(groups: Sequence[Group], paths: Sequence[str], score: Score) -> list[Chart]:
    """A chart for each value of the first path, with a line for each of what else there is at it."""
    values, tasks, charts = values_of(groups, paths[0]), _tasks(groups), []
    drawn = as_in_panels(groups, paths)
    for value in values[:MAX_PANELS]:
        compared = with_value(drawn, paths[0], value)[:MAX_LINES]
        for task in tasks[: max(1, MAX_PANELS // len(values))]:
            title = f"{settings_words(((paths[0], value),))}: "
            title += f"agents of {shown(task)}" if len(tasks) > 1 else everybody(compared).lower()
            charts.append(_curves(title, compared, score, task=task))
    return [chart for chart in charts if not chart.empty]


def _tasks(groups: Sequence[Group]) -> list[str]:
    return sorted({row.task for group in groups for run in group.runs for row in run.rounds})


def everybody(groups: Sequence[Group]) -> str:
    """Who is in the mean over all agents: as many as there are in a run, which may differ from run to run."""
    runs = [{row.agent for row in run.rounds} for group in groups for run in group.runs]
    names: set[str] = set().union(*runs)
    if all(one == names for one in runs):
        return f"All {len(names):,} agents"
    return f"All agents, {span(map(len, runs))} in a run"


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
            Line("the median; the band holds 80 %", x, at(0.5), 0, at(0.1), at(0.9)),
            Line("the poorest", x, at(0), 1),
        )
        caption = f"Of {len(agents)} agents after each round, fees paid."
    return Chart("Balances", caption, "round", "credits", tuple(line for line in lines if line.x), whole_x=True)


def promises(group: Group) -> Chart:
    """The losses that agents were promised, against those on test data in the same round: agents are measured as soon
    as they have loaded what they bought."""
    pairs = []
    for run in group.runs:
        bought: dict[tuple[str, int], list[TradeRow]] = defaultdict(list)
        for trade in run.trades:
            if trade.price is not None:
                bought[trade.buyer, trade.round].append(trade)
        for row in run.rounds:
            trades = bought.get((row.agent, row.round), [])
            last = [one for one in trades if one.trade not in {other.after for other in trades}]
            if len(last) == 1 and row.bought >= len(trades):  # else it did not load all, or not one upon the other
                pairs.append((last[0].loss_after, row.loss))
    return promised_losses(pairs)


def _curves(title: str, groups: Sequence[Group], score: Score, *, agent: str = "", task: str = "") -> Chart:
    def mine(row: RoundRow) -> bool:
        return row.agent == agent if agent else row.task == task

    values = [score.of(row) for group in groups for run in group.runs for row in run.rounds if mine(row)]
    log = not score.accuracy and spans_decades(values)
    lines = [_line(group, score.of, mine, band=_range(group) if agent else EIGHT_OF_TEN) for group in groups]
    who = f"{score.name[:1].upper()}{score.name[1:]} on test data"
    band = "the band is the range over seeds" if agent else "the band holds 80 % of the agents"
    caption = f"{who} after each round, mean over {'seeds' if agent else 'agents and seeds'}"
    caption += f"; {band}." if any(line.low for line in lines) else "."
    caption += " The axis is logarithmic." if log else ""
    caption += _without_numbers(values)
    marks = tuple(sorted((line for line in lines if line.x), key=lambda line: line.color != BASELINE))
    y_axis: Axis = "percent" if score.accuracy else "number"
    return Chart(title, caption, "round", score.name, marks, y_axis=y_axis, whole_x=True, log_y=log)


def _ends(groups: Sequence[Group], task: str, score: Score, of: str) -> Chart:
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
    rows = [row for group in groups for run in group.runs for row in run.rounds if row.task == task]
    log = not score.accuracy and spans_decades([score.of(row) for row in rows])
    few = len(order) <= MAX_NAMES
    caption = f"Of {of}. " if of else ""
    caption += "One dot for each agent, after the last round" + (
        ", mean over seeds" if max(group.seeds for group in groups) > 1 else ""
    )
    caption += f"; from left to right as they ended {_how(groups[-1])}."
    caption += " The axis is logarithmic." if log else ""
    return Chart(
        f"Every agent of {shown(task)} at the end", caption, "agent" if few else "agents", score.name, marks,
        y_axis="percent" if score.accuracy else "number", whole_x=True, log_y=log,
        x_ticks=tuple(place.values()) if few else (), x_names=tuple(shown(agent, 16) for agent in order) if few else (),
    )  # fmt: skip


def _how(group: Group) -> str:
    return {"market": "in the market", "alone": "alone"}.get(group.method, f"with {method_name(group.method)}")


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
