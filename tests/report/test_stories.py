"""What stories tell of results: the right numbers, in words, and no more of them than a page can hold."""

from __future__ import annotations

import dataclasses
import doctest
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from results_examples import CREDIT, made_up_run, sweep, two_agents, without_trades, write_runs

from p2pmarket import charts
from p2pmarket.errors import DataError
from p2pmarket.experiments.recording import TradeRow
from p2pmarket.experiments.results import RunResult, read_all
from p2pmarket.paper import finding
from p2pmarket.report import deals, drawing, from_paper, groups, paper_rows, points, visits, words
from p2pmarket.report.deals import Deal, endings_table, largest_table, who_with_whom
from p2pmarket.report.find import story_of
from p2pmarket.report.page import write_page
from p2pmarket.report.story import Chart, Heat, Matrix, Story, Table, Words


def chart(story: Story, title: str) -> Chart:
    return next(part for one in story.sections for part in one.parts if isinstance(part, Chart) and part.title == title)


def table(story: Story, title: str) -> Table:
    return next(part for one in story.sections for part in one.parts if isinstance(part, Table) and part.title == title)


@pytest.mark.parametrize("module", [words, deals, groups, paper_rows, visits, points])
def test_examples_in_docstrings(module: object) -> None:
    found = doctest.testmod(module)  # type: ignore[arg-type]
    assert found.attempted and not found.failed


def test_the_headline_has_the_numbers_of_the_rows(tmp_path: Path) -> None:
    story = story_of(two_agents(tmp_path))
    market = [run for run in read_all(tmp_path) if run.facts["method"] == "market"]
    settled = [row for run in market for row in run.trades if row.state in ("delivered", "lapsed")]
    moved = sum(row.price or 0 for row in settled) / CREDIT
    final = [row.metric for run in market for row in run.rounds if row.round == 50]
    assert story.title == "two halves of the digits"
    assert story.headline == (
        f"2 agents, 50 rounds, 3 seeds: mean accuracy {100 * sum(final) / len(final):.1f} % in the market against "
        f"{story.tiles[0].note.removeprefix('alone ')} alone; in 3 runs together "
        f"{len(settled)} of 300 appraised trades settled, {moved:,.2f} credits moved; all 3 ledgers verify."
    )
    assert story.warnings == ()


def test_curves_are_means_over_seeds_with_their_range(tmp_path: Path) -> None:
    drawn = chart(story_of(two_agents(tmp_path)), "Agent A")
    market = next(mark for mark in drawn.marks if mark.label == "market")
    values = [
        row.metric
        for run in read_all(tmp_path)
        if run.facts["method"] == "market"
        for row in run.rounds
        if row.agent == "A" and row.round == 7
    ]
    assert [mark.label for mark in drawn.marks] == ["alone", "market"] and len(values) == 3
    assert market.y[7] == pytest.approx(sum(values) / 3)  # type: ignore[union-attr]
    assert (market.low[7], market.high[7]) == (min(values), max(values))  # type: ignore[union-attr]


