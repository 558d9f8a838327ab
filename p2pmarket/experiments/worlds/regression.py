"""Agents that fit linear models by gradient descent: the paper's controlled setting (sections 4 and 6.1.3).

y = X theta* + noise, X standard normal, the loss 1/(2n) |X theta - y|^2, full gradient steps. With few dimensions it is
the cheap task for markets of many agents. Agents of another task have other true parameters, at a distance that the
scenario names (section 6.1.4). Refuses to know: how a broker measures (linear_broker.py). Scores are the expected
squared error on noiseless samples, |theta - theta*|^2, so they depend on no test set.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.errors import ScenarioError
from p2pmarket.experiments.table import Table
from p2pmarket.experiments.worlds.contract import ALONE, FEDAVG, HONEST, MARKET, AgentPlan, Place, Scores
from p2pmarket.experiments.worlds.linear_broker import PARAMETERS, BrokerSamples, LinearAppraiser
from p2pmarket.market import MarketTerms
from p2pmarket.simulation.chance import stream

ERROR, GRADIENT = "error", "gradient"
METRICS = (ERROR, GRADIENT)
"""What the column `metric` has: the score again, or the squared gradient of an agent's own training loss."""
MOST_NUMBERS = 2**27
"""Of one agent's inputs: 1 GiB."""
MOST_BROKER_NUMBERS = 2**28
"""Of the broker's samples: 1 GiB in float32, and as much again while it measures."""
MOST_KEPT_NUMBERS = 2**29
"""Of all agents together, once their inputs are made what a gradient step needs of them: 4 GiB."""


@dataclasses.dataclass(frozen=True)
class LinearEndowment:
    """What one agent can learn from."""

    samples: int
    noise: float
    """Variance of its labels' noise."""


@dataclasses.dataclass(frozen=True)
class RegressionSettings:
    """The section [regression]."""

    KEY: ClassVar[str] = "regression"
    METHODS: ClassVar[tuple[str, ...]] = (MARKET, FEDAVG, ALONE)

    dimension: int
    length: float
    """Of the true parameters: |theta*|."""
    rate: float
    """Step size of gradient descent."""
    steps: int
    """In a round."""
    broker_samples: int
    """n_z; half of them for SELECT, half for REPORT. In the paper's protocol the broker knows theta* itself."""
    distances: Mapping[str, float]
    """Of each task's true parameters from those that all tasks have in common."""
    metric: str = ERROR
    """One of METRICS."""

    @classmethod
    def read(cls, table: Table) -> RegressionSettings:
        """
        :raises ScenarioError: names the wrong key
        """
        dimension = table.whole("dimension", low=2, high=20_000)
        tasks = table.table("tasks") or {"linear": 0.0}
        for name, distance in tasks.items():
            if type(distance) not in (int, float) or not 0 <= distance < math.inf:
                raise ScenarioError(f"tasks.{name} in {table.where} is a distance from 0 on, not {distance!r}")
        settings = cls(
            dimension=dimension,
            length=table.number("length", math.sqrt(dimension)),
            rate=table.number("rate", 0.01, high=2.0),
            steps=table.whole("steps", 1, low=1, high=100_000),
            broker_samples=table.whole("broker_samples", 10_000, low=8, high=1_000_000),
            distances={name: float(distance) for name, distance in tasks.items()},
            metric=table.text("metric", ERROR, METRICS),
        )
        if settings.broker_samples * dimension > MOST_BROKER_NUMBERS:
            raise ScenarioError(
                f"broker_samples in {table.where} is {settings.broker_samples}, of {dimension} numbers each; at most "
                f"{MOST_BROKER_NUMBERS:,} numbers fit, so lower broker_samples or dimension"
            )
        return settings

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names; the first is the default."""
        return tuple(self.distances)

    def endowment(self, table: Table) -> LinearEndowment:
        """
        :raises ScenarioError: an endowment that cannot be
        """
        samples = table.whole("samples", low=1, high=1_000_000)
        if samples * self.dimension > MOST_NUMBERS:
            raise ScenarioError(
                f"{table.where} has {samples} samples of {self.dimension} numbers each; at most {MOST_NUMBERS:,} "
                "numbers fit, so take fewer samples or a smaller dimension"
            )
        return LinearEndowment(samples, table.number("noise", 0.0, high=1e6))

    def keeps_inputs(self, samples: int) -> bool:
        """Whether so many inputs, (samples, dimension), are fewer numbers to step with than their Gram matrix."""
        return 2 * samples < self.dimension

    def check_agents(self, agents: Sequence[AgentPlan]) -> None:
        """
        :raises ScenarioError: what all of them keep would not fit
        """
        kept = sum(
            (samples if self.keeps_inputs(samples) else self.dimension) * self.dimension
            for samples in (agent.endowment.samples for agent in agents)
        )
        if kept > MOST_KEPT_NUMBERS:
            raise ScenarioError(
                f"the {len(agents)} agents would keep {kept:,} numbers, each its samples or a square of dimension "
                f"({self.dimension}); at most {MOST_KEPT_NUMBERS:,} fit, so lower dimension, count or samples"
            )

    def check_terms(self, terms: MarketTerms) -> None:
        """
        :raises ScenarioError: they ask for what merges in closed form of one tensor do not have
        """
        if not terms.is_tradable(PARAMETERS):
            raise ScenarioError(
                f"tradable in [terms.trade] leaves out {PARAMETERS!r}, a linear model's only tensor, so that nothing "
                "could be sold; name it, or leave tradable out"
            )
        for section, key, value, known in (
            ("trade", "groups", terms.groups, ((),)),
            ("appraisal", "coefficients", terms.coefficients, ("auto", "model")),
            ("appraisal", "activations", terms.activations, (False,)),
            ("appraisal", "repair", terms.repair, (False,)),
            ("appraisal", "tell_classes", terms.tell_classes, (False,)),
            ("appraisal", "tell_tasks", terms.tell_tasks, (False,)),
        ):
            if value not in known:
                raise ScenarioError(
                    f"{key} in [terms.{section}] means nothing in [regression], where a merge is one coefficient "
                    "on one tensor; leave it out"
                )

    def build(self, agents: Sequence[AgentPlan], *, method: str, protocol: str, seed: int, place: Place) -> Regression:
        """The world of one run."""
        return Regression(self, agents, honest=protocol == HONEST, seed=seed)


class LinearLearner:
    """One agent. Its data are kept as what a gradient step needs of them."""

    def __init__(self, settings: RegressionSettings, plan: AgentPlan, truth: Tensor, draw: torch.Generator) -> None:
        endowment: LinearEndowment = plan.endowment
        self.samples = endowment.samples
        self.about = f"{endowment.samples} samples, noise {endowment.noise:g}"
        inputs = torch.randn(self.samples, settings.dimension, generator=draw, dtype=torch.float64)
        noise = torch.randn(self.samples, generator=draw, dtype=torch.float64) * math.sqrt(endowment.noise)
        targets = inputs @ truth + noise
        self._settings = settings
        self._truth = truth
        self._inputs = inputs if settings.keeps_inputs(self.samples) else None
        self._gram = inputs.T @ inputs / self.samples if self._inputs is None else None
        self._moment = inputs.T @ targets / self.samples
        self._theta = torch.zeros(settings.dimension, dtype=torch.float64)

    def learn(self) -> None:
        """Some gradient steps."""
        for _ in range(self._settings.steps):
            self._theta = self._theta - self._settings.rate * self.gradient()

    def gradient(self) -> Tensor:
        """(dimension,): of its training loss, 1/(2n) |X theta - y|^2, where it is now."""
        if self._gram is not None:
            return self._gram @ self._theta - self._moment
        assert self._inputs is not None
        return self._inputs.T @ (self._inputs @ self._theta) / self.samples - self._moment

    def snapshot(self) -> dict[str, Tensor]:
        """The parameters, float64."""
        return {PARAMETERS: self._theta.clone()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what was bought."""
        self._theta = tensors[PARAMETERS].to(torch.float64)

    def scores(self) -> Scores:
        """|theta - theta*|^2, and what the settings watch beside it."""
        error = float((self._theta - self._truth).square().sum())
        return Scores(error, float(self.gradient().square().sum()) if self._settings.metric == GRADIENT else error)


