"""Which named places there are, found by trading with everybody listening: the registry of fail points.

Knows: one world, every kind of deal. Refuses to know: what happens when somebody dies there (crash_world).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from crash_market import DEALS
from crash_world import ForkServer, Kill, World


@dataclasses.dataclass(frozen=True)
class Reached:
    """A place that a party reaches, and in which kind of cycle it does first."""

    party: str
    place: str
    deal: str
    fresh: bool
    """Only when everybody was just started."""

    def kill(self, nth: int = 1) -> Kill:
        """SIGKILL there."""
        return Kill(self.party, self.place, nth, deal=self.deal, fresh=self.fresh)


def table(places: Sequence[Reached]) -> str:
    """The registry as docs/settlement.md has it: every place without its moment, and who reaches it."""
    rows: dict[str, list[str]] = {}
    for reached in places:
        parties = rows.setdefault(reached.place.rpartition(".")[0], [])
        if reached.party not in parties:
            parties.append(reached.party)
    lines = [f"| `{name}` | {', '.join(sorted(parties))} |" for name, parties in sorted(rows.items())]
    return "\n".join(["| fail point | reached by |", "|---|---|", *lines]) + "\n"


def find_places(server: ForkServer, folder: Path) -> tuple[Sequence[Reached], Sequence[str]]:
    """Every place that is reached in a cycle of each kind, and sentences on what was wrong in them (none should be)."""
    found: dict[tuple[str, str], Reached] = {}
    wrong: list[str] = []
    with World(server, folder, follow=True) as world:
        started = world.places()
        for deal in DEALS:
            # A place that nobody reaches: the broker looks at its deadlines meanwhile.
            outcome = world.cycle(Kill("broker", "nowhere", deal=deal))
            wrong += [f"{deal}: {problem.sentence}" for problem in outcome.problems]
            for party, places in world.places().items():
                for place in places:
                    found.setdefault((party, place), Reached(party, place, deal, False))
        for party, places in started.items():
            for place in places:
                found.setdefault((party, place), Reached(party, place, "standing", True))
    return tuple(found.values()), wrong
