"""Names of points for people."""

from __future__ import annotations

from p2pmarket.experiments.summary import label_of


def test_paths_that_end_alike_are_told_apart() -> None:
    settings = {"scenario.method": "market", "agent.A.samples": 4, "agent.B.samples": 8, "regression.rate": 0.5}
    assert label_of("market", settings) == "market, A.samples 4, B.samples 8, rate 0.5"
    assert label_of("alone", {}) == "alone"
