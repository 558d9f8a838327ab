"""A market of real processes on this machine: each peer a child of this one, heard through its JSON events.

Knows: how to start `python -m p2pmarket` as a child, read what it tells, stop or kill it. Refuses to know: what the
roles do. A child whose parent dies sees its standard input close and stops. What a child could not do is raised here
as the same kind of sentence that it told.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket.errors import MachineFault, MarketError
from p2pmarket.files import private_folder

READY_SECONDS = 120.0
STOP_SECONDS = 30.0
INTERRUPTED = 130
"""Exit code of a program that was asked to stop before it was ready."""
_LINE_BYTES = 1024 * 1024

Event = Mapping[str, Any]


class Child:
    """One peer's process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log
        self.ready: Event = {}
        """Its ready event: peer_id, addresses and the like."""
        self._last: collections.deque[Event] = collections.deque(maxlen=20)

    async def events(self) -> AsyncGenerator[Event, None]:
        """What it tells from now on, until it ends.

        :raises MarketError: it ended with an error; its own sentence and code
        """
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            try:
                event: Event = json.loads(line)
            except ValueError:
                continue
            self._last.append(event)
            yield event
        code = await self.process.wait()
        if code not in (0, INTERRUPTED, -signal.SIGTERM, -signal.SIGKILL):
            raise self._failure(code)

    async def until(self, name: str, timeout_seconds: float = READY_SECONDS) -> Event:
        """Its next event of that name.

        :raises MarketError: it ended, or the event did not come in time
        """
        try:
            return await asyncio.wait_for(self._until(name), timeout_seconds)
        except asyncio.TimeoutError:
            raise MachineFault(
                f"{self.name} told nothing of {name!r} within {timeout_seconds:.0f} s; see {self.log}"
            ) from None

    async def stop(self) -> None:
        """Asks it to stop and waits; kills it when it takes longer than STOP_SECONDS."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
            except asyncio.TimeoutError:
                await self.kill()
        self._let_go()

    async def kill(self) -> None:
        """SIGKILL: it learns nothing of its end."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self._let_go()

    def _let_go(self) -> None:
        """Closes the pipes to a process that has ended; the loop may end before it would see to that."""
        self.process._transport.close()  # type: ignore[attr-defined]

    async def _until(self, name: str) -> Event:
        async with contextlib.aclosing(self.events()) as events:
            async for event in events:
                if event.get("event") == name:
                    return event
        raise self._failure(self.process.returncode or 0)

    def _failure(self, code: int) -> MarketError:
        told = next((event for event in reversed(self._last) if event.get("event") == "error"), None)
        if told is not None:
            return MachineFault(f"{self.name}: {told['sentence']}", code=told["code"])
        return MachineFault(f"{self.name} ended with exit code {code}; see {self.log}")


class LocalNet:
    """The children of this process. Use it in an `async with`: no child outlives it."""

    def __init__(self, folder: Path) -> None:
        """:param folder: one state folder and one log file a child"""
        self.folder = private_folder(folder)
        self.children: dict[str, Child] = {}

    async def __aenter__(self) -> LocalNet:
        return self

    async def __aexit__(self, *_: object) -> None:
        # Those that joined last leave first: nobody waits for a peer that has gone.
        for child in reversed(list(self.children.values())):
            await child.stop()

    async def start(self, name: str, role: str, *flags: str) -> Child:
        """Starts `p2pmarket ROLE` with its state in this net's folder and waits until it is ready.

        :raises MarketError: it could not be started; its own sentence
        """
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-m", "p2pmarket", role, "--json", "--stop_on_eof"]
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--state", str(self.folder / name)),
                *flags,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=self._environment(),
                limit=_LINE_BYTES,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops its children in order
            )
        child = Child(name, process, log)
        self.children[name] = child
        child.ready = await child.until("ready")
        return child

    def _environment(self) -> dict[str, str]:
        """Two threads of torch in each of several processes would only wait for one another."""
        return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"}


def peers_of(children: Sequence[Child]) -> tuple[str, ...]:
    """Addresses to join the network through."""
    return tuple(address for child in children for address in child.ready["addresses"])
