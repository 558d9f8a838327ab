"""What a market costs does not grow faster than its agents: counted in messages and bytes, not in seconds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from p2pmarket.experiments.plan import RunPlan
from p2pmarket.experiments.run import run_once
from p2pmarket.experiments.scenario import parse_scenario

FILE = Path(__file__).parents[2] / "benchmarks" / "simulation.py"


def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_of_simulations", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("agents", [1, 2, 3, 10, 200])
def test_the_scenario_of_hundreds_has_as_many_agents_as_are_asked_for(agents: int) -> None:
    scenario = parse_scenario(benchmark().scenario_of(agents, 20))
    assert len(scenario.agents) == agents and scenario.rounds == 20
    assert len({agent.endowment.samples for agent in scenario.agents}) == min(3, agents)


def test_messages_and_bytes_of_a_visit_do_not_grow_with_the_market() -> None:
    rounds = 2
    costs = []
    for agents in (6, 18):
        run = run_once(RunPlan(0, {}, "digest", parse_scenario(benchmark().scenario_of(agents, rounds)), 0))
        visits = agents * rounds
        assert run.facts["ledger"]["settled"] > visits / 2 and not run.facts["ledger"]["problems"]
        costs.append((run.facts["messages"] / visits, run.facts["traffic_bytes"] / visits))
    (few_messages, few_bytes), (many_messages, many_bytes) = costs
    assert many_messages < 1.15 * few_messages
    assert many_bytes < 1.15 * few_bytes
