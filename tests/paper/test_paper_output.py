"""Tables and rows.json: what is said of a row, and what is kept of earlier commands."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from p2pmarket.errors import DataError
from p2pmarket.paper.finding import Finding, Row
from p2pmarket.paper.output import cells_of, document_of, interval, write_rows


def row(experiment: str = "figure-3", measured: float = 41.0, paper: float | None = 42.84, **more: float) -> Row:
    return Row(experiment, "A", paper, measured, **{"low": 39.84, "high": 45.84, **more}, unit="%", note="why")


def finding(*rows: Row, name: str = "figure-3", missing: str = "") -> Finding:
    return Finding(name, "Title", rows, "A sentence." if rows else "", missing=missing)


def test_a_row_in_words() -> None:
    assert cells_of(row(spread=0.9621)) == ("A", "42.84 %", "41 ± 0.962 %", "39.84 to 45.84", "yes")
    assert cells_of(row(measured=30.0))[-1] == "NO"
    assert cells_of(row(spread=3.1))[-1] == "yes (too few seeds to tell)"
    assert cells_of(row(measured=30.0, spread=3.1))[-1] == "NO (too few seeds to tell)"
    assert cells_of(row(measured=math.nan))[2:] == ("nothing %", "39.84 to 45.84", "NO")


def test_who_agrees_with_what_leaves_the_papers_number_out_contradicts_the_paper() -> None:
    refuted = row(paper=0.0, measured=20.8, low=1e-6, high=100.0)
    assert refuted.agrees and refuted.against_paper
    assert cells_of(refuted)[-1] == "yes (against the paper)"
    assert cells_of(row(paper=0.0, measured=0.0, low=1e-6, high=100.0))[-1] == "NO (against the paper)"
    for other in (row(), row(paper=None, low=50.0), row(low=-math.inf, high=math.inf)):
        assert not other.against_paper
    assert document_of([finding(refuted, row())], "quick")["rows"][0]["against_paper"] is True


def test_intervals_in_words() -> None:
    assert interval(-math.inf, math.inf) == "no claim"
    assert interval(1, math.inf) == ">= 1"
    assert interval(-math.inf, 0.5) == "<= 0.5"


def test_one_row_outside_is_no_agreement() -> None:
    assert document_of([finding(row(), row())], "quick")["agrees"]
    assert not document_of([finding(row(), row(measured=0.0))], "quick")["agrees"]


def test_a_row_that_claims_nothing_has_no_verdict_and_is_not_counted() -> None:
    free = row(low=-math.inf, high=math.inf)
    assert cells_of(free)[-2:] == ("no claim", "")
    document = document_of([finding(free)], "quick")
    assert document["rows"][0]["agrees"] is None
    assert not document["agrees"], "nothing was claimed, so nothing agrees"
    assert document_of([finding(free, row())], "quick")["agrees"]
    assert not document_of([finding(free, row(measured=0.0))], "quick")["agrees"]


def test_what_is_missing_is_never_agreement() -> None:
    missing = finding(name="table-1-mnist", missing="no such data set")
    document = document_of([missing], "quick")
    assert not document["agrees"]
    assert document["missing"] == [{"experiment": "table-1-mnist", "reason": "no such data set"}]
    beside = document_of([finding(row()), missing], "quick")
    assert beside["agrees"] and not beside["complete"], "what ran agrees; what did not is told"
    assert document_of([finding(row())], "quick")["complete"]
    assert len(beside["rows"]) == 1


def test_rows_are_json_whatever_their_numbers(tmp_path: Path) -> None:
    strange = row(measured=math.nan, low=-math.inf, spread=math.nan)
    document = json.loads(write_rows(tmp_path, [finding(strange)], "full").read_text(), parse_constant=pytest.fail)
    assert document["rows"][0]["measured"] is None and document["rows"][0]["spread"] is None
    assert document["rows"][0]["agrees"] is False
    assert document["rows"][0]["effort"] == "full"


def test_rows_of_other_experiments_stay_and_ones_own_are_replaced(tmp_path: Path) -> None:
    write_rows(tmp_path, [finding(row(measured=0.0)), finding(name="table-2", missing="no data")], "quick")
    write_rows(tmp_path, [finding(row("figure-4"), name="figure-4")], "normal")
    path = write_rows(tmp_path, [finding(row())], "normal")
    document = json.loads(path.read_text())
    assert [(one["experiment"], one["measured"]) for one in document["rows"]] == [
        ("figure-4", 41.0),
        ("figure-3", 41.0),
    ]
    assert set(document["sentences"]) == {"figure-3", "figure-4"}
    assert [one["experiment"] for one in document["missing"]] == ["table-2"]
    assert document["agrees"]


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": []}', '{"rows": [1], "sentences": {}, "missing": []}'])
def test_a_file_that_is_none_is_left_and_told_of(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        write_rows(tmp_path, [finding(row())], "quick")
    assert (tmp_path / "rows.json").read_text() == text
