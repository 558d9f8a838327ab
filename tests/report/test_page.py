"""The HTML: nothing from elsewhere, everything escaped, every part with a name for those who do not see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from results_examples import made_up_run, sweep, two_agents, without_trades, write_runs

from p2pmarket import charts
from p2pmarket.report.find import story_of
from p2pmarket.report.page import write_page
from p2pmarket.report.story import Chart, Line, Picture, Section, Story, Table, Words

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{1}$",
    "\u202eevil",
    "_hidden",
    "</svg></title><b>",
    "a" * 300,
    "'onload='x",
)
VOID = {"meta", "link", "img", "input", "br"}


class Elements(HTMLParser):
    """What is on a page: elements, texts, and whether they nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.wrong: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.inside or self.inside.pop() != tag:
            self.wrong.append(tag)

    def count(self, tag: str) -> int:
        return sum(one == tag for one, _ in self.found)


def problems(page: str) -> list[str]:
    """What a page must not have, in words."""
    elements = Elements(page)
    found = [f"</{tag}> closes nothing" for tag in elements.wrong]
    for tag, attributes in elements.found:
        for name, value in attributes.items():
            local = (value or "").startswith(("#", "data:"))
            if name in ("src", "href", "xlink:href", "srcset", "action", "data") and not local:
                found.append(f"<{tag}> loads {value}")
            if name.startswith("on"):
                found.append(f"<{tag}> has {name}")
    found += [f"style loads {one}" for one in re.findall(r"url\((?!#)[^)]*\)|@import", page)]
    identifiers = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    found += [f"id {one} twice" for one in {*identifiers} if identifiers.count(one) > 1]
    targets = {*identifiers}
    for tag, attributes in elements.found:
        link = attributes.get("href") or attributes.get("xlink:href") or ""
        if link.startswith("#") and link[1:] not in targets:
            found.append(f"<{tag}> refers to {link}, which is not there")
    found += [f"url(#{one}) is not there" for one in re.findall(r"url\(#([^)]*)\)", page) if one not in targets]
    found += [f"{color} has no variable" for color in (*charts.COLORS, charts.BASELINE) if f"stroke: {color}" in page]
    return found


@pytest.fixture(scope="module")
def page_without_trades(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short page."""
    return write_page(story_of(without_trades(tmp_path_factory.mktemp("page"))), "Made by a test.")


@pytest.mark.parametrize("make", [two_agents, sweep, without_trades])
def test_a_page_needs_nothing_else(make: Callable[[Path], Path], tmp_path: Path) -> None:
    needs_nothing(write_page(story_of(make(tmp_path)), "Made by a test."))


def test_a_page_of_hundreds_needs_nothing_else(many: tuple[Story, str]) -> None:
    needs_nothing(many[1])


def needs_nothing(page: str) -> None:
    assert problems(page) == []
    assert "http" not in page.replace("http-equiv", "")
    assert len(page) < 1_000_000


@pytest.mark.parametrize(
    "wrong",
    [
        '<img src="http://elsewhere.example/x.png">',
        '<a href="https://elsewhere.example">x</a>',
        "<p onclick=x>",
        "<style>@import 'x'</style>",
        "<p style='background: url(x.png)'>x</p>",
        '<a href="#nowhere">x</a>',
        "</section>",
        '<p id="c0-figure_1"></p>',
    ],
)
def test_the_check_sees_what_a_page_must_not_have(wrong: str, page_without_trades: str) -> None:
    page = page_without_trades
    assert problems(page.replace("<footer>", f"{wrong}<footer>", 1)) != []


def test_strangers_texts_stay_texts(tmp_path: Path) -> None:
    evil = {"agents": HOSTILE, "tasks": HOSTILE[:3], "problem": HOSTILE[1], "settings": {HOSTILE[0]: 1}}
    runs = [
        made_up_run(0, method, 1, rounds=3, **evil)  # type: ignore[arg-type]
        for method in ("market", "alone", HOSTILE[0])
    ]
    for place, run in enumerate(runs):
        run.facts["agents"][HOSTILE[0]]["strategy"] = HOSTILE[1]
        write_runs(
            tmp_path, [type(run)({**run.facts, "run": f"run{place}", "scenario": HOSTILE[5]}, run.rounds, run.trades)]
        )
    page = write_page(story_of(tmp_path), HOSTILE[0])
    elements = Elements(page)
    assert problems(page) == []
    assert (elements.count("script"), elements.count("img"), elements.count("b")) == (1, 0, 2 * 8 * 8)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\u202e" not in page and "a" * 61 not in page


def test_every_figure_and_table_says_what_it_is(tmp_path: Path) -> None:
    page = write_page(story_of(two_agents(tmp_path)), "Made by a test.")
    found = Elements(page).found
    pictures = [attributes for tag, attributes in found if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) >= 7 and all(attributes["aria-label"] for attributes in pictures)
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in found if tag == "th")
    assert ("html", {"lang": "en"}) in found
    assert [tag for tag, _ in found].count("h1") == 1


def test_parts_that_have_nothing_say_so() -> None:
    section = Section(
        "one", "One", (Chart("Empty", "", "x", "y", ()), Table("No rows", ("a",), (), empty="None here."))
    )
    page = write_page(Story("kind", "title", "headline", (), (section,)), "")
    assert "There is nothing to draw here." in page and "None here." in page
    assert Elements(page).count("svg") == 0


def test_one_point_and_numbers_without_bounds_can_be_drawn() -> None:
    lines = (Line("single", (3.0,), (1e-12,), 0), Line("$x$ < y", (1.0, 2.0), (0.0, 1e12), 1, (0.0, 0.0), (1.0, 2e12)))
    moments = Chart("Moments", "", "time", "y", (Line("now", (1.7e9,), (1.0,), 0),), x_axis="time")
    section = Section(
        "one", "One", (Chart("C", "", "$x", "y", lines), moments, Picture("p", b"\x89PNG"), Words(("w",)))
    )
    page = write_page(Story("kind", "title", "headline", (), (section,)), "")
    assert Elements(page).count("img") == 1
    assert "$x$ &lt; y" in page
