"""What the experiments found, as tables.md: a Markdown table for each experiment, to be pasted into a text.

Knows: rows.json's entries and GitHub's tables. Refuses to know: how anything was measured, and terminals. An entry that
is no row raises `DataError`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket.errors import DataError
from p2pmarket.files import write_whole
from p2pmarket.paper.finding import Row
from p2pmarket.paper.output import COLUMNS, ROWS_FILE, cells_of, read_rows

TABLES_FILE = "tables.md"
_NOT_FINITE = {"measured": math.nan, "low": -math.inf, "high": math.inf}
"""What null stands for in an entry."""


def write_tables(folder: Path) -> Path:
    """Writes tables.md beside a folder's rows.json, from it.

    :raises DataError: the rows.json cannot be read
    :raises DiskFull, MachineFault: it cannot be written
    """
    path = folder / TABLES_FILE
    write_whole(path, tables_of(read_rows(folder / ROWS_FILE)).encode(), "the tables")
    return path


def tables_of(document: Mapping[str, Any]) -> str:
    """For each experiment its table, its sentence, and what of it is missing.

    :param document: as in rows.json
    :raises DataError: an entry that is no row
    """
    rows: dict[str, list[str]] = {}
    efforts: dict[str, dict[str, None]] = {}
    for entry in document["rows"]:
        rows.setdefault(entry["experiment"], []).append(_line(_cells(entry)))
        efforts.setdefault(entry["experiment"], {})[str(entry.get("effort", ""))] = None
    missing = {one["experiment"]: one.get("reason", "") for one in document["missing"]}
    parts = []
    for name in dict.fromkeys([*rows, *missing]):
        effort = ", ".join(filter(None, efforts.get(name, {})))
        parts.append(f"## {_plain(name)}{f' ({effort})' if effort else ''}")
        if name in rows:
            parts.append("\n".join([_line(COLUMNS), _line(["---"] * len(COLUMNS)), *rows[name]]))
        if document["sentences"].get(name):
            parts.append(_plain(document["sentences"][name]))
        if name in missing:
            parts.append(f"Not run: {_plain(missing[name])}")
    return "\n\n".join(parts) + "\n"


def _cells(entry: Mapping[str, Any]) -> Sequence[str]:
    given = {name: value for name, value in entry.items() if name not in ("agrees", "against_paper", "effort")}
    try:
        return cells_of(Row(**{**given, **{name: one for name, one in _NOT_FINITE.items() if given[name] is None}}))
    except (KeyError, TypeError) as error:
        raise DataError(f"an entry of {entry['experiment']} in rows.json is no row ({error!r}); remove it") from None


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Text that ends no cell and no line, and is none of Markdown's marks."""
    return re.sub(r"([\\\\|*_<`\[])", r"\\\1", " ".join(str(text).split()))
