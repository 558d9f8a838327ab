"""A run's market: its agents learn and trade, round by round, in one process and in virtual time.

Knows: the order of a round (everybody learns, everybody visits the market at once, everybody is measured), and what a
market leaves once it is at rest. Refuses to know: what is learned (worlds/), how parties come back
(simulation/parties.py), how what is open comes to its end (rest.py), where files lie (scratch.py). The market is the
one of the internet: agents, broker, messages, parcels and ledger on the in-memory transport.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import dataclasses
import gc
from collections.abc import Sequence
from pathlib import Path

from p2pmarket.experiments.diary import NOT_FINITE, Diary, Outcome, is_finite
from p2pmarket.experiments.plan import Progress, RunPlan
from p2pmarket.experiments.rest import come_to_rest
from p2pmarket.experiments.scenario import terms_of
from p2pmarket.experiments.scratch import room_for
from p2pmarket.experiments.tally import Traffic, Visits
from p2pmarket.experiments.trades import trade_rows
from p2pmarket.experiments.worlds.contract import AgentPlan, World
from p2pmarket.ledger.journal import Ledger
from p2pmarket.market import MarketTerms
from p2pmarket.network.memory import MemoryNetwork
from p2pmarket.node.results import TradeResult
from p2pmarket.simulation import chance
from p2pmarket.simulation.invariants import problems_at_rest
from p2pmarket.simulation.lives import Ended
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.simulation.parties import BROKER, Parties, calm, fail_points_are_steps, with_steps
from p2pmarket.simulation.virtual import VirtualLoop, run
from p2pmarket.simulation.weather import Climate, Crashes, DrawnWeather
from p2pmarket.tasks import end_tasks

__all__ = ["BROKER", "run_in_market"]

ANSWER_SECONDS = 300.0
"""How long a visit may take beyond the wait for its round."""
LEDGER_SECONDS = 60.0
"""How long an answer of a broker's ledger is waited for that may have ended meanwhile."""


def run_in_market(plan: RunPlan, world: World, diary: Diary, progress: Progress) -> Outcome:
    """Runs it, in a folder that is gone afterwards.

    :raises ScenarioError: terms that are none, or faults that let nothing begin
    :raises DiskFull, MachineFault: there is no room for the folder, or not enough in it
    """
    scenario = plan.scenario
    terms = terms_of(scenario, world.terms())
    faulty = scenario.climate is not None
    work = chance.stream(plan.seed, "work")
    loop = VirtualLoop(work_seconds=(lambda: work.uniform(0.0, 0.02)) if faulty else (lambda: 0.0))
    with (
        room_for(terms, [learner.snapshot() for learner in world.learners], scenario.rounds) as folder,
        chance.seeded(chance.stream(plan.seed, "ids")),
        fail_points_are_steps() if faulty else contextlib.nullcontext(),
    ):
        try:
            outcome = run(lambda loop: _Market(plan, world, terms, diary, progress, loop, folder).run(), loop)
        finally:
            gc.unfreeze()
        if not faulty:
            return outcome
        names = [agent.name for agent in scenario.agents]
        problems = [*outcome.ledger["problems"], *problems_at_rest(folder, names, terms.opening_credit)]
    return dataclasses.replace(outcome, ledger={**outcome.ledger, "problems": list(dict.fromkeys(problems))})


