"""One run: a scenario's agents learn and trade, round by round, in one process and in virtual time.

Knows: the order of a round (everybody learns, everybody visits the market at once, everybody is measured) and how
parties that crashed come back. Refuses to know: what is learned (worlds/), where results go (results.py). The market is
the one of the internet: agents, broker, messages, parcels and ledger on the in-memory transport. Equal scenarios and
seeds give equal rows; only `wall_seconds` differs.
"""

from __future__ import annotations

import asyncio
import bisect
import dataclasses
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import p2pmarket
from p2pmarket.experiments.recording import RoundRow, TradeRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.scenario import Scenario, terms_of
from p2pmarket.experiments.trades import trade_rows
from p2pmarket.experiments.worlds.contract import ALONE, FEDAVG, AgentPlan, Learner, Place, World
from p2pmarket.ledger.journal import Ledger
from p2pmarket.network.memory import CALM, Fate, MemoryNetwork
from p2pmarket.node.results import TradeResult
from p2pmarket.simulation import chance
from p2pmarket.simulation.lives import Ended
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.simulation.virtual import VirtualLoop, run
from p2pmarket.simulation.weather import Crashes, DrawnWeather

Progress = Callable[[int, int], None]
"""Told the finished rounds and how many there are; may raise to stop."""
BROKER = "broker"
HERE = Place()


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """Which run of a scenario."""

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


