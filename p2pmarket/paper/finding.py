"""What an experiment of the paper found: rows beside the paper's numbers, and whether each lies where it should.

Knows: how a row agrees. Refuses to know: how anything was measured. Pure records.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

TOO_FEW_SEEDS = "too few seeds to tell"
AGAINST_PAPER = "against the paper"


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of a table, or one statement about a figure as a number."""

    experiment: str
    row: str
    """What it is: "MNIST, A, with alignment, accuracy"."""
    paper: float | None
    """The paper's number; None where it gives none."""
    measured: float
    """The mean over seeds."""
    low: float
    high: float
    """The stated interval: the row agrees where `measured` is in it. One end may be infinite; where both are, the row
    claims nothing, and is there to be looked at."""
    unit: str = ""
    """"%", "credits", ..."""
    spread: float | None = None
    """Half of the 95 % interval of the mean over seeds (Student's); None for one seed."""
    note: str = ""
    """Why this interval, or what to know."""

    @property
    def agrees(self) -> bool | None:
        """Whether it lies in its stated interval; None where it claims nothing."""
        if math.isinf(self.low) and math.isinf(self.high):
            return None
        return math.isfinite(self.measured) and self.low <= self.measured <= self.high

    @property
    def against_paper(self) -> bool:
        """Whether the stated interval leaves the paper's number out: who agrees with it contradicts the paper."""
        return self.paper is not None and self.agrees is not None and not self.low <= self.paper <= self.high

    @property
    def too_few_seeds(self) -> bool:
        """Whether the mean's own interval is wider than the stated one, so that the verdict is chance's as well."""
        return self.spread is not None and self.spread > (self.high - self.low) / 2

    def to_json(self) -> dict[str, Any]:
        """For rows.json and --json; what is not finite is null."""
        values = dataclasses.asdict(self)
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                values[name] = None
        return {**values, "agrees": self.agrees, "against_paper": self.against_paper}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One experiment's result."""

    experiment: str
    title: str
    rows: tuple[Row, ...]
    sentence: str
    """Whether it agrees with the paper, in one sentence."""
    plots: tuple[Path, ...] = ()
    missing: str = ""
    """Why it, or a part of it, could not run (a data set that is not there); empty where nothing is missing."""


QUICK, NORMAL, FULL = "quick", "normal", "full"
"""Few seeds for a first look; the figures that docs/experiments.md shows; the paper's full settings, for a GPU."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What an experiment is given."""

    folder: Path
    """Its own: results folders and plots go there."""
    scenarios: Path
    """The folder of the paper's scenario files."""
    effort: str
    data: Path | None
    device: str
    jobs: int
    seeds: int | None
    """How many; None: as many as the effort has."""
    progress: Callable[[str, int, int], None]
    """Told what is being run, the finished runs and how many there are."""

    def count(self, by_effort: Mapping[str, int]) -> int:
        """How many seeds to run of an experiment, or of a part of one: those that were asked for, whatever the effort
        has; 0 of what the effort leaves out.
        """
        usual = by_effort[self.effort]
        return self.seeds or usual if usual else 0


class Experiment(Protocol):
    """One module of this room; listed in catalogue.py."""

    NAME: str
    """As on the command line: table-1-mnist."""
    TITLE: str

    def run(self, context: Context) -> Finding:
        """Runs it, or takes up what is finished in its folder.

        :raises MarketError: bad data, a full disk; a data set that is not there is `Finding.missing` instead
        """
