"""What is made once for all tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from market_folders import trade
from results_examples import many_agents

from p2pmarket.report.find import story_of
from p2pmarket.report.page import write_page
from p2pmarket.report.story import Story


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folders of a broker and two agents that traded; tests copy what they change."""
    return trade(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, str]:
    """The story of hundreds of agents and its page, which take a while."""
    story = story_of(many_agents(tmp_path_factory.mktemp("many")))
    return story, write_page(story, "Made by a test.")
