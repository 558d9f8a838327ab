"""`p2pmarket paper`: names, exit codes, the last line of --json, rows.json, and what is missing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from p2pmarket.cli import main
from p2pmarket.cli import paper as command
from p2pmarket.errors import MarketError
from p2pmarket.paper import catalogue, figure_4
from p2pmarket.paper.finding import Context, Finding, Row


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Experiments that are made up; the context that figure-4 was given, and what it is to say."""
    told: dict[str, Any] = {"value": 1.0, "missing": "", "part": ""}

    def run(context: Context) -> Finding:
        told["context"] = context
        context.progress("running", 1, 2)
        if told["missing"]:
            return Finding("figure-4", "Figure 4", (), "", missing=told["missing"])
        row = Row("figure-4", "[red]gain", None, told["value"], 0.0, 2.0, "%", note="not negative")
        return Finding("figure-4", "Figure 4", (row,), "A sentence.", (context.folder / "plot.png",), told["part"])

    monkeypatch.setattr(figure_4, "run", run)
    monkeypatch.setattr(catalogue, "EXPERIMENTS", {"figure-4": "figure_4"})
    monkeypatch.setattr(command, "EXPERIMENTS", {"figure-4": "figure_4"})
    return told


def test_a_table_a_sentence_and_rows(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "figure-4", "--quick", "--seeds", "3", "--jobs", "1", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "[red]gain" in said.out and "0 to 2" in said.out and "yes" in said.out
    assert "figure-4: A sentence." in said.out and "not negative" in said.out
    assert said.err == "", "no progress where there is no terminal"
    context = measured["context"]
    assert (context.effort, context.seeds, context.jobs, context.folder) == ("quick", 3, 1, tmp_path / "figure-4")
    assert json.loads((tmp_path / "rows.json").read_text())["agrees"]
    assert "| \\[red]gain |  | 1 % | 0 to 2 | yes |" in (tmp_path / "tables.md").read_text()


def test_one_line_of_json_is_the_last(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "all", "--json", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1
    line = json.loads(said.out)
    assert line["agrees"] is True and line["missing"] == [] and line["rows"][0]["row"] == "[red]gain"
    assert line["rows"][0]["effort"] == "normal"
    assert line["complete"] is True
    assert "A sentence." in said.err and "Everything that was measured agrees." in said.err


def test_a_part_that_is_missing_is_told_and_fails_nothing(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured["part"] = "there are no images"
    assert main(["paper", "figure-4", "--json", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    line = json.loads(said.out)
    assert line["agrees"] is True and line["complete"] is False and line["missing"][0]["experiment"] == "figure-4"
    assert "incomplete, for figure-4 did not run, or not whole" in said.err
    assert json.loads((tmp_path / "rows.json").read_text())["complete"] is False
    measured["value"] = math.nan
    assert main(["paper", "figure-4", "--json", "--out", str(tmp_path)]) == 1
    assert "Not everything that was measured agrees; incomplete" in capsys.readouterr().err


def test_a_row_outside_is_exit_code_1(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured["value"] = 3.0
    assert main(["paper", "figure-4", "--json", "--out", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out)["agrees"] is False


def test_what_could_not_run_is_told_and_is_no_agreement(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured["missing"] = "there are no images"
    assert main(["paper", "figure-4", "--json", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr()
    line = json.loads(said.out)
    assert line == {
        "agrees": False,
        "complete": False,
        "rows": [],
        "missing": [{"experiment": "figure-4", "reason": "there are no images"}],
    }
    assert "figure-4, not run: there are no images" in said.err
    assert "Nothing was measured: figure-4 could not run." in said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name an experiment, or all"),
        (["figure-33"], "there is no experiment 'figure-33'"),
        (["figure-4", "--seeds", "0"], "--seeds 0 is not above 0"),
        (["figure-4", "--jobs", "-1"], "--jobs -1 is below 0"),
        (["figure-4", "--data", "nowhere"], "there is nothing at --data nowhere"),
        (["figure-4", "--scenarios", "nowhere"], "--scenarios nowhere is no folder"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", *arguments]) == 2
    said = capsys.readouterr()
    assert sentence in said.err and len(said.err.splitlines()) == 1
    assert said.out == ""


def test_what_was_found_before_an_error_is_kept(
    measured: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = {"figure-4": "figure_4", "figure-3": "figure_3"}
    monkeypatch.setattr(catalogue, "EXPERIMENTS", both)
    monkeypatch.setattr(command, "EXPERIMENTS", both)

    def fail(context: Context) -> Finding:
        raise MarketError("no")

    monkeypatch.setattr("p2pmarket.paper.figure_3.run", fail)
    assert main(["paper", "all", "--out", str(tmp_path)]) == 1
    assert [row["experiment"] for row in json.loads((tmp_path / "rows.json").read_text())["rows"]] == ["figure-4"]


def test_the_list_has_every_title(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "--list"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == len(catalogue.EXPERIMENTS)
    assert "figure-3 " in said and "Figure 3: " in said
    assert main(["paper", "--list", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(catalogue.EXPERIMENTS)


def test_help_imports_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys; from p2pmarket.cli.parser import build_parser; text = build_parser().format_help(); "
        "import p2pmarket.cli.paper; "
        "print([name for name in ('torch', 'matplotlib', 'scipy', 'hivemind') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
