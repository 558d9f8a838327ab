"""What experiments share: means with intervals, and finding runs and documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from p2pmarket.errors import ScenarioError
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper.common import agreement, having, less_by, mean_and_spread, paper_document, row_of, runs_of
from p2pmarket.paper.finding import Context


def test_the_interval_is_students() -> None:
    mean, spread = mean_and_spread([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert spread == pytest.approx(4.3027 * 1.0 / 3**0.5, rel=1e-4)  # t of 2 degrees of freedom
    assert mean_and_spread([5.0]) == (5.0, None)


def test_nothing_measured_agrees_with_nothing() -> None:
    assert not row_of("x", "nothing", []).agrees
    assert row_of("x", "something", [1.0]).agrees


def test_how_many_rows_agree_is_said() -> None:
    inside, outside = row_of("x", "in", [1.0], low=0.0), row_of("x", "out", [1.0], low=2.0)
    assert agreement([inside]) == "Agrees with the paper"
    assert agreement([inside, outside]) == "Does not agree in 1 of 2 rows"


def test_less_by() -> None:
    assert less_by(200.0, 150.0) == 25.0
    assert less_by(100.0, 150.0) == -50.0


def test_runs_are_found_by_facts_and_by_the_last_part_of_a_settings_path() -> None:
    def run(seed: int, **settings: Any) -> RunResult:
        return RunResult({"method": "market", "seed": seed, "settings": settings}, (), ())

    runs = [
        run(1, **{"regression.tasks.b": 5}),
        run(0, **{"regression.tasks.b": 5}),
        run(0, **{"regression.tasks.b": 0}),
    ]
    assert having(runs, method="market", b=5) == [runs[1], runs[0]]
    assert having(runs, method="alone", b=5) == []


def test_a_document_with_other_values(small: Callable[..., Context]) -> None:
    context = small("figure-3")
    changed = paper_document(context, "figure-3.toml", {"agent.B.noise": 0.25})
    assert changed["agent"][1]["noise"] == 0.25
    assert paper_document(context, "figure-3.toml")["agent"][1]["noise"] == 0.5
    with pytest.raises(ScenarioError, match=r"no 'C' in that list"):
        paper_document(context, "figure-3.toml", {"agent.C.noise": 0.25})
    with pytest.raises(ScenarioError, match="cannot read the scenario"):
        paper_document(context, "figure-33.toml")


def test_progress_counts_runs(small: Callable[..., Context]) -> None:
    told: list[tuple[int, int]] = []
    context = small("figure-3")
    watched = Context(**{**vars(context), "progress": lambda doing, done, of: told.append((done, of))})
    document = paper_document(context, "figure-3.toml", {"sweep": {"scenario.method": ["alone"]}})
    assert len(runs_of(watched, document, "runs", 2)) == 2
    assert told[-1] == (2, 2)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
