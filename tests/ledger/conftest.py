"""Fixtures of the ledger's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger_examples import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "ledger.sqlite")
    yield made
    made.ledger.close()


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[[str, int], Bench]]:
    made: list[Bench] = []

    def make(name: str, seed: int) -> Bench:
        made.append(Bench(tmp_path / name, seed))
        return made[-1]

    yield make
    for bench in made:
        bench.ledger.close()
