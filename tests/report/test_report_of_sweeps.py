"""Pages of many settings: what of them is told first, and who is in a mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from results_examples import made_up_run, write_runs

from p2pmarket.report.find import story_of
from p2pmarket.report.story import Chart, Story

NAMES = "ABCDEFGH"


def titles(story: Story) -> list[str]:
    return [part.title for one in story.sections for part in one.parts if isinstance(part, Chart)]


@pytest.mark.parametrize(
    ("teams", "title"),
    [
        (("ABCDE", "ABCFGHD"), "All agents of each run: 5 or 7 of 8"),
        ((NAMES, NAMES), "All 8 agents"),
        (("ABCDEF", "CDEFGH"), "All agents of each run: 6 of 8"),
    ],
)
def test_all_agents_are_those_of_a_run(teams: tuple[str, ...], title: str, tmp_path: Path) -> None:
    runs = [
        made_up_run(place, agents=tuple(team), rounds=2, settings={"agents.team": place})
        for place, team in enumerate(teams)
    ]
    assert title in titles(story_of(write_runs(tmp_path, runs)))
