"""A folder of results as a story: what simulate and paper wrote, read through experiments/results.py.

Knows: which questions a reader of an experiment asks, and in which order. Refuses to know: how runs were made, how
pages look. What cannot be read raises DataError.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from p2pmarket.experiments.results import RunResult, is_sound, read_all
from p2pmarket.report import curves, deal_charts, sweep_charts
from p2pmarket.report.deals import (
    Deal,
    endings_table,
    largest_table,
    sums,
    sums_sentence,
    who_with_whom,
)
from p2pmarket.report.groups import (
    Group,
    chief,
    count,
    deals_of,
    ends_of,
    fact,
    groups_of,
    last_rows,
    scores_of,
    settings_words,
)
from p2pmarket.report.headline import headline, tiles
from p2pmarket.report.pictures import pictures_in
from p2pmarket.report.plots import own_plots
from p2pmarket.report.points import paths_of, points_of, which
from p2pmarket.report.results_tables import agents_table, comparison_table, runs_table
from p2pmarket.report.story import Part, Section, Story, Words
from p2pmarket.report.visits import failure_sentences, failures_of
from p2pmarket.report.words import MAX_SENTENCE, listed, many, shown

MAX_GROUPS = 6
"""Groups whose trades a page shows."""
MAX_PROBLEMS = 20
MAX_POINTS = 12
"""Settings of a sweep that a sentence names."""
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
    point = which(first, groups)
    sections = [
        *_sweep(groups, point),
        _learning(groups),
        *_trading(first, point),
        *_others(groups, first),
        Section("agents", "Agents", (agents_table(first, groups),), _of(point, f"By {first.label}, means over seeds.")),
        Section("runs", "Runs", (runs_table(runs),)),
        *_plots(folder),
        Section("problems", "What went wrong", (problems_words(broken, problems, runs),)),
    ]
    return Story(
        "Report of an experiment", title, headline(groups, first), tiles(runs, groups, first), tuple(sections),
        (*broken[:3], *failure_sentences(failures_of(runs))),
    )  # fmt: skip


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


def _sweep(groups: Sequence[Group], point: str) -> list[Section]:
    """What came of every setting, before anything that is of one; nothing where there is one alone."""
    points = points_of(groups)
    if len(points) < 2:
        return []
    charts = sweep_charts.all_of(groups)
    named = "; ".join(settings_words(one) for one in points[:MAX_POINTS])
    named += f"; and {len(points) - MAX_POINTS:,} more" if len(points) > MAX_POINTS else ""
    about = f"{len(points):,} settings of {listed(paths_of(groups))}: {named}. "
    learnt = "several" if curves.not_drawn(groups) else "all"
    about += f"The charts of learning show {learnt} of them, those of trades {point} alone."
    return [Section("sweep", "The sweep", (*charts, comparison_table(groups)), about)]


def _of(point: str, about: str = "") -> str:
    """What a section says of itself, with which setting it is of."""
    return " ".join(filter(None, (f"Of {point}." if point else "", about)))


def _learning(groups: Sequence[Group]) -> Section:
    judged, *others = scores_of(groups)
    charts = [*curves.learning(groups, judged), *curves.ends(groups, judged)]
    charts += [
        dataclasses.replace(chart, title=f"{chart.title}: {score.name}")
        for score in others
        for chart in curves.learning(groups, score)
    ]
    swept = len(points_of(groups)) > 1
    table = (comparison_table(groups),) if len(groups) > 1 and not swept else ()
    about = "How good the agents' models became"
    about += ", at each setting." if swept else ", in the market and without it." if len(groups) > 1 else "."
    if left := curves.not_drawn(groups):
        about += f" The charts are not of all: {left[:1].lower()}{left[1:]} The table has all."
    return Section("learning", "Learning", (*charts, *table), about)


def _trading(group: Group, point: str) -> list[Section]:
    """Everything on the trades of one group."""
    deals = deals_of(group)
    of = _of(point)
    seeds = _of(point, f"Of {group.seeds} seeds together." if group.seeds > 1 else "")
    if not deals:
        nothing = Words(("No pair of agents was appraised, so nothing was bought or sold.",))
        return [Section("trades", "Trades", (nothing, curves.balances(group)), of)] if group.has_broker else []
    kept = (curves.promises(group), deal_charts.gains(deals, "number"))
    money = (deal_charts.prices(deals, "number"), curves.balances(group))
    trades = (deal_charts.endings(deals, "number"), endings_table(deals), largest_table(deals, "round"))
    return [
        Section("gains", "Gains: promised and kept", kept, of),
        Section("prices", "Prices and balances", money, of),
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
    """Plots that lie in the folder, folded; those that have this page's own charts would only say them again."""
    found, hidden = pictures_in(folder, but=own_plots(folder))
    about = f"Left out to keep the page small: {many(hidden, 'plot')}." if hidden else ""
    parts = tuple(picture for group in found.values() for picture in group)
    return [Section("plots", "Plots in the folder", parts, about, folded=True)] if parts else []
