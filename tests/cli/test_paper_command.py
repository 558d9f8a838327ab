"""`p2pmarket paper`: names, exit codes, the last line of --json, rows.json, and what is missing."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from p2pmarket.cli import main
from p2pmarket.cli import paper as command
from p2pmarket.cli.paper_progress import Progress
from p2pmarket.errors import MarketError
from p2pmarket.paper import catalogue, figure_4
from p2pmarket.paper.finding import Context, Finding, Row


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Experiments that are made up; the context that figure-4 was given, and what it is to say."""
    told: dict[str, Any] = {"value": 1.0, "spread": None, "missing": "", "part": ""}

    def run(context: Context) -> Finding:
        told["context"] = context
        context.progress("running", 1, 2)
        if told["missing"]:
            return Finding("figure-4", "Figure 4", (), "", missing=told["missing"])
        row = Row("figure-4", "[red]gain", None, told["value"], 0.0, 2.0, "%", told["spread"], "not negative")
        return Finding("figure-4", "Figure 4", (row,), "A sentence.", (context.folder / "plot.png",), told["part"])

    monkeypatch.setattr(figure_4, "run", run)
    monkeypatch.setattr(catalogue, "EXPERIMENTS", {"figure-4": "figure_4"})
    monkeypatch.setattr(command, "EXPERIMENTS", {"figure-4": "figure_4"})
    return told


def both(monkeypatch: pytest.MonkeyPatch, other: Callable[[Context], Finding]) -> None:
    """Makes figure-3, which is `other`, the second of two experiments."""
    names = {"figure-4": "figure_4", "figure-3": "figure_3"}
    monkeypatch.setattr(catalogue, "EXPERIMENTS", names)
    monkeypatch.setattr(command, "EXPERIMENTS", names)
    monkeypatch.setattr("p2pmarket.paper.figure_3.run", other)


def test_a_table_a_sentence_and_rows(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "figure-4", "--quick", "--seeds", "3", "--jobs", "1", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "[red]gain" in said.out and "0 to 2" in said.out and "yes" in said.out
    assert "figure-4: A sentence." in said.out and "not negative" in said.out
    assert said.err == "running: 1 of 2 runs\n", "a line, where there is no terminal"
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


def test_where_nothing_could_be_measured_it_is_the_users_input_and_nothing_is_written(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured["missing"] = "there are no images"
    sentence = "nothing was measured, figure-4 could not run: there are no images"
    assert main(["paper", "figure-4", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines()[1:] == [f"p2pmarket: {sentence}"]
    assert main(["paper", "figure-4", "--json", "--out", str(tmp_path)]) == 2
    assert json.loads(capsys.readouterr().out) == {"event": "error", "code": "bad-data", "sentence": sentence}
    assert list(tmp_path.iterdir()) == []
    measured["missing"] = ""
    assert main(["paper", "figure-4", "--out", str(tmp_path)]) == 0
    before = (tmp_path / "rows.json").read_text()
    measured["missing"] = "there are no images"
    assert main(["paper", "figure-4", "--out", str(tmp_path)]) == 2
    assert (tmp_path / "rows.json").read_text() == before


def test_what_is_missing_beside_what_was_measured_is_told(
    measured: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both(monkeypatch, lambda context: Finding("figure-3", "Figure 3", (), "", missing="there are no images"))
    assert main(["paper", "all", "--json", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    line = json.loads(said.out)
    assert line["complete"] is False
    assert line["missing"] == [{"experiment": "figure-3", "reason": "there are no images"}]
    assert "figure-3, not run: there are no images" in said.err
    assert json.loads((tmp_path / "rows.json").read_text())["missing"] == line["missing"]


def test_an_interrupt_tells_what_is_kept_and_where(
    measured: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(context: Context) -> Finding:
        context.progress("figure-3: 000-market-seed1", 3, 40)
        raise KeyboardInterrupt

    both(monkeypatch, interrupted)
    assert main(["paper", "figure-4", "figure-3", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"p2pmarket: interrupted; 1 of 2 experiments, and 3 of 40 runs of figure-3, are finished and kept in "
        f"{tmp_path}, and the same command goes on from there"
    )
    assert (tmp_path / "rows.json").exists()


def test_the_plus_minus_sign_is_written_out_where_the_output_has_none(
    measured: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured["spread"] = 0.5
    for encoding, sign in (("utf-8", "1 ± 0.5 %"), ("ascii", "1 +- 0.5 %")):
        written = io.BytesIO()
        stdout = io.TextIOWrapper(written, encoding=encoding)
        with monkeypatch.context() as change:
            change.setattr(sys, "stdout", stdout)
            assert main(["paper", "figure-4", "--out", str(tmp_path)]) == 0
        assert sign in written.getvalue().decode(stdout.encoding)


def test_lines_are_apart_and_the_last_is_not_lost() -> None:
    said, now = io.StringIO(), [0.0]
    progress = Progress(["figure-3"], Console(file=said, width=80), lambda: now[0])
    with progress.experiment("figure-3") as told:
        for now[0], done in ((0.0, 0), (1.0, 1), (2.0, 2), (5.9, 3), (6.0, 3), (12.0, 3), (30.0, 4)):
            told("figure-3: 000-market-seed0", done, 40)
    assert said.getvalue().splitlines() == [f"figure-3: {done} of 40 runs" for done in (1, 3, 4)]


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
    def fail(context: Context) -> Finding:
        raise MarketError("no")

    both(monkeypatch, fail)
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