def trade(run: RunResult, name: str, buyer: str, loss_after: float, after: str = "", price: int | None = 1) -> TradeRow:
    return dataclasses.replace(
        run.trades[0], trade=name, round=1, buyer=buyer, seller="AB".replace(buyer, ""), state="delivered",
        loss_after=loss_after, after=after, price=price,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("trades", "loaded", "shown"),
    [
        ([("1", "A", 1.5), ("2", "B", 1.25)], 1, [(1.5, 1.0), (1.25, 1.0)]),
        ([("1", "A", 1.5), ("2", "A", 1.25, "1")], 2, [(1.25, 1.0)]),
        ([("1", "A", 1.5), ("2", "A", 1.25)], 2, []),
        ([("1", "A", 1.5, "", None)], 1, []),
        ([("1", "A", 1.5)], 0, []),
        ([("1", "A", 0.05)], 1, [(0.05, 1.0)]),
    ],
    ids=["each", "one-upon-the-other", "side-by-side", "not-paid", "not-loaded", "far-off"],
)
def test_promised_losses_are_compared_with_those_right_after_loading(
    trades: list[tuple[Any, ...]], loaded: int, shown: list[tuple[float, float]], tmp_path: Path
) -> None:
    run = made_up_run(rounds=2, accuracy=False)
    rows = tuple(dataclasses.replace(row, bought=loaded, loss=2.0 - row.round) for row in run.rounds)
    told = tuple(trade(run, *one) for one in trades)
    write_runs(tmp_path, [dataclasses.replace(run, rounds=rows, trades=told)])
    found = chart(story_of(tmp_path), "Promised and kept")
    assert [*zip(found.marks[0].x, found.marks[0].y, strict=True)] == shown if shown else found.empty  # type: ignore[union-attr]
    assert found.log_x == found.log_y == (shown == [(0.05, 1.0)])
    assert write_page(story_of(tmp_path), "")


def test_hundreds_of_agents_stay_a_small_page(many: tuple[Story, str]) -> None:
    story, page = many
    assert len(page) < 1_000_000
    for one in story.sections:
        for part in one.parts:
            if isinstance(part, Table):
                assert len(part.rows) <= 200
            if isinstance(part, Chart):
                assert all(len(mark.x) <= 1000 for mark in part.marks)
    trades = table(story, "The largest trades")
    assert len(trades.rows) == 50 and trades.note.startswith("50 of ")
    (heat,) = [part for one in story.sections for part in one.parts if isinstance(part, Heat)]
    assert len(heat.cells) == 200 and max(max(row) for row in heat.cells) == 1.0


def test_a_sweep_is_compared_by_what_it_sets(tmp_path: Path) -> None:
    story = story_of(sweep(tmp_path))
    assert story.headline.startswith(
        "A sweep of 3 settings of pricing.fee_percent, each with 3 agents, 12 rounds, 2 seeds"
    )
    assert story.headline.endswith("Charts of trades are of setting 1 of 3, fee_percent=0.")
    swept = chart(story, "Accuracy at the end, by pricing.fee_percent")
    assert {mark.label: mark.x for mark in swept.marks} == {"market": (0.0, 1.5, 5.0), "alone": (0.0, 1.5, 5.0)}
    assert len(table(story, "Side by side").rows) == 6
    assert [one.title for one in story.sections if one.folded] == [
        "The trades of market, fee_percent=1.5", "The trades of market, fee_percent=5",
    ]  # fmt: skip


def test_a_method_has_one_colour_on_pages_and_in_plots(tmp_path: Path) -> None:
    methods = ("market", "fedavg", "paper", "unaligned", "alone")
    runs = [made_up_run(place, method, rounds=1) for place, method in enumerate(methods)]
    colors = {group.method: drawing.css_color(group.color) for group in groups.groups_of(runs)}
    as_hex = {f"var(--s{place})": color for place, color in enumerate(charts.COLORS)} | {"var(--s-base)": "#888888"}
    assert {method: as_hex[color] for method, color in colors.items()} == charts.METHOD_COLORS


def test_a_method_that_is_swept_is_no_setting(tmp_path: Path) -> None:
    runs = [
        made_up_run(place, method, 1, rounds=3, settings={"scenario.method": method})
        for place, method in enumerate(("market", "alone"))
    ]
    story = story_of(write_runs(tmp_path, runs))
    assert "in the market against" in story.headline and "setting" not in story.headline
    assert [(mark.label, mark.color) for mark in chart(story, "Agent A").marks] == [("alone", -1), ("market", 0)]


def test_who_has_not_joined_has_no_balance(tmp_path: Path) -> None:
    run = made_up_run(rounds=3)
    rows = tuple(dataclasses.replace(row, balance=row.balance if row.round else 0) for row in run.rounds)
    story = story_of(write_runs(tmp_path, [dataclasses.replace(run, rounds=rows)]))
    assert all(mark.x == (1.0, 2.0, 3.0) for mark in chart(story, "Balances").marks)