def run_once(
    plan: RunPlan,
    place: Place = HERE,
    progress: Progress = lambda done, of: None,
) -> RunResult:
    """Runs it.

    :raises ScenarioError, DataError, ModelError: the scenario's world cannot be made
    """
    began = time.monotonic()
    scenario = plan.scenario
    world = scenario.world.build(
        scenario.agents, method=scenario.method, protocol=scenario.protocol, seed=plan.seed, place=place
    )
    apart = scenario.method in (ALONE, FEDAVG)
    told = _Told(plan)
    if apart:
        outcome = _without_market(plan, world, told, progress)
    else:
        outcome = _in_market(plan, world, told, progress)
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
            }
            for agent, learner in zip(scenario.agents, world.learners, strict=True)
        },
        "broker": outcome.peers.get(BROKER, ""),
        "final": told.final(),
        "ledger": outcome.ledger,
        "traffic_bytes": outcome.traffic_bytes,
        "messages": outcome.messages,
        "crashes": outcome.crashes,
        "wall_seconds": round(time.monotonic() - began, 3),
        "virtual_seconds": outcome.virtual_seconds,
        "versions": {
            "p2pmarket": p2pmarket.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    return RunResult(facts, tuple(told.rows), outcome.trades)


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What a run leaves besides the agents' rounds."""

    trades: tuple[TradeRow, ...] = ()
    peers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ledger: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    traffic_bytes: int = 0
    messages: int = 0
    crashes: int = 0
    virtual_seconds: float = 0.0


class _Told:
    """Collects the agents' rounds."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self.rows: list[RoundRow] = []

    def due(self, number: int) -> bool:
        """Whether this round is looked at."""
        scenario = self._plan.scenario
        return number % scenario.measure_every == 0 or number == scenario.rounds

    def take(self, agent: AgentPlan, learner: Learner, number: int, time_s: float, **more: Any) -> None:
        """Notes one agent's round."""
        plan, scores = self._plan, learner.scores()
        self.rows.append(
            RoundRow(
                plan.name, plan.scenario.method, plan.seed, agent.name, agent.task, number, time_s, scores.loss,
                scores.metric, **more,
            )
        )  # fmt: skip

    def final(self) -> dict[str, dict[str, Any]]:
        """Each agent's last row."""
        return {row.agent: {"loss": row.loss, "metric": row.metric, "balance": row.balance} for row in self.rows}


def _without_market(plan: RunPlan, world: World, told: _Told, progress: Progress) -> _Outcome:
    """Everybody learns; under FedAvg everybody then takes the mean, weighted by samples, of what all have."""
    scenario = plan.scenario
    pairs = list(zip(scenario.agents, world.learners, strict=True))
    for agent, learner in pairs:
        told.take(agent, learner, 0, 0.0)
    for number in range(1, scenario.rounds + 1):
        for learner in world.learners:
            learner.learn()
        if scenario.method == FEDAVG and _trades_in(scenario, number):
            mean = federated_mean([(learner.samples, learner.snapshot()) for learner in world.learners])
            for learner in world.learners:
                learner.load(mean)
        if told.due(number):
            for agent, learner in pairs:
                told.take(agent, learner, number, number * scenario.round_seconds)
        progress(number, scenario.rounds)
    return _Outcome()


def federated_mean(parts: Sequence[tuple[int, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """FedAvg's mean of parameters, weighted by samples (McMahan et al. 2017), of the tensors that all of them have."""
    total = sum(samples for samples, _ in parts)
    first = parts[0][1]
    same = [
        name
        for name, tensor in first.items()
        if tensor.is_floating_point() and all(name in one and one[name].shape == tensor.shape for _, one in parts)
    ]
    return {name: sum((one[name] * (samples / total) for samples, one in parts), torch.zeros(())) for name in same}


def _trades_in(scenario: Scenario, number: int) -> bool:
    return number >= scenario.trade_from and (number - scenario.trade_from) % scenario.trade_every == 0


def _in_market(plan: RunPlan, world: World, told: _Told, progress: Progress) -> _Outcome:
    work = chance.stream(plan.seed, "work")
    fair = plan.scenario.climate is None
    loop = VirtualLoop(work_seconds=(lambda: 0.0) if fair else (lambda: work.uniform(0.0, 0.02)))
    with (
        tempfile.TemporaryDirectory(prefix="p2pmarket-simulated-") as folder,
        chance.seeded(chance.stream(plan.seed, "ids")),
    ):
        return run(lambda loop: _Market(plan, world, told, progress, loop, Path(folder)).run(), loop)


def _calm(sender: str, receiver: str, size: int) -> Fate:
    return CALM


class _Market:
    """The market of one run."""

    def __init__(
        self, plan: RunPlan, world: World, told: _Told, progress: Progress, loop: VirtualLoop, folder: Path
    ) -> None:
        scenario = plan.scenario
        self._plan = plan
        self._scenario = scenario
        self._learners = dict(zip((agent.name for agent in scenario.agents), world.learners, strict=True))
        self._told = told
        self._progress = progress
        self._loop = loop
        self._began_ms = loop.now_ms()
        self._round_starts: list[int] = []
        terms = terms_of(scenario, world.terms())
        climate = scenario.climate
        names = (BROKER, *self._learners)
        self._crashes = Crashes(rate=climate.crash if climate else 0.0, chance=chance.stream(plan.seed, "crashes"))
        self._away = chance.stream(plan.seed, "away")
        weather = DrawnWeather(climate, chance.stream(plan.seed, "weather")) if climate else _calm
        self._network = MemoryNetwork(loop.now_ms, watch=self._hear, weather=weather)
        skews = chance.stream(plan.seed, "skews")
        skew_ms = climate.skew_ms if climate else 0
        self._market = MarketInMemory(
            terms,
            {},
            folder,
            clock=loop.now_ms,
            appraiser=world.appraiser(terms),
            network=self._network,
            skews_ms={name: skews.randint(-skew_ms, skew_ms) for name in names},
            watch=self._crashes,
        )
        self._timeout_seconds = terms.round_timeout_ms / 1000 + 300.0
        self._sent: Counter[str] = Counter()
        self._received: Counter[str] = Counter()
        self._messages = 0
        self._broker_is_here = asyncio.Event()
        self._peers = {name: self._market.identity(name).peer_id for name in names}
        self._names = {peer: name for name, peer in self._peers.items()}

    async def run(self) -> _Outcome:
        keeping = asyncio.ensure_future(self._keep_broker())
        parting = asyncio.ensure_future(self._part())
        rounds = asyncio.ensure_future(self._rounds())
        try:
            await asyncio.wait({keeping, rounds}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()  # the broker cannot be started any more: says why
            rounds.result()
            return await self._outcome()
        finally:
            for task in (keeping, parting, rounds):
                task.cancel()
            await asyncio.wait({keeping, parting, rounds})
            for name in self._learners:
                await self._leave(name)
            await self._market.stop_broker()

    async def _rounds(self) -> None:
        await self._broker_is_here.wait()
        for agent in self._scenario.agents:
            await self._start(agent)
            self._told.take(agent, self._learners[agent.name], 0, 0.0)
        rounds = self._scenario.rounds
        for number in range(1, rounds + 1):
            self._round_starts.append(self._loop.now_ms())
            before = (self._sent.copy(), self._received.copy())
            for learner in self._learners.values():
                learner.learn()
            results: Sequence[TradeResult] = [TradeResult()] * len(self._learners)
            if _trades_in(self._scenario, number):
                results = await asyncio.gather(*(self._visit(agent, number) for agent in self._scenario.agents))
            if self._told.due(number):
                await self._take(number, results, before)
            self._progress(number, rounds)
            due_ms = self._began_ms + round(number * self._scenario.round_seconds * 1000)
            await asyncio.sleep(max(0.0, (due_ms - self._loop.now_ms()) / 1000))

    async def _take(
        self, number: int, results: Sequence[TradeResult], before: tuple[Counter[str], Counter[str]]
    ) -> None:
        await self._broker_is_here.wait()
        balances = await self._market.balances()
        time_s = (self._loop.now_ms() - self._began_ms) / 1000
        for agent, result in zip(self._scenario.agents, results, strict=True):
            peer = self._peers[agent.name]
            self._told.take(
                agent,
                self._learners[agent.name],
                number,
                time_s,
                offered=sum(report.weight > 0 for report in result.reports),
                bought=len(result.bought),
                sold=len(result.sold),
                gain=sum(one.report.gain for one in result.bought if one.report is not None),
                paid=sum(one.price for one in result.bought),
                earned=sum(sale.price - sale.fee for sale in result.sold),
                balance=balances.get(peer, 0),
                sent_bytes=self._sent[peer] - before[0][peer],
                received_bytes=self._received[peer] - before[1][peer],
                problem=result.problem,
            )

    async def _visit(self, agent: AgentPlan, number: int) -> TradeResult:
        """One visit; a process that ends meanwhile is started again, and this visit is lost."""
        learner = self._learners[agent.name]
        try:
            if self._market.life(agent.name).ended:
                raise Ended
            result = await self._market.visit(agent.name, learner.snapshot(), task=agent.task, step=number)
            for purchase in result.bought:
                learner.load(purchase.parameters)
            return await self._market.loaded(agent.name, result)
        except Ended:
            await self._market.crash(agent.name)
            await self._stay_away()
            await self._start(agent)
            return TradeResult(problem="its process ended during the visit")

    async def _start(self, agent: AgentPlan) -> None:
        while True:
            try:
                await self._market.start_agent(agent.name, agent.strategy, timeout_seconds=self._timeout_seconds)
                return
            except Ended:
                await self._stay_away()

    async def _leave(self, name: str) -> None:
        if self._market.is_running(name):
            await self._market.stop_agent(name)

    async def _keep_broker(self) -> None:
        """Starts the broker, again whenever it has crashed."""
        while True:
            try:
                running = await self._market.start_broker()
            except Ended:
                await self._stay_away()
                continue
            self._broker_is_here.set()
            await running.life.buried()
            self._broker_is_here.clear()
            await self._market.crash(BROKER)
            await self._stay_away()

    async def _stay_away(self) -> None:
        climate = self._scenario.climate
        assert climate is not None  # nothing ends where nothing goes wrong
        await asyncio.sleep(self._away.uniform(0.0, climate.away_seconds))

    async def _part(self) -> None:
        """Keeps pairs of parties apart for a while, at times spread over the run."""
        climate, draw = self._scenario.climate, chance.stream(self._plan.seed, "partings")
        if climate is None or not climate.partings:
            return
        pause = self._scenario.rounds * self._scenario.round_seconds / climate.partings
        for _ in range(climate.partings):
            await asyncio.sleep(draw.uniform(0.0, pause))
            one, other = draw.sample(sorted(self._names), 2)
            self._network.part(one, other)
            await asyncio.sleep(draw.uniform(0.0, climate.parted_seconds))
            self._network.heal()

    def _hear(self, sender: str, receiver: str, data: bytes) -> None:
        self._sent[sender] += len(data)
        self._received[receiver] += len(data)
        self._messages += 1

    def _round_at(self, now_ms: int) -> int:
        """Of a time: 1, 2, ..."""
        return max(1, bisect.bisect_right(self._round_starts, now_ms))

    async def _outcome(self) -> _Outcome:
        await self._broker_is_here.wait()
        ledger = self._market.running.ledger
        found = await ledger.run(Ledger.trades)
        verified = await ledger.run(Ledger.verify)
        balances = await self._market.balances()
        rows = trade_rows(
            found, run=self._plan.name, method=self._scenario.method, seed=self._plan.seed, names=self._names,
            round_at=self._round_at, began_ms=self._began_ms,
        )  # fmt: skip
        settled = [row for row in rows if row.price is not None]
        return _Outcome(
            trades=tuple(rows),
            peers=self._peers,
            ledger={
                "trades": len(rows),
                "settled": len(settled),
                "moved": sum(row.price or 0 for row in settled),
                "fees": balances.get(self._peers[BROKER], 0),
                "verified": verified.ok,
                "problems": list(verified.problems),
            },
            traffic_bytes=sum(self._sent.values()),
            messages=self._messages,
            crashes=len(self._crashes.happened),
            virtual_seconds=self._loop.time(),
        )
