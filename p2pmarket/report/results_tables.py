"""Tables of an experiment: agents, runs, and every method and setting beside the others.

Knows: groups of runs. Refuses to know: charts, trades. All tables are bounded. Pure functions that fail on nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.report.groups import (
    Group,
    alone_beside,
    count,
    fact,
    is_accuracy,
    last_rows,
    settings_of,
    settings_words,
)
from p2pmarket.report.story import Table
from p2pmarket.report.words import credits, duration, left_out, many, method_name, metric, number, percent, shown
from p2pmarket.units import format_bytes

MAX_ROWS = 200
SHORT_LABEL = 8


def agents_table(group: Group, groups: Sequence[Group]) -> Table:
    """Each agent of a group, alone too where that was run."""
    accuracy = is_accuracy([row for run in group.runs for row in run.rounds])
    what = "accuracy" if accuracy else "loss"
    alone = alone_beside(group, groups)
    before, after = (_finals(alone) if alone else {}), _finals(group)
    columns = (
        "agent", "task", *(("strategy",) if _strategies(group) else ()), f"{what} alone", f"{what} here",
        "bought", "sold", "paid", "earned", "balance",
    )  # fmt: skip
    if alone is None:
        columns = tuple(column for column in columns if not column.endswith(" alone"))
    rows = []
    rounds: dict[str, list[RoundRow]] = {}
    for row in (row for run in group.runs for row in run.rounds):
        rounds.setdefault(row.agent, []).append(row)
    ends = [last_rows(run) for run in group.runs]
    strategies = _strategies(group)
    for agent in group.agents[:MAX_ROWS]:
        mine, last = rounds[agent], [end[agent] for end in ends if agent in end]
        runs = max(len(last), 1)
        cells = [shown(agent, 32), shown(mine[0].task, 32)]
        cells += [strategies.get(agent, "")] if strategies else []
        cells += [_spread(before.get(agent, []), accuracy)] if alone else []
        cells += [_spread(after.get(agent, []), accuracy)]
        cells += [f"{sum(row.bought for row in mine) / runs:,.4g}", f"{sum(row.sold for row in mine) / runs:,.4g}"]
        cells += [credits(sum(row.paid for row in mine) / runs), credits(sum(row.earned for row in mine) / runs)]
        cells += [credits(sum(row.balance for row in last) / runs)]
        rows.append(tuple(cells))
    note = left_out(len(group.agents), len(rows), "agents", "the first by name")
    return Table("All agents", columns, tuple(rows), frozenset(columns) - {"agent", "task", "strategy"}, note)


def comparison_table(groups: Sequence[Group]) -> Table:
    """One row a group."""
    rows = []
    for group in groups[:MAX_ROWS]:
        flat = [row for run in group.runs for row in run.rounds]
        values = [value for found in _finals(group).values() for value in found]
        ledgers = [run.facts for run in group.runs]
        rows.append(
            (
                f"{group.label} ({many(group.seeds, 'seed')})",
                metric(float(np.mean(values)), is_accuracy(flat)) if values else "",
                f"{metric(min(values), is_accuracy(flat))} … {metric(max(values), is_accuracy(flat))}"
                if values
                else "",
                f"{sum(count(facts, 'ledger', 'settled') for facts in ledgers):,.0f}" if group.has_broker else "",
                credits(sum(count(facts, "ledger", "moved") for facts in ledgers)) if group.has_broker else "",
            )
        )
    columns = ("method", "at the end", "range", "settled", "credits")
    note = left_out(len(groups), len(rows), "settings and methods", "the first")
    wide = any(len(group.label) > SHORT_LABEL for group in groups)
    note = " ".join(filter(None, ("Means over agents and seeds after the last round; the range is over both.", note)))
    return Table("Side by side", columns, tuple(rows), frozenset(columns[1:]), note, wide=wide)


def runs_table(runs: Sequence[RunResult]) -> Table:
    """One row a run."""
    swept = any(settings_of(run.facts) for run in runs)
    columns = (
        "run", "method", *(("settings",) if swept else ()), "seed", "mean at the end", "settled", "moved", "fees",
        "ledger", "traffic", "time",
    )  # fmt: skip
    rows = []
    for run in runs[:MAX_ROWS]:
        facts, final = run.facts, [row.metric for row in last_rows(run).values() if math.isfinite(row.metric)]
        verified = fact(facts, "ledger", "verified")
        broker = bool(facts.get("broker") or run.trades)
        rows.append(
            (
                shown(str(facts.get("run", ""))),
                method_name(str(facts.get("method", ""))),
                *((settings_words(settings_of(facts)),) if swept else ()),
                shown(str(facts.get("seed", ""))),
                metric(float(np.mean(final)), is_accuracy(run.rounds)) if final else "",
                f"{count(facts, 'ledger', 'settled'):,.0f}" if broker else "",
                credits(count(facts, "ledger", "moved")) if broker else "",
                credits(count(facts, "ledger", "fees")) if broker else "",
                "" if not broker or verified is None else "verifies" if verified is True else "DOES NOT VERIFY",
                format_bytes(count(facts, "traffic_bytes")),
                duration(count(facts, "wall_seconds")),
            )
        )
    note = left_out(len(runs), len(rows), "runs", "the first by name")
    return Table("All runs", columns, tuple(rows), frozenset(columns) - {"run", "method", "settings", "ledger"}, note)


def _finals(group: Group) -> dict[str, list[float]]:
    """By agent, the metric at the end of each run."""
    found: dict[str, list[float]] = {}
    for run in group.runs:
        for agent, row in last_rows(run).items():
            if math.isfinite(row.metric):
                found.setdefault(agent, []).append(row.metric)
    return found


def _spread(values: Sequence[float], accuracy: bool) -> str:
    """The mean, and the standard deviation over seeds where there are several."""
    if not values:
        return ""
    mean = float(np.mean(values))
    if len(values) == 1:
        return metric(mean, accuracy)
    deviation = float(np.std(values, ddof=1))
    decimals = len(number(mean).partition(".")[2])
    return f"{percent(mean)[:-2]} ± {percent(deviation)}" if accuracy else f"{number(mean)} ± {deviation:.{decimals}f}"


def _strategies(group: Group) -> dict[str, str]:
    """By agent, the name of its strategy, where the runs tell."""
    found = {}
    for agent in group.agents:
        strategy = fact(group.runs[0].facts, "agents", agent, "strategy")
        if strategy:
            found[agent] = shown(str(strategy), 32)
    return found
