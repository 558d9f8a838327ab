"""What a page tells, as plain records: sections of sentences, charts, tables, tiles.

Knows: which parts a page may have. Refuses to know: where the numbers come from (from_*.py), how a chart is drawn
(drawing.py) and how a page is written (page.py). Texts in here are for people and may come from strangers: page.py
escapes all of them.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

Numbers = tuple[float, ...]

BASELINE = -1
"""The colour of what has no market; other colours are places in `charts.COLORS`."""

Axis = Literal["number", "percent", "time"]
"""How the marks of an axis are written; `time`: seconds since 1970, UTC."""

Tone = Literal["plain", "good", "bad"]


@dataclasses.dataclass(frozen=True)
class Line:
    """Points joined in the order of x; `low` and `high`, where given, are a band around it."""

    label: str
    x: Numbers
    y: Numbers
    color: int
    low: Numbers = ()
    high: Numbers = ()
    dashed: bool = False
    whiskers: bool = False
    """Its band is a bar at each of its points."""


@dataclasses.dataclass(frozen=True)
class Dots:
    """Points alone."""

    label: str
    x: Numbers
    y: Numbers
    color: int
    shape: Literal["dot", "up", "down"] = "dot"


@dataclasses.dataclass(frozen=True)
class Stack:
    """Bars that stand upon those of the stacks before it, one at each x of the chart."""

    label: str
    x: Numbers
    height: Numbers
    color: int


@dataclasses.dataclass(frozen=True)
class Chart:
    """One pair of axes."""

    title: str
    caption: str
    """What there is to see, for those who do not see it too."""
    x_label: str
    y_label: str
    marks: tuple[Line | Dots | Stack, ...]
    x_axis: Axis = "number"
    y_axis: Axis = "number"
    diagonal: bool = False
    """With a line where y is x."""
    whole_x: bool = False
    """x counts something."""
    log_x: bool = False
    log_y: bool = False
    """Logarithmic; all numbers along it are above 0."""
    x_ticks: Numbers = ()
    """Where x is marked; none: wherever it fits."""

    x_names: tuple[str, ...] = ()
    """What stands there, one for each; none: the number."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(mark.x for mark in self.marks)


@dataclasses.dataclass(frozen=True)
class Heat:
    """A square picture of many cells, each between 0 and 1; rows downwards."""

    title: str
    caption: str
    x_label: str
    y_label: str
    cells: tuple[Numbers, ...]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a `Matrix`."""

    text: str
    note: str
    strength: float
    """0 ... 1: how strongly it is coloured."""


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Few rows and columns with a cell for each pair."""

    title: str
    caption: str
    corner: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of texts; the columns in `right` hold numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[str] = frozenset()
    note: str = ""
    """Such as how many rows were left out."""
    empty: str = "There are none."
    wide: bool = False
    """Its texts are long."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A plot that was made before, as a PNG."""

    title: str
    png: bytes


@dataclasses.dataclass(frozen=True)
class Words:
    """Sentences, one a paragraph."""

    sentences: tuple[str, ...]
    tone: Tone = "plain"


Part = Chart | Heat | Matrix | Table | Picture | Words


@dataclasses.dataclass(frozen=True)
class Section:
    """What belongs under one heading."""

    key: str
    """Of links to it; letters, digits and hyphens."""
    title: str
    parts: tuple[Part, ...]
    about: str = ""
    folded: bool = False
    """Shown when asked for."""


@dataclasses.dataclass(frozen=True)
class Tile:
    """One number that is worth a glance."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "plain"


@dataclasses.dataclass(frozen=True)
class Story:
    """A whole page."""

    kind: str
    """Of what this is a report, in a few words."""
    title: str
    headline: str
    """One sentence with the numbers that matter."""
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    warnings: tuple[str, ...] = ()
    """What must not be overlooked; a page begins with it."""
