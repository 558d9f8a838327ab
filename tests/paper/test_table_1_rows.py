"""Tables 1 and 2 and Figure 2: rows and verdicts from runs that are made up, and what is said without data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from p2pmarket.experiments.document import Document, points_of
from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.paper import figure_2, table_1, table_2
from p2pmarket.paper.catalogue import scenario_folder
from p2pmarket.paper.common import paper_document
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding
from p2pmarket.paper.output import document_of

Runs = Callable[[Context, Document, str, int], list[RunResult]]
PAPER = {"alone": (68.5, 72.97), "fedavg": (81.98, 81.98), "unaligned": (84.64, 84.64), "paper": (86.96, 86.96)}
OURS = {**PAPER, "market": (94.0, 94.0), "common": (91.0, 91.0)}


def context(folder: Path, effort: str = NORMAL, data: Path | None = None) -> Context:
    return Context(folder, scenario_folder(), effort, data, "cpu", 1, None, lambda run, done, of: None)


def agrees_whole(finding: Finding) -> bool:
    return bool(document_of([finding], NORMAL)["agrees"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder in which the data sets seem to be."""
    for name in ("mnist.npz", "cifar-10-python.tar.gz", "tiny-imagenet-200.zip"):
        (tmp_path / name).touch()
    return tmp_path


def made_up(accuracies: Mapping[str, tuple[float, float]], asked: list[Document]) -> Runs:
    def runs(context: Context, document: Document, name: str, seeds: int) -> list[RunResult]:
        asked.append(document)
        given = {**accuracies, "fedavg": accuracies["common"]} if name == "common" else accuracies
        return [
            run(parse_scenario(point.document).method, seed, dict(point.settings), given)
            for point in points_of(document)
            for seed in range(seeds)
        ]

    return runs


def run(method: str, seed: int, settings: dict[str, Any], accuracies: Mapping[str, tuple[float, float]]) -> RunResult:
    key = settings.get("terms.trade.tradable")
    pair = accuracies[method if key is None else "+".join(key)]
    final = {
        agent: {"metric": one / 100, "loss": 1 - one / 100, "balance": 0} for agent, one in zip("AB", pair, strict=True)
    }
    rows = [
        RoundRow(
            "run",
            method,
            seed,
            agent,
            "images",
            number,
            0.0,
            loss=final[agent]["loss"] + 1 / (1 + number),
            metric=0.5,
            bought=int(number > 0 and method not in ("alone", "fedavg")),
        )
        for number in range(3)
        for agent in "AB"
    ]
    return RunResult({"method": method, "seed": seed, "settings": settings, "final": final}, tuple(rows), ())


def table(
    monkeypatch: pytest.MonkeyPatch, data: Path, accuracies: Mapping[str, tuple[float, float]], effort: str = NORMAL
) -> tuple[Finding, list[Document]]:
    asked: list[Document] = []
    monkeypatch.setattr(table_1, "runs_of", made_up(accuracies, asked))
    return table_1.MNIST.run(context(data / "out", effort, data)), asked