def test_nothing_traded_is_told_as_such(tmp_path: Path) -> None:
    story = story_of(without_trades(tmp_path))
    assert "no trades; the ledger verifies" in story.headline
    (told,) = [one for one in story.sections if one.key == "trades"]
    assert isinstance(told.parts[0], Words) and "nothing was bought" in told.parts[0].sentences[0]
    assert problems_of(story) == ("Nothing: no agent told of a problem, and every ledger that was kept "
                                  "verifies.", "Parties crashed 2 times and were started again.")  # fmt: skip


def problems_of(story: Story) -> tuple[str, ...]:
    (part,) = story.sections[-1].parts
    assert isinstance(part, Words)
    return part.sentences


def test_what_went_wrong_comes_first_and_last(tmp_path: Path) -> None:
    story = story_of(
        write_runs(tmp_path, [made_up_run(rounds=4, verified=False, problem="the broker was not reached")])
    )
    assert "THE LEDGER DOES NOT VERIFY" in story.headline
    assert story.warnings == (problems_of(story)[0], "A: 1 of 4 visits failed: the broker was not reached.")
    assert "1 micro-credit too much" in story.warnings[0]
    assert problems_of(story)[1] == "The broker was not reached (1 agent and round)."
    assert {tile.label: tile.tone for tile in story.tiles}["ledger"] == "bad"


def test_an_unfinished_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "runs" / "000-market-seed1").mkdir(parents=True)
    (tmp_path / "scenario.toml").write_text("")
    story = story_of(tmp_path)
    assert "No run in this folder is finished" in story.headline
    assert "<h1>" in write_page(story, "")


def test_what_was_not_counted_or_checked_is_a_dash(tmp_path: Path) -> None:
    run = made_up_run(0, "fedavg", rounds=3)
    facts = {**run.facts, "ledger": {}, "traffic_bytes": None, "messages": None}
    story = story_of(write_runs(tmp_path, [dataclasses.replace(run, facts=facts)]))
    assert not {"ledger", "traffic of a run"} & {tile.label for tile in story.tiles}
    assert "verif" not in story.headline
    runs = table(story, "All runs")
    cells = dict(zip(runs.columns, runs.rows[0], strict=True))
    assert (cells["ledger"], cells["traffic"]) == ("", "–")
    assert write_page(story, "")


def diverging(run: RunResult, agents: str, **values: float) -> RunResult:
    """With these agents' values from their last round."""
    last = max(row.round for row in run.rounds)
    rows = (
        dataclasses.replace(row, **values) if row.agent in agents and row.round == last else row  # type: ignore[arg-type]
        for row in run.rounds
    )
    return dataclasses.replace(run, rounds=tuple(rows))


def test_an_agent_that_diverged_is_in_no_mean_and_in_the_headline(tmp_path: Path) -> None:
    market, alone = (made_up_run(0, method, rounds=3, accuracy=False) for method in ("market", "alone"))
    left = next(row.loss for row in market.rounds if row.agent == "A" and row.round == 3)
    story = story_of(write_runs(tmp_path, [diverging(market, "B", loss=float("nan"), metric=float("nan")), alone]))
    assert f"mean loss unknown (1 of 2 DIVERGED, {words.number(left)} for the others) in the market" in story.headline
    sentence = "In 000-market-seed1 1 of 2 agents diverged: B ended without a finite loss."
    assert story.warnings == (sentence,) and problems_of(story)[0] == sentence
    tile = story.tiles[0]
    assert (tile.label, tile.value, tile.tone) == ("mean loss of the others", words.number(left), "bad")
    assert tile.note.startswith("1 of 2 diverged; alone ")
    assert table(story, "Side by side").rows[0][1] == f"{words.number(left)} (1 of 2 diverged)"
    assert [row[4] for row in table(story, "All agents").rows] == [words.number(left), "diverged"]
    assert [row[3] for row in table(story, "All runs").rows][1] == f"{words.number(left)} (1 of 2 diverged)"
    assert "1 of 8 values are no finite numbers and count for nothing" in chart(story, "Agent B").caption
    assert "DIVERGED" in write_page(story, "")


