"""A simulated market's parties under a climate: they are started again when they end, kept apart, and come to rest.

Knows: how long who stays away, that a write is a step at which its process may end, what an agent still waits for.
Refuses to know: why agents visit the market; whoever makes a run decides that. Everything it draws comes from the
generators it is given, so equal ones give equal runs. `ScenarioError` where ends are so frequent that nobody ever gets
up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence

from p2pmarket import failpoints
from p2pmarket.errors import ScenarioError
from p2pmarket.network.memory import MemoryNetwork, Watch
from p2pmarket.node.agent import Tradable
from p2pmarket.node.strategy import Strategy
from p2pmarket.simulation.lives import CURRENT, Ended, Gone
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.simulation.weather import Climate, Crashes, DrawnWeather

BROKER = "broker"
REST_VISITS = 12
"""Visits that an agent needs at most until nothing of it is open."""
MOST_STARTS = 1000
"""Of one party in a row."""


class Parties:
    """The broker and the agents of one market in a `VirtualLoop`."""

    def __init__(self, market: MarketInMemory, climate: Climate, draw: random.Random) -> None:
        """:param draw: for how long parties stay away"""
        self._market = market
        self._climate = climate
        self._draw = draw
        self.broker_is_here = asyncio.Event()
        """Set while there is a broker that has not ended."""

    async def keep_broker(self) -> None:
        """Starts the broker, again whenever it has ended; never ends by itself.

        :raises ScenarioError: it ends at every start
        """
        while True:
            await self._start(self._market.start_broker)
            life = self._market.running.life
            life.on_end.append(self.broker_is_here.clear)  # whoever asks its ledger after its end waits for ever
            self.broker_is_here.set()
            await life.buried()
            await self._market.crash(BROKER)
            await self.stay_away()

    async def start_agent(self, name: str, strategy: Strategy, *, timeout_seconds: float = 60.0) -> None:
        """Starts an agent, again where it ends meanwhile.

        :raises ScenarioError: it ends at every start
        """
        await self._start(lambda: self._market.start_agent(name, strategy, timeout_seconds=timeout_seconds))

    async def stay_away(self, long_seconds: float = 0.0, chance_of_long: float = 0.0) -> None:
        """A while without a party; with that probability it may be as long as `long_seconds`."""
        most = self._climate.away_seconds
        if self._draw.random() < chance_of_long:
            most = long_seconds
        await asyncio.sleep(self._draw.uniform(0.0, most))

    async def part(self, peers: Sequence[str], draw: random.Random, pause_seconds: float) -> None:
        """Keeps pairs of peers apart for a while, as often as the climate has it, with pauses up to that."""
        for _ in range(self._climate.partings):
            await asyncio.sleep(draw.uniform(0.0, pause_seconds))
            one, other = draw.sample(sorted(peers), 2)
            self._market.network.part(one, other)
            await asyncio.sleep(draw.uniform(0.0, self._climate.parted_seconds))
            self._market.network.heal()

    async def take_up(self, name: str, bring: Callable[[], Tradable], *, task: str = "") -> bool:
        """Lets an agent take up what waits, by visits with what `bring` gives; whether nothing of it is open then."""
        for _ in range(REST_VISITS):
            await self._market.visit(name, bring(), task=task)
            if not await self.waits(name):
                return True
        return False

    async def waits(self, name: str) -> bool:
        """Whether something of an agent still waits for an answer or a delivery."""
        return await self._market.agent(name).waits_for(self._market.running.peer_id)

    async def _start(self, start: Callable[[], Awaitable[object]]) -> None:
        for _ in range(MOST_STARTS):
            try:
                await start()
                return
            except Ended:
                await self.stay_away()
        raise ScenarioError(f"crash = {self._climate.crash:g} ends every process before it is up; lower it in [faults]")


def calm(network: MemoryNetwork, weather: DrawnWeather, crashes: Crashes) -> None:
    """From here on nothing goes wrong."""
    network.heal()
    weather.calm = crashes.calm = True


def with_steps(watch: Watch) -> Watch:
    """A network's watch for which each write is a step of its process, before it is told of it."""

    def hear(sender: str, receiver: str, data: bytes) -> None:
        life = CURRENT.get()
        try:
            if life is not None:
                life.step("write")
        except Gone:
            raise asyncio.CancelledError from None
        watch(sender, receiver, data)

    return hear


@contextlib.contextmanager
def fail_points_are_steps() -> Iterator[None]:
    """Inside, every fail point that is reached is a step of its process."""
    follow = failpoints.POINTS.follow
    failpoints.POINTS.follow = _fail_point
    try:
        yield
    finally:
        failpoints.POINTS.follow = follow


def _fail_point(name: str) -> None:
    life = CURRENT.get()
    if life is not None:
        life.step(name)
