"""A story as one HTML file that needs nothing else: the only place of this package that writes HTML.

Knows: which element each part becomes. Refuses to know: what it tells. Every text is escaped, wherever it came from;
and should one slip through, the page's own policy lets no script run but the one whose digest it names, and nothing
be fetched (W3C, "Content Security Policy Level 3"). Fails where charts cannot be drawn, with MachineFault.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from html import escape

from p2pmarket.report.drawing import css_color, draw, draw_heat
from p2pmarket.report.look import SCRIPT, STYLE
from p2pmarket.report.story import (
    Chart,
    Dots,
    Heat,
    Line,
    Matrix,
    Part,
    Picture,
    Section,
    Stack,
    Story,
    Table,
    Tile,
    Words,
)  # fmt: skip

FILTERED_ROWS = 12
"""Rows from which on a table has a box to search it."""
LONG_ROWS = 30
"""Rows up to which a table is as long as it needs to be; a longer one scrolls."""
TABLE_COLUMNS, MATRIX_COLUMNS = 6, 4
"""Columns that half the page has room for."""


def write_page(story: Story, made: str) -> str:
    """The whole page.

    :param made: when and by what it was made, for its foot
    :raises MachineFault: matplotlib is not installed
    """
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    keys = (f"c{number}" for number in itertools.count())
    links = "".join(
        f'<li><a href="#{escape(one.key)}">{escape(one.title)}</a></li>' for one in story.sections if not one.folded
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(story.title)} – {escape(story.kind)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header>
<p class="kind">{escape(story.kind)}</p>
<h1>{escape(story.title)}</h1>
<p class="headline">{escape(story.headline)}</p>
{_warnings(story.warnings)}{_tiles(story.tiles)}</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{"".join(_section(one, keys) for one in story.sections)}</main>
<footer><p>{escape(made)} This page is whole in itself: it fetches nothing and tells nobody that it was read.</p>
</footer>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _warnings(sentences: tuple[str, ...]) -> str:
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    return f'<div class="warnings" role="alert">{said}</div>\n' if said else ""


def _tiles(tiles: tuple[Tile, ...]) -> str:
    made = "".join(
        f'<div class="tile {tile.tone}"><dt>{escape(tile.label)}</dt><dd class="value">{escape(tile.value)}</dd>'
        f'<dd class="note">{escape(tile.note)}</dd></div>'
        for tile in tiles
    )
    return f'<dl class="tiles">{made}</dl>\n' if made else ""


def _section(section: Section, keys: Iterator[str]) -> str:
    key, title = escape(section.key), f"<h2>{escape(section.title)}</h2>"
    about = f'<p class="about">{escape(section.about)}</p>' if section.about else ""
    parts = "".join(_part(part, keys, wide) for part, wide in zip(section.parts, _widths(section.parts), strict=True))
    inside = f'<div class="parts">{parts}</div>'
    if section.folded:
        return f'<details class="section" id="{key}"><summary>{title}</summary>{about}{inside}</details>\n'
    return f'<section id="{key}">{title}{about}{inside}</section>\n'


def _widths(parts: Sequence[Part]) -> list[bool]:
    """Whether each part takes the page's whole width: what needs it, or has nothing beside it."""
    needs = [
        isinstance(part, Words)
        or (isinstance(part, Table) and (part.wide or len(part.columns) > TABLE_COLUMNS))
        or (isinstance(part, Matrix) and len(part.columns) > MATRIX_COLUMNS)
        for part in parts
    ]
    widths: list[bool] = []
    left = True
    for place, part in enumerate(parts):
        beside = place + 1 < len(parts) and not needs[place + 1]
        wide = needs[place] or (isinstance(part, (Table, Picture)) and left and not beside)
        left = wide or not left
        widths.append(wide)
    return widths


def _part(part: Part, keys: Iterator[str], wide: bool) -> str:
    more = " wide" if wide else ""
    if isinstance(part, Chart):
        return _chart(part, next(keys))
    if isinstance(part, Heat):
        return _figure("heat", part.title, draw_heat(part, next(keys)), part.caption)
    if isinstance(part, Matrix):
        return _matrix(part, more)
    if isinstance(part, Table):
        return _table(part, more)
    if isinstance(part, Picture):
        source = f"data:image/png;base64,{base64.b64encode(part.png).decode()}"
        return _figure(f"picture{more}", part.title, f'<img alt="{escape(part.title)}" src="{source}">', "")
    return f'<div class="words{more} {part.tone}">{"".join(f"<p>{escape(one)}</p>" for one in part.sentences)}</div>\n'


def _figure(kind: str, title: str, inside: str, caption: str) -> str:
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="{kind}"><h3>{escape(title)}</h3>{inside}{words}</figure>\n'


def _chart(chart: Chart, key: str) -> str:
    if chart.empty:
        return _figure("chart", chart.title, '<p class="nothing">There is nothing to draw here.</p>', "")
    legend = "".join(f"<li>{_swatch(mark)}{escape(mark.label)}</li>" for mark in chart.marks if mark.x)
    return _figure("chart", chart.title, f'{draw(chart, key)}<ul class="legend">{legend}</ul>', chart.caption)


def _swatch(mark: Line | Dots | Stack) -> str:
    color = css_color(mark.color)
    if isinstance(mark, Line):
        dashes = ' stroke-dasharray="4 3"' if mark.dashed else ""
        shape = f'<path d="M0 6H20" stroke="{color}" stroke-width="2.5"{dashes}/>'
    elif isinstance(mark, Stack):
        shape = f'<rect x="4" width="12" height="12" rx="2" fill="{color}"/>'
    else:
        path = {"up": "M10 1l5 10H5z", "down": "M10 11l5-10H5z", "dot": "M10 1.5a4.5 4.5 0 1 0 .01 0z"}[mark.shape]
        shape = f'<path d="{path}" fill="{color}"/>'
    return f'<svg viewBox="0 0 20 12" aria-hidden="true">{shape}</svg>'


def _matrix(matrix: Matrix, more: str) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in matrix.columns)
    rows = ""
    for name, cells in zip(matrix.rows, matrix.cells, strict=True):
        texts = "".join(
            f'<td style="--v:{cell.strength:.3f}"{"" if cell.strength else " class=none"}>'
            f"<b>{escape(cell.text)}</b><span>{escape(cell.note)}</span></td>"
            for cell in cells
        )
        rows += f'<tr><th scope="row">{escape(name)}</th>{texts}</tr>'
    table = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(matrix.title)}"><table><thead><tr>'
        f'<th scope="col">{escape(matrix.corner)}</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )
    return _figure(f"matrix{more}", matrix.title, table, matrix.caption)


def _table(table: Table, more: str) -> str:
    title = f"<h3>{escape(table.title)}</h3>"
    if not table.rows:
        return f'<div class="table{more}">{title}<p class="nothing">{escape(table.empty)}</p></div>\n'
    right = [' class="right"' if column in table.right else "" for column in table.columns]
    head = "".join(f'<th scope="col"{cls}>{escape(name)}</th>' for name, cls in zip(table.columns, right, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{cls}>{escape(cell)}</td>" for cell, cls in zip(row, right, strict=True)) + "</tr>"
        for row in table.rows
    )
    name = escape(table.title)
    search = f'<input class="filter" type="search" placeholder="Search" aria-label="Search in: {name}">'
    search = search if len(table.rows) >= FILTERED_ROWS else ""
    scroll = "scroll long" if len(table.rows) > LONG_ROWS else "scroll"
    note = f'<p class="small">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="table{more}">{title}{search}<div class="{scroll}" tabindex="0" role="region" aria-label="{name}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}</div>\n"
    )
