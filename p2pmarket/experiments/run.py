"""One run of a scenario, from its world to its facts.

Knows: which way a method goes (in_market.py, apart.py), what run.json says. Refuses to know: what is learned (worlds/),
where results go (results.py). Equal scenarios and seeds give equal rows; only `wall_seconds` differs.
"""

from __future__ import annotations

import platform
import time

import torch

from p2pmarket import __version__
from p2pmarket.experiments.apart import run_apart
from p2pmarket.experiments.diary import Diary
from p2pmarket.experiments.in_market import BROKER, run_in_market
from p2pmarket.experiments.origins import origins_of
from p2pmarket.experiments.plan import Progress, RunPlan
from p2pmarket.experiments.reading import FORMAT
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.worlds.contract import ALONE, FEDAVG, Place
from p2pmarket.simulation.chance import stream

__all__ = ["HERE", "Progress", "RunPlan", "run_once"]

HERE = Place()


def run_once(
    plan: RunPlan,
    place: Place = HERE,
    progress: Progress = lambda done, of: None,
) -> RunResult:
    """Runs it.

    :raises ScenarioError, DataError, ModelError: the scenario's world cannot be made, or its faults let nothing begin
    :raises DiskFull, MachineFault: there is no room for the parties' folders
    """
    began = time.monotonic()
    scenario = plan.scenario
    origins = origins_of(scenario, place)
    world = scenario.world.build(
        scenario.agents, method=scenario.method, protocol=scenario.protocol, seed=plan.seed, place=place
    )
    diary = Diary(plan)
    run = run_apart if scenario.method in (ALONE, FEDAVG) else run_in_market
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(plan.seed, "appraisals").getrandbits(63))  # a model may draw while it is measured
        outcome = run(plan, world, diary, progress)
    facts = {
        "run": plan.name,
        "scenario": scenario.name,
        "digest": plan.digest,
        "method": scenario.method,
        "protocol": scenario.protocol,
        "seed": plan.seed,
        "settings": dict(plan.settings),
        "about": world.about,
        "agents": {
            agent.name: {
                "peer": outcome.peers.get(agent.name, ""),
                "task": agent.task,
                "strategy": agent.strategy_name,
                "about": learner.about,
                "visits": outcome.visits.get(agent.name, 0),
                "failed": outcome.failed.get(agent.name, 0),
            }
            for agent, learner in zip(scenario.agents, world.learners, strict=True)
        },
        "broker": outcome.peers.get(BROKER, ""),
        "metric_name": scenario.world.metric,
        "final": diary.final(outcome.balances),
        "ledger": dict(outcome.ledger),
        "traffic_bytes": outcome.traffic_bytes,
        "messages": outcome.messages,
        "crashes": outcome.crashes,
        "wall_seconds": round(time.monotonic() - began, 3),
        "virtual_seconds": outcome.virtual_seconds,
        "format": FORMAT,
        "versions": {
            "p2pmarket": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "code": dict(origins.code),
        "data": origins.data,
    }
    return RunResult(facts, tuple(diary.rows), outcome.trades)