def test_the_papers_own_numbers_agree(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    (data / "out").mkdir()
    finding, asked = table(monkeypatch, data, OURS)
    assert agrees_whole(finding)
    assert finding.sentence.startswith("Agrees with the paper")
    assert [document["scenario"]["protocol"] for document in asked] == ["paper", "paper", "honest"]
    assert [agent["seed"] for agent in asked[0]["agent"]] == [321, 231]
    assert [agent["seed"] for agent in asked[1]["agent"]] == [321, 321]
    assert asked[1]["sweep"] == {"scenario.method": ["fedavg"]}
    assert [row.paper for row in finding.rows[:4]] == [68.5, 72.97, 81.98, 81.98]
    assert all(plot.is_file() for plot in finding.plots)


@pytest.mark.parametrize(
    ("method", "pair", "row"),
    [
        ("alone", (70.6, 72.97), "A, out of the market"),
        ("paper", (86.96, 85.9), "B, with alignment"),
        ("market", (92.0, 92.0), "both, learned coefficients, broker with images of its own"),
        ("market", (86.0, 94.0), "A, learned coefficients"),
        ("common", (94.5, 94.5), "learned coefficients, above FedAvg from common first parameters"),
    ],
)
def test_a_row_that_is_off_does_not(
    monkeypatch: pytest.MonkeyPatch, data: Path, method: str, pair: tuple[float, float], row: str
) -> None:
    (data / "out").mkdir()
    finding, _ = table(monkeypatch, data, {**OURS, method: pair})
    assert row in [one.row for one in finding.rows if one.agrees is False]
    assert finding.sentence.startswith("Does not agree")


def test_a_first_look_has_one_seed_and_says_so(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    (data / "out").mkdir()
    finding, asked = table(monkeypatch, data, {**OURS, "alone": (71.4, 72.97)}, QUICK)
    assert agrees_whole(finding)
    assert "a single seed" in finding.rows[0].note
    assert finding.rows[0].spread is None
    assert "market" not in asked[0]["sweep"]["scenario.method"]
    for learned in asked[1:]:
        assert learned["sweep"] == {"scenario.method": ["market"]}
        assert learned["scenario"]["trade_every"] == 5
    assert [document["scenario"]["protocol"] for document in asked] == ["paper", "paper", "honest"]
    assert "every few rounds only" in finding.sentence


@pytest.mark.parametrize("which", [table_1.CIFAR10, table_1.TINY_IMAGENET, table_1.RESNET_SMALL])
def test_a_smaller_profile_is_held_to_the_order_alone(
    monkeypatch: pytest.MonkeyPatch, data: Path, which: table_1.Table1
) -> None:
    (data / "out").mkdir()
    monkeypatch.setattr("p2pmarket.charts.save_png", lambda made, path: None)
    cases = (
        (OURS, True),
        ({**OURS, "alone": (99.0, 99.0)}, False),
        ({**OURS, "paper": (84.0, 84.0)}, False),
        ({**OURS, "market": (86.0, 86.0)}, False),
    )
    for accuracies, agrees in cases:
        monkeypatch.setattr(table_1, "runs_of", made_up(accuracies, []))
        finding = which.run(context(data / "out", NORMAL, data))
        assert agrees_whole(finding) is agrees
        assert {row.paper for row in finding.rows} == {None}
        gain = accuracies["paper"][0] - accuracies["unaligned"][0]
        assert f"alignment brings {gain:+.1f} points (95 % interval" in finding.sentence


@pytest.mark.parametrize("which", [table_1.CIFAR10, table_1.TINY_IMAGENET])
def test_the_full_effort_runs_the_papers_settings(
    monkeypatch: pytest.MonkeyPatch, data: Path, which: table_1.Table1
) -> None:
    (data / "out").mkdir()
    monkeypatch.setattr("p2pmarket.charts.save_png", lambda made, path: None)
    assert which.numbers is not None
    asked: list[Document] = []
    monkeypatch.setattr(table_1, "runs_of", made_up({**which.numbers.rows, "market": (90.0, 90.0)}, asked))
    finding = which.run(context(data / "out", FULL, data))
    assert agrees_whole(finding)
    assert asked[0]["images"]["arguments"] == {"depth": 22, "width": 6}
    assert asked[0]["scenario"]["rounds"] == 60
    which.run(context(data / "out", NORMAL, data))
    assert asked[1]["images"]["arguments"] == {"depth": 10, "width": 1}


def test_the_smaller_profiles_are_alike_and_trade_once_at_the_end() -> None:
    stand_in = parse_scenario(paper_document(context(Path()), "table-1-resnet-small.toml"))
    for which in (table_1.CIFAR10, table_1.TINY_IMAGENET):
        (document, *_) = points_of(paper_document(context(Path()), f"{which.NAME}.toml", which.small))
        small = parse_scenario(document.document)
        for scenario in (small, stand_in):
            assert scenario.trade_from == scenario.rounds
        for name in ("model", "arguments", "test_images", "coefficients"):
            assert getattr(small.world, name) == getattr(stand_in.world, name)
        for name in ("optimizer", "learning_rate", "momentum", "reset_optimizer"):
            assert getattr(small.world.training, name) == getattr(stand_in.world.training, name)  # type: ignore[attr-defined]
        assert document.document["terms"]["appraisal"] == {"coefficients": "tensor"}


@pytest.mark.parametrize(
    ("experiment", "words"),
    [
        (table_1.MNIST, "mnist is not here"),
        (table_1.CIFAR10, "cifar10 is not here"),
        (table_1.TINY_IMAGENET, "tinyimagenet is not here"),
        (table_1.RESNET_SMALL, "mnist is not here"),
        (table_2, "mnist is not here"),
        (figure_2, "mnist is not here"),
    ],
)
def test_a_data_set_that_is_not_there_is_told_of(tmp_path: Path, experiment: Any, words: str) -> None:
    finding = experiment.run(context(tmp_path, NORMAL, tmp_path))
    assert finding.missing.startswith(words)
    assert finding.rows == ()


LAYERS = {
    "layers.3.*+layers.4.*": (66.0, 72.0),
    "layers.2.*+layers.3.*+layers.4.*": (70.0, 73.0),
    "layers.0.*+layers.1.*+layers.2.*": (75.0, 74.0),
    "layers.0.*+layers.1.*": (79.0, 80.0),
}


@pytest.mark.parametrize(
    ("changes", "agrees"),
    [({}, True), ({"layers.0.*+layers.1.*": (60.0, 60.0)}, False), ({"paper": (74.0, 74.0)}, False)],
)
def test_table_2_is_held_to_the_order_of_its_rows(
    monkeypatch: pytest.MonkeyPatch, data: Path, changes: dict[str, tuple[float, float]], agrees: bool
) -> None:
    (data / "out").mkdir()
    ends: list[Document] = []
    monkeypatch.setattr(table_1, "runs_of", made_up({**OURS, **changes}, ends))
    monkeypatch.setattr(table_2, "runs_of", made_up({**OURS, **LAYERS, **changes}, []))
    finding = table_2.run(context(data / "out", NORMAL, data))
    whole = [dict(point.settings)["scenario.method"] for document in ends for point in points_of(document)]
    assert set(whole) == set(table_1.LABELS), "a smaller sweep would leave a smaller summary in Table 1's folder"
    assert agrees_whole(finding) is agrees
    assert len([row for row in finding.rows if row.paper is not None]) == 12 + 8


@pytest.mark.parametrize(("effort", "images", "parts"), [(QUICK, 3000, 2), (NORMAL, 0, 4)])
def test_a_first_look_at_table_2_is_smaller_and_says_so(
    monkeypatch: pytest.MonkeyPatch, data: Path, effort: str, images: int, parts: int
) -> None:
    (data / "out").mkdir()
    asked: list[Document] = []
    monkeypatch.setattr(table_1, "runs_of", made_up(OURS, []))
    monkeypatch.setattr(table_2, "runs_of", made_up({**OURS, **LAYERS}, asked))
    finding = table_2.run(context(data / "out", effort, data))
    (document,) = asked
    assert document["images"].get("test_images", 0) == images
    assert len(document["sweep"]["terms.trade.tradable"]) == parts
    assert ("3,000 test images" in finding.sentence) == (effort == QUICK)


def test_figure_2_takes_table_1s_runs(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    folder = data / "figure-2"
    folder.mkdir()
    folders: list[Path] = []

    def noted(context: Context, document: Document, name: str, seeds: int) -> list[RunResult]:
        folders.append(context.folder)
        return made_up(OURS, [])(context, document, name, seeds)

    monkeypatch.setattr(table_1, "runs_of", noted)
    finding = figure_2.run(context(folder, NORMAL, data))
    assert agrees_whole(finding)
    assert folders == [data / "table-1-mnist"]
    monkeypatch.setattr(table_1, "runs_of", made_up({**OURS, "paper": (80.0, 80.0)}, []))
    assert not agrees_whole(figure_2.run(context(folder, NORMAL, data)))


def test_the_scenarios_of_the_tables_are_the_papers_settings() -> None:
    for name in ("table-1-mnist", "table-1-mnist-honest", "table-2"):
        found = paper_document(context(Path()), f"{name}.toml")
        for point in points_of(found):
            scenario = parse_scenario(point.document)
            assert (scenario.rounds, scenario.trade_from) == (50, 5)
            assert scenario.world.training.batch_size == 512  # type: ignore[attr-defined]
            assert scenario.world.arguments == {"hidden": [32, 32, 32, 16]}  # type: ignore[attr-defined]
