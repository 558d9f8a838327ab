"""A run without a market: agents alone, or under federated averaging.

Knows: the order of a round. Refuses to know: what is learned. Nothing here fails.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from p2pmarket.experiments.diary import Diary, Outcome
from p2pmarket.experiments.plan import Progress, RunPlan
from p2pmarket.experiments.worlds.contract import FEDAVG, Learner, World


def run_apart(plan: RunPlan, world: World, diary: Diary, progress: Progress) -> Outcome:
    """Everybody learns. Under FedAvg the agents of each task then take the mean of what they have: another task's
    parameters are another model's, a head above all."""
    scenario = plan.scenario
    # FedAvg's parameters would travel, and how is nobody's business here: that is not the same as no bytes
    uncounted: dict[str, Any] = {"sent_bytes": None, "received_bytes": None} if scenario.method == FEDAVG else {}
    pairs = list(zip(scenario.agents, world.learners, strict=True))
    groups: defaultdict[str, list[Learner]] = defaultdict(list)
    for agent, learner in pairs:
        groups[agent.task].append(learner)
        diary.take(agent, learner, 0, 0.0)
    for number in range(1, scenario.rounds + 1):
        for learner in world.learners:
            learner.learn()
        if scenario.method == FEDAVG and plan.trades_in(number):
            for group in groups.values():
                mean = federated_mean([(learner.samples, learner.snapshot()) for learner in group])
                for learner in group:
                    learner.load(mean)
        if plan.looks_at(number):
            for agent, learner in pairs:
                diary.take(agent, learner, number, number * scenario.round_seconds, **uncounted)
        progress(number, scenario.rounds)
    seconds = scenario.rounds * scenario.round_seconds
    if uncounted:
        return Outcome(virtual_seconds=seconds, traffic_bytes=None, messages=None)
    return Outcome(virtual_seconds=seconds)


def federated_mean(parts: Sequence[tuple[int, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """FedAvg's mean of parameters, weighted by samples (McMahan et al. 2017, algorithm 1), of the tensors that all of
    them have in one shape; whole numbers (counts of batches) are nobody's to average.
    """
    total = sum(samples for samples, _ in parts)
    first = parts[0][1]
    same = [
        name
        for name, tensor in first.items()
        if tensor.is_floating_point() and all(name in one and one[name].shape == tensor.shape for _, one in parts)
    ]
    return {name: sum((one[name] * (samples / total) for samples, one in parts), torch.zeros(())) for name in same}
