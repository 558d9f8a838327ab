"""What experiments share: means with intervals, and finding runs and documents."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from p2pmarket.errors import ScenarioError
from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper.common import (
    agreement,
    having,
    less_by,
    paper_document,
    purchases_of,
    rank_correlation,
    row_of,
    runs_of,
)
from p2pmarket.paper.finding import Context


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.nan, 1.0], [1.0, math.inf], [math.inf, -math.inf]])
def test_what_was_not_measured_does_not_agree(values: list[float]) -> None:
    row = row_of("x", "diverged", values, low=0.0)
    assert row.agrees is False and math.isnan(row.measured)
    assert row_of("x", "something", [1.0], low=0.0).agrees is True


def test_a_row_without_an_end_claims_nothing_and_counts_for_nothing() -> None:
    row, inside = row_of("x", "to look at", [1.0]), row_of("x", "in", [1.0], low=0.0)
    assert row.agrees is None
    assert row_of("x", "to look at", []).agrees is None
    assert agreement([row, inside]) == "Agrees with the paper"
    assert agreement([row]) == "Does not agree in 0 of 0 rows"


def test_a_mean_that_is_less_sure_than_its_interval_is_wide_is_told() -> None:
    unsure = row_of("x", "A", [1.0, 3.0], low=1.0, high=3.0, note="one run")
    assert unsure.agrees is True, "it is computed all the same"
    assert unsure.too_few_seeds and unsure.note.startswith("one run; too few seeds to tell")
    assert unsure.to_json()["note"] == unsure.note
    free = row_of("x", "B", [1.0, 9.0])
    assert agreement([unsure, free]) == "Agrees with the paper (too few seeds to tell in 1 of 1)"
    outside = row_of("x", "C", [5.0, 7.0], low=1.0, high=3.0)
    assert agreement([unsure, outside]) == "Does not agree in 1 of 2 rows (too few seeds to tell in 2 of 2)"
    for sure in (
        row_of("x", "A", [1.9, 2.1], low=0.0, high=4.0, note="one run"),
        row_of("x", "A", [1.0, 3.0], low=1.0, note="one run"),  # no end, no width
        row_of("x", "A", [2.0], low=1.0, high=3.0, note="one run"),
        row_of("x", "A", [1.0, 3.0], note="one run"),
    ):
        assert not sure.too_few_seeds and sure.note == "one run"


def bought(*counts: int) -> RunResult:
    return RunResult(
        {}, tuple(RoundRow("r", "market", 0, "A", "t", 1, 0.0, 1.0, 1.0, bought=one) for one in counts), ()
    )


def test_every_market_is_to_have_a_purchase() -> None:
    assert purchases_of("x", [bought(0, 2), bought(1)]).agrees is True
    none = purchases_of("x", [bought(5), bought(0, 0)])
    assert none.agrees is False and none.measured == 0
    assert purchases_of("x", []).agrees is False


def test_what_is_all_alike_has_no_ranks() -> None:
    assert rank_correlation([(0, 3.0), (1, 2.0), (2, 1.0)]) == pytest.approx(-1.0)
    assert math.isnan(rank_correlation([(0, 1.0), (1, 1.0)])) and math.isnan(rank_correlation([(0, 1.0)]))
    assert math.isnan(rank_correlation([]))


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
