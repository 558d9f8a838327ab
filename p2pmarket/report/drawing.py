"""Charts as SVG that takes its colours from the page: one picture for light, dark and paper.

Knows: matplotlib's axes, through charts.py. Refuses to know: what is told. Colours are drawn as stand-ins that the text
of the SVG is searched for, and become variables of the page's style. Fails where matplotlib is missing, with
MachineFault.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import numpy as np

from p2pmarket import charts
from p2pmarket.report.story import BASELINE, Chart, Dots, Heat, Line, Stack

_INK, _GRID = "#0a0b0c", "#0d0e0f"
_STAND_INS = {
    _INK: "var(--soft)",
    _GRID: "var(--grid)",
    charts.BASELINE: "var(--s-base)",
    **{color: f"var(--s{place})" for place, color in enumerate(charts.COLORS)},
}
_WIDTH, _HEIGHT = 5.4, 3.1
"""Inches of 72 units: what is text in it stays readable on a phone."""
_MOMENT_SECONDS = 30
"""What is nearer together than this has an axis of a minute or two."""
_SHAPES = {"dot": "o", "up": "^", "down": "v"}
_MAX_MARKED = 14
"""Points of a line up to which each is marked."""


def css_color(color: int) -> str:
    """A colour of story.py as CSS."""
    return "var(--s-base)" if color == BASELINE else f"var(--s{color % len(charts.COLORS)})"


def draw(chart: Chart, key: str) -> str:
    """A chart as an <svg> element.

    :param key: unique on its page; ids inside begin with it
    :raises MachineFault: matplotlib is not installed
    """
    with charts.figure(width=_WIDTH, height=_HEIGHT) as (made, axes):
        axis = axes[0][0]
        bottom = np.zeros(0)
        for mark in chart.marks:
            if isinstance(mark, Stack):
                bottom = _draw_stack(axis, chart, mark, bottom)
            elif isinstance(mark, Line):
                _draw_line(axis, chart, mark)
            else:
                _draw_dots(axis, chart, mark)
        if chart.diagonal:
            _draw_diagonal(axis)
        _dress(made, axis, chart)
        return _for_page(charts.svg(made), key, f"{chart.title}. {chart.caption}")


def draw_heat(heat: Heat, key: str) -> str:
    """A picture of many cells as an <svg> element; as `draw`."""
    with charts.figure(width=_WIDTH, height=_WIDTH) as (made, axes):
        axis = axes[0][0]
        picture = np.zeros((len(heat.cells), len(heat.cells), 4))
        picture[..., :3] = (0.16, 0.5, 0.8)
        picture[..., 3] = np.asarray(heat.cells)
        axis.imshow(picture, interpolation="nearest", aspect="equal")
        axis.set_xlabel(heat.x_label)
        axis.set_ylabel(heat.y_label)
        _colors(made, axis)
        axis.grid(False)
        axis.set_xticks([])
        axis.set_yticks([])
        return _for_page(charts.svg(made), key, f"{heat.title}. {heat.caption}")


def _color(color: int) -> str:
    return charts.BASELINE if color == BASELINE else charts.COLORS[color % len(charts.COLORS)]


def _x(chart: Chart, x: tuple[float, ...]) -> Any:
    return [datetime.fromtimestamp(one, timezone.utc) for one in x] if chart.x_axis == "time" else np.asarray(x)


def _draw_line(axis: Any, chart: Chart, line: Line) -> None:
    x, color = _x(chart, line.x), _color(line.color)
    marker = "o" if len(line.x) <= _MAX_MARKED else ""
    axis.plot(
        x, line.y, color=color, linewidth=1.8, marker=marker, markersize=3.5, linestyle="--" if line.dashed else "-"
    )  # fmt: skip
    if line.low and len(line.x) > 1:
        axis.fill_between(x, line.low, line.high, color=color, alpha=0.16, linewidth=0)


def _draw_dots(axis: Any, chart: Chart, dots: Dots) -> None:
    size, alpha = (30, 0.9) if len(dots.x) <= 60 else (16, 0.85) if len(dots.x) <= 150 else (8, 0.55)
    axis.scatter(
        _x(chart, dots.x), dots.y, s=size, color=_color(dots.color), marker=_SHAPES[dots.shape], alpha=alpha,
        linewidths=0, zorder=3,
    )  # fmt: skip


def _draw_stack(axis: Any, chart: Chart, stack: Stack, bottom: Any) -> Any:
    heights = np.asarray(stack.height)
    below = bottom if len(bottom) else np.zeros(len(heights))
    gap = min((b - a for a, b in zip(stack.x, stack.x[1:], strict=False)), default=1.0)
    width = 0.86 * (gap / 86400 if chart.x_axis == "time" and len(stack.x) > 1 else gap)
    if chart.x_axis == "time" and len(stack.x) == 1:
        width = 0.02
    axis.bar(_x(chart, stack.x), heights, width=width, bottom=below, color=_color(stack.color), linewidth=0)
    return below + heights


def _draw_diagonal(axis: Any) -> None:
    axis.axline((0, 0), slope=1, color=charts.BASELINE, linestyle="--", linewidth=1.2, zorder=2)
    axis.axhline(0, color=_GRID, linewidth=1)


def _dress(made: Any, axis: Any, chart: Chart) -> None:
    from matplotlib.dates import MINUTELY, SECONDLY, AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_xlabel(_plain(chart.x_label))
    axis.set_ylabel(_plain(chart.y_label))
    _colors(made, axis)
    if chart.x_axis == "time":
        at = [one for mark in chart.marks for one in mark.x]
        if max(at) - min(at) < _MOMENT_SECONDS:
            axis.set_xlim(*_x(chart, (min(at) - _MOMENT_SECONDS, max(at) + _MOMENT_SECONDS)))
        locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
        locator.intervald |= dict.fromkeys((MINUTELY, SECONDLY), [1, 2, 5, 10, 15, 30])
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axis.xaxis.get_offset_text().set_color(_INK)
    elif chart.whole_x:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    if chart.y_axis == "percent":
        axis.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    if any(isinstance(mark, Stack) for mark in chart.marks):
        axis.set_axisbelow(True)
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))


def _colors(made: Any, axis: Any) -> None:
    """Stand-ins for the page's colours, and no ground of its own."""
    made.patch.set_visible(False)
    axis.patch.set_visible(False)
    for side, spine in axis.spines.items():
        spine.set_color(_GRID)
        spine.set_visible(side in ("left", "bottom"))
    axis.tick_params(colors=_INK, labelcolor=_INK, color=_GRID, labelsize=9.5)
    axis.grid(color=_GRID, alpha=1, linewidth=0.7)
    for label in (axis.xaxis.label, axis.yaxis.label):
        label.set_color(_INK)
        label.set_fontsize(10)
    axis.yaxis.get_offset_text().set_color(_INK)


def _plain(text: str) -> str:
    """Text in which a dollar begins no formula."""
    return text.replace("$", r"\$")


def _for_page(svg: str, key: str, alt: str) -> str:
    """The element with the page's colours, ids that are its own, and nothing that a page has no use for.

    :param alt: plain text, escaped here
    """
    import html

    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (id="|xlink:href="#)', rf" \g<1>{key}-", svg)
    svg = svg.replace("url(#", f"url(#{key}-")
    for stand_in, variable in _STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    opening = re.search(r"<svg[^>]*>", svg)
    view = re.search(r'viewBox="[^"]*"', svg)
    assert opening is not None and view is not None
    element = f'<svg {view.group()} role="img" aria-label="{html.escape(alt)}">'
    return element + re.sub(r"\n\s*", "\n", svg[opening.end() :])
