"""A folder of results as a story: what simulate and paper wrote, read through experiments/results.py.

Knows: which questions a reader of an experiment asks, and in which order. Refuses to know: how runs were made, how
pages look. What cannot be read raises DataError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from p2pmarket.experiments.results import RunResult, is_sound, read_all
from p2pmarket.report import curves, deal_charts
from p2pmarket.report.deals import (
    Deal,
    endings_table,
    largest_table,
    sums,
    sums_sentence,
    who_with_whom,
)
from p2pmarket.report.groups import (
    Ends,
    Group,
    alone_beside,
    chief,
    count,
    deals_of,
    ends_of,
    ends_of_group,
    fact,
    groups_of,
    is_accuracy,
    last_rows,
    settings_words,
)
from p2pmarket.report.pictures import pictures_in
from p2pmarket.report.results_tables import agents_table, checked, comparison_table, mean_words, runs_table
from p2pmarket.report.story import Part, Section, Story, Tile, Tone, Words
from p2pmarket.report.visits import failure_sentences, failures_of, failures_words
from p2pmarket.report.words import MAX_SENTENCE, credits, duration, listed, many, metric, shown
from p2pmarket.units import format_bytes

MAX_GROUPS = 6
"""Groups whose trades a page shows."""
MAX_PROBLEMS = 20
MAX_NAMED = 5
"""Agents that a sentence names."""
NOTHING_WRONG = "Nothing: no agent told of a problem, and every ledger that was kept verifies."


def story_of_results(folder: Path) -> Story:
    """The page of one results folder.

    :raises DataError: it cannot be read
    """
    runs = read_all(folder)
    groups = groups_of(runs)
    first = chief(groups)
    title = shown(str(fact(runs[0].facts, "scenario") or folder.name)) if runs else shown(folder.resolve().name)
    if first is None:
        nothing = "No run in this folder is finished; run the same command again, and it goes on where it stopped."
        return Story("Report of an experiment", title, nothing, (), (), (nothing,))
    broken, problems = [*broken_ledgers(runs), *diverged_of(runs)], problems_of(runs)
    sections = [
        _learning(groups),
        *_trading(first),
        *_others(groups, first),
        Section("agents", "Agents", (agents_table(first, groups),), f"By {first.label}, means over seeds."),
        Section("runs", "Runs", (runs_table(runs),)),
        *_plots(folder),
        Section("problems", "What went wrong", (problems_words(broken, problems, runs),)),
    ]
    return Story(
        "Report of an experiment", title, headline(groups, first), tiles(runs, groups, first), tuple(sections),
        (*broken[:3], *failure_sentences(failures_of(runs))),
    )  # fmt: skip


def headline(groups: Sequence[Group], first: Group) -> str:
    """The whole folder in a sentence."""
    rows = [row for run in first.runs for row in run.rounds]
    rounds = max((row.round for row in rows), default=0)
    parts = f"{many(len(first.agents), 'agent')}, {many(rounds, 'round')}, {many(first.seeds, 'seed')}"
    points = list(dict.fromkeys(group.settings for group in groups))
    if len(points) > 1:
        parts += f", {settings_words(first.settings)} (setting {points.index(first.settings) + 1} of {len(points)})"
    parts += ": "
    final, before = ends_of_group(first), alone_beside(first, groups)
    accuracy = is_accuracy(rows)
    if final.count:
        alone = ends_of_group(before) if before else None
        parts += f"mean {'accuracy' if accuracy else 'loss'} {_mean(final, accuracy)}"
        parts += " in the market" if alone is not None else f" with {first.label}"
        parts += f" against {_mean(alone, accuracy)} alone; " if alone is not None else "; "
    parts += sums_sentence(sums(deals_of(first)))
    parts += failures_words(failures_of(first.runs), len(first.agents))
    verified = [run for run in first.runs if checked(run)]
    if not first.has_broker or not verified:
        return f"{parts}."
    bad = sum(not is_sound(run.facts) for run in verified)
    whole = {1: "the ledger verifies", 2: "both ledgers verify"}.get(
        len(verified), f"all {len(verified)} ledgers verify"
    )
    if bad:
        whole = (
            "THE LEDGER DOES NOT VERIFY" if len(verified) == 1 else f"{bad} OF {len(verified)} LEDGERS DO NOT VERIFY"
        )
    return f"{parts}; {whole}."


def _mean(ends: Ends, accuracy: bool) -> str:
    """The mean of all agents and seeds at the end; unknown where one diverged, and that of the others is told."""
    if ends.mean is None or not ends.diverged:
        return "unknown, as all DIVERGED" if ends.mean is None else metric(ends.mean, accuracy)
    others = f", {metric(ends.mean, accuracy)} for the others" if len(ends.values) < ends.count else ""
    value = "unknown" if others else metric(ends.mean, accuracy)
    return f"{value} ({ends.diverged} of {ends.count} DIVERGED{others})"


def tiles(runs: Sequence[RunResult], groups: Sequence[Group], first: Group) -> tuple[Tile, ...]:
    """The numbers of the headline, and what the runs cost."""
    found = sums(deals_of(first))
    rows = [row for run in first.runs for row in run.rounds]
    accuracy, ends, alone = is_accuracy(rows), ends_of_group(first), alone_beside(first, groups)
    final, before = ends.mean, ends_of_group(alone) if alone else None
    made = []
    if ends.count:
        note = f"alone {mean_words(before, accuracy)}" if before is not None and before.count else first.label
        label = "mean accuracy" if accuracy else "mean loss"
        if ends.diverged:
            label += " of the others" if len(ends.values) < ends.count else ""
            note = f"{ends.diverged} of {ends.count} diverged; {note}"
        other = None if before is None or before.diverged else before.mean
        better = final is not None and other is not None and (final > other if accuracy else final < other)
        tone: Tone = "bad" if ends.diverged else "good" if better else "plain"
        made.append(Tile(label, "unknown" if final is None else metric(final, accuracy), note, tone))
    made += [
        Tile("trades settled", f"{found.settled:,}", f"of {found.appraised:,} appraised"),
        Tile("credits moved", credits(found.moved), f"{credits(found.fees)} of them fees"),
    ]
    verified = [run for run in first.runs if checked(run)]
    if first.has_broker and verified:
        good = all(is_sound(run.facts) for run in verified)
        made.append(Tile("ledger", "verifies" if good else "does not verify", "", "good" if good else "bad"))
    counted = [run for run in first.runs if run.facts.get("traffic_bytes") is not None]
    if counted:
        traffic = sum(count(run.facts, "traffic_bytes") for run in counted) / len(counted)
        made.append(Tile("traffic of a run", format_bytes(traffic), "sent by all parties"))
    wall = sum(count(run.facts, "wall_seconds") for run in runs)
    if wall:
        virtual = sum(count(run.facts, "virtual_seconds") for run in runs)
        note = f"for {many(len(runs), 'run')}" + (f", {duration(virtual)} of virtual time" if virtual else "")
        made.append(Tile("computing time", duration(wall), note))
    return tuple(made)


def broken_ledgers(runs: Sequence[RunResult]) -> list[str]:
    """Runs whose ledger does not verify, in words."""
    found = []
    for run in runs:
        if not is_sound(run.facts):
            sentences = [str(one) for one in fact(run.facts, "ledger", "problems") or ()]
            why = "; ".join(shown(one, MAX_SENTENCE) for one in sentences[:3]) or "its check says no more"
            found.append(f"The ledger of {shown(str(run.facts.get('run', 'a run')))} does not verify: {why}.")
    return found


def diverged_of(runs: Sequence[RunResult]) -> list[str]:
    """Agents whose last loss or metric is no finite number, in words: one sentence a run."""
    found = []
    for run in runs:
        agents = sorted(agent for agent, row in last_rows(run).items() if ends_of((row,)).diverged)
        if agents:
            names = [shown(agent, 32) for agent in agents[:MAX_NAMED]]
            names += [f"{len(agents) - MAX_NAMED:,} more"] if len(agents) > MAX_NAMED else []
            of = f"{len(agents)} of {many(len(last_rows(run)), 'agent')} diverged"
            found.append(f"In {shown(str(run.facts['run']))} {of}: {listed(names)} ended without a finite loss.")
    return found


def problems_of(runs: Sequence[RunResult]) -> list[str]:
    """What agents told of in their rounds, the most frequent first."""
    said = Counter(shown(row.problem, MAX_SENTENCE) for run in runs for row in run.rounds if row.problem)
    return [
        f"{sentence[0].upper()}{sentence[1:]} ({many(times, 'agent and round', 'agents and rounds')})."
        for sentence, times in said.most_common()
    ]


def problems_words(broken: Sequence[str], problems: Sequence[str], runs: Sequence[RunResult]) -> Words:
    """What went wrong, and how often a party was crashed on purpose."""
    crashes = int(sum(count(run.facts, "crashes") for run in runs))
    told = [*broken, *problems]
    sentences = told[:MAX_PROBLEMS] or [NOTHING_WRONG]
    more = len(told) - MAX_PROBLEMS
    sentences += [f"And {many(more, 'problem')} more."] if more > 0 else []
    sentences += [f"Parties crashed {many(crashes, 'time')} and were started again."] if crashes else []
    return Words(tuple(sentences), "bad" if broken else "plain" if problems else "good")


def _learning(groups: Sequence[Group]) -> Section:
    shown_groups = groups[: curves.MAX_LINES]
    accurate = is_accuracy([row for group in shown_groups for run in group.runs for row in run.rounds])
    charts: list[Part] = [*curves.learning(groups), *([curves.losses(groups)] if accurate else [])]
    swept = curves.by_setting(groups)
    charts = [swept, *charts] if swept else charts
    table = (comparison_table(groups),) if len(groups) > 1 else ()
    about = "How good the agents' models became"
    about += ", in the market and without it." if len(groups) > 1 else "."
    if len(groups) > len(shown_groups):
        about += f" The charts show the first {len(shown_groups)} of {len(groups)} settings and methods, the table all."
    return Section("learning", "Learning", (*charts, *table), about)


def _trading(group: Group) -> list[Section]:
    """Everything on the trades of one group."""
    deals = deals_of(group)
    seeds = f"Of {group.seeds} seeds together." if group.seeds > 1 else ""
    if not deals:
        nothing = Words(("No pair of agents was appraised, so nothing was bought or sold.",))
        return [Section("trades", "Trades", (nothing, curves.balances(group)))] if group.has_broker else []
    kept = (curves.promises(group), deal_charts.gains(deals, "number"))
    money = (deal_charts.prices(deals, "number"), curves.balances(group))
    trades = (deal_charts.endings(deals, "number"), endings_table(deals), largest_table(deals, "round"))
    return [
        Section("gains", "Gains: promised and kept", kept),
        Section("prices", "Prices and balances", money),
        Section("trades", "Trades", trades, seeds),
        Section("partners", "Who traded with whom", who_with_whom(deals, group.agents), seeds),
    ] if group.has_broker else []  # fmt: skip


def _others(groups: Sequence[Group], first: Group) -> list[Section]:
    """The trades of the other groups, folded."""
    others = [group for group in groups if group.has_broker and group is not first]
    sections = []
    for place, group in enumerate(others[: MAX_GROUPS - 1]):
        deals: list[Deal] = deals_of(group)
        parts: tuple[Part, ...] = (
            curves.promises(group),
            deal_charts.prices(deals, "number"),
            deal_charts.endings(deals, "number"),
            curves.balances(group),
            *who_with_whom(deals, group.agents),
        )
        about = f"{sums_sentence(sums(deals))}."
        sections.append(Section(f"group-{place}", f"The trades of {group.label}", parts, about, folded=True))
    return sections


def _plots(folder: Path) -> list[Section]:
    """Plots that lie in the folder, folded."""
    found, hidden = pictures_in(folder)
    about = f"Left out to keep the page small: {many(hidden, 'plot')}." if hidden else ""
    parts = tuple(picture for group in found.values() for picture in group)
    return [Section("plots", "Plots in the folder", parts, about, folded=True)] if parts else []
