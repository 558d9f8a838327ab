"""Names of points for people."""

from __future__ import annotations

from p2pmarket.experiments.summary import label_of, names_of


def test_paths_that_end_alike_are_told_apart() -> None:
    settings = {"scenario.method": "market", "agent.A.samples": 4, "agent.B.samples": 8, "regression.rate": 0.5}
    assert label_of("market", settings) == "market, A.samples 4, B.samples 8, rate 0.5"
    assert label_of("alone", {}) == "alone"


def test_a_name_is_the_shortest_end_that_no_other_swept_path_has() -> None:
    paths = ["scenario.method", "agent.few.count", "agent.many.count", "agent.few.knobs.reserve", "regression.rate"]
    assert names_of(paths) == {
        "agent.few.count": "few.count",
        "agent.many.count": "many.count",
        "agent.few.knobs.reserve": "reserve",
        "regression.rate": "rate",
    }
    assert names_of(["agent.few.count"]) == {"agent.few.count": "count"}
    deep = ["agent.A.knobs.part", "agent.B.knobs.part"]
    assert list(names_of(deep).values()) == ["A.knobs.part", "B.knobs.part"]
