"""What all experiments of the paper share: their scenario files, their runs, means with intervals, and lines of plots.

Knows: scenarios, results and rows. Refuses to know: any of the paper's numbers. A scenario file that is not there
raises `ScenarioError`; results that cannot be read, `DataError`. Images that are not there are told, not raised.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from p2pmarket.datasets import find_images, load_images
from p2pmarket.errors import DataError
from p2pmarket.experiments.document import Document, points_of, read_document, with_value
from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.spread import mean_and_spread as mean_and_spread
from p2pmarket.experiments.sweep import run_sweep
from p2pmarket.experiments.worlds.contract import Place
from p2pmarket.paper.finding import TOO_FEW_SEEDS, Context, Row

SOME = 0.1
"""The least that counts as more than nothing, in points or per cent: a gain of 0 is no gain."""

# ---- scenarios and runs ---------------------------------------------------------------------------------------------


def paper_document(context: Context, file: str, changes: Mapping[str, object] | None = None) -> Document:
    """A scenario file of the paper, with other values at some dotted paths: {"scenario.rounds": 5}.

    :raises ScenarioError: no such file, or a path that leads nowhere
    """
    document = read_document(context.scenarios / file)
    for path, value in (changes or {}).items():
        document = with_value(document, path, value)
    return document


def runs_of(context: Context, document: Document, name: str, seeds: int) -> list[RunResult]:
    """All runs of a scenario with seeds 0, 1, ... , kept and taken up again in the experiment's folder.

    :param name: of the results folder; each effort has one of its own, as its settings may differ
    :raises ScenarioError, DataError, MachineFault: as `run_sweep`
    """
    folder = context.folder / f"{name}-{context.effort}"
    label = context.folder.name if name == "runs" else f"{context.folder.name}, {name}"
    of, finished = len(points_of(document)) * seeds, set[str]()

    def told(run: str, rounds: int, of_rounds: int) -> None:
        if rounds == of_rounds:
            finished.add(run)
        context.progress(f"{label}: {run}", len(finished), of)

    place = Place(context.data, context.device)
    return run_sweep(document, folder, place=place, jobs=context.jobs, seeds=tuple(range(seeds)), progress=told)


def why_no_digits(context: Context) -> str:
    """Why the images that come with scikit-learn are not there, for `Finding.missing`; empty where they are.

    It is asked before anything is run, as a run's `DataError` may be about results that are damaged.
    """
    try:
        load_images("digits", find_images("digits", context.data))
    except DataError as error:
        return str(error)
    return ""


def having(runs: Iterable[RunResult], **facts: object) -> list[RunResult]:
    """The runs with these facts, by seed; a sweep's value is found by the last part of its path: having(runs,
    method="market", distance=5).
    """

    def fits(run: RunResult) -> bool:
        short = {path.rpartition(".")[2]: value for path, value in run.facts["settings"].items()}
        return all({**short, **run.facts}[key] == value for key, value in facts.items())

    return sorted((run for run in runs if fits(run)), key=lambda run: int(run.facts["seed"]))


def rounds_of(run: RunResult, agent: str) -> list[RoundRow]:
    """One agent's rounds, in order."""
    return sorted((row for row in run.rounds if row.agent == agent), key=lambda row: row.round)


def final(run: RunResult, agent: str, what: str = "loss") -> float:
    """An agent's last loss or metric on test data, or its balance."""
    return float(run.facts["final"][agent][what])


def less_by(before: float, after: float) -> float:
    """By how many per cent `after` is less than `before`."""
    return 100.0 * (before - after) / before


# ---- rows -----------------------------------------------------------------------------------------------------------


def row_of(
    experiment: str,
    row: str,
    values: Sequence[float],
    *,
    low: float = -math.inf,
    high: float = math.inf,
    paper: float | None = None,
    unit: str = "",
    note: str = "",
) -> Row:
    """A row from one value a seed; nan, which agrees with nothing, where there is none or one of them is not finite.

    Without an end of the interval it claims nothing (`Row.agrees`). Where its own interval is wider than the
    stated one, the note says so (`Row.too_few_seeds`).
    """
    mean, spread = mean_and_spread(values) if values else (math.nan, None)
    made = Row(experiment, row, paper, mean, low, high, unit, spread, note)
    if not made.too_few_seeds:
        return made
    why = f"{TOO_FEW_SEEDS}, as the mean over these is less sure than the stated interval is wide"
    return dataclasses.replace(made, note=f"{note}; {why}" if note else why)


def purchases_of(experiment: str, markets: Iterable[RunResult]) -> Row:
    """That something was bought in every one of these runs. Every experiment that claims a gain has this row: where
    nobody trades, agents in the market and alone are the same, and whatever is to be no worse would agree.
    """
    counts = [float(sum(row.bought for row in run.rounds)) for run in markets]
    return row_of(
        experiment, "purchases in the run with a market that has the fewest", [min(counts)] if counts else [], low=1.0,
        note="where nobody buys, no market helped",
    )  # fmt: skip


def agreement(rows: Iterable[Row], agrees: str = "Agrees with the paper") -> str:
    """The beginning of an experiment's sentence: whether all rows that claim something lie in their intervals, and for
    how many of them the seeds are too few to tell.

    :param agrees: what is said where they do
    """
    claims = [row for row in rows if row.agrees is not None]
    wrong = sum(not row.agrees for row in claims)
    unsure = sum(row.too_few_seeds for row in claims)
    words = agrees if claims and not wrong else f"Does not agree in {wrong} of {len(claims)} rows"
    return f"{words} ({TOO_FEW_SEEDS} in {unsure} of {len(claims)})" if unsure else words


def rank_correlation(pairs: Iterable[tuple[float, float]]) -> float:
    """Spearman's; nan where all values of one kind are alike, so that nothing has a rank."""
    from scipy.stats import spearmanr

    pairs = list(pairs)
    if any(len(set(kind)) < 2 for kind in zip(*pairs, strict=True)) or len(pairs) < 2:
        return math.nan
    return float(spearmanr(pairs).statistic)


# ---- plots ----------------------------------------------------------------------------------------------------------


def draw_runs(
    axis: Any,
    runs: Sequence[RunResult],
    agent: str,
    *,
    color: str,
    label: str,
    value: Callable[[RoundRow], float] = lambda row: row.loss,
    style: str = "-",
) -> None:
    """The mean over seeds by round, in a band from the least to the largest."""
    columns = list(zip(*(map(value, rounds_of(run, agent)) for run in runs), strict=True))
    rounds = [row.round for row in rounds_of(runs[0], agent)]
    draw_band(axis, rounds, columns, color=color, label=label, style=style)


def draw_band(
    axis: Any, places: Sequence[float], values: Sequence[Sequence[float]], *, color: str, label: str, style: str = "-"
) -> None:
    """The mean of each place's values, in a band from the least to the largest.

    :param values: for each place, one a seed
    """
    axis.plot(places, [statistics.fmean(column) for column in values], style, color=color, label=label)
    axis.fill_between(places, list(map(min, values)), list(map(max, values)), color=color, alpha=0.15, linewidth=0)
