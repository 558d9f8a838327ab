"""Tables of an experiment: agents, runs, and every method and setting beside the others.

Knows: groups of runs. Refuses to know: charts, trades. All tables are bounded. Pure functions that fail on nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult, is_sound
from p2pmarket.experiments.spread import mean_and_spread
from p2pmarket.report.groups import (
    Ends,
    Group,
    alone_beside,
    count,
    ends_of,
    ends_of_group,
    fact,
    is_accuracy,
    last_rows,
    scores_of,
    settings_of,
    settings_words,
)
from p2pmarket.report.story import Table
from p2pmarket.report.words import (
    credits,
    duration,
    known,
    left_out,
    many,
    method_name,
    metric,
    percent,
    shown,
    with_half,
)
from p2pmarket.units import CREDIT, format_bytes

MAX_ROWS = 200
SHORT_LABEL = 8
ENOUGH_SEEDS = 3
"""For an interval: that of two is many times wider than they lie apart."""
LESS = "less than alone"
INTERVAL = "± is half of the mean's 95 % interval over seeds."


def agents_table(group: Group, groups: Sequence[Group]) -> Table:
    """Each agent of a group, alone too where that was run."""
    judged = scores_of([group])[0]
    what, accuracy = judged.name, judged.accuracy
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
        cells += [spread(ends_of(before.get(agent, ())), accuracy)] if alone else []
        cells += [spread(ends_of(after.get(agent, ())), accuracy)]
        counts = (sum(row.bought for row in mine) / runs, sum(row.sold for row in mine) / runs)
        cells += [f"{one:,.1f}".removesuffix(".0") for one in counts]
        cells += [credits(sum(row.paid for row in mine) / runs), credits(sum(row.earned for row in mine) / runs)]
        cells += [credits(sum(row.balance for row in last) / runs)]
        rows.append(tuple(cells))
    note = left_out(len(group.agents), len(rows), "agents", "the first by name")
    note = " ".join(filter(None, (INTERVAL if group.seeds > 1 else "", note)))
    return Table("All agents", columns, tuple(rows), frozenset(columns) - {"agent", "task", "strategy"}, note)


def comparison_table(groups: Sequence[Group]) -> Table:
    """One row a group, for a run of it; with fees where there were any, and beside whoever is alone."""
    rows = []
    fees = any(count(run.facts, "ledger", "fees") for group in groups for run in group.runs)
    alone = {id(group): alone_beside(group, groups) for group in groups}
    beside = any(alone.values())
    for group in groups[:MAX_ROWS]:
        ends = ends_of_group(group)
        values, accuracy = ends.values, is_accuracy([row for run in group.runs for row in run.rounds])
        other = alone[id(group)]
        cells = [f"{group.label} ({many(group.seeds, 'seed')})", _mean_of_runs(group, accuracy)]
        cells += [f"{metric(min(values), accuracy)} … {metric(max(values), accuracy)}" if values else ""]
        cells += [_less_than_alone(group, other) if other else ""] if beside else []
        cells += [_of_a_run(group, "settled", 1) if group.has_broker else ""]
        cells += [_of_a_run(group, "moved", CREDIT) if group.has_broker else ""]
        cells += [_of_a_run(group, "fees", CREDIT) if group.has_broker else ""] if fees else []
        rows.append(tuple(cells))
    columns = (
        "method", "at the end", "range", *((LESS,) if beside else ()), "settled", "credits",
        *(("fees",) if fees else ()),
    )  # fmt: skip
    left = left_out(len(groups), len(rows), "settings and methods", "the first")
    wide = any(len(group.label) > SHORT_LABEL for group in groups)
    note = "Of one run, in the mean over seeds: all agents after the last round; the range is over agents and seeds."
    note += " Less than alone is the loss, with the same seed." if beside else ""
    note += f" {INTERVAL}" if any(group.seeds >= ENOUGH_SEEDS for group in groups) else ""
    return Table("Side by side", columns, tuple(rows), frozenset(columns[1:]), f"{note} {left}".strip(), wide=wide)


def _mean_of_runs(group: Group, accuracy: bool) -> str:
    """How a run ends in the mean over its agents, and how sure that is over seeds; of those that did not diverge."""
    ends = ends_of_group(group)
    means = [one.mean for run in group.runs if (one := ends_of(last_rows(run).values())).mean is not None]
    if ends.diverged or len(means) < ENOUGH_SEEDS:
        return mean_words(ends, accuracy)
    return _plus_minus([mean for mean in means if mean is not None], accuracy)


def _less_than_alone(group: Group, alone: Group) -> str:
    """By which part the loss at the end is less than alone with the same seed."""
    before = {run.facts.get("seed"): _mean_loss(run) for run in alone.runs}
    pairs = [(_mean_loss(run), before.get(run.facts.get("seed"))) for run in group.runs]
    parts = [1 - here / there for here, there in pairs if here is not None and there]
    return _plus_minus(parts, True) if parts else ""


def _mean_loss(run: RunResult) -> float | None:
    """Over all agents at the end; None where one of them diverged."""
    losses = [row.loss for row in last_rows(run).values()]
    return sum(losses) / len(losses) if losses and all(map(known, losses)) else None


def _of_a_run(group: Group, what: str, unit: int) -> str:
    """An entry of the ledger's facts, over seeds."""
    found = [count(run.facts, "ledger", what) / unit for run in group.runs]
    if len(found) < ENOUGH_SEEDS or not any(found):
        mean = sum(found) / len(found)
        return credits(mean * CREDIT) if unit == CREDIT else f"{mean:,.1f}".removesuffix(".0")
    return _plus_minus(found, False)


