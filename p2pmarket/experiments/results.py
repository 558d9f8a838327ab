"""A folder of results: runs that are finished stay finished, whatever happens to the ones after them.

Knows: which file means what (docs/simulation.md). Refuses to know: how a run is made. A run is its folder with a
`run.json`, which is written last; a folder without one is of a run that was cut short, and is made anew. A folder that
cannot be read, or that is none of results, raises `DataError`; a disk that is full, `DiskFull`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket.errors import DataError
from p2pmarket.experiments.recording import RoundRow, Row, TradeRow, columns, from_text
from p2pmarket.files import private_folder, remove_tree, write_whole

RUN_FILE, ROUNDS_FILE, TRADES_FILE = "run.json", "rounds.csv", "trades.csv"

Facts = Mapping[str, Any]
"""One run.json; its keys are in docs/simulation.md."""


@dataclasses.dataclass(frozen=True)
class RunResult:
    """One finished run."""

    facts: Facts
    rounds: tuple[RoundRow, ...]
    trades: tuple[TradeRow, ...]


def write_run(folder: Path, run: RunResult) -> None:
    """Writes a finished run to its folder, run.json last.

    :raises DiskFull, MachineFault: nothing of it counts then
    """
    remove_tree(folder)
    private_folder(folder)
    write_whole(folder / ROUNDS_FILE, as_csv(RoundRow, run.rounds), "the results")
    write_whole(folder / TRADES_FILE, as_csv(TradeRow, run.trades), "the results")
    write_whole(folder / RUN_FILE, json.dumps(run.facts, indent=1).encode() + b"\n", "the results")


def read_run(folder: Path) -> RunResult | None:
    """A finished run, or None where there is none.

    :raises DataError: it cannot be read
    """
    if not (folder / RUN_FILE).exists():
        return None
    try:
        facts = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        rounds = _read_rows(RoundRow, folder / ROUNDS_FILE)
        trades = _read_rows(TradeRow, folder / TRADES_FILE)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the results in {folder} cannot be read ({error!r}); remove that folder and run again"
        ) from None
    return RunResult(facts, tuple(rounds), tuple(trades))


def read_all(folder: Path) -> list[RunResult]:
    """Every finished run of a results folder, in order of their names.

    :raises DataError: no folder of results, or one that cannot be read
    """
    if not (folder / "runs").is_dir():
        raise DataError(f"{folder} holds no results; name the folder that simulate or paper wrote to with --out")
    found = [read_run(one) for one in sorted((folder / "runs").iterdir()) if one.is_dir()]
    return [run for run in found if run is not None]


def as_csv(kind: type[Row], rows: Iterable[Row]) -> bytes:
    """The rows with a line of their columns' names; floats so that they are read back exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns(kind))
    writer.writerows(["" if cell is None else cell for cell in dataclasses.astuple(row)] for row in rows)
    return text.getvalue().encode()


def _read_rows(kind: type[Any], path: Path) -> Sequence[Any]:
    with path.open(newline="", encoding="utf-8") as file:
        return [from_text(kind, cells) for cells in csv.DictReader(file)]