def test_an_accuracy_that_was_measured_counts_though_the_loss_diverged(tmp_path: Path) -> None:
    run = diverging(made_up_run(rounds=3), "B", loss=float("inf"), metric=0.5)
    left = next(row.metric for row in run.rounds if row.agent == "A" and row.round == 3)
    story = story_of(write_runs(tmp_path, [run]))
    assert f"mean accuracy {words.percent((left + 0.5) / 2)} (1 of 2 DIVERGED) with market" in story.headline


def test_a_sweep_says_how_many_diverged(tmp_path: Path) -> None:
    runs = [made_up_run(place, rounds=2, settings={"a.rate": rate}) for place, rate in enumerate((0.1, 1.0))]
    runs[1] = diverging(runs[1], "AB", loss=float("inf"), metric=float("nan"))
    story = story_of(write_runs(tmp_path, runs))
    swept = chart(story, "Accuracy at the end, by a.rate")
    assert swept.caption.endswith("2 agents of all runs diverged: means are over the others.")
    assert [mark.x for mark in swept.marks] == [(0.1,)]
    assert table(story, "Side by side").rows[1][1:3] == ("diverged", "")


def test_losses_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    run = made_up_run(rounds=3)
    rows = tuple(dataclasses.replace(row, loss=float("nan"), metric=float("inf")) for row in run.rounds)
    story = story_of(write_runs(tmp_path, [dataclasses.replace(run, rounds=rows)]))
    assert chart(story, "Agent A").empty
    assert "mean loss unknown, as all DIVERGED" in story.headline
    assert write_page(story, "")


def test_what_follows_plus_minus_is_half_of_the_interval(tmp_path: Path) -> None:
    story = story_of(two_agents(tmp_path))
    values = [
        row.metric
        for run in read_all(tmp_path)
        if run.facts["method"] == "market"
        for row in run.rounds
        if row.agent == "A" and row.round == 50
    ]
    half = 4.302653 * statistics.stdev(values) / math.sqrt(3)
    agents = table(story, "All agents")
    assert agents.rows[0][4] == f"{100 * statistics.fmean(values):.1f} ± {100 * half:.1f} %"
    assert agents.note == "± is half of the mean's 95 % interval over seeds."


def test_books_that_do_not_fit_are_not_sound_though_the_ledger_verifies(tmp_path: Path) -> None:
    run = made_up_run(rounds=3)
    ledger = {**run.facts["ledger"], "verified": True, "problems": ["B holds no receipt of trade 17"]}
    story = story_of(write_runs(tmp_path, [dataclasses.replace(run, facts={**run.facts, "ledger": ledger})]))
    assert "THE LEDGER DOES NOT VERIFY" in story.headline and "no receipt of trade 17" in story.warnings[0]
    assert {tile.label: tile.tone for tile in story.tiles}["ledger"] == "bad"
    assert table(story, "All runs").rows[0][-3] == "DOES NOT VERIFY"


def deal(buyer: str, seller: str, state: str, price: int | None = None, **more: object) -> Deal:
    return dataclasses.replace(Deal(1.0, "t", buyer, seller, "task", state, price=price), **more)  # type: ignore[arg-type]


