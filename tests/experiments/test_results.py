"""Folders of results: what is written is read back, in any format; what cannot be read is said."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from small import alone, small

from p2pmarket.errors import DataError, MachineFault, ScenarioError
from p2pmarket.experiments import results, sweep
from p2pmarket.experiments.combined import RUN_COLUMNS, write_combined
from p2pmarket.experiments.document import read_document
from p2pmarket.experiments.recording import RoundRow, TradeRow, columns, from_text
from p2pmarket.experiments.results import RunResult, read_all, read_run
from p2pmarket.experiments.sweep import run_sweep

METHODS = {"scenario.method": ["market", "alone"]}


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_read_back_and_put_together(tmp_path: Path) -> None:
    runs = run_sweep(small(sweep=METHODS), tmp_path, jobs=1)
    again = read_all(tmp_path)
    assert [(run.facts, run.rounds, run.trades) for run in again] == [
        (run.facts, run.rounds, run.trades) for run in runs
    ]
    rounds = [from_text(RoundRow, cells) for cells in lines(tmp_path / "rounds.csv")]
    trades = [from_text(TradeRow, cells) for cells in lines(tmp_path / "trades.csv")]
    assert rounds == [row for run in runs for row in run.rounds] and len(rounds) == 2 * 2 * 3
    assert trades == list(runs[0].trades) and trades
    told = lines(tmp_path / "runs.csv")
    assert tuple(told[0]) == (*RUN_COLUMNS, "scenario.method")
    assert [line["scenario.method"] for line in told] == [line["method"] for line in told] == ["market", "alone"]
    assert int(told[0]["settled"]) == runs[0].facts["ledger"]["settled"]
    assert told[0]["verified"] == told[1]["verified"] == "True"
    assert read_document(tmp_path / "scenario.toml")["sweep"] == {"scenario.method": ["market", "alone"]}


def test_a_summary_compares_with_what_agents_reach_alone(tmp_path: Path) -> None:
    runs = run_sweep(small(sweep=METHODS, seeds=2), tmp_path, jobs=1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["runs"], summary["verified"], summary["problems"]) == (4, True, [])
    market, without = summary["points"]
    losses = [sum(last["loss"] for last in run.facts["final"].values()) / 2 for run in runs]
    parts = [1 - losses[0] / losses[2], 1 - losses[1] / losses[3]]
    assert market["less_loss_than_alone"]["mean"] == pytest.approx(sum(parts) / 2)
    assert market["less_loss_than_alone"]["half_width"] == pytest.approx(
        12.7062 * abs(parts[0] - parts[1]) / 2, rel=1e-4
    )
    assert without["less_loss_than_alone"] is None and without["seeds"] == 2
    assert market["agents"]["A"]["loss"]["mean"] == pytest.approx(
        (runs[0].facts["final"]["A"]["loss"] + runs[1].facts["final"]["A"]["loss"]) / 2
    )


def test_parquet_has_the_same_rows_and_replaces_the_other_format(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    runs = run_sweep(small(sweep=METHODS), tmp_path, jobs=1)
    run_sweep(small(sweep=METHODS), tmp_path, jobs=1, format="parquet")
    rounds = parquet.read_table(tmp_path / "rounds.parquet")
    assert tuple(rounds.column_names) == columns(RoundRow)
    assert [RoundRow(**row) for row in rounds.to_pylist()] == [row for run in runs for row in run.rounds]
    trades = parquet.read_table(tmp_path / "trades.parquet")
    assert [TradeRow(**row) for row in trades.to_pylist()] == list(runs[0].trades)
    assert parquet.read_table(tmp_path / "runs.parquet").num_rows == 2
    assert not list(tmp_path.glob("*.csv"))
    run_sweep(alone(), tmp_path / "no trades", jobs=1, format="parquet")
    empty = parquet.read_table(tmp_path / "no trades" / "trades.parquet")
    assert empty.schema == trades.schema and empty.num_rows == 0


def test_every_run_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = read_run

    def count(folder: Path) -> RunResult | None:
        read.append(folder.name)
        return original(folder)

    monkeypatch.setattr(results, "read_run", count)
    monkeypatch.setattr(sweep, "read_run", count)
    run_sweep(alone(seeds=3), tmp_path, jobs=1)
    assert sorted(read) == [f"000-alone-seed{seed}" for seed in range(3)]
    run_sweep(alone(seeds=3), tmp_path, jobs=1, seeds=(5,))
    assert sorted(read[3:]) == [f"000-alone-seed{seed}" for seed in (0, 1, 2, 5)]
    assert len(lines(tmp_path / "rounds.csv")) == 4 * 2 * 3 and len(lines(tmp_path / "runs.csv")) == 4


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_files_of_all_runs_hold_one_run_at_a_time(format: str, tmp_path: Path) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    (run,) = run_sweep(alone(), tmp_path, jobs=1)
    alive: list[weakref.ref[RunResult]] = []

    def one_after_another() -> Iterator[RunResult]:
        for _ in range(4):
            assert all(one() is None for one in alive[:-1]), "only the one before may still be held"
            made = dataclasses.replace(run)
            alive.append(weakref.ref(made))
            yield made
            del made

    write_combined(tmp_path, one_after_another(), format)
    assert len(alive) == 4 and not hasattr(run.rounds[0], "__dict__")


def test_formats_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ScenarioError, match="the format 'xls' is none of csv, parquet"):
        run_sweep(alone(), tmp_path / "out", jobs=1, format="xls")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MachineFault, match="Parquet files need pyarrow: pip install 'p2pmarket.research.', or choose csv"
    ):
        run_sweep(alone(), tmp_path / "out", jobs=1, format="parquet")
    assert not (tmp_path / "out").exists(), "said before hours of runs, not after"


@pytest.mark.parametrize("broken", ["{", "[]", '{"run": 1}', '"text"'])
def test_a_run_that_cannot_be_read_names_its_folder(broken: str, tmp_path: Path) -> None:
    run_sweep(alone(), tmp_path, jobs=1)
    file = tmp_path / "runs" / "000-alone-seed0" / "run.json"
    file.write_text(broken)
    with pytest.raises(DataError, match="000-alone-seed0.* cannot be read .*; remove"):
        run_sweep(alone(), tmp_path, jobs=1)


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    run_sweep(alone(), tmp_path, jobs=1)
    folder = tmp_path / "runs" / "000-alone-seed0"
    text = (folder / "rounds.csv").read_text()
    (folder / "rounds.csv").write_text(text.replace("alone,0,A", "alone,zero,A"))
    with pytest.raises(DataError, match="remove that folder and run again"):
        read_run(folder)
    with pytest.raises(DataError, match="holds no results; name the folder"):
        read_all(tmp_path / "nowhere")


def test_agents_that_diverge_have_no_mean_and_everything_is_written(tmp_path: Path) -> None:
    diverging = {**alone(rounds=60, seeds=2), "regression": {"dimension": 4, "rate": 2.0, "steps": 40}}
    assert len(run_sweep(diverging, tmp_path, jobs=1)) == 2
    (point,) = json.loads((tmp_path / "summary.json").read_text())["points"]
    assert point["loss"] == point["agents"]["A"]["loss"] == {"mean": None, "half_width": None}
    assert len(lines(tmp_path / "runs.csv")) == 2
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert any(math.isnan(run.facts["final"]["A"]["loss"]) for run in read_all(tmp_path))


def test_what_is_not_counted_is_empty(tmp_path: Path) -> None:
    run_sweep(small(sweep={"scenario.method": ["alone", "fedavg"]}), tmp_path, jobs=1)
    points = json.loads((tmp_path / "summary.json").read_text())["points"]
    assert [point["traffic_bytes"] for point in points] == [0.0, None]
    told = lines(tmp_path / "runs.csv")
    assert [(line["traffic_bytes"], line["messages"]) for line in told] == [("0", "0"), ("", "")]
    assert [run.facts["traffic_bytes"] for run in read_all(tmp_path)] == [0, None]
    rounds = [row for run in read_all(tmp_path) for row in run.rounds if row.round]
    assert {(row.method, row.sent_bytes, row.received_bytes) for row in rounds} == {
        ("alone", 0, 0), ("fedavg", None, None)
    }  # fmt: skip
