"""What `paper` leaves as a story: our numbers beside the paper's, its plots, and every results folder beneath.

Knows: rows.json, plots as PNG, and folders of results beneath. Refuses to know: how pages look, the paper's numbers.
A rows.json or a results folder that cannot be read raises DataError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket.errors import DataError
from p2pmarket.experiments.reading import UNREADABLE, read_json, reason_of
from p2pmarket.experiments.results import RUNS_FOLDER, SCENARIO_FILE, RunResult, has_finished, read_all
from p2pmarket.report import curves
from p2pmarket.report.from_results import (
    MAX_PROBLEMS,
    NOTHING_WRONG,
    broken_ledgers,
    diverged_of,
    problems_of,
)
from p2pmarket.report.groups import chief, groups_of, scores_of
from p2pmarket.report.headline import headline
from p2pmarket.report.pictures import pictures_in
from p2pmarket.report.results_tables import comparison_table
from p2pmarket.report.story import Part, Section, Story, Table, Tile, Tone, Words
from p2pmarket.report.words import MAX_SENTENCE, left_out, many, number, shown, with_half

Row = Mapping[str, Any]
"""An entry of rows.json."""

ROWS_FILE = "rows.json"
DEPTH = 2
"""How far below the first folder others are looked for: beneath may lie what is no concern of this page."""
MAX_FOLDERS = 30
MAX_ROWS = 300
MAX_NAME = 140
"""Characters of what a row is called."""
TOO_FEW_SEEDS, AGAINST_PAPER = "too few seeds to tell", "against the paper"
"""Remarks on a row, as the command that made it prints them."""
NOT_COMPLETE = "Not every experiment was run whole, so this page is of a part of them."


def is_paper(folder: Path) -> bool:
    """Whether there is anything of `paper`, or several results, in this folder."""
    return (folder / ROWS_FILE).is_file() or next(folders_in(folder, holds_results), None) is not None


def holds_results(folder: Path) -> bool:
    """Whether the folder is one of results itself. One named runs alone may hold several of them."""
    return has_finished(folder) or ((folder / SCENARIO_FILE).is_file() and (folder / RUNS_FOLDER).is_dir())


def story_of_paper(folder: Path) -> Story:
    """The index of everything beneath.

    :raises DataError: it cannot be read
    """
    rows, sentences, missing, complete = _read_rows(folder)
    names = list(dict.fromkeys(str(row.get("experiment") or "") for row in rows))
    found = sorted(folders_in(folder, holds_results))
    pictures, hidden = pictures_in(folder, None if (folder / ROWS_FILE).is_file() else found)
    sections: list[Section] = []
    broken: list[str] = []
    problems: list[str] = []
    if rows:
        sections.append(
            Section(
                "paper",
                "Beside the paper",
                (_rows_table(rows),),
                "The paper's numbers, ours, and the interval in which ours must lie.",
            )
        )
    for place, name in enumerate(dict.fromkeys([*names, *sentences, *pictures])):
        parts: list[Part] = [Words((shown(sentences[name], MAX_SENTENCE),))] if name in sentences else []
        parts += pictures.get(name, [])
        if parts:
            sections.append(Section(f"experiment-{place}", shown(name) or "Plots", tuple(parts)))
    for place, results in enumerate(found[:MAX_FOLDERS]):
        name = shown(str(results.relative_to(folder)))
        try:
            runs = read_all(results)
        except (
            DataError,
            OSError,
        ) as error:  # nobody named this folder: it may be another's, and the page is of others
            why = shown(reason_of(error.__context__ or error), MAX_SENTENCE)
            broken.append(f"{name} cannot be read and is left out: {why}.")
            continue
        sections.append(_section(name, runs, f"results-{place}"))
        broken += [f"{name}: {one}" for one in (*broken_ledgers(runs), *diverged_of(runs))]
        problems += [f"{name}: {one}" for one in problems_of(runs)]
    told = [*missing, *broken, *problems][:MAX_PROBLEMS] or [NOTHING_WRONG]
    told[0:0] = [] if complete else [NOT_COMPLETE]
    tone: Tone = "bad" if broken else "plain" if missing or problems or not complete else "good"
    sections.append(Section("problems", "What went wrong", (Words(tuple(told), tone),)))
    text = f"{_verdict(rows)}{many(len(found), 'folder')} of results{'' if complete else '; NOT COMPLETE'}."
    if len(found) > MAX_FOLDERS or hidden:
        left = [many(len(found) - MAX_FOLDERS, "folder")] if len(found) > MAX_FOLDERS else []
        left += [many(hidden, "plot")] if hidden else []
        text += f" Left out to keep the page small: {' and '.join(left)}."
    return Story(
        "Report of experiments", shown(folder.resolve().name), text, _tiles(rows, found), tuple(sections),
        tuple(broken[:3]),
    )  # fmt: skip


def _claims(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows that claim something, as those without an interval do not: of the paper's own numbers, and of others."""
    claims = [row for row in rows if row.get("agrees") is not None]
    of_paper = [row for row in claims if row.get("paper") is not None]
    return of_paper, [row for row in claims if row.get("paper") is None]