def test_only_money_that_stayed_moved_counts() -> None:
    told = [
        deal("A", "B", "delivered", 2 * CREDIT),
        deal("A", "B", "lapsed", CREDIT),
        deal("A", "B", "refunded", 9 * CREDIT),
        deal("B", "A", "quoted"),
        deal("B", "A", "declined", weight=0.0),
    ]
    assert deals.sums(told) == deals.Sums(5, 2, 3 * CREDIT, 0)
    (matrix,) = who_with_whom(told)
    assert isinstance(matrix, Matrix) and matrix.rows == ("A", "B")
    assert [[cell.text for cell in row] for row in matrix.cells] == [["–", "2"], ["0", "–"]]
    assert matrix.cells[0][1].note == "3.00"
    assert [row[0] for row in endings_table(told).rows] == ["settled", "refunded", "no gain to buy", "still open"]
    assert [row[-2] for row in largest_table(told, "round").rows] == ["2.00", "1.00"]


def test_reasons_are_a_column_where_any_was_given() -> None:
    silent, told = deal("A", "B", "delivered", CREDIT), deal("A", "B", "declined", reason="too-dear", weight=1.0)
    assert endings_table([silent]).columns == ("ending", "trades", "share")
    assert endings_table([silent]).rows == (("settled", "1", "100 %"),)
    assert endings_table([silent, told]).columns[-1] == "reasons"
    assert [row[-1] for row in endings_table([silent, told]).rows] == ["", "too dear (1)"]


def test_free_trades_are_seen_in_the_matrix() -> None:
    (matrix,) = who_with_whom([deal("A", "B", "delivered", 0)])
    assert isinstance(matrix, Matrix) and matrix.cells[0][1].strength == 1.0 and matrix.cells[1][0].strength == 0.0


# ---- a paper's results -----------------------------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"experiment": "table1", "row": "A, alone", "paper": 68.5, "measured": 69.8, "low": 67, "high": 71, "agrees": True,
     "note": ""},
    {"experiment": "figure3", "row": "<b>", "paper": None, "measured": 47.2, "low": 50, "high": None,
     "agrees": False, "unit": "%", "spread": 1.5, "note": "one seed"},
    {"experiment": "figure3", "row": "seen only, " + "a long name, " * 8, "paper": None, "measured": 3.0,
     "low": None, "high": None, "agrees": None, "note": ""},
]  # fmt: skip


