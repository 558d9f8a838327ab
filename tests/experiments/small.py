"""The smallest scenarios that trade, for tests."""

from __future__ import annotations

from typing import Any

from p2pmarket.experiments.document import Document


def small(**scenario: Any) -> Document:
    """Two agents, two rounds; keys of [scenario] as arguments, `sweep` and `faults` sections too."""
    sections: Document = {key: scenario.pop(key) for key in ("sweep", "faults", "terms") if key in scenario}
    return {
        "scenario": {"name": "small", "rounds": 2, **scenario},
        "regression": {"dimension": 8, "rate": 0.1, "broker_samples": 64},
        "agent": [{"name": "A", "samples": 6}, {"name": "B", "samples": 12, "noise": 0.5}],
        **sections,
    }


def alone(**scenario: Any) -> Document:
    """The same without a market: a run of it takes milliseconds."""
    return small(method="alone", **scenario)
