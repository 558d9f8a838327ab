"""What goes wrong in a simulated market, drawn from a seed or written down: late and lost writes, ends of processes.

Knows: rates and streams of random numbers. Refuses to know: what the market does. `Weather` is given to a
`MemoryNetwork`, `Crashes` to a market as its watch; both can be calmed, and then nothing goes wrong any more.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable

from p2pmarket.network.memory import CALM, Fate
from p2pmarket.simulation.lives import Life


@dataclasses.dataclass(frozen=True)
class Climate:
    """How often what goes wrong; every rate is a probability for each write or step."""

    delay_seconds: tuple[float, float] = (0.001, 0.1)
    """Of a write, drawn evenly."""
    slow: float = 0.0
    """Writes that take `slow_seconds` more."""
    slow_seconds: float = 10.0
    lost: float = 0.0
    """Writes that never arrive; their streams break."""
    crash: float = 0.0
    """Steps of a process (lives.Life) at which it ends."""
    partings: int = 0
    """How often a pair of parties is kept apart."""
    parted_seconds: float = 30.0
    """At most, each time."""
    away_seconds: float = 5.0
    """At most, before a party that crashed starts again."""
    skew_ms: int = 0
    """At most, either way, each party's clock."""


class DrawnWeather:
    """Late and lost writes by a climate."""

    def __init__(self, climate: Climate, chance: random.Random) -> None:
        self._climate = climate
        self._chance = chance
        self.calm = False
        self.lost = 0
        """Writes so far that were lost."""

    def __call__(self, sender: str, receiver: str, size: int) -> Fate:
        """A write's fate."""
        climate, chance = self._climate, self._chance
        if self.calm:
            return CALM
        delay = chance.uniform(*climate.delay_seconds)
        if chance.random() < climate.slow:
            delay += chance.uniform(0.0, climate.slow_seconds)
        lost = chance.random() < climate.lost
        self.lost += lost
        return Fate(delay, lost)


@dataclasses.dataclass(frozen=True)
class Crash:
    """A process that ends at its n-th step of a kind ("work", "done", "write", a fail point), counted from 1."""

    party: str
    what: str
    step: int


class Crashes:
    """Ends processes: at the steps that are listed, and at others with a probability."""

    def __init__(self, listed: Iterable[Crash] = (), rate: float = 0.0, chance: random.Random | None = None) -> None:
        self._listed = frozenset(listed)
        self._rate = rate
        self._chance = chance or random.Random(0)
        self.calm = False
        self.steps: Counter[tuple[str, str]] = Counter()
        """Steps so far, by party and kind."""
        self.happened: list[Crash] = []

    def __call__(self, life: Life, what: str) -> None:
        """A step of a process."""
        self.steps[life.name, what] += 1
        here = Crash(life.name, what, self.steps[life.name, what])
        if self.calm:
            return
        if here in self._listed or (self._rate and self._chance.random() < self._rate):
            self.happened.append(here)
            life.end()
