"""A market of three real processes on one folder, of which one is killed in each cycle of trade.

Knows: how to start parties through the fork server, when to kill, how to tell that all is quiet again. Refuses to know:
what the parties say to one another, what is right (crash_books). A party that ends without having been told to, or
does not come back, is a Problem too. Everything ends with the fork server: use it in a `with`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from crash_books import Problem, is_quiet, problems, settled
from crash_market import DEALS

PARTIES = ("broker", "seller", "buyer")
AGENTS = ("seller", "buyer")
START_SECONDS = 60.0
PATIENCE_SECONDS = 60.0
"""For one cycle, until it counts as stuck."""
MOST_RETRIES = 2
"""Of a visit that had a problem, as each has whose delivery is lost; what is open after them is taken up later."""
LINGER_SECONDS = 0.8
"""How long a place that was not reached is waited for: longer than between two looks of the broker at its deadlines."""
QUIET_SECONDS = 3.0
"""After this, what is open is taken up by another visit."""
_LOOK_SECONDS = 0.01


@dataclasses.dataclass(frozen=True)
class Kill:
    """SIGKILL for `party`: at the nth time it reaches `place`, or, without a place, so long after the visits began."""

    party: str
    place: str = ""
    nth: int = 1
    after_s: float = 0.0
    deal: str = "standing"
    together: bool = False
    """Both visit at once; otherwise the buyer comes when the seller's snapshot is in the book."""
    fresh: bool = False
    """All three are started anew just before: for places that are reached at a start."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one cycle."""

    hit: bool
    """Whether the party was killed while a trade was under way."""
    problems: tuple[Problem, ...]
    recovery_s: float
    """From the restart to the end of both visits, the next trade of a restarted agent included; 0 where not hit."""
    traded_s: float
    """From the begin of the visits to their end."""
    settled: int
    """Trades that were settled in it."""


class ForkServer:
    """The clean process that starts parties; one for all worlds. Its children end with it."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        program = Path(__file__).with_name("crash_fork_server.py")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(program), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **threads},
            )
        self._control.settimeout(START_SECONDS)
        if self._control.recv(16) != b"ready":
            raise RuntimeError("the fork server did not start")

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control.close()
        self._process.wait(START_SECONDS)

    def start(self, **request: object) -> Peer:
        """Forks a party."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
        return Peer(str(request["party"]), ours)


class Peer:
    """This side of one party's pipe. The pipe's end is the party's end."""

    def __init__(self, party: str, pipe: socket.socket) -> None:
        self.party = party
        self.pipe = pipe
        self.pid = 0
        self.lives = True
        self.heard: list[Mapping[str, Any]] = []
        self._data = b""

    def say(self, **words: object) -> None:
        """Tells the party something; one that has just died does not hear it."""
        with contextlib.suppress(OSError):
            self.pipe.sendall(json.dumps(words).encode() + b"\n")

    def listen(self) -> None:
        """Takes what the pipe holds."""
        try:
            data = self.pipe.recv(64 * 1024)
        except OSError:
            data = b""
        self.lives = bool(data)
        *lines, self._data = (self._data + data).split(b"\n")
        self.heard += [json.loads(line) for line in lines]

    def take(self, event: str) -> Mapping[str, Any] | None:
        """The next event of this name that was heard."""
        for heard in self.heard:
            if heard["event"] == event:
                self.heard.remove(heard)
                return heard
        return None

    def kill(self) -> None:
        """SIGKILL, unless it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class World:
    """One market and its folder. Use it in a `with`."""

    def __init__(
        self,
        server: ForkServer,
        folder: Path,
        *,
        size: str = "small",
        broken: str = "",
        follow: bool = False,
        patience_s: float = PATIENCE_SECONDS,
    ) -> None:
        """:param broken: name of the build that all three run (crash_broken)"""
        folder.mkdir(parents=True, mode=0o700)
        self.folder = folder
        self.size = size
        self.patience_s = patience_s
        self._server = server
        self._broken = broken
        self._follow = follow
        self._peers: dict[str, Peer] = {}
        for party in PARTIES:
            self._start(party)
        self.cycle(None)  # the seller's first snapshot is in the book

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for party, peer in self._peers.items():
            self.end(party)
            peer.pipe.close()

    def cycle(self, kill: Kill | None) -> Outcome:
        """One visit of both agents, in which a party is killed and comes again, until all is quiet; then the books."""
        course = _Course(self, kill, DEALS[kill.deal if kill else "standing"].__dict__)
        before = settled(self.folder)
        found = []
        try:
            course.run()
        except _Stuck as stuck:
            found.append(Problem("stuck", str(stuck)))
        found += problems(self.folder, self.size)
        done = time.monotonic()
        recovery = course.visited - course.restarted if course.restarted else 0.0
        return Outcome(
            bool(course.restarted), tuple(found), recovery, done - course.began, settled(self.folder) - before
        )

    def places(self) -> dict[str, list[str]]:
        """What each party has reached since this was asked last, where the world follows."""
        found = {}
        for party, peer in self._peers.items():
            peer.say(do="places")
            found[party] = list(self.wait(peer, "places")["names"])
        return found

    def peer(self, party: str) -> Peer:
        """The party's process of now."""
        return self._peers[party]

    def restart(self, party: str, orders: str = "") -> None:
        """Starts a party that died.

        :raises _Stuck: it ended at once, as fail points may have it
        """
        self._peers[party].pipe.close()
        self._start(party, orders)

    def end(self, party: str) -> None:
        """SIGKILL, and waits for its end."""
        peer = self._peers[party]
        peer.kill()
        while peer.lives:
            peer.listen()

    def listen(self, seconds: float) -> None:
        """Takes what the parties say, waiting for the first word at most so long."""
        by_pipe = {peer.pipe: peer for peer in self._peers.values() if peer.lives}
        for pipe in select.select(list(by_pipe), [], [], max(0.0, seconds))[0]:
            by_pipe[pipe].listen()

    def wait(self, peer: Peer, event: str) -> Mapping[str, Any]:
        """The party's next event of that name.

        :raises _Stuck: it ended, or says nothing
        """
        deadline = time.monotonic() + START_SECONDS
        while (heard := peer.take(event)) is None:
            if not peer.lives or time.monotonic() > deadline:
                raise _Stuck(f"the {peer.party} ended or is silent instead of telling {event!r}")
            self.listen(_LOOK_SECONDS)
        return heard

    def _start(self, party: str, orders: str = "") -> None:
        peer = self._peers[party] = self._server.start(
            party=party, folder=str(self.folder), size=self.size, orders=orders, broken=self._broken,
            follow=self._follow,
        )  # fmt: skip
        peer.pid = int(self.wait(peer, "begun")["pid"])
        self.wait(peer, "ready")


