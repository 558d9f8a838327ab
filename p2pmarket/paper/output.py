"""What the experiments found, as tables and as rows.json, which `p2pmarket report` reads.

Knows: the words for a row's cells, and the file's form: {"agrees", "complete", "rows", "sentences", "missing"}.
"agrees" is of what was measured; whether that was everything is "complete", and "missing" says what was not and why.
Refuses to know: how anything was measured; terminals. What an earlier command found of other experiments stays in the
file. A rows.json that cannot be read raises `DataError`, one that cannot be written `DiskFull`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket.errors import DataError
from p2pmarket.files import write_whole
from p2pmarket.paper.finding import AGAINST_PAPER, TOO_FEW_SEEDS, Finding, Row

ROWS_FILE = "rows.json"
VERDICTS = {True: "yes", False: "NO", None: ""}
"""Of a row that claims something, and of one that does not."""
COLUMNS = ("row", "paper", "ours", "stated interval", "agrees")


def cells_of(row: Row) -> tuple[str, str, str, str, str]:
    """A row under `COLUMNS`."""
    ours = number(row.measured) if row.spread is None else f"{number(row.measured)} ± {number(row.spread)}"
    unit = f" {row.unit}" if row.unit else ""
    remarks = [TOO_FEW_SEEDS] * row.too_few_seeds + [AGAINST_PAPER] * row.against_paper
    return (
        row.row,
        "" if row.paper is None else f"{number(row.paper)}{unit}",
        f"{ours}{unit}",
        interval(row.low, row.high),
        VERDICTS[row.agrees] + (f" ({', '.join(remarks)})" if remarks else ""),
    )


def interval(low: float, high: float) -> str:
    """
    >>> interval(39.8, 45.8), interval(0, math.inf), interval(-math.inf, 5)
    ('39.8 to 45.8', '>= 0', '<= 5')
    >>> interval(-math.inf, math.inf)
    'no claim'
    """
    if math.isinf(low) and math.isinf(high):
        return "no claim"
    if math.isinf(high):
        return f">= {number(low)}"
    return f"<= {number(high)}" if math.isinf(low) else f"{number(low)} to {number(high)}"


def number(value: float) -> str:
    """With as many digits as people compare.

    >>> number(86.96), number(0.001234), number(12345.6), number(0.0)
    ('86.96', '0.00123', '12,346', '0')
    """
    if not math.isfinite(value):
        return "nothing" if math.isnan(value) else str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 10 else f"{value:.3g}"


def document_of(findings: Sequence[Finding], effort: str) -> dict[str, Any]:
    """For --json and for rows.json.

    "agrees": there are rows that claim something, and every one of them lies in its stated interval. "complete": no
    experiment, and no part of one, is missing.
    """
    return _document(
        [{**row.to_json(), "effort": effort} for finding in findings for row in finding.rows],
        {finding.experiment: finding.sentence for finding in findings if finding.sentence},
        [{"experiment": finding.experiment, "reason": finding.missing} for finding in findings if finding.missing],
    )


def write_rows(folder: Path, findings: Sequence[Finding], effort: str) -> Path:
    """Writes rows.json; what it held of experiments that are not among these stays.

    :raises DataError: the rows.json that is there cannot be read
    :raises DiskFull, MachineFault: it cannot be written
    """
    path = folder / ROWS_FILE
    new, old = document_of(findings, effort), read_rows(path)
    names = {finding.experiment for finding in findings}
    document = _document(
        [row for row in old["rows"] if row["experiment"] not in names] + new["rows"],
        {**{name: text for name, text in old["sentences"].items() if name not in names}, **new["sentences"]},
        [one for one in old["missing"] if one["experiment"] not in names] + new["missing"],
    )
    write_whole(path, json.dumps(document, indent=1).encode() + b"\n", "the rows")
    return path


def _document(
    rows: Sequence[Mapping[str, Any]], sentences: Mapping[str, str], missing: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    claims = [row["agrees"] for row in rows if row["agrees"] is not None]
    return {
        "agrees": bool(claims) and all(claims),
        "complete": not missing,
        "rows": list(rows),
        "sentences": dict(sentences),
        "missing": list(missing),
    }


def read_rows(path: Path) -> dict[str, Any]:
    """What a rows.json holds; nothing where there is none.

    :raises DataError: it cannot be read
    """
    if not path.exists():
        return _document([], {}, [])
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        document = _document(found["rows"], found["sentences"], found["missing"])
        for entry in (*document["rows"], *document["missing"]):
            entry["experiment"]
        return document
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error!r}); remove it, or write to another folder") from None
