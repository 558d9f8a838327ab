"""A folder of results: runs that are finished stay finished, whatever happens to the ones after them.

Knows: which file means what (docs/simulation.md). Refuses to know: how a run is made. A run is its folder with a
`run.json`, which is written last; a folder without one is of a run that was cut short, and is made anew. A folder that
cannot be read, or that is none of results, raises `DataError`; a disk that is full, `DiskFull`.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from p2pmarket.errors import DataError, MachineFault, ScenarioError
from p2pmarket.experiments.reading import UNREADABLE, read_facts_file, read_rows, reason_of
from p2pmarket.experiments.recording import RoundRow, Row, TradeRow, columns
from p2pmarket.experiments.spread import mean_of
from p2pmarket.files import disk_errors, private_folder, remove_tree, replacing, write_whole

RUN_FILE, ROUNDS_FILE, TRADES_FILE = "run.json", "rounds.csv", "trades.csv"

SCENARIO_FILE, SUMMARY_FILE, LOCK_FILE, RUNS_FOLDER = "scenario.toml", "summary.json", ".lock", "runs"
PLOTS_FOLDER = "plots"
FORMATS = ("csv", "parquet")
"""Of the files that hold all runs together."""
RUN_COLUMNS = (
    "run", "scenario", "method", "protocol", "seed", "agents", "loss", "metric", "trades", "settled", "moved", "fees",
    "verified", "traffic_bytes", "messages", "crashes", "wall_seconds", "virtual_seconds", "digest",
)  # fmt: skip
"""Of runs.csv, before one column for each path of the sweep."""

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
        facts = read_facts_file(folder / RUN_FILE)
        rounds, trades = (
            tuple(read_rows(kind, folder / file)) for kind, file in ((RoundRow, ROUNDS_FILE), (TradeRow, TRADES_FILE))
        )
    except UNREADABLE as error:
        raise DataError(
            f"the results in {folder} cannot be read ({reason_of(error)}); remove that folder and run again"
        ) from None
    return RunResult(facts, rounds, trades)


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


def check_format(format: str) -> None:
    """
    :raises ScenarioError: none of FORMATS
    :raises MachineFault: it needs a package that is not installed
    """
    if format not in FORMATS:
        raise ScenarioError(f"the format {format!r} is none of {', '.join(FORMATS)}")
    if format == "parquet":
        _pyarrow()


def write_combined(out: Path, runs: Iterable[RunResult], format: str) -> None:
    """All rows of all runs, and a line for each run, in one file each; those of another format go.

    One run at a time: what made it may let go of it then.

    :raises DiskFull, MachineFault: they cannot be written
    """
    flat: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        append = _append_parquet if format == "parquet" else _append_csv
        write_rounds = stack.enter_context(append(out / f"rounds.{format}", RoundRow))
        write_trades = stack.enter_context(append(out / f"trades.{format}", TradeRow))
        for run in runs:
            write_rounds(run.rounds)
            write_trades(run.trades)
            flat.append(run_line(run.facts))
    names = tuple(dict.fromkeys(key for line in flat for key in line))
    if format == "parquet":
        table = _pyarrow().Table.from_pylist([_plain(names, line) for line in flat])
        with replacing(out / "runs.parquet", "the results") as temporary:
            _pyarrow().parquet.write_table(table, temporary)
    else:
        text = _as_csv(names, ([line.get(name) for name in names] for line in flat))
        write_whole(out / "runs.csv", text, "the results")
    for stem in ("rounds", "trades", "runs"):
        for other in FORMATS:
            if other != format:
                (out / f"{stem}.{other}").unlink(missing_ok=True)


Append = Callable[[Sequence[Row]], None]


@contextlib.contextmanager
def _append_csv(path: Path, kind: type[Row]) -> Iterator[Append]:
    names = columns(kind)
    with (
        replacing(path, "the results") as temporary,
        disk_errors("the results", path),
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        _write_lines(file, [names])
        yield lambda rows: _write_lines(file, ([getattr(row, name) for name in names] for row in rows))


@contextlib.contextmanager
def _append_parquet(path: Path, kind: type[Row]) -> Iterator[Append]:
    empty = _typed(kind, ())
    with (
        replacing(path, "the results") as temporary,
        disk_errors("the results", path),
        _pyarrow().parquet.ParquetWriter(temporary, empty.schema) as writer,
    ):
        yield lambda rows: writer.write_table(_typed(kind, rows)) if rows else None


def is_sound(facts: Facts) -> bool:
    """Whether the ledger's own check and everybody's books found nothing wrong; where there is none, nothing is."""
    return bool(facts["ledger"].get("verified", True)) and not facts["ledger"].get("problems")


def run_line(facts: Facts) -> dict[str, Any]:
    """One run's line of runs.csv: RUN_COLUMNS, then its sweep's values by path. Final figures are means over agents."""
    final, ledger = list(facts["final"].values()), facts["ledger"]
    computed = {
        "agents": len(final),
        "loss": mean_of(float(one["loss"]) for one in final),
        "metric": mean_of(float(one["metric"]) for one in final),
        **{key: ledger.get(key, 0) for key in ("trades", "settled", "moved", "fees")},
        "verified": is_sound(facts),
    }
    return {**{key: computed[key] if key in computed else facts[key] for key in RUN_COLUMNS}, **facts["settings"]}


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MachineFault("Parquet files need pyarrow: pip install 'p2pmarket[research]', or choose csv") from None
    return pyarrow


def _typed(kind: type[Row], rows: Sequence[Row]) -> Any:
    """A table whose columns have their types even where there is no row, or nothing but None."""
    arrow = _pyarrow()
    types = {"str": arrow.string(), "int": arrow.int64(), "float": arrow.float64()}
    fields = {field.name: types[str(field.type).removesuffix(" | None")] for field in dataclasses.fields(kind)}
    arrays = {name: arrow.array([getattr(row, name) for row in rows], type=type_) for name, type_ in fields.items()}
    return arrow.table(arrays)


def _plain(names: Iterable[str], line: Mapping[str, Any]) -> dict[str, Any]:
    """A line whose sweep's values are texts, as one column may have values of several types."""
    return {name: line.get(name) if name in RUN_COLUMNS else json.dumps(line.get(name)) for name in names}


def as_csv(kind: type[Row], rows: Iterable[Row]) -> bytes:
    """The rows with a line of their columns' names; floats so that they are read back exactly."""
    names = columns(kind)
    return _as_csv(names, ([getattr(row, name) for name in names] for row in rows))


def _as_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(_with_nulls(document), indent=1, allow_nan=False).encode() + b"\n"


def _with_nulls(value: Any) -> Any:
    """JSON has no word for a number that is not finite but null."""
    if isinstance(value, Mapping):
        return {key: _with_nulls(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_nulls(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _as_csv(names: Sequence[str], lines: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    _write_lines(text, itertools.chain([names], lines))
    return text.getvalue().encode()


def _write_lines(file: TextIO, lines: Iterable[Sequence[Any]]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows(["" if cell is None else cell for cell in line] for line in lines)
