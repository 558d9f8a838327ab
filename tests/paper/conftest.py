"""Small worlds for the paper's experiments: the same scenario files with fewer parameters and rounds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from p2pmarket.paper.catalogue import scenario_folder
from p2pmarket.paper.finding import NORMAL, Context

SMALL = {
    "dimension = 1000": "dimension = 40",
    "dimension = 200": "dimension = 40",
    "samples = 500": "samples = 20",
    "samples = 800": "samples = 32",
    "samples = 650": "samples = 26",
    "samples = 160": "samples = 32",
    "samples = 60": "samples = 12",
    "rate = 0.01": "rate = 0.05",
    "rate = 0.02": "rate = 0.05",
    "rounds = 100": "rounds = 8",
    "rounds = 120": "rounds = 10",
    "rounds = 60": "rounds = 5",
    "rounds = 40": "rounds = 5",
    "rounds = 20": "rounds = 4",
    "[0, 10, 20, 30, 40, 60, 80]": "[0, 10]",
    "[2, 3, 5, 8]": "[2, 3]",
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Context]:
    """An experiment's context, with small scenario files and two seeds; markets keep their files in memory."""
    monkeypatch.delenv("TMPDIR", raising=False)
    scenarios = tmp_path / "scenarios"
    scenarios.mkdir()
    for path in scenario_folder().glob("*.toml"):
        text = path.read_text()
        for old, new in SMALL.items():
            text = text.replace(old, new)
        (scenarios / path.name).write_text(text)

    def context(name: str, effort: str = NORMAL, seeds: int | None = 2) -> Context:
        return Context(
            folder=tmp_path / "out" / name, scenarios=scenarios, effort=effort, data=None, device="cpu", jobs=1,
            seeds=seeds, progress=lambda doing, done, of: None,
        )  # fmt: skip

    return context
