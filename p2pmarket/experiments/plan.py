"""Which run of a scenario: a sweep's point and a seed. Knows names and rounds; nothing of what happens in one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from p2pmarket.experiments.scenario import Scenario

Progress = Callable[[int, int], None]
"""Told the finished rounds and how many there are; may raise to stop."""


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
