"""The files that hold all runs of a results folder together: every round, every trade, a line for each run.

Knows: their columns (docs/simulation.md) and the two formats. Refuses to know: how a single run is kept (results.py).
They are made anew from the runs whenever a sweep ends, one run in memory at a time. A disk that is full raises
`DiskFull`; a format that is none, `ScenarioError`; Parquet without pyarrow, `MachineFault`.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket.errors import MachineFault, ScenarioError
from p2pmarket.experiments.recording import RoundRow, Row, TradeRow, columns
from p2pmarket.experiments.results import Facts, RunResult, is_sound
from p2pmarket.experiments.spread import mean_of
from p2pmarket.files import disk_errors, replacing

FORMATS = ("csv", "parquet")
"""Of the files that hold all runs together."""
RUN_COLUMNS = (
    "run", "scenario", "method", "protocol", "seed", "agents", "loss", "metric", "trades", "settled", "moved", "fees",
    "verified", "traffic_bytes", "messages", "crashes", "wall_seconds", "virtual_seconds", "digest",
)  # fmt: skip
"""Of runs.csv, before one column for each path of the sweep."""

Append = Callable[[Sequence[Row]], None]
Line = Mapping[str, Any]
"""Of runs.csv, by the names of its columns."""


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
    append, write_lines = (_append_parquet, _lines_parquet) if format == "parquet" else (_append_csv, _lines_csv)
    lines: list[Line] = []
    with (
        append(out / f"rounds.{format}", RoundRow) as write_rounds,
        append(out / f"trades.{format}", TradeRow) as write_trades,
    ):
        for run in runs:
            write_rounds(run.rounds)
            write_trades(run.trades)
            lines.append(run_line(run.facts))
    names = tuple(dict.fromkeys(name for line in lines for name in line))
    write_lines(out / f"runs.{format}", names, lines)
    for stem in ("rounds", "trades", "runs"):
        for other in FORMATS:
            if other != format:
                (out / f"{stem}.{other}").unlink(missing_ok=True)


def run_line(facts: Facts) -> Line:
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


# ---- CSV ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _csv_file(path: Path, names: Sequence[str]) -> Iterator[Callable[[Iterable[Iterable[Any]]], None]]:
    """A file that is there once it is whole, with a line of names; inside, lines are added. None is an empty cell."""
    with (
        replacing(path, "the results") as temporary,
        disk_errors("the results", path),
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        yield writer.writerows


@contextlib.contextmanager
def _append_csv(path: Path, kind: type[Row]) -> Iterator[Append]:
    names = columns(kind)
    with _csv_file(path, names) as write:
        yield lambda rows: write(map(operator.attrgetter(*names), rows))


def _lines_csv(path: Path, names: Sequence[str], lines: Iterable[Line]) -> None:
    with _csv_file(path, names) as write:
        write([line.get(name) for name in names] for line in lines)


# ---- Parquet --------------------------------------------------------------------------------------------------------


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MachineFault("Parquet files need pyarrow: pip install 'p2pmarket[research]', or choose csv") from None
    return pyarrow


@contextlib.contextmanager
def _append_parquet(path: Path, kind: type[Row]) -> Iterator[Append]:
    empty = _typed(kind, ())
    with (
        replacing(path, "the results") as temporary,
        disk_errors("the results", path),
        _pyarrow().parquet.ParquetWriter(temporary, empty.schema) as writer,
    ):
        yield lambda rows: writer.write_table(_typed(kind, rows)) if rows else None


def _typed(kind: type[Row], rows: Sequence[Row]) -> Any:
    """A table whose columns have their types even where there is no row, or nothing but None."""
    arrow = _pyarrow()
    types = {"str": arrow.string(), "int": arrow.int64(), "float": arrow.float64()}
    fields = {field.name: types[str(field.type).removesuffix(" | None")] for field in dataclasses.fields(kind)}
    arrays = {name: arrow.array([getattr(row, name) for row in rows], type=type_) for name, type_ in fields.items()}
    return arrow.table(arrays)


def _lines_parquet(path: Path, names: Sequence[str], lines: Iterable[Line]) -> None:
    """A sweep's values are texts, as one column may have values of several types."""
    plain = [
        {name: line.get(name) if name in RUN_COLUMNS else json.dumps(line.get(name)) for name in names}
        for line in lines
    ]  # fmt: skip
    with replacing(path, "the results") as temporary:
        _pyarrow().parquet.write_table(_pyarrow().Table.from_pylist(plain), temporary)
