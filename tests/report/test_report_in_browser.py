"""The report's page in a real browser: it is whole, it fits, it runs its script, and it fetches nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from browser import DARK, Browser, find_browser
from results_examples import two_agents, without_trades

from p2pmarket.report.find import story_of
from p2pmarket.report.page import write_page
from p2pmarket.report.story import Story

PROGRAM = find_browser()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no browser here: chromium, chromium-browser, google-chrome")

EXPERIMENT = ["Learning", "Gains: promised and kept", "Prices and balances", "Trades", "Who traded with whom", "Agents"]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    """One for this test alone."""
    assert PROGRAM is not None
    folder = tmp_path / "browser"
    folder.mkdir()
    return Browser(PROGRAM, folder)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, market: Path, many: tuple[Story, str]) -> Callable[[str], str]:
    """Pages by name, each made once."""
    made = {"many_agents": many[1]}
    places = {one.__name__: one for one in (two_agents, without_trades)}

    def page(name: str) -> str:
        if name not in made:
            kind, _, part = name.partition("/")
            folder = places[kind](tmp_path_factory.mktemp(kind)) if kind in places else market
            made[name] = write_page(story_of(folder / part), "Made by a test.")
        return made[name]

    return page


NAMES = ("two_agents", "many_agents", "without_trades", "market/broker", "market/left")


def test_pages_are_whole_and_fit(pages: Callable[[str], str], browser: Browser) -> None:
    look = browser.frames([pages(name) for name in NAMES], 1200)
    assert look.console == []
    assert len(look.said) == len(NAMES)
    for name, said in zip(NAMES, look.said, strict=True):
        assert said["seen"] == [] and said["fetched"] == [], name
        assert said["needs"] <= said["width"] == 1200, name
        assert said["sections"][-1] == "What went wrong", name
        assert len(said["charts"]) >= 2, name
        assert all(width > 250 and height > 120 for width, height in said["charts"]), name
    assert all(said["sections"][: len(EXPERIMENT)] == EXPERIMENT for said in look.said[:2])


def test_pages_fit_a_phone(pages: Callable[[str], str], browser: Browser) -> None:
    for name, said in zip(NAMES, browser.frames([pages(name) for name in NAMES], 360).said, strict=True):
        assert said["needs"] <= said["width"] == 360, name
        assert all(250 < width <= 360 for width, _ in said["charts"]), name


def test_the_script_runs_under_the_pages_own_policy(pages: Callable[[str], str], browser: Browser) -> None:
    look = browser.look(pages("two_agents"), probe=False)
    assert look.console == []
    assert '<html lang="en" class="script">' in look.dom


def test_dark_and_light_differ_in_everything_that_is_drawn(pages: Callable[[str], str], browser: Browser) -> None:
    page = pages("two_agents")
    light, dark = browser.look(page).said, browser.look(page, *DARK).said
    assert (light["dark"], dark["dark"]) == (False, True)
    assert light["ground"] != dark["ground"] and light["ink"] != dark["ink"]
    drawn = {"none"}
    assert not ({*light["lines"]} - drawn) & ({*dark["lines"]} - drawn), "a chart has a colour of its own"
    picture, empty = browser.picture(page), browser.picture("<!DOCTYPE html>")
    assert picture != browser.picture(page, *DARK) and len(picture) > 5 * len(empty)


def test_paper_has_room_for_two_charts_side_by_side(pages: Callable[[str], str], browser: Browser) -> None:
    page = pages("two_agents")
    narrow = page.replace("repeat(2, minmax(0, 1fr)); gap: 26px", "minmax(0, 1fr); gap: 26px", 1)
    assert narrow != page and browser.printed_pages(page) < browser.printed_pages(narrow)


def test_the_probe_sees_what_is_wrong(pages: Callable[[str], str], browser: Browser) -> None:
    """The controls: a page that fetches, breaks and is too wide."""
    fetching = '<img src="http://elsewhere.example/x.png">'
    broken = "<script>nothing.at.all()</script>"
    wide = '<div style="width: 3000px">.</div>'
    page = pages("without_trades").replace("<footer>", f"{fetching}{broken}{wide}<footer>", 1)
    look = browser.look(page)
    assert look.said["needs"] >= 3000
    assert any(one.startswith("policy: http://elsewhere.example") for one in look.said["seen"])
    assert any("nothing is not defined" in one for one in look.said["seen"])
    assert look.console
    inert = browser.look(page.replace(broken, "<script>document.title = 'changed'</script>"), probe=False)
    assert "<title>changed" not in inert.dom
