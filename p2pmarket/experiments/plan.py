"""Which runs a scenario has: its sweep's points with each of its seeds, each run with a name and a digest.

Knows: runs' names and rounds, and what of a document makes a run. Refuses to know: what happens in one, where results
go. Every mistake of the scenario, with any of the sweep's values, raises `ScenarioError` before anything runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from p2pmarket.errors import ScenarioError
from p2pmarket.experiments.document import MAX_POINTS, Document, Point, digest_of, points_of
from p2pmarket.experiments.scenario import Scenario, parse_scenario

Progress = Callable[[int, int], None]
"""Told the finished rounds and how many there are; may raise to stop."""

NO_PART_OF_A_RUN = ("name", "about", "seed", "seeds")
"""Keys of [scenario] that change no run: a run is the same under another name, or beside more seeds."""


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """One run."""

    number: int
    """Of the sweep's point."""
    settings: Mapping[str, Any]
    """Values of the sweep's point, by path."""
    digest: str
    """Of the point's document."""
    scenario: Scenario
    seed: int

    @property
    def name(self) -> str:
        """Also that of its folder."""
        return f"{self.number:03d}-{self.scenario.method}-seed{self.seed}"

    def trades_in(self, number: int) -> bool:
        """Whether agents visit the market in a round, or take their mean, 1 the first."""
        scenario = self.scenario
        return number >= scenario.trade_from and (number - scenario.trade_from) % scenario.trade_every == 0

    def looks_at(self, number: int) -> bool:
        """Whether a round is measured."""
        return number % self.scenario.measure_every == 0 or number == self.scenario.rounds


def plans_of(document: Document, seeds: tuple[int, ...] | None = None) -> list[RunPlan]:
    """All runs of a scenario, point by point, each checked.

    :param seeds: instead of the scenario's own
    :raises ScenarioError: names the first wrong key, and the sweep's values where it is one of them
    """
    found: dict[tuple[str, int], RunPlan] = {}
    for point in points_of(document):
        _check_axes(point.settings)
        for plan in plans_at(point, seeds, document):
            found.setdefault((plan.digest, plan.seed), plan)  # two points may be the same but for the scenario's name
        if len(found) > MAX_POINTS:
            raise ScenarioError(f"more than {MAX_POINTS:,} runs; make the sweep or its seeds fewer")
    return list(found.values())


def plans_at(point: Point, seeds: tuple[int, ...] | None, base: Document) -> list[RunPlan]:
    """The runs of one point.

    :param base: the document with its sweep: what is wrong in it without the sweep is not the sweep's mistake
    :raises ScenarioError: as `plans_of`
    """
    try:
        scenario = parse_scenario(point.document)
    except ScenarioError as error:
        if not point.settings:
            raise
        if str(error) == _mistake(base):
            raise  # it is there without the sweep too
        where = ", ".join(f"{path} = {value!r}" for path, value in point.settings.items())
        raise ScenarioError(f"{error} (the sweep's {where})") from None
    digest = digest_of_runs(point.document)
    return [RunPlan(point.number, point.settings, digest, scenario, seed) for seed in seeds or scenario.seeds]


def digest_of_runs(document: Document) -> str:
    """Digest of what makes a point's runs, but for their seeds."""
    return digest_of(part_of_runs(document))


def part_of_runs(document: Document) -> Document:
    """The document without what changes no run."""
    table = document.get("scenario", {})
    kept = {key: value for key, value in table.items() if key not in NO_PART_OF_A_RUN}
    return {**document, "scenario": kept}


def _check_axes(paths: Iterable[str]) -> None:
    for path in paths:
        section, _, key = path.partition(".")
        if section == "sweep" or (section == "scenario" and key in NO_PART_OF_A_RUN):
            raise ScenarioError(f"{path} changes no run, and is nothing to sweep over; seeds are in [scenario]")


def _mistake(document: Document) -> str:
    """What is wrong with the scenario without its sweep; empty where nothing is."""
    try:
        parse_scenario({key: value for key, value in document.items() if key != "sweep"})
    except ScenarioError as error:
        return str(error)
    return ""
