"""Plots of any results: what is drawn for what, that a page shows the same, and bounds on it; looks are for people."""

from __future__ import annotations

import dataclasses
import errno
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from results_examples import made_up_run, sweep, two_agents, write_runs

from p2pmarket import charts
from p2pmarket.charts import save_png
from p2pmarket.errors import DiskFull, MachineFault
from p2pmarket.experiments.results import RunResult, read_all
from p2pmarket.experiments.spread import mean_and_spread
from p2pmarket.report import curves
from p2pmarket.report.find import story_of
from p2pmarket.report.groups import groups_of, last_rows
from p2pmarket.report.plots import MAX_GROUPS, NAMES, pictures_of, plot_results
from p2pmarket.report.story import Chart, Line, Picture, Story, Table
from p2pmarket.report.words import MAX_KNOWN

pytest.importorskip("matplotlib", reason="plots need matplotlib")

PATH = "agent.A.samples"


def runs_with(
    values: Sequence[Any], methods: Sequence[str] = ("alone",), seeds: int = 1, path: str = PATH, **more: Any
) -> list[RunResult]:
    """Short runs of a sweep over one path."""
    more = {"rounds": 3, "accuracy": False, **more}
    return [
        made_up_run(place, method, seed, settings={path: value}, **more)
        for place, value in enumerate(values)
        for method in methods
        for seed in range(seeds)
    ]


def drawn(runs: Sequence[RunResult], folder: Path) -> set[str]:
    paths = plot_results(runs, folder)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert {path.name for path in paths} == {path.name for path in folder.glob("*")}
    return {path.stem for path in paths}


def charts_in(story: Story) -> list[Chart]:
    return [part for one in story.sections for part in one.parts if isinstance(part, Chart)]


def tables_in(story: Story) -> list[Table]:
    return [part for one in story.sections for part in one.parts if isinstance(part, Table)]


# ---- which files ----------------------------------------------------------------------------------------------------


def test_a_market_beside_none(tmp_path: Path) -> None:
    runs = [made_up_run(0, method, seed, rounds=6) for method in ("market", "alone") for seed in (1, 2)]
    assert drawn(runs, tmp_path) == {"loss", "metric", "trades", "balances", "prices"}


def test_without_a_market_only_learning(tmp_path: Path) -> None:
    assert drawn([made_up_run(0, "alone", rounds=2, accuracy=False)], tmp_path) == {"loss"}
    assert plot_results([], tmp_path / "none") == [] and not (tmp_path / "none").exists()


def test_where_nothing_was_paid_there_are_no_prices(tmp_path: Path) -> None:
    run = made_up_run(rounds=3, accuracy=False)
    assert drawn([run], tmp_path / "paid") == {"loss", "trades", "balances", "prices"}
    free = tuple(dataclasses.replace(row, price=0) for row in run.trades)
    assert drawn([dataclasses.replace(run, trades=free)], tmp_path / "free") == {"loss", "trades", "balances"}


