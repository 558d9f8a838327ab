"""Rows of rows.json as a verdict and a table: which of the paper's numbers ours agree with, and what else holds.

Knows: a row's fields, also where an older program left one out. Refuses to know: files, how anything was measured.
Pure functions that fail on nothing but a row whose cells are no texts and numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from p2pmarket.report.story import Table, Tile, Tone
from p2pmarket.report.words import MAX_SENTENCE, left_out, many, number, shown, with_half

Row = Mapping[str, Any]
"""An entry of rows.json."""

MAX_ROWS = 300
MAX_NAME = 140
"""Characters of what a row is called."""
TOO_FEW_SEEDS, AGAINST_PAPER = "too few seeds to tell", "against the paper"
"""Remarks on a row, as the command that made it prints them."""


def _claims(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows that claim something, as those without an interval do not: of the paper's own numbers, and of others."""
    claims = [row for row in rows if row.get("agrees") is not None]
    of_paper = [row for row in claims if row.get("paper") is not None]
    return of_paper, [row for row in claims if row.get("paper") is None]


def verdict(rows: Sequence[Row]) -> str:
    """How many rows agree with the paper, how many more hold, and what takes away from it."""
    of_paper, further = _claims(rows)
    text = f"{sum(map(_agrees, of_paper))} of {len(of_paper)} of the paper's numbers agree" if of_paper else ""
    if further:
        text += f"{', ' if text else ''}{sum(map(_agrees, further))} of {many(len(further), 'further claim')} "
        text += "holds" if len(further) == 1 else "hold"
    unsure = sum(map(_is_unsure, (*of_paper, *further)))
    text += f"; {unsure:,} with {TOO_FEW_SEEDS}" if unsure else ""
    against = sum(map(_is_against, of_paper))
    text += f"; {against:,} {'contradicts' if against == 1 else 'contradict'} the paper" if against else ""
    others = len(rows) - len(of_paper) - len(further)
    if others:
        text += f"{'; ' if text else ''}{many(others, 'row')} {'claims' if others == 1 else 'claim'} nothing"
    return f"{text}; " if text else ""


def _agrees(row: Row) -> bool:
    """Whether it lies in its interval, and that is not one which leaves the paper's number out."""
    return row.get("agrees") is True and row.get("against_paper") is not True


def _is_against(row: Row) -> bool:
    """Whether what it found contradicts the paper, as it said that it would."""
    return row.get("agrees") is True and row.get("against_paper") is True


def _is_unsure(row: Row) -> bool:
    """Whether its mean is less sure than its interval is wide."""
    low, high, spread = (_number(row.get(name)) for name in ("low", "high", "spread"))
    return None not in (low, high, spread) and spread > (high - low) / 2  # type: ignore[operator]


def tiles_of(rows: Sequence[Row]) -> tuple[Tile, ...]:
    """How many rows agree with the paper, and how many more hold."""
    tiles = []
    for label, words, claims in zip(
        ("the paper's numbers", "further claims"), ("agree", "hold"), _claims(rows), strict=True
    ):
        if claims:
            agreeing, unsure = sum(map(_agrees, claims)), sum(map(_is_unsure, claims))
            tone: Tone = "bad" if agreeing < len(claims) else "plain" if unsure else "good"
            note = f"{words}; {unsure:,} with {TOO_FEW_SEEDS}" if unsure else words
            tiles.append(Tile(label, f"{agreeing} of {len(claims)}", note, tone))
    return tuple(tiles)


def rows_table(rows: Sequence[Row]) -> Table:
    columns = ("experiment", "row", "paper", "ours", "must lie in", "agrees", "note")
    made = []
    for row in rows[:MAX_ROWS]:
        unit = f" {shown(str(row['unit']))}" if row.get("unit") else ""
        cells = [
            _text(row.get("experiment")),
            shown(str(row.get("row") or ""), MAX_NAME),
            _text(row.get("paper"), unit),
        ]
        cells += [_measured(row.get("measured"), row.get("spread")) + unit]
        claims = row.get("agrees") is not None
        cells += [_interval(_text(row.get("low")), _text(row.get("high"))) if claims else "no claim"]
        cells += [
            _agreement(row) if claims else "–",
            shown(str(row.get("note") or ""), MAX_SENTENCE),
        ]
        made.append(tuple(cells))
    note = left_out(len(rows), len(made), "rows", "the first")
    return Table(
        "The paper's numbers and ours", columns, tuple(made), frozenset({"paper", "ours", "must lie in"}), note
    )


def _agreement(row: Row) -> str:
    """
    >>> _agreement({"agrees": True, "low": 1, "high": 2, "spread": 0.6}), _agreement({"agrees": False, "low": 1})
    ('yes (too few seeds to tell)', 'NO')
    """
    remarks = [TOO_FEW_SEEDS] * _is_unsure(row) + [AGAINST_PAPER] * (row.get("against_paper") is True)
    return ("yes" if row["agrees"] is True else "NO") + (f" ({', '.join(remarks)})" if remarks else "")


def _text(value: object, unit: str = "") -> str:
    """A value of a row for people; nothing where there is none."""
    if (found := _number(value)) is not None:
        return number(found) + unit
    return "" if value is None else shown(str(value))


def _measured(value: object, half: object) -> str:
    """
    >>> _measured(99.3, 0.57), _measured(3, None), _measured(None, 1.0)
    ('99.30 ± 0.57', '3.00', 'nothing')
    """
    mean = _number(value)
    return (_text(value) or "nothing") if mean is None else with_half(mean, _number(half))


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _interval(low: str, high: str) -> str:
    """
    >>> _interval("39.80", "45.80"), _interval("0", ""), _interval("", "")
    ('39.80 … 45.80', '≥ 0', 'anything')
    """
    if low and high:
        return f"{low} … {high}"
    return f"≥ {low}" if low else f"≤ {high}" if high else "anything"
