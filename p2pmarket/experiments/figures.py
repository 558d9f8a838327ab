"""Plots of any folder of results: learning, prices, trades, balances, and what a sweep over one number changes.

Knows: rows and facts of runs. Refuses to know: worlds, what a plot should show. However many agents, runs and points
there are, lines and marks are bounded: few agents have a line each, many are quantiles. Bands over seeds hold all of
them. Raises what writing files does.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from p2pmarket.charts import BASELINE, COLORS, figure, save_png
from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.spread import mean_and_spread, mean_of
from p2pmarket.experiments.summary import METHOD_PATH, label_of
from p2pmarket.experiments.worlds.contract import ALONE
from p2pmarket.units import CREDIT

FEW_AGENTS = 6
"""With an axis or a line each."""
MOST_LINES = 6
MOST_MARKS = 4000
MOST_BARS = 60
MOST_AXES = 6
MOST_TICKS = 10
MOST_COLUMNS = 3
"""Of axes beside one another."""
SHIFT, MOST_SHIFT = 0.012, 0.2
"""Between methods at one value of a sweep, so that their bars stay apart: a part of the axis, and at most that part of
the smallest step between values."""
DECADES = 16
"""A sweep whose largest value is so many times its smallest has a logarithmic axis."""
MOST_HIGH = 1e100
"""Above it a run has diverged, and matplotlib cannot reckon: it has no mark."""

Points = dict[str, list[RunResult]]
"""Runs of each point, by a label for people."""


def plot_results(runs: Sequence[RunResult], folder: Path) -> list[Path]:
    """Draws what there is to draw to `folder`; the files, none where there is no run.

    :raises MachineFault: matplotlib is not installed, or a file cannot be written
    :raises DiskFull: no space
    """
    if not runs:
        return []
    points = _by_point(runs)
    shown = dict(list(points.items())[:MOST_LINES])
    traded = {label: ones for label, ones in shown.items() if any(run.trades for run in ones)}
    note = f"the first {len(shown)} of {len(points)} points" if len(shown) < len(points) else ""
    written = [_learning(shown, "loss", folder / "loss.png", note)]
    if any(_differ(row.metric, row.loss) for ones in shown.values() for run in ones for row in run.rounds):
        written.append(_learning(shown, "metric", folder / "metric.png", note))
    if traded:
        written += [_states(traded, folder / "trades.png"), _balances(traded, folder / "balances.png")]
    if any(row.price for ones in traded.values() for run in ones for row in run.trades):
        written.append(_prices(traded, folder / "prices.png"))
    if (path := _one_number(runs)) is not None:
        written.append(_against(runs, path, folder / "sweep.png"))
    return written


def _by_point(runs: Iterable[RunResult]) -> Points:
    found: Points = defaultdict(list)
    for run in runs:
        found[label_of(run.facts["method"], run.facts["settings"])[:80]].append(run)
    return dict(found)


def _colour(label: str, number: int) -> str:
    return BASELINE if label == ALONE else COLORS[number % len(COLORS)]


# ---- learning -------------------------------------------------------------------------------------------------------


def _learning(points: Points, what: str, path: Path, note: str) -> Path:
    """One axis for each agent where they are few, else one for each task with quantiles over agents and seeds."""
    first_run = next(iter(points.values()))[0]
    first = first_run.rounds
    agents = list(dict.fromkeys(row.agent for row in first))
    by_agent = len(agents) <= FEW_AGENTS
    panels = agents if by_agent else list(dict.fromkeys(row.task for row in first))[:MOST_AXES]
    title = f"{_word(what, first_run)} on test data"
    with _panels(len(panels)) as (made, axes):
        for axis, panel in zip(axes, panels, strict=True):
            for number, (label, runs) in enumerate(points.items()):
                rows = [row for run in runs for row in run.rounds if panel == (row.agent if by_agent else row.task)]
                _curve(axis, rows, what, _colour(label, number), label, all_seeds=by_agent)
            axis.set_title(_text(f"agent {panel}" if by_agent else f"{len(agents)} agents, {panel}"))
            axis.set_xlabel("round")
            if what == "loss" and _spans_decades(points):
                axis.set_yscale("log")
        for axis in axes[::MOST_COLUMNS]:
            axis.set_ylabel(title)
        _legend(axes)
        words = "mean, and all seeds" if by_agent else "median, and eight of ten agents"
        made.suptitle("; ".join(filter(None, (words, note))), fontsize=9)
        save_png(made, path)
    return path


def _spans_decades(points: Points) -> bool:
    losses = _drawable(row.loss for runs in points.values() for run in runs for row in run.rounds)
    return bool(losses) and min(losses) > 0 and max(losses) > 10 * min(losses)


def _curve(axis: Any, rows: Sequence[RoundRow], what: str, color: str, label: str, *, all_seeds: bool) -> None:
    by_round = _grouped(rows, lambda row: row.round, lambda row: float(getattr(row, what)))
    if not by_round:
        return
    places = sorted(by_round)
    values = [by_round[place] for place in places]
    middle_of = statistics.fmean if all_seeds else statistics.median
    drawn = [_drawable(one) for one in values]
    middle = [middle_of(one) if len(one) == len(all_) else math.nan for one, all_ in zip(drawn, values, strict=True)]
    edges = (0.0, 1.0) if all_seeds else (0.1, 0.9)
    low, high = ([float(np.quantile(one, edge)) if one else math.nan for one in drawn] for edge in edges)
    axis.plot(places, middle, color=color, label=_text(label), linewidth=1.5)
    axis.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)


# ---- the market -----------------------------------------------------------------------------------------------------


def _prices(points: Points, path: Path) -> Path:
    with figure(width=7.0) as (made, axes):
        axis = axes[0][0]
        for number, (label, runs) in enumerate(points.items()):
            paid = [(row.round, row.price / CREDIT) for run in runs for row in run.trades if row.price is not None]
            if not paid:
                continue
            marks = paid[:: 1 + len(paid) // MOST_MARKS]
            axis.scatter(*zip(*marks, strict=True), s=6, alpha=0.35, color=_colour(label, number), linewidths=0)
            by_round = _grouped(paid, lambda one: one[0], lambda one: one[1])
            middle = [statistics.median(by_round[place]) for place in sorted(by_round)]
            axis.plot(sorted(by_round), middle, color=_colour(label, number), label=_text(label))
        axis.set_xlabel("round")
        axis.set_ylabel("price, credits")
        axis.set_title("prices paid, and their median in each round", fontsize=9)
        axis.legend(fontsize=8)
        save_png(made, path)
    return path


def _states(points: Points, path: Path) -> Path:
    """Trades by the state in which they ended, all seeds together."""
    panels = list(points.items())[:MOST_AXES]
    states = sorted({row.state for _, runs in panels for run in runs for row in run.trades})
    with _panels(len(panels)) as (made, axes):
        for axis, (label, runs) in zip(axes, panels, strict=True):
            last = max(row.round for run in runs for row in run.rounds)
            width = 1 + last // MOST_BARS
            bottom: Counter[int] = Counter()
            for number, state in enumerate(states):
                counts = Counter(row.round // width * width for run in runs for row in run.trades if row.state == state)
                places = sorted(set(counts) | set(bottom))
                axis.bar(places, [counts[place] for place in places], bottom=[bottom[place] for place in places],
                         width=0.9 * width, color=COLORS[number % len(COLORS)], label=_text(state))  # fmt: skip
                bottom += counts
            axis.set_title(_text(label), fontsize=9)
            axis.set_xlabel("round")
        for axis in axes[::MOST_COLUMNS]:
            axis.set_ylabel("appraised pairs, by how they ended")
        _legend(axes)
        save_png(made, path)
    return path


def _balances(points: Points, path: Path) -> Path:
    panels = list(points.items())[:MOST_AXES]
    with _panels(len(panels)) as (made, axes):
        for axis, (label, runs) in zip(axes, panels, strict=True):
            rows = [row for run in runs for row in run.rounds]
            agents = list(dict.fromkeys(row.agent for row in rows))
            if len(agents) <= FEW_AGENTS:
                for number, agent in enumerate(agents):
                    own = _grouped(
                        (row for row in rows if row.agent == agent and row.round),
                        lambda row: row.round,
                        lambda row: row.balance / CREDIT,
                    )
                    middle = [statistics.fmean(own[place]) for place in sorted(own)]
                    axis.plot(sorted(own), middle, color=COLORS[number % len(COLORS)], label=_text(agent))
            else:
                _quantiles(axis, [row for row in rows if row.round])
            axis.set_title(_text(label), fontsize=9)
            axis.set_xlabel("round")
        for axis in axes[::MOST_COLUMNS]:
            axis.set_ylabel("balance, credits")
        _legend(axes)
        save_png(made, path)
    return path


def _quantiles(axis: Any, rows: Iterable[RoundRow]) -> None:
    by_round = _grouped(rows, lambda row: row.round, lambda row: row.balance / CREDIT)
    places = sorted(by_round)
    for low, high, words in ((0.0, 1.0, "all agents"), (0.1, 0.9, "eight of ten")):
        edges = [np.quantile(by_round[place], (low, high)) for place in places]
        axis.fill_between(places, [one[0] for one in edges], [one[1] for one in edges], color=COLORS[0], alpha=0.2,
                          linewidth=0, label=words)  # fmt: skip
    axis.plot(places, [statistics.median(by_round[place]) for place in places], color=COLORS[0], label="median")


# ---- a sweep --------------------------------------------------------------------------------------------------------


def _one_number(runs: Sequence[RunResult]) -> str | None:
    """The path of the only value, besides the method, in which points differ, where it is a number."""
    paths = {path for run in runs for path in run.facts["settings"] if path != METHOD_PATH}
    values = {path: {repr(run.facts["settings"].get(path)) for run in runs} for path in paths}
    varied = [path for path in paths if len(values[path]) > 1]
    if len(varied) != 1:
        return None
    numeric = all(type(run.facts["settings"].get(varied[0])) in (int, float) for run in runs)
    return varied[0] if numeric else None


def _against(runs: Sequence[RunResult], path: str, file: Path) -> Path:
    whats = ["loss"]
    if any(_differ(last["metric"], last["loss"]) for run in runs for last in run.facts["final"].values()):
        whats.append("metric")
    methods = list(dict.fromkeys(str(run.facts["method"]) for run in runs))
    values = sorted({float(run.facts["settings"][path]) for run in runs})
    decades = values[0] > 0 and values[-1] >= DECADES * values[0]
    at = [math.log10(value) if decades else value for value in values]
    step = min((high - low for low, high in itertools.pairwise(at)), default=0.0)
    gap = min(MOST_SHIFT * step, SHIFT * (at[-1] - at[0]))
    place_of = dict(zip(values, at, strict=True))
    with figure(columns=len(whats)) as (made, axes):
        for axis, what in zip(axes[0], whats, strict=True):
            for number, method in enumerate(methods):
                shift = gap * (number - (len(methods) - 1) / 2)
                found = _grouped(
                    (run for run in runs if run.facts["method"] == method),
                    lambda run: float(run.facts["settings"][path]),
                    lambda run: mean_of(float(last[what]) for last in run.facts["final"].values()),  # noqa: B023
                )
                places = [10 ** (place_of[one] + shift) if decades else one + shift for one in sorted(found)]
                spreads = [mean_and_spread(_drawable(found[place], math.nan)) for place in sorted(found)]
                axis.errorbar(places, [mean for mean, _ in spreads], yerr=[half or 0.0 for _, half in spreads],
                              color=_colour(method, number), label=method, marker="o", capsize=3)  # fmt: skip
            if decades:
                axis.set_xscale("log")
                axis.minorticks_off()
            if len(values) <= MOST_TICKS:
                axis.set_xticks(values, [f"{value:g}" for value in values])
            axis.set_xlabel(_text(path))
            axis.set_ylabel(f"final {_word(what, runs[0])}")
        axes[0][-1].legend(fontsize=8)
        made.suptitle("mean over agents and seeds, with its 95 % interval", fontsize=9)
        save_png(made, file)
    return file


def _word(what: str, run: RunResult) -> str:
    """What a score is called, as the world has it."""
    return _text(str(run.facts.get("metric_name", what))) if what == "metric" else what


@contextlib.contextmanager
def _panels(count: int) -> Iterator[tuple[Any, list[Any]]]:
    """A figure, and so many axes of the same height: a grid of few columns, so that it can be read on a page."""
    columns = min(count, MOST_COLUMNS)
    rows = -(-count // columns)
    with figure(rows, columns, sharey=True) as (made, axes):
        flat = list(axes.flat)
        for axis in flat[count:]:
            axis.set_axis_off()
        yield made, flat[:count]


def _legend(axes: Sequence[Any]) -> None:
    """One for all axes, in the first: every name that any of them has."""
    named = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[0].legend(named.values(), named.keys(), fontsize=8)


def _grouped(ones: Iterable[Any], key: Callable[[Any], Any], value: Callable[[Any], float]) -> dict[Any, list[float]]:
    found: dict[Any, list[float]] = defaultdict(list)
    for one in ones:
        found[key(one)].append(value(one))
    return found


def _differ(metric: float, loss: float) -> bool:
    return metric != loss and not (math.isnan(metric) and math.isnan(loss))


def _drawable(values: Iterable[float], instead: float | None = None) -> list[float]:
    """Without those that are not finite or too large, or with something in their stead."""
    found = (value if abs(value) <= MOST_HIGH else instead for value in values)
    return [value for value in found if value is not None]


def _text(words: str) -> str:
    """Without what matplotlib reads as a formula, or leaves out of a legend."""
    return words.replace("$", r"\$").lstrip("_") or "-"
