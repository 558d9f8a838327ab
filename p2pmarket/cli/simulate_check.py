"""What `simulate --check` shows: what a scenario would run, by the paths that --set and [sweep] take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket.cli.show import printable
from p2pmarket.cli.simulate_show import MOST_ROWS
from p2pmarket.errors import ScenarioError
from p2pmarket.experiments.document import Document, as_value, points_of
from p2pmarket.experiments.run import RunPlan
from p2pmarket.experiments.scenario import TERMS_SECTIONS, Scenario, parse_scenario, terms_document
from p2pmarket.experiments.worlds.contract import ALONE, FEDAVG, World
from p2pmarket.market import terms_defaults

MOST_AGENT_LINES = 4 * MOST_ROWS

Terms = Mapping[str, Mapping[str, Any]]
"""By section and key, as [terms.SECTION] of a scenario has them."""


def show_check(
    plans: Sequence[RunPlan], document: Document, world: World, out: Path, as_json: bool, finished: int | None
) -> None:
    """What would be run: the scenario with all its defaults, the agents, the market's terms, the number of runs.

    :param finished: how many of the runs `out` has already; None: it would be refused, which the caller tells
    """
    points = {plan.digest: plan.settings for plan in plans}
    scenario, told = _without_sweep(document)
    terms = _terms(scenario, world)
    if as_json:
        found = {"scenario": document, "runs": len(plans), "points": list(points.values())}
        found |= {"out": str(out), "finished": finished}
        print(json.dumps({**found, "terms": terms}))
        return
    for line in _lines(plans, scenario, told, terms, world):
        print(printable(line))
    for number, settings in list(enumerate(points.values()))[:MOST_ROWS]:
        if settings:
            values = ", ".join(f"{path} = {as_value(value)}" for path, value in settings.items())
            print(printable(f"point {number:03d}: {values}"))
    if len(points) > MOST_ROWS:
        print(f"and {len(points) - MOST_ROWS} more points")
    rounds = sum(plan.scenario.rounds for plan in plans)
    where = "" if finished is None else f"; results would go to {out}"
    if finished:
        where += f", where {finished} of the {len(plans)} runs are finished"
    runs, of = (f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((len(plans), "run"), (len(points), "point")))
    print(printable(f"{runs} of {of}, {rounds} rounds in all{where}"))


def without_faults(plans: Iterable[RunPlan]) -> list[str]:
    """Methods whose runs [faults] would change nothing in, where that may be a surprise: `alone` beside methods that
    it does change is what these are compared with.
    """
    methods = {plan.scenario.method: None for plan in plans if plan.scenario.climate is not None}
    quiet = [method for method in methods if method in (FEDAVG, ALONE)]
    return quiet if len(quiet) == len(methods) else [method for method in quiet if method != ALONE]


def _without_sweep(document: Document) -> tuple[Scenario, dict[str, Any]]:
    """The scenario without its sweep, or its first point where it is none without; and its values by path."""
    told: dict[str, Any] = {}
    try:
        return parse_scenario({key: value for key, value in document.items() if key != "sweep"}, told), told
    except ScenarioError:
        told.clear()
        return parse_scenario(points_of(document)[0].document, told), told


def _lines(
    plans: Sequence[RunPlan], scenario: Scenario, told: Mapping[str, Any], terms: Terms, world: World
) -> Iterator[str]:
    yield f"{scenario.name}: {scenario.about}" if scenario.about else scenario.name
    yield world.about
    values = [(path, value) for path, value in told.items() if value != {}]
    agents = [one for one in values if one[0].startswith("agent.")]
    for path, value in sorted((one for one in values if one not in agents), key=lambda one: one[0].partition(".")[0]):
        yield f"{path} = {as_value(value)}"
    for section, keys in terms.items():
        for key, value in keys.items():
            yield f"terms.{section}.{key} = {as_value(value)}"
    for path, value in agents[:MOST_AGENT_LINES]:
        yield f"{path} = {as_value(value)}"
    if len(agents) > MOST_AGENT_LINES:
        yield f"and {len(agents) - MOST_AGENT_LINES} more values of agents"
    for agent, learner in list(zip(plans[0].scenario.agents, world.learners, strict=True))[:MOST_ROWS]:
        task = f"{agent.task}, " if len(scenario.world.tasks) > 1 else ""
        yield f"agent {agent.name}: {task}{learner.about}; strategy {agent.strategy_name}"
    if len(world.learners) > MOST_ROWS:
        yield f"and {len(world.learners) - MOST_ROWS} more agents"


def _terms(scenario: Scenario, world: World) -> Terms:
    """What a scenario may set of the terms, with its defaults, as it would be written."""
    given = terms_document(scenario, world.terms())
    found = {
        section: {**keys, **given.get(section, {})}
        for section, keys in terms_defaults().items()
        if section in TERMS_SECTIONS
    }
    if found["pricing"]["rule"] != "k":
        del found["pricing"]["k_percent"]  # it belongs to that rule alone
    return found