class _Stuck(Exception):
    """The market does not come to rest."""


class _Course:
    """The course of one cycle."""

    def __init__(self, world: World, kill: Kill | None, deal: Mapping[str, object]) -> None:
        self._world = world
        self._kill = kill
        self._deal = deal
        self._open: set[str] = set()
        self._retries = dict.fromkeys(AGENTS, 0)
        self._to_come = list(AGENTS)
        self.began = self.restarted = self.visited = 0.0

    def run(self) -> None:
        """:raises _Stuck: it does not end"""
        kill, world = self._kill, self._world
        orders = f"{kill.place}:{kill.nth}:kill" if kill is not None and kill.place else ""
        if kill is not None and kill.fresh:
            self._start_anew(kill.party, orders)
        elif kill is not None and orders:
            world.peer(kill.party).say(do="arm", orders=orders)
            world.wait(world.peer(kill.party), "armed")
        self.began = time.monotonic()
        self._until_quiet()
        if kill is not None and kill.place and not self.restarted:
            self._linger()
            world.peer(kill.party).say(do="arm", orders="")
            while world.peer(kill.party).take("armed") is None:
                if self._step():
                    self._until_quiet()  # it came late, and now it was killed
                    break

    def _linger(self) -> None:
        until = time.monotonic() + LINGER_SECONDS
        while not self.restarted and time.monotonic() < until:
            self._step()
        if self.restarted:
            self._until_quiet()

    def _start_anew(self, target: str, orders: str) -> None:
        for party in PARTIES:
            self._world.end(party)
        for party in PARTIES:
            try:
                self._world.restart(party, orders if party == target else "")
            except _Stuck:
                if party != target or self._world.peer(party).lives:
                    raise
                self._bury(party)

    def _visit(self, agent: str) -> None:
        self._open.add(agent)
        self._world.peer(agent).say(do="visit", deal=self._deal)

    def _until_quiet(self) -> None:
        again = 0.0
        while True:
            self._until_visited()
            again = again or time.monotonic() + QUIET_SECONDS
            if self._step():
                again = 0.0
            elif not self._open and is_quiet(self._world.folder):
                return
            elif time.monotonic() > again:
                again = 0.0
                for agent in AGENTS:
                    self._visit(agent)

    def _until_visited(self) -> None:
        while self._open or self._to_come:
            if self._to_come and (not self._open or (self._kill is not None and self._kill.together)):
                self._visit(self._to_come.pop(0))
            self._step()
        self.visited = self.visited or time.monotonic()

    def _step(self) -> bool:
        """Hears the parties, kills when it is time, starts who died; True where somebody did.

        :raises _Stuck: this cycle takes too long
        """
        world, kill = self._world, self._kill
        now = time.monotonic()
        if now - self.began > world.patience_s:
            raise _Stuck(f"no rest after {world.patience_s:.0f} s")
        wait = _LOOK_SECONDS
        if kill is not None and not kill.place and not self.restarted and self._open:
            wait = min(wait, self.began + kill.after_s - now)
            if wait <= 0:
                world.end(kill.party)
        world.listen(wait)
        for agent in AGENTS:
            told = world.peer(agent).take("visited")
            if told is not None and told["problem"] and self._retries[agent] < MOST_RETRIES:
                self._retries[agent] += 1
                self._visit(agent)
            elif told is not None:
                self._open.discard(agent)
        dead = [party for party in PARTIES if not world.peer(party).lives]
        for party in dead:
            self._bury(party)
        return bool(dead)

    def _bury(self, party: str) -> None:
        if self._kill is None or party != self._kill.party or self.restarted:
            raise _Stuck(f"the {party} ended by itself; see its log")
        self.restarted = time.monotonic()
        self.visited = 0.0
        self._world.restart(party)
        if party in AGENTS and party not in self._to_come:
            self._visit(party)
