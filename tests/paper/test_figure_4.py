"""Figure 4: the gain by distance, from runs that are made up and from a small market."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper import figure_4
from p2pmarket.paper.finding import Context


def run(method: str, distance: float, loss: float, seed: int = 0) -> RunResult:
    settings: dict[str, Any] = {"scenario.method": method, "regression.tasks.b": distance}
    final = {"A": {"loss": loss}, "B": {"loss": 1.0}}
    rounds = (RoundRow("run", method, seed, "A", "linear", 1, 0.0, loss, loss, bought=int(method == "market")),)
    return RunResult({"method": method, "seed": seed, "settings": settings, "final": final}, rounds, ())


def test_gains_are_against_the_same_seed_alone_at_the_same_distance() -> None:
    runs = [
        run("market", 0, 1.0, seed=1), run("market", 0, 6.0), run("alone", 0, 10.0), run("alone", 0, 2.0, seed=1),
        run("market", 9, 9.0), run("alone", 9, 10.0),
    ]  # fmt: skip
    assert figure_4.gains_of("A", runs) == {0: pytest.approx([40.0, 50.0]), 9: pytest.approx([10.0])}


def test_a_gain_that_grows_with_the_distance_does_not_agree(
    small: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = {"falling": (5.0, 9.0), "growing": (9.0, 5.0), "harmful": (5.0, 11.0)}
    verdicts, context = {}, small("figure-4")
    for name, losses in made_up.items():
        runs = [run("alone", 0, 10.0), run("alone", 80, 10.0)]
        runs += [run("market", distance, loss) for distance, loss in zip((0, 80), losses, strict=True)]
        monkeypatch.setattr(figure_4, "runs_of", lambda *_, runs=runs: runs)
        verdicts[name] = [row.agrees for row in figure_4.run(context).rows]
    assert verdicts == {
        "falling": [True, True, True, True, True],
        "growing": [True, True, True, False, True],
        "harmful": [True, False, False, True, True],
    }


def test_a_small_market(small: Callable[..., Context]) -> None:
    finding = figure_4.run(small("figure-4"))
    near, far, least, *_ = finding.rows
    assert near.row == "A: gain at distance 0" and far.row == "A: gain at distance 10"
    assert near.measured > far.measured and least.measured >= 0
    assert "1.6 times their own length" in finding.sentence
    assert finding.plots[0].read_bytes().startswith(b"\x89PNG")
