"""What a world is to a run: learners, and an appraiser that measures what they sell.

A world is made from a scenario's own section and a seed. The market knows nothing of it: snapshots, parcels, bids and
settlements are those of the internet. Nothing here fails; worlds raise `ScenarioError` for an endowment that cannot be,
`DataError` for data that is not there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.experiments.table import Table
from p2pmarket.market import MarketTerms
from p2pmarket.node.strategy import Strategy

MARKET, PAPER, UNALIGNED, FEDAVG, ALONE = "market", "paper", "unaligned", "fedavg", "alone"
METHODS = (MARKET, PAPER, UNALIGNED, FEDAVG, ALONE)
"""How agents go on after a round: our broker as it is; the paper's, with and without alignment; the mean of everybody's
parameters, weighted by their data, without a broker; nothing at all."""
ACCURACY = "accuracy"
"""The metric that is a part of 1, which people read in percent."""
HONEST = "honest"
PROTOCOLS = (HONEST, PAPER)
"""Whose data the broker measures on: held out of the training data; or the paper's way, the test data itself."""


class Scores(NamedTuple):
    """On test data."""

    loss: float
    metric: float


@dataclasses.dataclass(frozen=True)
class AgentPlan:
    """One agent as a scenario has it."""

    name: str
    task: str
    strategy: Strategy
    strategy_name: str
    endowment: Any
    """What the world's `endowment` read."""


@dataclasses.dataclass(frozen=True)
class Place:
    """What the machine gives to a run, and what no result depends on but for rounding."""

    data: Path | None = None
    """Where data sets lie: a file, or a folder of them; None: where they are looked for (datasets)."""
    device: str = "cpu"


class Learner(Protocol):
    """One agent's model and data."""

    about: str
    """Its endowment in words."""
    samples: int
    """Of its own training data."""

    def learn(self) -> None:
        """One round of training."""

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the parameters, on the CPU."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what was bought: some or all of the parameters, by name."""

    def scores(self) -> Scores:
        """On the test data of its task."""


class World(Protocol):
    """What one run's agents learn."""

    learners: Sequence[Learner]
    """In the order of the scenario's agents."""
    about: str
    """One line in words."""

    def terms(self) -> dict[str, Any]:
        """The sections [model] and [[task]] of the market's terms, and what else this world needs in them."""

    def appraiser(self, terms: MarketTerms) -> Appraiser:
        """The broker's, for the run's method."""


class WorldSettings(Protocol):
    """A scenario's section about the world, read and checked."""

    KEY: str
    """The section's name."""
    METHODS: tuple[str, ...]
    """Those that make sense here."""

    @property
    def metric(self) -> str:
        """What the scores' `metric` is, in a word for people."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of tasks that agents can have; the first is the default."""

    def endowment(self, table: Table) -> Any:
        """Reads an agent's own keys.

        :raises ScenarioError: an endowment that cannot be
        """

    def build(self, agents: Sequence[AgentPlan], *, method: str, protocol: str, seed: int, place: Place) -> World:
        """The world of one run; equal arguments give equal worlds.

        :raises ScenarioError, DataError: it cannot be made
        """
