"""Charts on the axes of a figure: the same marks for a page (drawing.py) and for a picture file (plots.py).

Knows: matplotlib's axes. Refuses to know: what is told, who closes the figure, of which colour the ink is. Pure but for
the axes that it is given; fails on nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from p2pmarket import charts
from p2pmarket.report.story import BASELINE, Chart, Dots, Line, Numbers, Stack

_MOMENT_SECONDS = 30
"""What is nearer together than this has an axis of a minute or two."""
_SHAPES = {"dot": "o", "up": "^", "down": "v"}
_MAX_MARKED = 14
"""Points of a line up to which each is marked."""
_SHIFT, _MAX_SHIFT = 0.012, 0.2
"""Between lines with whiskers, so that these stay apart: a part of the axis, and at most that part of the smallest step
along it."""
_LEVEL_TEXT = 36
"""Characters of names that an axis has room for beside one another."""
_FEW_DECADES = 2.5
"""On a logarithmic axis of no more, 2 and 5 are marked beside 1 and 10."""


@dataclasses.dataclass(frozen=True)
class Look:
    """Colours of what is no mark."""

    ink: str
    grid: str


def paint(axis: Any, chart: Chart, look: Look) -> None:
    """Draws a chart; every mark has its label, for whoever wants a legend."""
    bottom = np.zeros(0)
    shifts = _shifts(chart)
    for mark in chart.marks:
        if isinstance(mark, Stack):
            bottom = _paint_stack(axis, chart, mark, bottom)
        elif isinstance(mark, Line):
            _paint_line(axis, chart, mark, next(shifts) if mark.whiskers else 0.0)
        else:
            _paint_dots(axis, chart, mark)
    if chart.diagonal:
        _paint_diagonal(axis, chart, look)
    _dress(axis, chart)
    color_axis(axis, look)


def _paint_diagonal(axis: Any, chart: Chart, look: Look) -> None:
    dashes = {"color": charts.BASELINE, "linestyle": "--", "linewidth": 1.2, "zorder": 2}
    if chart.log_x:
        along = [one for mark in chart.marks for one in mark.x]
        low, high = min(along), max(along)
        axis.plot((low, high), (low, high), **dashes)
        return
    along = [one for mark in chart.marks if not isinstance(mark, Stack) for one in (*mark.x, *mark.y)]
    axis.axline((along[0], along[0]), slope=1, **dashes)
    if min(along) < 0:
        axis.axhline(0, color=look.grid, linewidth=1)


def color_axis(axis: Any, look: Look) -> None:
    """Ink and grid."""
    for side, spine in axis.spines.items():
        spine.set_color(look.grid)
        spine.set_visible(side in ("left", "bottom"))
    axis.tick_params(which="both", colors=look.ink, labelcolor=look.ink, color=look.grid, labelsize=9.5)
    axis.grid(color=look.grid, alpha=1, linewidth=0.7)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_color(look.ink)
        label.set_fontsize(10)
    for one in (axis.xaxis, axis.yaxis):
        one.get_offset_text().set_color(look.ink)


def plain(text: str) -> str:
    """Text in which a dollar begins no formula."""
    return text.replace("$", r"\$")


def _color(color: int) -> str:
    return charts.BASELINE if color == BASELINE else charts.COLORS[color % len(charts.COLORS)]


def _x(chart: Chart, x: Numbers) -> Any:
    return [datetime.fromtimestamp(one, timezone.utc) for one in x] if chart.x_axis == "time" else np.asarray(x)


def _label(text: str) -> str:
    """A name that matplotlib does not leave out of a legend."""
    return plain(text).lstrip("_") or "-"


def _shifts(chart: Chart) -> Any:
    """For every line with whiskers how far it is moved along x, in decades where that axis is logarithmic."""
    lines = [mark for mark in chart.marks if isinstance(mark, Line) and mark.whiskers]
    places = sorted({math.log10(one) if chart.log_x else one for line in lines for one in line.x})
    step = min((high - low for low, high in itertools.pairwise(places)), default=0.0)
    gap = min(_MAX_SHIFT * step, _SHIFT * (places[-1] - places[0])) if places else 0.0
    return iter([gap * (number - (len(lines) - 1) / 2) for number in range(len(lines))])


def _paint_line(axis: Any, chart: Chart, line: Line, shift: float) -> None:
    x, color = _x(chart, line.x), _color(line.color)
    style, label = "--" if line.dashed else "-", _label(line.label)
    if line.whiskers:
        y = np.asarray(line.y)
        reach = np.abs([y - np.asarray(line.low), np.asarray(line.high) - y])
        x = x * 10**shift if chart.log_x else x + shift
        axis.errorbar(
            x, y, yerr=reach, color=color, linewidth=1.8, linestyle=style, marker="o", markersize=4, capsize=3,
            elinewidth=1.2, label=label,
        )  # fmt: skip
        return
    marker = "o" if len(line.x) <= _MAX_MARKED else ""
    axis.plot(x, line.y, color=color, linewidth=1.8, marker=marker, markersize=3.5, linestyle=style, label=label)
    if line.low and len(line.x) > 1:
        axis.fill_between(x, line.low, line.high, color=color, alpha=0.16, linewidth=0)


def _paint_dots(axis: Any, chart: Chart, dots: Dots) -> None:
    size, alpha = (30, 0.9) if len(dots.x) <= 60 else (16, 0.85) if len(dots.x) <= 150 else (8, 0.55)
    axis.scatter(
        _x(chart, dots.x), dots.y, s=size, color=_color(dots.color), marker=_SHAPES[dots.shape], alpha=alpha,
        linewidths=0, zorder=3, label=_label(dots.label),
    )  # fmt: skip


def _paint_stack(axis: Any, chart: Chart, stack: Stack, bottom: Any) -> Any:
    heights = np.asarray(stack.height)
    below = bottom if len(bottom) else np.zeros(len(heights))
    gap = min((b - a for a, b in zip(stack.x, stack.x[1:], strict=False)), default=1.0)
    width = 0.86 * (gap / 86400 if chart.x_axis == "time" and len(stack.x) > 1 else gap)
    if chart.x_axis == "time" and len(stack.x) == 1:
        width = 0.02
    axis.bar(
        _x(chart, stack.x), heights, width=width, bottom=below, color=_color(stack.color), linewidth=0,
        label=_label(stack.label),
    )  # fmt: skip
    return below + heights


def _dress(axis: Any, chart: Chart) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_xlabel(plain(chart.x_label))
    axis.set_ylabel(plain(chart.y_label))
    if chart.log_x:
        axis.set_xscale("log")
        axis.minorticks_off()
    if chart.log_x and not chart.x_ticks:
        _dress_log(axis.xaxis, [one for mark in chart.marks for one in mark.x])
    if chart.log_y:
        axis.set_yscale("log")
        _dress_log(axis.yaxis, [one for mark in chart.marks if not isinstance(mark, Stack) for one in mark.y])
    if chart.x_ticks:
        axis.set_xticks(chart.x_ticks, [plain(one) for one in chart.x_names] or [f"{one:g}" for one in chart.x_ticks])
        if sum(map(len, chart.x_names)) > _LEVEL_TEXT:
            axis.tick_params(axis="x", labelrotation=35)
            for label in axis.get_xticklabels():
                label.set_horizontalalignment("right")
    elif chart.x_axis == "time":
        _dress_time(axis, chart)
    elif chart.whole_x:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if chart.y_axis == "percent":
        axis.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    if any(isinstance(mark, Stack) for mark in chart.marks):
        axis.set_axisbelow(True)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))


def _dress_log(along: Any, values: Sequence[float]) -> None:
    """Plain numbers as marks, of which some are there also where the axis has no two powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    few = math.log10(max(values)) - math.log10(min(values)) <= _FEW_DECADES
    along.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    along.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    along.set_minor_formatter(NullFormatter())


def _dress_time(axis: Any, chart: Chart) -> None:
    from matplotlib.dates import MINUTELY, SECONDLY, AutoDateLocator, ConciseDateFormatter

    at = [one for mark in chart.marks for one in mark.x]
    if max(at) - min(at) < _MOMENT_SECONDS:
        axis.set_xlim(*_x(chart, (min(at) - _MOMENT_SECONDS, max(at) + _MOMENT_SECONDS)))
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    locator.intervald |= dict.fromkeys((MINUTELY, SECONDLY), [1, 2, 5, 10, 15, 30])
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
