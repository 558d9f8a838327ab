"""tables.md: a table for each experiment in rows.json, that Markdown reads as one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from p2pmarket.errors import DataError
from p2pmarket.paper.finding import Finding, Row
from p2pmarket.paper.output import write_rows
from p2pmarket.paper.tables import write_tables


def test_a_table_and_a_sentence_for_each_experiment_of_all_commands(tmp_path: Path) -> None:
    first = Row("figure-3", "A", 42.84, 41.0, 39.84, 45.84, "%", spread=0.9621)
    bound = Row("figure-4", "gain", None, math.nan, 0.0, math.inf)
    write_rows(tmp_path, [Finding("figure-3", "Title", (first,), "It agrees.")], "normal")
    write_rows(
        tmp_path,
        [Finding("figure-4", "Title", (bound,), "No."), Finding("table-2", "Title", (), "", missing="no data")],
        "quick",
    )
    text = write_tables(tmp_path).read_text(encoding="utf-8")
    assert text == (
        "## figure-3 (normal)\n\n"
        "| row | paper | ours | stated interval | agrees |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| A | 42.84 % | 41 ± 0.962 % | 39.84 to 45.84 | yes |\n\n"
        "It agrees.\n\n"
        "## figure-4 (quick)\n\n"
        "| row | paper | ours | stated interval | agrees |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| gain |  | nothing | >= 0 | NO |\n\n"
        "No.\n\n"
        "## table-2\n\n"
        "Not run: no data\n"
    )


def test_no_text_ends_its_cell_or_its_line(tmp_path: Path) -> None:
    row = Row("figure-3", "|theta|\nof *A*", None, 1.0, -math.inf, math.inf)
    write_rows(tmp_path, [Finding("figure-3", "Title", (row,), "One\n\n# line")], "quick")
    text = write_tables(tmp_path).read_text(encoding="utf-8")
    assert r"| \|theta\| of \*A\* |  | 1 | no claim |  |" in text
    assert "\nOne # line\n" in text


@pytest.mark.parametrize("change", [{"measured": "much"}, {"colour": "red"}])
def test_an_entry_that_is_no_row_is_told(tmp_path: Path, change: dict[str, object]) -> None:
    row = Row("figure-3", "A", None, 1.0, 0.0, 2.0)
    path = write_rows(tmp_path, [Finding("figure-3", "Title", (row,), "It.")], "quick")
    document = json.loads(path.read_text())
    document["rows"][0].update(change)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="an entry of figure-3 in rows.json is no row"):
        write_tables(tmp_path)