def _verdict(rows: Sequence[Row]) -> str:
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


def _tiles(rows: Sequence[Row], found: Sequence[Path]) -> tuple[Tile, ...]:
    tiles = []
    for label, words, claims in zip(
        ("the paper's numbers", "further claims"), ("agree", "hold"), _claims(rows), strict=True
    ):
        if claims:
            agreeing, unsure = sum(map(_agrees, claims)), sum(map(_is_unsure, claims))
            tone: Tone = "bad" if agreeing < len(claims) else "plain" if unsure else "good"
            note = f"{words}; {unsure:,} with {TOO_FEW_SEEDS}" if unsure else words
            tiles.append(Tile(label, f"{agreeing} of {len(claims)}", note, tone))
    return (*tiles, Tile("results", f"{len(found):,}", "folders")) if found else tuple(tiles)


def _section(name: str, runs: Sequence[RunResult], key: str) -> Section:
    """One results folder in brief."""
    groups = groups_of(runs)
    first = chief(groups)
    if first is None:
        return Section(key, f"Results: {name}", (), "No run is finished here.")
    judged = scores_of(groups)[0]
    charts = [*curves.learning(groups, judged), *curves.ends(groups, judged)]
    parts: tuple[Part, ...] = (*charts[:4], comparison_table(groups))
    return Section(key, f"Results: {name}", parts, headline(groups, first, trades_drawn=False))


def _read_rows(folder: Path) -> tuple[list[Row], dict[str, str], list[str], bool]:
    """The rows of rows.json, its sentences, what it says is missing, and whether it is complete; none where there is no
    such file. A file that does not say is complete where nothing is missing."""
    path = folder / ROWS_FILE
    if not path.is_file():
        return [], {}, [], True
    try:
        document = read_json(path)
        rows: list[Row] = [row for row in document["rows"] if isinstance(row, dict)]
        sentences = document.get("sentences") or {}
        missing = [
            f"{shown(str(one['experiment']))} was not run, or not all of it: {shown(str(one['reason']), MAX_SENTENCE)}"
            for one in document.get("missing") or []
        ]
        complete = document.get("complete", not missing) is True
        return rows, {str(name): str(text) for name, text in sentences.items()}, missing, complete
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read ({reason_of(error)}); run `p2pmarket paper` again") from None


def _rows_table(rows: Sequence[Row]) -> Table:
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


def folders_in(folder: Path, fits: Callable[[Path], bool], depth: int = DEPTH) -> Iterator[Path]:
    """Folders beneath that fit, and nothing inside of them; what may not be looked into is passed over."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return
    for one in inside:
        try:
            if not one.is_dir() or one.is_symlink():
                continue
            found = fits(one)
        except OSError:
            continue
        if found:
            yield one
        elif depth > 1:
            yield from folders_in(one, fits, depth - 1)
