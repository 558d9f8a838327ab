"""What `paper` leaves as a story: our numbers beside the paper's, its plots, and every results folder beneath.

Knows: rows.json, plots as PNG, and folders of results beneath. Refuses to know: how pages look, the paper's numbers.
A rows.json or a results folder that cannot be read raises DataError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

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
from p2pmarket.report.paper_rows import Row, rows_table, tiles_of, verdict
from p2pmarket.report.pictures import pictures_in
from p2pmarket.report.results_tables import comparison_table
from p2pmarket.report.story import Part, Section, Story, Tile, Tone, Words
from p2pmarket.report.words import MAX_SENTENCE, many, shown

ROWS_FILE = "rows.json"
DEPTH = 2
"""How far below the first folder others are looked for: beneath may lie what is no concern of this page."""
MAX_FOLDERS = 30
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
                (rows_table(rows),),
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
    text = f"{verdict(rows)}{many(len(found), 'folder')} of results{'' if complete else '; NOT COMPLETE'}."
    if len(found) > MAX_FOLDERS or hidden:
        left = [many(len(found) - MAX_FOLDERS, "folder")] if len(found) > MAX_FOLDERS else []
        left += [many(hidden, "plot")] if hidden else []
        text += f" Left out to keep the page small: {' and '.join(left)}."
    tiles = (*tiles_of(rows), Tile("results", f"{len(found):,}", "folders")) if found else tiles_of(rows)
    return Story(
        "Report of experiments", shown(folder.resolve().name), text, tiles, tuple(sections),
        tuple(broken[:3]),
    )  # fmt: skip


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
