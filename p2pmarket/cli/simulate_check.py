"""What `simulate --check` shows: what a scenario would run, by the paths that --set and [sweep] take."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket.cli.show import printable
from p2pmarket.cli.simulate_show import MOST_ROWS
from p2pmarket.experiments.document import Document
from p2pmarket.experiments.run import RunPlan
from p2pmarket.experiments.worlds.contract import World
from p2pmarket.market import MarketTerms


def show_check(
    plans: Sequence[RunPlan], document: Document, world: World, terms: MarketTerms, out: Path, as_json: bool
) -> None:
    """What would be run: the scenario with all its defaults, the agents, the market's terms, the number of runs."""
    scenario = plans[0].scenario
    points = {plan.digest: plan.settings for plan in plans}
    if as_json:
        found = {"scenario": document, "runs": len(plans), "points": list(points.values()), "out": str(out)}
        print(json.dumps({**found, "terms": _plain(terms)}))
        return
    print(printable(f"{scenario.name}: {scenario.about or 'no word about it'}"))
    print(printable(f"{world.about}"))
    kept = {key: value for key, value in vars(scenario).items() if key not in ("agents", "world", "terms", "climate")}
    for section, values in (
        ("scenario", kept),
        (scenario.world.KEY, _plain(scenario.world)),
        ("faults", _plain(scenario.climate) if scenario.climate else {}),
        ("terms", _plain(terms)),
    ):
        for line in _listed(section, values):
            print(printable(line))
    for agent, learner in list(zip(scenario.agents, world.learners, strict=True))[:MOST_ROWS]:
        print(printable(f"agent {agent.name}: {agent.task}, {learner.about}; {agent.strategy!r}"))
    if len(scenario.agents) > MOST_ROWS:
        print(f"and {len(scenario.agents) - MOST_ROWS} more agents")
    for number, settings in list(enumerate(points.values()))[:MOST_ROWS]:
        if settings:
            print(
                printable(
                    f"point {number:03d}: " + ", ".join(f"{path} = {value!r}" for path, value in settings.items())
                )
            )
    if len(points) > MOST_ROWS:
        print(f"and {len(points) - MOST_ROWS} more points")
    rounds = sum(plan.scenario.rounds for plan in plans)
    print(printable(f"{len(plans)} runs of {len(points)} points, {rounds} rounds in all; results would go to {out}"))


def _plain(record: Any) -> dict[str, Any]:
    found = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        found[field.name] = json.loads(json.dumps(value, default=repr))
    return found


def _listed(section: str, values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        yield f"{section}.{key} = {value!r}"
