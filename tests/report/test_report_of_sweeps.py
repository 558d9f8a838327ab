"""Pages of many settings: what of them is told first, and who is in a mean."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from results_examples import CREDIT, made_up_run, sweep, write_runs

from p2pmarket.experiments.results import read_all
from p2pmarket.report.find import story_of
from p2pmarket.report.groups import groups_of, last_rows
from p2pmarket.report.page import write_page
from p2pmarket.report.points import paths_of, which
from p2pmarket.report.story import Chart, Story, Table
from p2pmarket.report.words import credits, percent

NAMES = "ABCDEFGH"


def titles(story: Story) -> list[str]:
    return [part.title for one in story.sections for part in one.parts if isinstance(part, Chart)]


@pytest.mark.parametrize(
    ("teams", "title"),
    [
        (("ABCDE", "ABCFGHD"), "All agents, 5 or 7 in a run"),
        ((NAMES, NAMES), "All 8 agents"),
        (("ABCDEF", "CDEFGH"), "All agents, 6 in a run"),
    ],
)
def test_all_agents_are_those_of_a_run(teams: tuple[str, ...], title: str, tmp_path: Path) -> None:
    runs = [
        made_up_run(place, agents=tuple(team), rounds=2, settings={"agents.team": place})
        for place, team in enumerate(teams)
    ]
    assert title in titles(story_of(write_runs(tmp_path, runs)))


def test_a_sweep_leads_with_all_of_its_settings(tmp_path: Path) -> None:
    story = story_of(sweep(tmp_path))
    runs = [run for run in read_all(tmp_path) if run.facts["method"] == "market"]
    means = {}
    for fee in (0, 1.5, 5):
        ends = [
            row.metric
            for run in runs
            if run.facts["settings"]["pricing.fee_percent"] == fee
            for row in last_rows(run).values()
        ]
        means[sum(ends) / len(ends)] = f"fee_percent={fee}"
    low, high = min(means), max(means)
    settled, moved, fees = (sum(run.facts["ledger"][key] for run in runs) for key in ("settled", "moved", "fees"))
    assert story.headline.startswith(
        f"A sweep of 3 settings of pricing.fee_percent, each with 3 agents, 12 rounds, 2 seeds: mean accuracy from "
        f"{percent(low)} ({means[low]}) to {percent(high)} ({means[high]}) in the market, from "
    )
    assert f"; {settled} of " in story.headline
    assert f"{credits(moved)} credits moved, {credits(fees)} of them fees; all 6 ledgers verify." in story.headline
    shown = {tile.label: (tile.value, tile.note) for tile in story.tiles}
    assert shown["settings"] == ("3", "of fee_percent")
    assert shown["mean accuracy"][0] == f"{percent(low)} … {percent(high)}"
    assert shown["trades settled"][0] == f"{settled}" and shown["credits moved"][0] == credits(moved)


def test_the_first_section_of_a_sweep_has_every_outcome_and_the_fees(tmp_path: Path) -> None:
    story = story_of(sweep(tmp_path))
    first = story.sections[0]
    assert first.title == "The sweep"
    assert first.about.startswith("3 settings of pricing.fee_percent: fee_percent=0; fee_percent=1.5; fee_percent=5.")
    assert [part.title for part in first.parts if isinstance(part, (Chart, Table))] == [
        "Accuracy at the end, by pricing.fee_percent", "Loss at the end, by pricing.fee_percent",
        "Fees, by pricing.fee_percent", "Side by side",
    ]  # fmt: skip
    (ends, _, drawn, table) = first.parts
    assert isinstance(ends, Chart) and isinstance(drawn, Chart) and isinstance(table, Table)
    (line,) = drawn.marks
    paid = [run.facts["ledger"]["fees"] / CREDIT for run in read_all(tmp_path) if run.facts["settings"]
            == {"pricing.fee_percent": 1.5} and run.facts["method"] == "market"]  # fmt: skip
    assert line.x == (0.0, 1.5, 5.0) and line.y[1] == pytest.approx(sum(paid) / len(paid))  # type: ignore[union-attr]
    assert table.columns[-1] == "fees" and len(table.rows) == 6
    assert {mark.label: mark.color for mark in ends.marks} == {"market": 0, "alone": -1}
    assert write_page(story, "")


def test_charts_of_one_setting_say_of_which(tmp_path: Path) -> None:
    story = story_of(sweep(tmp_path))
    told = {one.key: one.about for one in story.sections}
    for key in ("gains", "prices", "trades", "partners", "agents"):
        assert told[key].startswith("Of setting 1 of 3, fee_percent=0."), key


def test_a_sweep_of_words_and_of_two_paths_has_a_table(tmp_path: Path) -> None:
    runs = [
        made_up_run(place, rounds=2, settings={"a.kind": kind, "b.size": place, "c.same": 1})
        for place, kind in enumerate(("small", "large"))
    ]
    story = story_of(write_runs(tmp_path, runs))
    assert story.headline.startswith(
        "A sweep of 2 settings of a.kind and b.size, each with 2 agents, 2 rounds, 1 seed: "
    )
    assert [part.title for part in story.sections[0].parts] == ["Side by side"]  # type: ignore[union-attr]


def test_one_setting_is_no_sweep(tmp_path: Path) -> None:
    runs = [made_up_run(0, method, rounds=2, settings={"a.b": 1}) for method in ("market", "alone")]
    story = story_of(write_runs(tmp_path, runs))
    assert "sweep" not in story.headline and story.sections[0].key == "learning"
    assert not any("setting" in one.about for one in story.sections)


def test_a_swept_protocol_is_a_setting() -> None:
    runs = [made_up_run(place, rounds=1) for place in range(2)]
    runs[1] = dataclasses.replace(runs[1], facts={**runs[1].facts, "protocol": "broken"})
    groups = groups_of(runs)
    assert paths_of(groups) == ("scenario.protocol",)
    assert which(groups[1], groups) == "setting 2 of 2, protocol=broken"
