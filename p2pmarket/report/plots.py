"""Plots of a folder of results: the charts that a page shows of it, as PNG files.

Knows: which charts go into which file, and a figure with several of them. Refuses to know: what a chart shows, how its
marks are drawn. Charts, lines and marks are bounded, however many agents, settings and rounds there are, as on a page.
Raises what writing files does.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from p2pmarket import charts
from p2pmarket.experiments.results import PLOTS_FOLDER, RunResult
from p2pmarket.report import curves, deal_charts, sweep_charts
from p2pmarket.report.groups import LOSS, Group, deals_of, groups_of, scores_of
from p2pmarket.report.painting import Look, paint, plain
from p2pmarket.report.story import Chart

MAX_GROUPS = 6
"""Groups whose trades are drawn."""
MAX_COLUMNS = 3
"""Of charts beside one another, so that a picture can be read on a page."""
NAMES = ("loss", "metric", "trades", "prices", "balances", "sweep")
"""Of the files, without their ending."""

_LOOK = Look(ink="#3a3a3a", grid="#dcdcdc")
_WIDTH, _HEIGHT = 5.4, 3.7
"""Inches of a chart."""
_ROW = 0.22
"""Inches of a row of text below the charts."""
_NAME, _TEXT = 11.5, 15.0
"""Characters of a legend and of words in an inch."""
_SWATCH = 8
"""Characters that a legend's line and space take."""
_LEFT = 0.7
"""Inches beside an axis, which is where words begin."""
_MAX_WORDS = 5
"""Lines of a caption."""


def plot_results(runs: Sequence[RunResult], folder: Path) -> list[Path]:
    """Draws what there is to draw to `folder`; the files, none where there is no run.

    :raises MachineFault: matplotlib is not installed, or a file cannot be written
    :raises DiskFull: no space
    """
    written = []
    for name, (shown, note) in pictures_of(groups_of(runs)).items():
        if shown := [chart for chart in shown if not chart.empty]:
            written.append(folder / f"{name}.png")
            _draw(shown, note, written[-1])
    return written


def own_plots(folder: Path) -> frozenset[Path]:
    """Where `plot_results` wrote to in a folder of results."""
    return frozenset(folder / PLOTS_FOLDER / f"{name}.png" for name in NAMES)


def pictures_of(groups: Sequence[Group]) -> dict[str, tuple[list[Chart], str]]:
    """By the name of a file, its charts and what has to be said of them all; charts may be empty."""
    if not groups:
        return {}
    lines = curves.not_drawn(groups)
    judged = scores_of(groups)[0]
    found = {"loss": (curves.learning(groups, LOSS), lines)}
    if judged is not LOSS:
        found["metric"] = (curves.learning(groups, judged), lines)
    found["metric" if judged is not LOSS else "loss"][0].extend(curves.ends(groups, judged))
    trading = [group for group in groups if any(run.trades for run in group.runs)]
    note = _first(len(trading), MAX_GROUPS, "markets")
    of: tuple[tuple[str, Callable[[Group], Chart]], ...] = (
        ("trades", lambda group: deal_charts.endings(deals_of(group), "number")),
        ("prices", lambda group: deal_charts.prices(deals_of(group), "number")),
        ("balances", curves.balances),
    )
    for name, chart_of in of:
        found[name] = ([_named(chart_of(group), group, trading) for group in trading[:MAX_GROUPS]], note)
    if not any(row.price for group in trading for run in group.runs for row in run.trades):
        del found["prices"]
    return {**found, "sweep": (list(sweep_charts.all_of(groups)), "")}


def _named(chart: Chart, group: Group, groups: Sequence[Group]) -> Chart:
    """By whose it is, where there are several."""
    return dataclasses.replace(chart, title=f"{chart.title}: {group.label}") if len(groups) > 1 else chart


def _first(total: int, most: int, what: str) -> str:
    return f"The first {most} of {total:,} {what}." if total > most else ""


def _draw(shown: Sequence[Chart], note: str, path: Path) -> None:
    """Charts in rows, and below them what their colours mean and what there is to see."""
    columns = min(len(shown), MAX_COLUMNS)
    rows = math.ceil(len(shown) / columns)
    labels = {mark.label for chart in shown for mark in chart.marks if mark.x}
    across = max(1, int(columns * _WIDTH * _NAME / (_SWATCH + max(map(len, labels)))))
    words = _words([*(chart.caption for chart in shown), note], int((columns * _WIDTH - _LEFT) * _TEXT))
    foot = _ROW * (math.ceil(len(labels) / across) + len(words) + 1)
    with charts.figure(
        rows + 1, columns, width=_WIDTH, height=(rows * _HEIGHT + foot) / (rows + 1),
        gridspec_kw={"height_ratios": [*[_HEIGHT] * rows, foot]},
    ) as (made, axes):  # fmt: skip
        flat = list(axes[:-1].flat)
        first: dict[tuple[object, ...], Any] = {}
        for axis, chart in zip(flat, shown, strict=False):
            alike = (chart.x_label, chart.y_label, chart.log_y)
            if alike in first:
                axis.sharey(first[alike])
            first.setdefault(alike, axis)
            paint(axis, chart, _LOOK)
            axis.set_title(plain(chart.title), fontsize=10.5, color=_LOOK.ink)
        for axis in (*flat[len(shown) :], *axes[-1]):
            axis.set_axis_off()
        _legend(axes[-1][0], flat[: len(shown)], across, words)
        charts.save_png(made, path)


def _words(captions: Sequence[str], width: int) -> list[str]:
    """Each caption once, in lines."""
    lines = [line for one in dict.fromkeys(filter(None, captions)) for line in textwrap.wrap(one, width)]
    return lines if len(lines) <= _MAX_WORDS else [*lines[: _MAX_WORDS - 1], f"{lines[_MAX_WORDS - 1]} …"]


def _legend(axis: Any, drawn: Sequence[Any], across: int, words: Sequence[str]) -> None:
    """One for all charts: every name that any of them has, and the words below."""
    named: dict[str, Any] = {}
    for one in drawn:
        for mark, label in zip(*one.get_legend_handles_labels(), strict=True):
            named.setdefault(label, mark)
    legend = axis.legend(
        named.values(), named.keys(), loc="upper left", bbox_to_anchor=(0, 1), ncols=across, frameon=False,
        fontsize=9, labelcolor=_LOOK.ink, handlelength=3.4, borderaxespad=0, borderpad=0,
    )  # fmt: skip
    text = axis.text(
        0, 0, plain("\n".join(words)), transform=axis.transAxes, fontsize=8.5, color=_LOOK.ink, va="bottom",
        linespacing=1.35,
    )  # fmt: skip
    for one in (legend, text):
        one.set_in_layout(False)
