"""Many kills, one after the other in a few worlds side by side, and what came of them in numbers.

Knows: which kill comes next, what counts. Refuses to know: how a kill is done (crash_world), how figures are shown.
A kill counts where it hit a living process while a trade was under way. Half of the kills go to named places, each of
them once before any comes again; the others to a random party at a random time.
"""

from __future__ import annotations

import dataclasses
import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from crash_books import Problem, summary
from crash_broken import BUILDS
from crash_market import DEALS, SIZES
from crash_places import Reached
from crash_world import PARTIES, ForkServer, Kill, Outcome, World

CYCLES_PER_WORLD = 25
"""Then a new one begins: the audit after each cycle reads the whole log."""
LATEST_S = 0.3
"""Of random kills after the visits began: about as long as both take on an idle machine."""
MOST_VISITS = 3
RANDOM = "a random time"


@dataclasses.dataclass
class Tally:
    """What was counted."""

    hits: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    """By party and place."""
    misses: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    """Kills whose place was not reached, or that came when all was done."""
    problems: list[Problem] = dataclasses.field(default_factory=list)
    recoveries: list[tuple[float, Kill]] = dataclasses.field(default_factory=list)
    """In seconds."""
    settled: int = 0

    def add(self, kill: Kill, outcome: Outcome) -> None:
        """Counts one cycle."""
        (self.hits if outcome.hit else self.misses)[kill.party, kill.place or RANDOM] += 1
        self.problems += [dataclasses.replace(one, sentence=f"{one.sentence} ({kill})") for one in outcome.problems]
        self.settled += outcome.settled
        if outcome.hit:
            self.recoveries.append((outcome.recovery_s, kill))

    @property
    def kills(self) -> int:
        """Those that hit."""
        return self.hits.total()

    def percentile(self, fraction: float) -> float:
        """Of the recoveries, in seconds: the smallest that so many are not above; 0 where there is none."""
        ordered = sorted(seconds for seconds, _ in self.recoveries)
        return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)] if ordered else 0.0

    def figures(self) -> dict[str, object]:
        """The gate's numbers."""
        found = summary(self.problems)
        parties: Counter[str] = Counter()
        for (party, _), count in self.hits.items():
            parties[party] += count
        at_random = sum(count for (_, place), count in self.hits.items() if place == RANDOM)
        return {
            "kills": self.kills,
            "lost_payments": found["lost"],
            "duplicate_payments": found["duplicate"],
            "paid_not_delivered": found["paid_not_delivered"],
            "delivered_not_paid": found["delivered_not_paid"],
            "recovery_s_p99": round(self.percentile(0.99), 3),
            "audit_clean": not found["audit"],
            "disagreements": found["disagreement"],
            "stuck": found["stuck"],
            "recovery_s_p50": round(self.percentile(0.5), 3),
            "rate_below_at_95": round(3 / self.kills, 5) if self.kills and not self.problems else None,
            "settled": self.settled,
            "killed": dict(sorted(parties.items())),
            "at_random_times": at_random,
            "at_places": self.kills - at_random,
            "places_hit": len({key for key in self.hits if key[1] != RANDOM}),
            "not_hit": sum(self.misses.values()),
            "never_hit": sorted(f"{party} {place}" for party, place in self.misses.keys() - self.hits.keys()),
            "slowest": [f"{seconds:.2f} s: {kill}" for seconds, kill in sorted(self.recoveries, key=_seconds)[-5:]],
            "problems": [f"{one.kind}: {one.sentence}" for one in self.problems[:20]],
        }


def _seconds(recovery: tuple[float, Kill]) -> float:
    return recovery[0]


def kills(places: Sequence[Reached], seed: int) -> Iterator[Kill]:
    """Every place once, in random order, with as many random times between; then places and times without end.

    :param places: none: only random times
    """
    chance = random.Random(seed)
    rest = chance.sample(list(places), len(places))
    while True:
        if places:
            yield rest.pop().kill() if rest else chance.choice(places).kill(chance.randint(1, MOST_VISITS))
        yield Kill(
            chance.choice(PARTIES),
            after_s=chance.uniform(0.0, LATEST_S),
            deal=chance.choice(list(DEALS)),
            together=chance.random() < 0.5,
        )


def broken_kills(name: str) -> Iterator[Kill]:
    """The kill at which a broken build shows, again and again."""
    while True:
        yield Kill(BUILDS[name].party, BUILDS[name].place, deal=BUILDS[name].deal)


class Campaign:
    """Runs until enough kills have hit."""

    def __init__(
        self,
        server: ForkServer,
        folder: Path,
        order: Iterator[Kill],
        *,
        enough: int,
        worlds: int = 2,
        broken: str = "",
        patience_s: float = 60.0,
        stop_at: str = "",
        told: Callable[[Tally], None] = lambda tally: None,
    ) -> None:
        """
        :param stop_at: the kind of problem at the first of which it ends
        :param told: called after each cycle, one call at a time
        """
        self.tally = Tally()
        self._server = server
        self._folder = folder
        self._order = order
        self._enough = enough
        self._worlds = worlds
        self._broken = broken
        self._patience_s = patience_s
        self._stop_at = stop_at
        self._told = told
        self._lock = threading.Lock()
        self._made = 0

    def run(self) -> Tally:
        """The counts, when they are enough."""
        with ThreadPoolExecutor(self._worlds) as threads:
            for running in [threads.submit(self._work) for _ in range(self._worlds)]:
                running.result()
        return self.tally

    def _work(self) -> None:
        kill = self._next()
        while kill is not None:
            with self._new_world() as world:
                for _ in range(CYCLES_PER_WORLD):
                    outcome = world.cycle(kill)
                    again = dataclasses.replace(kill, fresh=True, nth=1)
                    if kill.place and not outcome.hit and not outcome.problems and kill != again:
                        outcome = world.cycle(again)  # perhaps it is reached at a start only
                    with self._lock:
                        self.tally.add(kill, outcome)
                        self._told(self.tally)
                    kill = self._next()
                    # What is wrong stays in a world's books and would be counted again.
                    if kill is None or outcome.problems:
                        break

    def _next(self) -> Kill | None:
        with self._lock:
            found = any(problem.kind == self._stop_at for problem in self.tally.problems)
            done = found or self.tally.kills >= self._enough
            return None if done else next(self._order)

    def _new_world(self) -> World:
        with self._lock:
            self._made += 1
            number = self._made
        size = list(SIZES)[number % len(SIZES)]
        folder = self._folder / f"{number}"
        return World(self._server, folder, size=size, broken=self._broken, patience_s=self._patience_s)