def test_one_number_swept_and_two(tmp_path: Path) -> None:
    assert drawn(runs_with([4, 8], ("alone", "fedavg")), tmp_path / "one") == {"loss", "sweep"}
    assert drawn(runs_with(["default", "collaborative"]), tmp_path / "words") == {"loss"}
    two = [
        made_up_run(place, "alone", rounds=2, accuracy=False, settings={"a.one": place % 2, "a.two": place // 2})
        for place in range(4)
    ]
    assert drawn(two, tmp_path / "two") == {"loss"}
    assert {name for one in tmp_path.iterdir() for name in (path.stem for path in one.iterdir())} <= {*NAMES}


# ---- the same as a page ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", [two_agents, sweep])
def test_a_picture_holds_the_charts_of_the_page(example: Any, tmp_path: Path) -> None:
    folder = example(tmp_path)
    on_page = [chart.marks for chart in charts_in(story_of(folder))]
    pictures = pictures_of(groups_of(read_all(folder)))
    assert {*pictures} >= {"loss", "metric", "trades", "prices", "balances"}
    assert all(chart.marks in on_page for charts, _ in pictures.values() for chart in charts)


def test_a_page_does_not_show_its_charts_twice(tmp_path: Path) -> None:
    folder = two_agents(tmp_path)
    paths = plot_results(read_all(folder), folder / "plots")
    assert not any(one.key == "plots" for one in story_of(folder).sections)
    (folder / "plots" / "of-a-person.png").write_bytes(paths[0].read_bytes())
    (section,) = [one for one in story_of(folder).sections if one.key == "plots"]
    assert [part.title for part in section.parts if isinstance(part, Picture)] == ["of a person"]


def test_a_metric_has_the_name_that_its_world_gives_it(tmp_path: Path) -> None:
    run = made_up_run(0, "alone", rounds=2)
    rows = tuple(dataclasses.replace(row, metric=7.5 + row.round) for row in run.rounds)
    of_gradients = dataclasses.replace(run, rounds=rows, facts={**run.facts, "metric_name": "gradient"})
    labels = {}
    for name, one in (("gradient", of_gradients), ("accuracy", run)):
        story = story_of(write_runs(tmp_path / name, [one]))
        assert f"mean {name} " in story.headline and story.tiles[0].label == f"mean {name}"
        assert f"{name} here" in next(part.columns for part in tables_in(story) if part.title == "All agents")
        found = charts_in(story)
        labels[name] = [(chart.title, chart.y_label, chart.y_axis) for chart in found if chart.title.startswith("Ag")]
    assert labels["gradient"] == [
        ("Agent A", "gradient", "number"), ("Agent B", "gradient", "number"),
        ("Agent A: loss", "loss", "number"), ("Agent B: loss", "loss", "number"),
    ]  # fmt: skip
    assert labels["accuracy"][0] == ("Agent A", "accuracy", "percent")


def with_losses(run: RunResult, losses: Mapping[int, float]) -> RunResult:
    """With these losses, of all agents, by round; the metric is the loss again."""
    rows = (dataclasses.replace(row, loss=losses[row.round], metric=losses[row.round]) for row in run.rounds)
    return dataclasses.replace(run, rounds=tuple(rows))


@pytest.mark.parametrize(
    ("losses", "log"), [((40.0, 4.1, 4.1), False), ((40.0, 3.9, 0.01), True), ((40.0, 1.0, 0.0), False)]
)
def test_losses_over_decades_have_a_logarithmic_axis(losses: Sequence[float], log: bool) -> None:
    run = with_losses(made_up_run(0, "alone", rounds=2), dict(enumerate(losses)))
    shown, _ = pictures_of(groups_of([run]))["loss"]
    assert [chart.log_y for chart in shown] == [log, log]
    assert all(chart.caption.endswith("logarithmic.") == log for chart in shown)


def test_an_accuracy_over_decades_has_a_plain_axis() -> None:
    run = made_up_run(0, "alone", rounds=1)
    rows = tuple(dataclasses.replace(row, metric=0.5 if row.round else 0.001) for row in run.rounds)
    shown, _ = pictures_of(groups_of([dataclasses.replace(run, rounds=rows)]))["metric"]
    assert not any(chart.log_y for chart in shown)


def swept_line(runs: Sequence[RunResult]) -> tuple[Line, str]:
    ((chart, *_), _) = pictures_of(groups_of(runs))["sweep"]
    (line,) = chart.marks
    assert isinstance(line, Line) and line.whiskers
    return line, chart.caption


def test_bars_of_a_sweep_are_intervals_where_there_are_seeds_enough() -> None:
    runs = runs_with([4, 8], seeds=3)
    means = [statistics.fmean(row.loss for row in last_rows(run).values()) for run in runs[:3]]
    line, caption = swept_line(runs)
    mean, half = mean_and_spread(means)
    assert half and line.x == (4.0, 8.0)
    assert [line.low[0], line.y[0], line.high[0]] == pytest.approx([mean - half, mean, mean + half])
    assert caption.endswith("bars are the mean's 95 % interval over seeds.")
    line, caption = swept_line([run for run in runs if run.facts["seed"] < 2])
    assert [line.low[0], line.high[0]] == pytest.approx([min(means[:2]), max(means[:2])])
    assert caption.endswith("bars are the range over seeds.")


# ---- what is drawn --------------------------------------------------------------------------------------------------


def figures_of(runs: Sequence[RunResult], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is drawn, by the name of its file: texts, sizes and marks are read before the figure is closed."""
    found: dict[str, Any] = {}

    def keep(made: Any, path: Path) -> None:
        save_png(made, path)
        axes = [axis for axis in made.axes if axis.axison]
        (foot,) = [axis for axis in made.axes if axis.get_legend()]
        legend, made_width = foot.get_legend(), made.get_window_extent().x1
        found[path.stem] = {
            "inches": tuple(made.get_size_inches()),
            "titles": [axis.get_title() for axis in axes],
            "named": {text.get_text(): line.get_color() if hasattr(line, "get_color") else None
                      for text, line in zip(legend.get_texts(), legend.legend_handles, strict=True)},
            "lines": [len([line for line in axis.lines if not line.get_label().startswith("_child")]) for axis in axes],
            "marks": sum(len(line.get_xdata()) for axis in axes for line in axis.lines),
            "words": "\n".join(text.get_text() for text in foot.texts),
            "left": made_width - max(one.get_window_extent().x1 for one in (legend, *foot.texts)),
            "below": min(axis.get_tightbbox().y0 for axis in axes) - legend.get_window_extent().y1,
            "apart": legend.get_window_extent().y0 - max(one.get_window_extent().y1 for one in foot.texts),
            "ylabels": [axis.get_ylabel() for axis in axes],
            "heights": {axis.get_ylim() for axis in axes},
            "ticks": [[tick.get_text() for tick in axis.get_xticklabels()] for axis in axes],
            "places": [[tuple(bars.lines[0].get_xdata()) for bars in axis.containers if getattr(bars, "has_yerr", 0)]
                       for axis in axes],
            "ground": made.patch.get_facecolor() if made.patch.get_visible() else None,
        }  # fmt: skip

    monkeypatch.setattr(charts, "save_png", keep)
    plot_results(runs, folder)
    return found


def test_many_agents_and_points_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"agent-{place}" for place in range(40)]
    found = figures_of(runs_with(range(1, 31), agents=names, rounds=200), tmp_path, monkeypatch)
    assert {*found} == {"loss", "sweep"}
    (learning, ends) = found["loss"]["lines"]
    assert (learning, ends) == (curves.MAX_LINES, 0) and len(found["loss"]["named"]) == curves.MAX_LINES
    assert found["loss"]["marks"] <= curves.MAX_LINES * (curves.MAX_ROUNDS + 1)
    assert found["sweep"]["ticks"] != [[f"{place}" for place in range(1, 31)]], "thirty numbers cannot be read"
    assert "The first 8 of 30 settings and methods." in found["loss"]["words"]


def test_twelve_points_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = runs_with([0.01 * number for number in range(1, 13)], ("market",), path="regression.rate", accuracy=True)
    found = figures_of(runs, tmp_path, monkeypatch)
    assert {*found} == {*NAMES}
    for name, one in found.items():
        assert one["inches"][0] <= 3 * 5.5 and len(one["titles"]) <= 6, name
        assert one["left"] > 0 and one["below"] > 0, f"{name}: the legend is under the charts, and in the picture"
        assert one["apart"] > 0, f"{name}: the words are under the legend"
        assert one["ground"] == (1.0, 1.0, 1.0, 1.0), "dark viewers show what is clear as black"
    assert len(found["balances"]["titles"]) == MAX_GROUPS and [*found["balances"]["named"]] == ["A", "B"]
    assert found["balances"]["titles"][0] == "Balances: market, rate=0.01"
    assert "The first 6 of 12 markets." in found["trades"]["words"]
    assert len(found["loss"]["named"]) == curves.MAX_LINES and "market, rate=0.01" in found["loss"]["named"]


def test_what_is_alike_has_one_height(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_up_run(0, "alone", rounds=4, accuracy=False)
    rows = tuple(dataclasses.replace(row, loss=row.loss + 50 * (row.agent == "B")) for row in run.rounds)
    rows = tuple(dataclasses.replace(row, metric=row.loss) for row in rows)
    found = figures_of([dataclasses.replace(run, rounds=rows)], tmp_path, monkeypatch)
    assert len(found["loss"]["titles"]) == 2 and len(found["loss"]["heights"]) == 1


def test_a_sweep_has_ticks_at_its_values_and_bars_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in (("plain", (4, 8, 32)), ("decades", (1, 10, 1000))):
        runs = runs_with(values, ("fedavg", "alone"), seeds=2, accuracy=True)
        drawn_sweep = figures_of(runs, tmp_path / name, monkeypatch)["sweep"]
        assert drawn_sweep["ticks"] == [[f"{value}" for value in values]] * 2
        for fedavg_at, alone_at in drawn_sweep["places"]:
            assert all(0 < abs(one / other - 1) < 0.2 for one, other in zip(fedavg_at, alone_at, strict=True))
        assert drawn_sweep["ylabels"] == ["accuracy", "loss"]


def test_a_method_has_one_colour_in_plots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"market": "market", "fedavg": "FedAvg", "alone": "alone"}
    runs = [made_up_run(place, method, rounds=2, accuracy=False) for place, method in enumerate(names)]
    found = figures_of(runs, tmp_path, monkeypatch)["loss"]["named"]
    assert found == {name: charts.METHOD_COLORS[method] for method, name in names.items()}


def test_names_that_a_formula_would_be_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_up_run(rounds=2, accuracy=False)
    odd = tuple(dataclasses.replace(row, agent=r"_$\frac{" if row.agent == "A" else "_") for row in run.rounds)
    found = figures_of([dataclasses.replace(run, rounds=odd)], tmp_path, monkeypatch)
    assert [*found["balances"]["named"]] == ["-", r"\$\frac{"], "none is left out"


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_agents_that_diverge_are_gaps_not_errors(tmp_path: Path) -> None:
    away = {0: 10.0, 1: 1e99, 2: 1e200, 3: float("inf")}
    good, bad = runs_with([0.1, 2.0], path="regression.rate")
    bad = with_losses(bad, away)
    assert any(row.loss > MAX_KNOWN for row in bad.rounds), "on the way to infinity"
    assert drawn([good, bad], tmp_path / "all") == {"loss", "sweep"}
    assert drawn([bad], tmp_path / "bad") == {"loss"}
    ((chart, *_), _) = pictures_of(groups_of([bad]))["loss"]
    assert chart.marks[0].x == (0.0, 1.0) and "2 of 4 values are no finite numbers" in chart.caption
    nothing = with_losses(bad, dict.fromkeys(range(4), float("nan")))
    assert drawn([nothing], tmp_path / "nothing") == set()


def test_without_matplotlib_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MachineFault, match="plots need matplotlib"):
        plot_results([made_up_run(rounds=1)], tmp_path)


def test_a_full_disk_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(DiskFull):
        plot_results([made_up_run(rounds=1)], tmp_path)