def _plus_minus(values: Sequence[float], accuracy: bool) -> str:
    """The mean over seeds, with half of its 95 % interval where there are enough for one."""
    mean, half = mean_and_spread(values)
    if half is None or len(values) < ENOUGH_SEEDS:
        return metric(mean, accuracy)
    return f"{percent(mean)[:-2]} ± {percent(half)}" if accuracy else with_half(mean, half)


def runs_table(runs: Sequence[RunResult]) -> Table:
    """One row a run."""
    swept = any(settings_of(run.facts) for run in runs)
    columns = (
        "run", "method", *(("settings",) if swept else ()), "seed", "mean at the end", "settled", "moved", "fees",
        "ledger", "traffic", "time",
    )  # fmt: skip
    rows = []
    for run in runs[:MAX_ROWS]:
        facts = run.facts
        broker = bool(facts.get("broker") or run.trades)
        rows.append(
            (
                shown(str(facts.get("run", ""))),
                method_name(str(facts.get("method", ""))),
                *((settings_words(settings_of(facts)),) if swept else ()),
                shown(str(facts.get("seed", ""))),
                mean_words(ends_of(last_rows(run).values()), is_accuracy(run.rounds)),
                f"{count(facts, 'ledger', 'settled'):,.0f}" if broker else "",
                credits(count(facts, "ledger", "moved")) if broker else "",
                credits(count(facts, "ledger", "fees")) if broker else "",
                "" if not broker or not checked(run) else "verifies" if is_sound(facts) else "DOES NOT VERIFY",
                format_bytes(traffic) if (traffic := count(facts, "traffic_bytes")) else "–",
                duration(count(facts, "wall_seconds")),
            )
        )
    note = left_out(len(runs), len(rows), "runs", "the first by name")
    return Table("All runs", columns, tuple(rows), frozenset(columns) - {"run", "method", "settings", "ledger"}, note)


def mean_words(ends: Ends, accuracy: bool) -> str:
    """The mean of all ends; where some are no number, of the others, and how many there are."""
    if not ends.values:
        return "diverged" if ends.diverged else ""
    return metric(sum(ends.values) / len(ends.values), accuracy) + _lost(ends)


def checked(run: RunResult) -> bool:
    """Whether the run tells of a ledger that was checked."""
    return fact(run.facts, "ledger", "verified") is not None


def spread(ends: Ends, accuracy: bool) -> str:
    """The mean, and half of its 95 % interval over seeds where there are several."""
    if not ends.values:
        return mean_words(ends, accuracy)
    mean, half = mean_and_spread(ends.values)
    if half is None:
        return mean_words(ends, accuracy)
    text = f"{percent(mean)[:-2]} ± {percent(half)}" if accuracy else with_half(mean, half)
    return text + _lost(ends)


def _lost(ends: Ends) -> str:
    return f" ({ends.diverged} of {ends.count} diverged)" if ends.diverged else ""


def _finals(group: Group) -> dict[str, list[RoundRow]]:
    """By agent, how it ended in each run."""
    found: dict[str, list[RoundRow]] = {}
    for run in group.runs:
        for agent, row in last_rows(run).items():
            found.setdefault(agent, []).append(row)
    return found


def _strategies(group: Group) -> dict[str, str]:
    """By agent, the name of its strategy, where the runs tell."""
    found = {}
    for agent in group.agents:
        strategy = fact(group.runs[0].facts, "agents", agent, "strategy")
        if strategy:
            found[agent] = shown(str(strategy), 32)
    return found
