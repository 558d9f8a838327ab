"""How far `paper` is: a bar on a terminal, elsewhere a line now and then, and words for when it is interrupted.

Knows: names, and how many runs are finished. Refuses to know: what is run. All of it goes to stderr.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from p2pmarket.cli.show import printable

APART_S = 5.0
"""The least time between two lines: a log is to be read."""


class Progress:
    """Told of runs as they go on. Not for several threads at once."""

    def __init__(self, names: list[str], console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._names = names
        self._finished: list[str] = []
        self._part: tuple[str, int, int] | None = None
        self._said: tuple[str, int, int] | None = None
        self._said_at = -math.inf
        self._console = console
        self._clock = clock

    @contextlib.contextmanager
    def experiment(self, name: str) -> Iterator[Callable[[str, int, int], None]]:
        """While one experiment runs; what is to be told of its runs, as `Context.progress`."""
        self._part = None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bar:
            task = bar.add_task("starting", total=None)

            def told(doing: str, done: int, of: int) -> None:
                self._part = (doing.partition(": ")[0], done, of)
                bar.update(task, description=printable(doing), completed=done, total=of)
                if not self._console.is_terminal:
                    self._say(self._part)

            yield told
        self._part = None
        self._finished.append(name)

    def kept(self, out: Path) -> str:
        """What is finished, and where it is, in words."""
        experiments = f"{len(self._finished)} of {len(self._names)} experiments"
        runs = f", and {part[1]} of {part[2]} runs of {part[0]}," if (part := self._part) and part[1] else ""
        return f"{experiments}{runs} are finished and kept in {out}"

    def _say(self, part: tuple[str, int, int]) -> None:
        """A line, but for one that was said, that says of no run, or that comes too soon after the last: what is true
        then is said with the next step of a run.
        """
        now = self._clock()
        if not part[1] or part == self._said or now - self._said_at < APART_S:
            return
        self._said, self._said_at = part, now
        self._console.print(printable(_runs(part)), highlight=False, markup=False, soft_wrap=True)


def _runs(part: tuple[str, int, int]) -> str:
    return f"{part[0]}: {part[1]} of {part[2]} runs"
