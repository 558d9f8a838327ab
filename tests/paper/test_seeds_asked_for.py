"""How many seeds each part of an experiment runs: those that were asked for, or what its effort has."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from p2pmarket.experiments.document import Document
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper import competitive, figure_3, figure_4, figure_5, tasks_and_heads, three_agents
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context


class Enough(Exception):
    """The last part was asked for."""


def parts(monkeypatch: pytest.MonkeyPatch, module: ModuleType, context: Context, last: str) -> dict[str, int]:
    """The seeds of each folder of runs, up to the last; nothing is run."""
    asked: dict[str, int] = {}

    def runs_of(context: Context, document: Document, name: str, seeds: int) -> list[RunResult]:
        asked[name] = seeds
        if name == last:
            raise Enough
        return []

    monkeypatch.setattr(module, "runs_of", runs_of)
    monkeypatch.setattr(module, "why_no_digits", lambda context: "", raising=False)
    with pytest.raises(Enough):
        module.run(context)
    return asked


LAST = [
    (figure_3, NORMAL, "samples"),
    (figure_4, QUICK, "runs"),
    (figure_5, NORMAL, "eight-following-each-buyer"),
    (three_agents, QUICK, "digits"),
    (three_agents, NORMAL, "digits"),
    (tasks_and_heads, NORMAL, "shuffled-labels-own-start"),
    (competitive, QUICK, "alone"),
]


@pytest.mark.parametrize(("module", "effort", "last"), LAST)
def test_the_number_that_was_asked_for_is_that_of_every_part(
    small: Callable[..., Context], monkeypatch: pytest.MonkeyPatch, module: ModuleType, effort: str, last: str
) -> None:
    for number in (2, 31):
        found = parts(monkeypatch, module, small(module.NAME, effort, seeds=number), last)
        assert set(found.values()) == {number}, found


def test_nobody_asked_so_each_part_has_its_own(small: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    found = parts(monkeypatch, figure_3, small("figure-3", NORMAL, seeds=None), "samples")
    assert found == {"runs": 20, "samples": 5}
    found = parts(monkeypatch, three_agents, small("three-agents", QUICK, seeds=None), "digits")
    assert found == {"three": 2, "pair": 2, "many": 1, "digits": 1}
    found = parts(monkeypatch, figure_5, small("figure-5", NORMAL, seeds=None), "eight-competitive")
    assert (found["ratio-printed"], found["eight-competitive"]) == (10, 3)


def test_what_an_effort_leaves_out_no_number_brings_back(small: Callable[..., Context]) -> None:
    by_effort = {QUICK: 0, NORMAL: 3, FULL: 10}
    assert [small("x", QUICK, seeds=number).count(by_effort) for number in (None, 1, 7)] == [0, 0, 0]
    assert [small("x", NORMAL, seeds=number).count(by_effort) for number in (None, 1, 7)] == [3, 1, 7]