class Regression:
    """One run's world."""

    def __init__(self, settings: RegressionSettings, agents: Sequence[AgentPlan], *, honest: bool, seed: int) -> None:
        self._settings = settings
        self._honest = honest
        self._seed = seed
        common = _direction(settings.dimension, seed, "truth") * settings.length
        self.truths = {
            task: common + distance * _direction(settings.dimension, seed, f"task {task}")
            for task, distance in settings.distances.items()
        }
        self.learners = tuple(
            LinearLearner(settings, plan, self.truths[plan.task], _generator(seed, f"agent {plan.name}"))
            for plan in agents
        )
        whose = f"{settings.broker_samples} samples" if honest else "the true parameters"
        self.about = f"linear regression with {settings.dimension} parameters; the broker has {whose}"

    def terms(self) -> dict[str, Any]:
        """[model] and [[task]]."""
        return {
            "model": {"name": "linear", "arguments": {"inputs": self._settings.dimension}},
            "task": [{"name": task, "loss": "mse", "metric": "loss"} for task in self.truths],
        }

    def appraiser(self, terms: MarketTerms) -> Appraiser:
        """A broker that knows the truth, or one with samples."""
        samples = {}
        if self._honest:
            count = self._settings.broker_samples // 2
            draw = _generator(self._seed, "broker")
            shape = (count, self._settings.dimension)
            drawn = BrokerSamples(torch.randn(shape, generator=draw), torch.randn(shape, generator=draw))
            samples = dict.fromkeys(self.truths, drawn)
        return LinearAppraiser(terms, self.truths, samples, seed=self._seed)


def _generator(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(stream(seed, purpose).getrandbits(63))


def _direction(dimension: int, seed: int, purpose: str) -> Tensor:
    drawn = torch.randn(dimension, generator=_generator(seed, purpose), dtype=torch.float64)
    unit: Tensor = drawn / drawn.norm()
    return unit
