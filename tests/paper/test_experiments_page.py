"""docs/experiments.md has every experiment with its command, and every picture that it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from p2pmarket.paper.catalogue import EXPERIMENTS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "experiments.md").read_text(encoding="utf-8")
COMMANDS = [command.split() for command in re.findall(r"`p2pmarket paper ([^`]+)`", PAGE)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_there_with_its_command(name: str) -> None:
    assert any(name in words for words in COMMANDS)


def test_no_command_names_an_experiment_that_is_none() -> None:
    named = {word for words in COMMANDS for word in words if re.fullmatch(r"(table|figure|theorem)-[\w.-]+", word)}
    assert named <= set(EXPERIMENTS)


def test_every_picture_is_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE)
    assert len(pictures) >= 8
    assert [one for one in pictures if not (DOCS / one).is_file()] == []


def test_rows_that_do_not_agree_are_said_to_be_so_in_the_summary() -> None:
    """The tables' last column and the list at the end of the page tell the same."""
    rows = re.findall(r"^\| (.+?) \|.*\| (yes|NO|no claim)[^|]*\|$", PAGE, flags=re.MULTILINE)
    assert len(rows) > 50
    against = [row for row, verdict in rows if verdict == "NO"]
    listed = json.loads(re.search(r"<!-- rows that do not agree: (\[.*\]) -->", PAGE)[1])  # type: ignore[index]
    assert listed == against
