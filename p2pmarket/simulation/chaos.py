"""A market in which everything goes wrong, from one seed: what was agreed must come out right all the same.

Knows: how to let agents visit a market while writes are lost, parties are kept apart and processes end anywhere; how to
let it come to rest afterwards. Refuses to know: what must hold then (invariants.py). A seed gives the same run in every
process: the same trace, the same balances.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.market import MarketTerms
from p2pmarket.messages import AskRequest, GainReport, Unmatched
from p2pmarket.network.memory import MemoryNetwork
from p2pmarket.node.strategy import Strategy, Wallet
from p2pmarket.simulation import chance
from p2pmarket.simulation.invariants import MailOrder
from p2pmarket.simulation.lives import Ended
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.simulation.parties import Parties, calm, fail_points_are_steps, with_steps
from p2pmarket.simulation.trace import Trace
from p2pmarket.simulation.virtual import VirtualLoop, run
from p2pmarket.simulation.weather import Climate, Crashes, DrawnWeather
from p2pmarket.tasks import end_tasks
from p2pmarket.units import CREDIT

START_PAUSE_SECONDS = 2.0
PARTING_PAUSE_SECONDS = 20.0
"""At most, before two parties are kept apart."""


@dataclasses.dataclass(frozen=True, eq=False)
class Whim(Strategy):
    """Names amounts by chance: within what it may, now and then nothing, raises bids and lowers asks by chance."""

    chance: random.Random = dataclasses.field(default_factory=lambda: random.Random(0))
    live: bool = False
    """Asks only when it is asked."""

    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        if not self.wants(report) or self.chance.random() < 0.05:
            return None
        return self.chance.randint(0, min(2 * CREDIT, self.left(wallet)))

    def raise_bid(self, report: GainReport, unmatched: Unmatched, last_bid: int, wallet: Wallet) -> int | None:
        raised = last_bid + self.chance.randint(1, CREDIT)
        return raised if raised <= self.left(wallet) and self.chance.random() < 0.8 else None

    def standing_ask(self) -> int | None:
        return None if self.live else self.chance.randint(0, 2 * CREDIT)

    def ask(self, request: AskRequest) -> int | None:
        return self.chance.randint(0, 2 * CREDIT) if self.chance.random() < 0.9 else None

    def lower_ask(self, request: AskRequest, last_ask: int) -> int | None:
        return self.chance.randint(0, last_ask) if self.chance.random() < 0.8 else None


@dataclasses.dataclass(frozen=True)
class Plan:
    """One chaotic market."""

    seed: int
    terms: MarketTerms
    climate: Climate
    agents: int = 5
    visits: int = 8
    """Of each agent."""
    most_seconds: float = 3600.0
    """Virtual, until it must be at rest."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run leaves; the folder holds the ledger and the journals."""

    plan: Plan
    names: Mapping[str, str]
    """Of each party, by peer id."""
    trace: Trace
    crashes: int
    lost: int
    """Writes."""
    quiet: bool
    """Whether nothing was left open at the end."""
    mail_problems: list[str]
    """Mail that was sent out of turn, in words."""
    seconds: float
    """Virtual."""


class NotAtRest(Exception):
    """Something in the market goes on and on."""


MakeAppraiser = Callable[[MarketTerms, int], Appraiser]
Snapshot = Callable[[random.Random], Mapping[str, Tensor]]
"""Draws what an agent brings to one visit."""


def one_row(generator: random.Random) -> Mapping[str, Tensor]:
    """The smallest snapshot worth sealing: eight numbers."""
    return {"weight": torch.tensor([generator.gauss(0.0, 1.0) for _ in range(8)])}


def run_chaos(plan: Plan, folder: Path, make_appraiser: MakeAppraiser, snapshot: Snapshot = one_row) -> Outcome:
    """Runs a market until it is at rest.

    :raises NotAtRest: it takes longer than its plan allows
    """
    work = chance.stream(plan.seed, "work")
    loop = VirtualLoop(work_seconds=lambda: work.uniform(0.0, 0.02))
    with chance.seeded(chance.stream(plan.seed, "ids")), fail_points_are_steps():
        return run(lambda loop: _Chaos(plan, folder, loop, make_appraiser, snapshot).run(), loop)


