"""What a page says of methods and settings beside one another: which is best, a run's numbers, who is left out."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from results_examples import CREDIT, made_up_run, two_agents, write_runs

from p2pmarket.experiments.results import RunResult, read_all
from p2pmarket.experiments.spread import mean_and_spread
from p2pmarket.report import curves, words
from p2pmarket.report.curves import MAX_LINES, MAX_NAMES, MAX_PANELS, not_drawn
from p2pmarket.report.find import story_of
from p2pmarket.report.groups import LOSS, groups_of, last_rows
from p2pmarket.report.page import LONG_ROWS, write_page
from p2pmarket.report.results_tables import comparison_table
from p2pmarket.report.story import Line, Section, Story, Table


def ending(run: RunResult, loss: float) -> RunResult:
    """With this loss of everybody after the last round."""
    last = max(row.round for row in run.rounds)
    rows = tuple(dataclasses.replace(row, loss=loss, metric=loss) if row.round == last else row for row in run.rounds)
    return dataclasses.replace(run, rounds=rows)


def of_methods(losses: Mapping[str, float]) -> list[RunResult]:
    return [
        ending(made_up_run(place, method, rounds=2, accuracy=False), loss)
        for place, (method, loss) in enumerate(losses.items())
    ]


def cells(table: Table, row: int) -> dict[str, str]:
    return dict(zip(table.columns, table.rows[row], strict=True))


# ---- methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "said", "tone"),
    [
        ({"market": 2.0, "fedavg": 1.0, "alone": 3.0},
         "2.00 in the market against 3.00 alone, and 1.00 with FedAvg, which ended better; ", "plain"),
        ({"market": 2.0, "fedavg": 2.5, "alone": 3.0}, "against 3.00 alone, and 2.50 with FedAvg; ", "good"),
        ({"market": 2.0, "fedavg": 2.5, "unaligned": 1.5, "alone": 3.0},
         "and 1.50 with the paper's market, unaligned, the best of 2 other methods, which ended better; ", "plain"),
        ({"market": 2.0, "fedavg": float("nan"), "alone": 3.0}, "3.00 alone; 1 other method diverged; ", "good"),
        ({"market": 2.0, "alone": 3.0}, "2.00 in the market against 3.00 alone; ", "good"),
        ({"market": 4.0, "alone": 3.0}, "4.00 in the market against 3.00 alone; ", "plain"),
    ],
)  # fmt: skip
def test_the_headline_has_the_best_of_the_other_methods(
    losses: Mapping[str, float], said: str, tone: str, tmp_path: Path
) -> None:
    story = story_of(write_runs(tmp_path, of_methods(losses)))
    assert said in story.headline and story.tiles[0].tone == tone


def test_side_by_side_is_of_one_run(tmp_path: Path) -> None:
    two_agents(tmp_path)
    runs = read_all(tmp_path)
    market, alone = ([run for run in runs if run.facts["method"] == method] for method in ("market", "alone"))
    table = comparison_table(groups_of(runs))
    moved = [run.facts["ledger"]["moved"] / CREDIT for run in market]
    ends = [[statistics.fmean(row.loss for row in last_rows(run).values()) for run in one] for one in (market, alone)]
    less, half = mean_and_spread([1 - here / there for here, there in zip(*ends, strict=True)])
    assert half is not None
    assert cells(table, 0)["credits"] == words.with_half(*mean_and_spread(moved))
    assert cells(table, 0)["less than alone"] == f"{100 * less:.1f} ± {100 * half:.1f} %"
    assert cells(table, 1)["less than alone"] == cells(table, 1)["credits"] == ""
    few = comparison_table(groups_of([run for run in runs if run.facts["seed"] < 3]))
    assert cells(few, 0)["credits"] == f"{sum(moved[:2]) / 2:,.2f}" and "±" not in str(few.rows) + few.note
    assert "less than alone" not in comparison_table(groups_of(market)).columns


# ---- settings -------------------------------------------------------------------------------------------------------


def swept(values: Mapping[str, Sequence[Any]], methods: Sequence[str] = ("market",), **more: Any) -> list[RunResult]:
    """A sweep over two things, of the first within the second."""
    (first, firsts), (second, seconds) = values.items()
    more = {"rounds": 2, "accuracy": False, **more}
    points = [{first: one, second: other} for one in firsts for other in seconds]
    return [
        made_up_run(place, method, settings=point, **more) for place, point in enumerate(points) for method in methods
    ]


def test_a_sweep_over_two_things_has_a_panel_for_each_value_of_the_first() -> None:
    groups = groups_of(swept({"terms.fee": (0, 5, 20), "agent.few.count": (3, 5, 9)}, ("market", "alone")))
    drawn = curves.learning(groups, LOSS)
    assert [one.title for one in drawn] == [f"fee={fee}: all 2 agents" for fee in (0, 5, 20)]
    for chart in drawn:
        lines = {mark.label: mark for mark in chart.marks if isinstance(mark, Line)}
        assert {*lines} == {f"{method}, count={count}" for method in ("market", "alone") for count in (3, 5, 9)}
        assert len({line.color for line in lines.values()}) == 3
        assert all(lines[f"alone, count={count}"].dashed for count in (3, 5, 9))
        assert all(lines[f"alone, count={one}"].color == lines[f"market, count={one}"].color for one in (3, 5, 9))
    assert not_drawn(groups) == "", "nothing is left out"


def test_settings_that_are_left_out_are_told(tmp_path: Path) -> None:
    runs = swept({"a.x": range(MAX_PANELS + 1), "b.y": range(MAX_LINES + 1)}, ("alone",), rounds=1)
    groups = groups_of(runs)
    drawn = curves.learning(groups, LOSS)
    assert len(drawn) == MAX_PANELS and {len(chart.marks) for chart in drawn} == {MAX_LINES}
    left = "the first 6 of 7 values of a.x, at each the first 8 of up to 9 settings and methods."
    assert not_drawn(groups) == left.replace("the", "The", 1)
    (told,) = [one for one in story_of(write_runs(tmp_path, runs)).sections if one.key == "learning"]
    assert f"The charts are not of all: {left} The table has all." in told.about


# ---- agents at the end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [MAX_NAMES, MAX_NAMES + 1])
def test_few_agents_have_names_and_the_axis_of_learning(count: int) -> None:
    names = [f"agent {place}" for place in range(count)]
    run = made_up_run(0, "alone", rounds=2, agents=names, accuracy=False)
    for loss, log in ((0.001, True), (2.0, False)):
        groups = groups_of([ending(run, loss)])
        (learning,), (ends,) = curves.learning(groups, LOSS), curves.ends(groups, LOSS)
        assert learning.log_y == ends.log_y == log
        assert sorted(ends.x_names) == (sorted(names) if count <= MAX_NAMES else [])
        assert len(ends.x_ticks) == len(ends.x_names)


def test_agents_at_the_end_are_of_one_setting() -> None:
    runs = swept({"a.x": (1, 2), "b.y": (3, 4)}, ("market", "alone"), agents="ABCDEFGH")
    (ends,) = curves.ends(groups_of(runs), LOSS)
    assert [mark.label for mark in ends.marks] == ["market, y=3", "alone, y=3"]
    assert ends.caption.startswith("Of setting 1 of 4, x=1, y=3. One dot for each agent")
    assert ends.caption.endswith("from left to right as they ended alone.")


# ---- tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "scrolls"), [(LONG_ROWS, False), (LONG_ROWS + 1, True)])
def test_a_table_is_as_long_as_it_needs_to_be(rows: int, scrolls: bool) -> None:
    table = Table("t", ("a",), tuple((str(row),) for row in range(rows)))
    page = write_page(Story("k", "t", "h", (), (Section("s", "S", (table,)),)), "")
    assert ('class="scroll long"' in page) == scrolls