class _Market:
    """The market of one run."""

    def __init__(
        self,
        plan: RunPlan,
        world: World,
        terms: MarketTerms,
        diary: Diary,
        progress: Progress,
        loop: VirtualLoop,
        folder: Path,
    ) -> None:
        scenario = plan.scenario
        climate = scenario.climate or Climate()
        names = (BROKER, *(agent.name for agent in scenario.agents))
        self._plan = plan
        self._scenario = scenario
        self._terms = terms
        self._faulty = scenario.climate is not None
        self._learners = {agent.name: learner for agent, learner in zip(scenario.agents, world.learners, strict=True)}
        self._diary = diary
        self._progress = progress
        self._loop = loop
        self._began_ms = loop.now_ms()
        self._round_starts: list[int] = []
        self._traffic = Traffic()
        self._visits = Visits()
        self._crashes = Crashes(rate=climate.crash, chance=chance.stream(plan.seed, "crashes"))
        self._weather = DrawnWeather(climate, chance.stream(plan.seed, "weather"))
        self._weather.calm = not self._faulty
        hear = self._traffic.hear
        self._network = MemoryNetwork(
            loop.now_ms, watch=with_steps(hear) if self._faulty else hear, weather=self._weather
        )
        skews = chance.stream(plan.seed, "skews")
        skews_ms = {name: skews.randint(-climate.skew_ms, climate.skew_ms) for name in names}
        self._ahead_ms = skews_ms[BROKER]
        """The broker's clock, which its ledger's times are of."""
        self._market = MarketInMemory(
            terms,
            {},
            folder,
            clock=loop.now_ms,
            appraiser=world.appraiser(terms),
            network=self._network,
            skews_ms=skews_ms,
            watch=self._crashes,
        )
        self._parties = Parties(self._market, climate, chance.stream(plan.seed, "away"))
        self._timeout_seconds = terms.round_timeout_ms / 1000 + ANSWER_SECONDS
        self._peers = {name: self._market.identity(name).peer_id for name in names}
        self._names = {peer: name for name, peer in self._peers.items()}

    async def run(self) -> Outcome:
        scenario, draw = self._scenario, chance.stream(self._plan.seed, "partings")
        pause_seconds = scenario.rounds * scenario.round_seconds / max(1, (scenario.climate or Climate()).partings)
        keeping = asyncio.ensure_future(self._parties.keep_broker())
        parting = asyncio.ensure_future(self._parties.part(tuple(self._names), draw, pause_seconds))
        rounds = asyncio.ensure_future(self._rounds())
        try:
            await asyncio.wait({keeping, rounds}, return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()  # the broker cannot be started any more: says why
            rounds.result()
            took_seconds = self._loop.time()
            parting.cancel()
            calm(self._network, self._weather, self._crashes)
            self._traffic.counting = False
            await self._parties.broker_is_here.wait()
            open_yet = await come_to_rest(
                self._market, self._parties, scenario.agents, self._learners, faulty=self._faulty
            )
            return await self._outcome(open_yet, took_seconds)
        finally:
            await end_tasks((parting, rounds))
            for name in self._learners:
                if self._market.is_running(name):
                    await self._market.stop_agent(name)
            await end_tasks((keeping,))
            await self._market.stop_broker()

    # ---- rounds -------------------------------------------------------------------------------------------------

    async def _rounds(self) -> None:
        await self._parties.broker_is_here.wait()
        for agent in self._scenario.agents:
            await self._start(agent)
            self._diary.take(agent, self._learners[agent.name], 0, 0.0, balance=self._terms.opening_credit)
        gc.freeze()  # hundreds of agents are too many to be looked through again and again; they stay to the end
        rounds = self._scenario.rounds
        for number in range(1, rounds + 1):
            self._round_starts.append(self._loop.now_ms())
            for learner in self._learners.values():
                learner.learn()
            if self._plan.trades_in(number):
                await self._visit_all(number)
            if self._plan.looks_at(number):
                await self._measure(number)
            self._progress(number, rounds)
            due_ms = self._began_ms + round(number * self._scenario.round_seconds * 1000)
            await asyncio.sleep(max(0.0, (due_ms - self._loop.now_ms()) / 1000))

    async def _visit_all(self, number: int) -> None:
        """Everybody's visit of a round.

        :raises MarketError: what one of them raised; the others are broken off
        :raises DiskFull: the broker's ledger has no room, so that visits fail for no reason of the scenario's
        """
        visits = [asyncio.ensure_future(self._visit(agent, number)) for agent in self._scenario.agents]
        try:
            for agent, result in zip(self._scenario.agents, await asyncio.gather(*visits), strict=True):
                self._visits.note(agent.name, result)
        finally:
            await end_tasks(visits)
        if self._market.disk_full is not None:
            raise self._market.disk_full

    async def _visit(self, agent: AgentPlan, number: int) -> TradeResult:
        """One visit; a process that ends meanwhile is started again, and this visit is lost."""
        learner = self._learners[agent.name]
        snapshot = learner.snapshot()
        if not is_finite(snapshot):
            return TradeResult(problem=NOT_FINITE)
        try:
            result = await self._market.visit(agent.name, snapshot, task=agent.task, step=number)
            for purchase in result.bought:
                learner.load(purchase.parameters)
            return await self._market.loaded(agent.name, result)
        except Ended:
            await self._market.crash(agent.name)
            await self._parties.stay_away()
            await self._start(agent)
            return TradeResult(problem="its process ended during the visit")

    async def _start(self, agent: AgentPlan) -> None:
        await self._parties.start_agent(agent.name, agent.strategy, timeout_seconds=self._timeout_seconds)

    async def _measure(self, number: int) -> None:
        balances, opening = await self._balances(), self._terms.opening_credit
        time_s = (self._loop.now_ms() - self._began_ms) / 1000
        for agent in self._scenario.agents:
            peer = self._peers[agent.name]
            self._diary.take(
                agent,
                self._learners[agent.name],
                number,
                time_s,
                balance=balances.get(peer, opening),  # who never visited has no account yet
                **self._visits.take(agent.name),
                **self._traffic.take(peer),
            )

    async def _balances(self) -> dict[str, int]:
        """By peer id; asked again where the broker ends before it answers."""
        while True:
            await self._parties.broker_is_here.wait()
            with contextlib.suppress(asyncio.TimeoutError):
                return await asyncio.wait_for(self._market.balances(), LEDGER_SECONDS)

    # ---- the end ------------------------------------------------------------------------------------------------

    async def _outcome(self, problems: Sequence[str], took_seconds: float) -> Outcome:
        ledger = self._market.running.ledger
        found = await ledger.run(Ledger.trades)
        verified = await ledger.run(Ledger.verify)
        balances = await self._market.balances()
        rows = trade_rows(
            found, run=self._plan.name, method=self._scenario.method, seed=self._plan.seed, names=self._names,
            round_at=self._round_at, began_ms=self._began_ms + self._ahead_ms,
        )  # fmt: skip
        settled = [row for row in rows if row.price is not None]
        return Outcome(
            trades=tuple(rows),
            peers=self._peers,
            balances={name: balances.get(peer, 0) for name, peer in self._peers.items() if name != BROKER},
            ledger={
                "trades": len(rows),
                "settled": len(settled),
                "moved": sum(row.price or 0 for row in settled),
                "fees": balances.get(self._peers[BROKER], 0),
                "verified": verified.ok,
                "problems": [*verified.problems, *problems],
            },
            traffic_bytes=self._traffic.bytes,
            messages=self._traffic.messages,
            crashes=len(self._crashes.happened),
            visits=self._visits.visits,
            failed=self._visits.failed,
            virtual_seconds=took_seconds,
        )

    def _round_at(self, ledger_ms: int) -> int:
        """Of a time in the ledger: 1, 2, ..."""
        return max(1, bisect.bisect_right(self._round_starts, ledger_ms - self._ahead_ms))
