"""What test workers do; a module of its own because other processes import it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from p2pmarket.errors import DataError, MarketError
from p2pmarket.experiments.document import read_document
from p2pmarket.experiments.sweep import run_sweep


class OwnError(MarketError):
    """Not of the package, and cannot be made from its sentence alone."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def work(task: str, tell: Callable[[int], None]) -> None:
    """One of several ends."""
    tell(1)
    if task == "market error":
        raise DataError("no such data", code="data-of-mine")
    if task == "mistake":
        raise ValueError("seven")
    if task == "own error":
        raise OwnError("mine", "yours")
    if task == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """run_sweep as a program: SCENARIO OUT JOBS; tells every finished run."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it ignored
    scenario, out, jobs = sys.argv[1:]

    def tell(run: str, done: int, of: int) -> None:
        if done == of:
            sys.stdout.write(f"finished {run}\n")
            sys.stdout.flush()

    run_sweep(read_document(Path(scenario)), Path(out), jobs=int(jobs), progress=tell)


if __name__ == "__main__":
    main()