class _Chaos:
    def __init__(
        self, plan: Plan, folder: Path, loop: VirtualLoop, make_appraiser: MakeAppraiser, snapshot: Snapshot
    ) -> None:
        self._plan = plan
        self._loop = loop
        self._snapshot = snapshot
        self._names = [f"agent-{number}" for number in range(plan.agents)]
        self._draw = chance.stream(plan.seed, "visits")
        self._tensors = chance.stream(plan.seed, "snapshots")
        skews = chance.stream(plan.seed, "skews")
        climate = plan.climate
        self._crashes = Crashes(rate=climate.crash, chance=chance.stream(plan.seed, "crashes"))
        self._weather = DrawnWeather(climate, chance.stream(plan.seed, "weather"))
        self._peers: dict[str, str] = {}
        self._trace = Trace(loop.now_ms, self._peers)
        self._network = MemoryNetwork(loop.now_ms, weather=self._weather, watch=with_steps(self._trace.hear))
        self._mail = MailOrder()
        self._trace.hears.append(self._mail.hear)
        self._market = MarketInMemory(
            plan.terms,
            {},
            folder,
            clock=loop.now_ms,
            appraiser=make_appraiser(plan.terms, plan.seed),
            network=self._network,
            skews_ms={name: skews.randint(-climate.skew_ms, climate.skew_ms) for name in ("broker", *self._names)},
            watch=self._crashes,
        )
        self._parties = Parties(self._market, climate, self._draw)

    async def run(self) -> Outcome:
        try:
            return await asyncio.wait_for(self._run(), self._plan.most_seconds)
        except asyncio.TimeoutError:
            raise NotAtRest(f"the market is not at rest after {self._plan.most_seconds:.0f} virtual seconds") from None

    async def _run(self) -> Outcome:
        for name in ("broker", *self._names):
            self._peers[self._market.identity(name).peer_id] = name
        keeping = asyncio.ensure_future(self._parties.keep_broker())
        parting = asyncio.ensure_future(
            self._parties.part(tuple(self._peers), chance.stream(self._plan.seed, "partings"), PARTING_PAUSE_SECONDS)
        )
        visiting = asyncio.ensure_future(self._visit_all())
        await asyncio.wait({keeping, visiting}, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()  # the broker cannot be started any more: says why
        visiting.result()
        parting.cancel()
        calm(self._network, self._weather, self._crashes)
        await self._parties.broker_is_here.wait()
        quiet = await self._rest()
        for name in self._names:
            await self._market.stop_agent(name)
        await end_tasks((keeping, parting))
        await self._market.stop_broker()
        return Outcome(
            self._plan, self._peers, self._trace, len(self._crashes.happened), self._weather.lost, quiet,
            self._mail.problems, self._loop.time(),
        )  # fmt: skip

    async def _visit_all(self) -> None:
        await asyncio.gather(*(self._visit_often(name) for name in self._names))

    async def _visit_often(self, name: str) -> None:
        """One agent's visits; it is started again whenever it has crashed."""
        strategy = self._strategy(name)
        as_long_as_it_lies = 2 * self._plan.terms.delivery_ms / 1000
        await self._parties.start_agent(name, strategy)
        for _ in range(self._plan.visits):
            await asyncio.sleep(self._draw.uniform(0.0, START_PAUSE_SECONDS))
            try:
                if self._market.life(name).ended:
                    raise Ended
                await self._market.visit(name, self._snapshot(self._tensors))
            except Ended:
                await self._market.crash(name)
                await self._parties.stay_away(as_long_as_it_lies, 0.3)
                await self._parties.start_agent(name, strategy)

    def _strategy(self, name: str) -> Strategy:
        mine = chance.stream(self._plan.seed, name)
        if mine.random() < 0.2:
            return Strategy(credits_per_gain=5 * CREDIT, reserve=mine.randint(0, CREDIT))
        return Whim(chance=mine, live=mine.random() < 0.4)

    async def _rest(self) -> bool:
        """Lets every agent take up what is open, without a new trade; past the terms of bids and deliveries."""
        terms = self._plan.terms
        for name in self._names:
            await self._market.crash(name)
            await self._parties.start_agent(name, Strategy(buy=False, sell=False))
        for _ in range(3):
            for name in self._names:
                await self._parties.take_up(name, lambda: self._snapshot(self._tensors))
            await asyncio.sleep((terms.bid_ms + terms.ask_ms + terms.delivery_ms) / 1000 / 2 + 60.0)
        return not any([await self._parties.waits(name) for name in self._names])
