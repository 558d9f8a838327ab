"""A folder of results: runs that are finished stay finished, whatever happens to the ones after them.

Knows: which file means what (docs/simulation.md). Refuses to know: how a run is made, and the files of all runs
together (combined.py). A run is its folder with a `run.json`, which is written last; a folder without one is of a run
that was cut short, and is made anew. A folder that cannot be read, or that is none of results, raises `DataError`; a
disk that is full, `DiskFull`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import operator
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from p2pmarket.errors import DataError
from p2pmarket.experiments.reading import UNREADABLE, read_facts_file, read_rows, reason_of
from p2pmarket.experiments.recording import RoundRow, Row, TradeRow, columns
from p2pmarket.files import private_folder, remove_tree, write_whole

RUN_FILE, ROUNDS_FILE, TRADES_FILE = "run.json", "rounds.csv", "trades.csv"

SCENARIO_FILE, SUMMARY_FILE, LOCK_FILE, RUNS_FOLDER = "scenario.toml", "summary.json", ".lock", "runs"
PLOTS_FOLDER = "plots"

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
    write_whole(folder / RUN_FILE, _as_json(run.facts), "the results")


def read_run(folder: Path) -> RunResult | None:
    """A finished run, or None where there is none.

    :raises DataError: it cannot be read
    """
    if not (folder / RUN_FILE).exists():
        return None
    try:
        return RunResult(
            read_facts_file(folder / RUN_FILE),
            tuple(read_rows(RoundRow, folder / ROUNDS_FILE)),
            tuple(read_rows(TradeRow, folder / TRADES_FILE)),
        )
    except UNREADABLE as error:
        raise DataError(
            f"the results in {folder} cannot be read ({reason_of(error)}); remove that folder and run again"
        ) from None


def read_all(folder: Path) -> list[RunResult]:
    """Every finished run of a results folder, in order of their names.

    :raises DataError: no folder of results, or one that cannot be read
    """
    if not (folder / RUNS_FOLDER).is_dir():
        raise DataError(f"{folder} holds no results; name the folder that simulate or paper wrote to with --out")
    return list(each_run(folder))


def each_run(folder: Path, known: Mapping[str, RunResult] | None = None) -> Iterator[RunResult]:
    """Every finished run of a results folder, one after another, in order of their names.

    :param known: by name, those that need not be read again
    :raises DataError: one cannot be read
    """
    known = known or {}
    for one in sorted((folder / RUNS_FOLDER).iterdir()):
        if one.is_dir() and (run := known.get(one.name) or read_run(one)) is not None:
            yield run


def is_results(folder: Path) -> bool:
    """Whether it is a folder that a sweep made, with or without finished runs. A scenario.toml may be anybody's."""
    return (folder / LOCK_FILE).is_file() or has_finished(folder)


def has_finished(folder: Path) -> bool:
    """Whether there is any finished run in it. A folder named runs alone may hold anything: other results folders."""
    return next((folder / RUNS_FOLDER).glob(f"*/{RUN_FILE}"), None) is not None


def folder_of(out: Path, run: str) -> Path:
    """A run's own."""
    return out / RUNS_FOLDER / run


def is_finished(out: Path, run: str) -> bool:
    """Whether the run of that name is there."""
    return (folder_of(out, run) / RUN_FILE).exists()


def read_facts(out: Path) -> list[dict[str, Any]]:
    """The facts of every finished run, in order of their names; none where no run was ever finished.

    :raises DataError: one cannot be read
    """
    found = []
    for path in sorted((out / RUNS_FOLDER).glob(f"*/{RUN_FILE}")):
        try:
            found.append(read_facts_file(path))
        except UNREADABLE as error:
            raise DataError(f"{path} cannot be read ({reason_of(error)}); remove its folder and run again") from None
    return found


def write_scenario(out: Path, text: str) -> None:
    """The document that the folder's runs belong to.

    :raises DiskFull, MachineFault: it cannot be written
    """
    write_whole(out / SCENARIO_FILE, text.encode(), "the results")


def write_summary(out: Path, summary: Mapping[str, Any]) -> None:
    """
    :raises DiskFull, MachineFault: it cannot be written
    """
    write_whole(out / SUMMARY_FILE, _as_json(summary), "the results")


def is_sound(facts: Facts) -> bool:
    """Whether the ledger's own check and everybody's books found nothing wrong; where there is none, nothing is."""
    return bool(facts["ledger"].get("verified", True)) and not facts["ledger"].get("problems")


def as_csv(kind: type[Row], rows: Iterable[Row]) -> bytes:
    """The rows with a line of their columns' names; floats so that they are read back exactly."""
    text, names = io.StringIO(), columns(kind)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(map(operator.attrgetter(*names), rows))
    return text.getvalue().encode()


def _as_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(_with_nulls(document), indent=1, allow_nan=False).encode() + b"\n"


def _with_nulls(value: Any) -> Any:
    """JSON has no word for a number that is not finite but null."""
    if isinstance(value, Mapping):
        return {key: _with_nulls(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