def write_paper(folder: Path) -> Path:
    two_agents(folder / "table1" / "mnist")
    sweep(folder / "figure3")
    sentences = {"table1": "Agrees within a point.", "figure3": "Does not agree."}
    document = {"agrees": False, "rows": ROWS, "sentences": sentences}
    document["missing"] = [{"experiment": "table2", "reason": "no data set mnist.npz"}]
    (folder / "rows.json").write_text(json.dumps(document))
    for place in ("table1/plots/layers.png", "figure3/loss.png"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_bytes(b"\x89PNG\r\n\x1a\nrest")
    (folder / "figure3" / "text.png").write_bytes(b"<script>")
    return folder


def test_a_papers_folder_is_one_page_of_all(tmp_path: Path) -> None:
    story = story_of(write_paper(tmp_path))
    assert story.headline == (
        "1 of 1 of the paper's numbers agree, 0 of 1 further claim holds; 1 row claims nothing; 2 folders of results; "
        "NOT COMPLETE. "
        "Left out to keep the page small: 1 plot."
    )
    assert [one.title for one in story.sections] == [
        "Beside the paper", "table1", "figure3", "Results: figure3", "Results: table1/mnist", "What went wrong",
    ]  # fmt: skip
    row = table(story, "The paper's numbers and ours").rows[1]
    assert row[:6] == ("figure3", "<b>", "", "47.20 ± 1.50 %", "≥ 50.00", "NO")
    assert table(story, "The paper's numbers and ours").rows[2][2:6] == ("", "3.00", "no claim", "–")
    assert [(tile.value, tile.tone) for tile in story.tiles[:2]] == [("1 of 1", "good"), ("0 of 1", "bad")]
    assert table(story, "The paper's numbers and ours").rows[2][1] == ROWS[2]["row"], "whole"
    assert problems_of(story) == (
        from_paper.NOT_COMPLETE,
        "table2 was not run, or not all of it: no data set mnist.npz",
    )
    page = write_page(story, "")
    assert page.count("data:image/png;base64,") == 2 and "<b>" not in page.replace("<td><b>", "")


def claim(paper: float | None, agrees: bool | None, against: bool = False, **more: object) -> dict[str, Any]:
    row = {"experiment": "e", "row": "r", "paper": paper, "measured": 5.0, "low": 4.0, "high": 6.0, "note": ""}
    return {**row, "agrees": agrees, "against_paper": against, **more}


@pytest.mark.parametrize(
    ("rows", "said", "tones", "cells"),
    [
        ([claim(5, True), claim(None, True)], "1 of 1 of the paper's numbers agree, 1 of 1 further claim holds; ",
         ["good", "good"], ["yes", "yes"]),
        ([claim(5, True, spread=1.5)], "1 of 1 of the paper's numbers agree; 1 with too few seeds to tell; ",
         ["plain"], ["yes (too few seeds to tell)"]),
        ([claim(9, True, True), claim(5, True)],
         "1 of 2 of the paper's numbers agree; 1 contradicts the paper; ", ["bad"], ["yes (against the paper)", "yes"]),
        ([claim(5, False), claim(None, None)], "0 of 1 of the paper's numbers agree; 1 row claims nothing; ",
         ["bad"], ["NO", "–"]),
    ],
)  # fmt: skip
def test_a_paper_says_which_rows_agree_with_what(
    rows: list[dict[str, Any]], said: str, tones: list[str], cells: list[str], tmp_path: Path
) -> None:
    (tmp_path / "rows.json").write_text(json.dumps({"rows": rows}))
    story = story_of(tmp_path)
    assert story.headline == f"{said}0 folders of results."
    assert [tile.tone for tile in story.tiles] == tones
    assert [row[5] for row in table(story, "The paper's numbers and ours").rows] == cells


def test_remarks_are_those_of_the_terminal() -> None:
    assert (paper_rows.TOO_FEW_SEEDS, paper_rows.AGAINST_PAPER) == (finding.TOO_FEW_SEEDS, finding.AGAINST_PAPER)


@pytest.mark.parametrize(("complete", "said"), [(True, False), (False, True), (None, False)])
def test_a_paper_says_whether_it_is_whole(complete: bool | None, said: bool, tmp_path: Path) -> None:
    document = {"agrees": True, "rows": ROWS[:1], "missing": []}
    (tmp_path / "rows.json").write_text(
        json.dumps(document if complete is None else {**document, "complete": complete})
    )
    story = story_of(tmp_path)
    assert ("NOT COMPLETE" in story.headline) == said == (from_paper.NOT_COMPLETE in problems_of(story))


def test_a_folder_in_which_simulate_left_several_is_an_index(tmp_path: Path) -> None:
    for name, rounds in (("first", 2), ("second", 3)):
        write_runs(tmp_path / "runs" / name, [made_up_run(rounds=rounds)])
    plots = tmp_path / "runs" / "first" / "plots"
    plots.mkdir()
    (plots / "loss.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    above, inside = story_of(tmp_path), story_of(tmp_path / "runs")
    titles = [[one.title for one in story.sections if one.title.startswith("Results")] for story in (above, inside)]
    assert titles == [
        ["Results: runs/first", "Results: runs/second"], ["Results: first", "Results: second"],
    ]  # fmt: skip
    assert above.headline == inside.headline == "2 folders of results."
    assert [one.title for one in inside.sections][0] == "first", "its plots"
    assert story_of(tmp_path / "runs" / "second").kind == "Report of an experiment"


def test_runs_without_results_in_them_are_nothing_to_tell_of(tmp_path: Path) -> None:
    (tmp_path / "runs" / "something").mkdir(parents=True)
    with pytest.raises(DataError, match="is nothing that a report can tell of"):
        story_of(tmp_path)
