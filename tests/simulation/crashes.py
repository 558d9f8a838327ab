"""A process killed at a chosen point, in one process: at its n-th stream write, or after its n-th use of its database
that is not idle.

From that point on nothing of the party has an effect: its streams are broken, and its ledger or journal answers no
more, so its coroutines stop where they are until the test clears them away.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from p2pmarket.broker_node import clearing
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.errors import ConnectionLost
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.network.memory import MemoryNetwork
from p2pmarket.threads import OwnThread


@dataclasses.dataclass(frozen=True)
class Crash:
    """`party` ("broker", "left", "right") is killed at its n-th step of a kind, counted from 1."""

    party: str
    kind: str
    """ "write": that stream write is lost. "commit": that use of its database is durable, what follows is not."""
    step: int


IDLE = ("Broker._expire", "Appraisals._next_due")
"""Uses of the ledger that are repeated while nothing happens, the more often the slower the machine; in a round that
nobody kills nothing is written by them."""


class Killer:
    """Counts every party's steps and kills one at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, crash: Crash | None) -> None:
        self.crash = crash
        self.happened = asyncio.Event()
        self.steps: Counter[tuple[str, str]] = Counter()
        self.names: dict[str, str] = {}
        self._network: MemoryNetwork | None = None
        self._threads: dict[str, OwnThread[Any]] = {}
        self._dead: list[OwnThread[Any]] = []  # kept: another object must not get the place of one in memory
        for kind in (OwnThread, LedgerThread):
            monkeypatch.setattr(kind, "run", self._watched(kind.run))
        monkeypatch.setattr(clearing, "DRAIN_SECONDS", 0.01)

    def _watched(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run` of a thread, with its uses counted."""

        async def watched(thread: OwnThread[Any], work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if any(thread is dead for dead in self._dead):
                await asyncio.get_running_loop().create_future()
            party = self._party_of(thread)
            result = await run(thread, work, *args, **kwargs)
            if any(thread is dead for dead in self._dead):
                await asyncio.get_running_loop().create_future()
            idle = getattr(work, "__qualname__", "") in IDLE
            if party and not idle and self._counts(party, "commit"):
                self._kill(party)
                await asyncio.get_running_loop().create_future()
            return result

        return watched

    def watch(self, network: MemoryNetwork) -> None:
        """Counts the writes on this network."""
        self._network = network
        count_write = network.count_write

        def counted(peer_id: str) -> None:
            party = self.names.get(peer_id, "")
            if self._counts(party, "write"):
                self._kill(party)
                raise ConnectionLost(f"{party} was killed at this write")
            count_write(peer_id)

        network.count_write = counted  # type: ignore[method-assign]

    def _counts(self, party: str, kind: str) -> bool:
        self.steps[party, kind] += 1
        return self.crash == Crash(party, kind, self.steps[party, kind]) and not self.happened.is_set()

    def _kill(self, party: str) -> None:
        assert self._network is not None
        self._dead.append(self._threads[party])
        self._network.vanish(next(peer for peer, name in self.names.items() if name == party))
        self.happened.set()

    def _party_of(self, thread: OwnThread[Any]) -> str:
        resource = thread._resource
        peer = resource.peer if isinstance(resource, AgentJournal) else getattr(resource, "_identity", None)
        party = self.names.get(peer if isinstance(peer, str) else getattr(peer, "peer_id", ""), "")
        if party:
            self._threads[party] = thread
        return party
