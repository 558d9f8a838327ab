"""Visits that failed are a warning by agent, not a line at the foot of the page."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from results_examples import made_up_run, write_runs

from p2pmarket.cli import main
from p2pmarket.experiments.results import RunResult
from p2pmarket.report.find import story_of
from p2pmarket.report.visits import MAX_NAMED, failures_of

SAID = "your strategy's bid raised ZeroDivisionError('division by zero')"


def failing(run: RunResult, agents: str, rounds: tuple[int, ...] = (1, 2)) -> RunResult:
    """With visits of these agents that failed in these rounds."""
    rows = [
        dataclasses.replace(row, problem=SAID) if row.agent in agents and row.round in rounds else row
        for row in run.rounds
    ]
    return dataclasses.replace(run, rounds=tuple(rows))


def test_a_strategy_that_fails_at_every_visit_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_up_run(agents=("greedy", "B"), rounds=2)
    rows = tuple(
        dataclasses.replace(row, problem=SAID * (row.agent == "greedy" and row.round > 0)) for row in run.rounds
    )
    write_runs(tmp_path, [dataclasses.replace(run, rounds=rows)])
    assert main(["report", str(tmp_path), "--json", "--out", str(tmp_path / "page.html")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["warnings"] == [f"greedy: 2 of 2 visits failed: {SAID}."]
    assert "EVERY VISIT OF 1 OF 2 AGENTS FAILED" in told["headline"]


def test_a_visit_that_failed_once_is_counted_over_all_runs(tmp_path: Path) -> None:
    runs = [failing(made_up_run(seed=seed, rounds=3), "A", (2,)) for seed in (1, 2)]
    story = story_of(write_runs(tmp_path, runs))
    assert story.warnings == (f"A: 2 of 6 visits failed: {SAID}.",)
    assert "some visits of 1 of 2 agents failed" in story.headline


def test_rounds_without_a_visit_are_not_counted() -> None:
    run = failing(made_up_run(rounds=4), "A", (3, 4))
    rows = [dataclasses.replace(row, sent_bytes=0, offered=0, bought=0) if row.round < 3 else row for row in run.rounds]
    (one,) = failures_of([dataclasses.replace(run, rounds=tuple(rows))])
    assert (one.failed, one.visits) == (2, 2)


def test_rows_of_several_visits_are_not_called_visits(tmp_path: Path) -> None:
    run = failing(made_up_run(rounds=4), "A", (2, 4))
    rows = tuple(row for row in run.rounds if row.round % 2 == 0)
    story = story_of(write_runs(tmp_path, [dataclasses.replace(run, rounds=rows)]))
    assert story.warnings == (f"A: visits failed before 2 of 2 measurements: {SAID}.",)


def test_many_agents_are_few_sentences(tmp_path: Path) -> None:
    story = story_of(write_runs(tmp_path, [failing(made_up_run(agents="ABCDEFGHIJ", rounds=2), "ABCDEFGHI")]))
    assert len(story.warnings) == MAX_NAMED + 1
    assert story.warnings[-1] == "Visits of 4 more agents failed, up to 2."


def test_without_a_market_there_are_no_visits() -> None:
    assert failures_of([failing(made_up_run(0, "alone", rounds=2), "A")]) == ()
    assert failures_of([made_up_run(rounds=2)]) == ()


def test_visits_that_a_run_counted_are_not_counted_by_rows(tmp_path: Path) -> None:
    run = failing(made_up_run(rounds=4), "A", (4,))
    agents = {name: {**about, "visits": 40, "failed": 7 * (name == "A")} for name, about in run.facts["agents"].items()}
    rows = tuple(row for row in run.rounds if row.round % 2 == 0)
    counted = dataclasses.replace(run, facts={**run.facts, "agents": agents}, rounds=rows)
    assert story_of(write_runs(tmp_path, [counted])).warnings == (f"A: 7 of 40 visits failed: {SAID}.",)
