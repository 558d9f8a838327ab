"""Plots of any folder: what is drawn for what, and bounds on it; looks are for people."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small import alone, small

from p2pmarket.charts import save_png
from p2pmarket.errors import MachineFault
from p2pmarket.experiments import figures
from p2pmarket.experiments.figures import plot_results
from p2pmarket.experiments.plan import plans_of
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.run import run_once
from p2pmarket.experiments.summary import label_of

pytest.importorskip("matplotlib", reason="plots need matplotlib")


def runs_of(document: Any) -> list[RunResult]:
    return [run_once(plan) for plan in plans_of(document)]


def drawn(runs: Sequence[RunResult], folder: Path) -> set[str]:
    paths = plot_results(runs, folder)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert {path.name for path in paths} == {path.name for path in folder.glob("*")}
    return {path.stem for path in paths}


def test_a_market_beside_none(tmp_path: Path) -> None:
    runs = runs_of(small(rounds=6, protocol="paper", sweep={"scenario.method": ["market", "alone"]}, seeds=2))
    assert drawn(runs, tmp_path) == {"loss", "trades", "balances", "prices"}


def test_without_a_market_only_learning(tmp_path: Path) -> None:
    assert drawn(runs_of(alone()), tmp_path) == {"loss"}
    assert plot_results([], tmp_path / "none") == [] and not (tmp_path / "none").exists()


def test_one_number_swept_and_two(tmp_path: Path) -> None:
    one = alone(sweep={"agent.A.samples": [4, 8], "scenario.method": ["alone", "fedavg"]})
    assert drawn(runs_of(one), tmp_path / "one") == {"loss", "sweep"}
    two = alone(sweep={"agent.A.samples": [4, 8], "agent.B.samples": [4, 8]})
    assert drawn(runs_of(two), tmp_path / "two") == {"loss"}
    words = alone(sweep={"agent.A.strategy": ["default", "collaborative"]})
    assert drawn(runs_of(words), tmp_path / "words") == {"loss"}


def test_an_accuracy_has_a_plot_of_its_own(tmp_path: Path) -> None:
    (run,) = runs_of(alone())
    rounds = tuple(dataclasses.replace(row, metric=0.5) for row in run.rounds)
    assert drawn([dataclasses.replace(run, rounds=rounds)], tmp_path) == {"loss", "metric"}


def test_many_agents_and_points_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = alone(sweep={"agent.A.samples": list(range(1, 31))})
    document["agent"][0]["count"] = 40
    lines: list[str] = []
    original = figures._curve

    def curve(axis: Any, rows: Any, what: str, color: str, label: str, **more: Any) -> None:
        lines.append(label)
        original(axis, rows, what, color, label, **more)

    monkeypatch.setattr(figures, "_curve", curve)
    assert drawn(runs_of(document), tmp_path) == {"loss", "sweep"}
    assert len(lines) == figures.MOST_LINES


def figures_of(runs: Sequence[RunResult], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is drawn, by the name of its file: texts, sizes and marks are read before the figure is closed."""
    found: dict[str, Any] = {}

    def keep(made: Any, path: Path) -> None:
        save_png(made, path)
        axes = [axis for axis in made.axes if axis.axison]
        found[path.stem] = {
            "inches": tuple(made.get_size_inches()),
            "titles": [axis.get_title() for axis in axes],
            "named": [text.get_text() for axis in axes if axis.get_legend() for text in axis.get_legend().get_texts()],
            "ylabels": [axis.get_ylabel() for axis in axes],
            "ticks": [[tick.get_text() for tick in axis.get_xticklabels()] for axis in axes],
            "places": [[tuple(bars.lines[0].get_xdata()) for bars in axis.containers if bars.has_yerr]
                       for axis in axes if path.stem == "sweep"],
        }  # fmt: skip

    monkeypatch.setattr(figures, "save_png", keep)
    plot_results(runs, folder)
    return found


def test_twelve_points_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = [0.01 * number for number in range(1, 13)]
    found = figures_of(runs_of(small(sweep={"regression.rate": rates})), tmp_path, monkeypatch)
    for name in ("loss", "trades", "balances"):
        assert found[name]["inches"][0] <= 3 * 5.5 and len(found[name]["titles"]) <= 6, name
    assert len(found["balances"]["titles"]) == 6 and found["balances"]["named"] == ["A", "B"]
    assert len(found["loss"]["named"]) == 6 and "market, rate 0.01" in found["loss"]["named"]


def test_a_sweep_has_ticks_at_its_values_and_bars_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = alone(sweep={"agent.A.samples": [4, 8, 32], "scenario.method": ["alone", "fedavg"]}, seeds=2)
    document["regression"]["metric"] = "gradient"
    drawn_sweep = figures_of(runs_of(document), tmp_path, monkeypatch)["sweep"]
    assert drawn_sweep["ticks"] == [["4", "8", "32"]] * 2
    for alone_at, fedavg_at in drawn_sweep["places"]:
        assert all(0 < abs(one - other) < 1 for one, other in zip(alone_at, fedavg_at, strict=True))
    assert drawn_sweep["ylabels"] == ["final loss", "final gradient"]


def test_names_that_a_formula_would_be_made_of(tmp_path: Path) -> None:
    (run,) = runs_of(alone())
    rounds = tuple(dataclasses.replace(row, agent=r"_$\frac{") for row in run.rounds)
    assert drawn([dataclasses.replace(run, rounds=rounds)], tmp_path) == {"loss"}


def test_without_matplotlib_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MachineFault, match="plots need matplotlib"):
        plot_results(runs_of(alone()), tmp_path)


def test_agents_that_diverge_are_gaps_not_errors(tmp_path: Path) -> None:
    document = alone(rounds=60, seeds=2, sweep={"regression.rate": [0.1, 2.0]})
    document["regression"] = {"dimension": 4, "rate": 2.0, "steps": 40}
    runs = runs_of(document)
    assert any(row.loss > figures.MOST_HIGH for run in runs for row in run.rounds), "on the way to infinity"
    assert drawn(runs, tmp_path / "all") == {"loss", "sweep"}
    assert drawn([run for run in runs if run.facts["settings"]["regression.rate"] == 2.0], tmp_path / "bad") == {"loss"}


def test_paths_that_end_alike_are_told_apart() -> None:
    settings = {"scenario.method": "market", "agent.A.samples": 4, "agent.B.samples": 8, "regression.rate": 0.5}
    assert label_of("market", settings) == "market, A.samples 4, B.samples 8, rate 0.5"
    assert label_of("alone", {}) == "alone"
