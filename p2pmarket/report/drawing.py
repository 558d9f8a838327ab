"""Charts as SVG that takes its colours from the page: one picture for light, dark and paper.

Knows: figures, through charts.py. Refuses to know: what is told, how marks are drawn (painting.py). Colours are drawn
as stand-ins that the text of the SVG is searched for, and become variables of the page's style. Fails where matplotlib
is missing, with MachineFault.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from p2pmarket import charts
from p2pmarket.report.painting import Look, color_axis, paint
from p2pmarket.report.story import BASELINE, Chart, Heat

_LOOK = Look(ink="#0a0b0c", grid="#0d0e0f")
_STAND_INS = {
    _LOOK.ink: "var(--soft)",
    _LOOK.grid: "var(--grid)",
    charts.BASELINE: "var(--s-base)",
    **{color: f"var(--s{place})" for place, color in enumerate(charts.COLORS)},
}
_WIDTH, _HEIGHT = 5.4, 3.1
"""Inches of 72 units: what is text in it stays readable on a phone."""


def css_color(color: int) -> str:
    """A colour of story.py as CSS."""
    return "var(--s-base)" if color == BASELINE else f"var(--s{color % len(charts.COLORS)})"


def draw(chart: Chart, key: str) -> str:
    """A chart as an <svg> element.

    :param key: unique on its page; ids inside begin with it
    :raises MachineFault: matplotlib is not installed
    """
    with charts.figure(width=_WIDTH, height=_HEIGHT) as (made, axes):
        paint(axes[0][0], chart, _LOOK)
        _without_ground(made)
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
        color_axis(axis, _LOOK)
        _without_ground(made)
        axis.grid(False)
        axis.set_xticks([])
        axis.set_yticks([])
        return _for_page(charts.svg(made), key, f"{heat.title}. {heat.caption}")


def _without_ground(made: Any) -> None:
    """The page's shows through."""
    for one in (made, *made.axes):
        one.patch.set_visible(False)


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
