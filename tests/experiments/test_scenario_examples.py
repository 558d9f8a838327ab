"""Every scenario in examples/ parses, and runs with the fewest rounds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from p2pmarket.experiments.document import as_toml, read_document, with_value
from p2pmarket.experiments.plan import plans_of
from p2pmarket.experiments.run import run_once

FILES = sorted((Path(__file__).parent.parent.parent / "examples").rglob("*.toml"))
HERE = [path for path in FILES if path.parent.name == "scenarios"]


def test_there_are_some() -> None:
    assert {"two-agents", "hundreds", "competitive", "faults", "sweep"} <= {path.stem for path in HERE}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_parses_and_is_written_back_the_same(path: Path, tmp_path: Path) -> None:
    document = read_document(path)
    assert plans_of(document)
    (tmp_path / "again.toml").write_text(as_toml(document))
    assert read_document(tmp_path / "again.toml") == document


@pytest.mark.parametrize("path", HERE, ids=lambda path: path.stem)
def test_it_runs(path: Path) -> None:
    document = with_value(read_document(path), "scenario.rounds", 1)
    if "images" in document:
        pytest.importorskip("sklearn", reason="digits come with scikit-learn")
    if path.stem == "hundreds":
        for kind in ("few", "some", "many"):
            document = with_value(document, f"agent.{kind}.count", 2)
    for plan in {plan.scenario.method: plan for plan in plans_of(document, (0,))}.values():
        run = run_once(plan)
        assert len(run.rounds) == 2 * len(plan.scenario.agents)
        assert run.facts["ledger"].get("verified", True)


def test_equal_agents_of_an_example_have_strategies_of_their_own() -> None:
    (path,) = [path for path in HERE if path.stem == "hundreds"]
    agents = plans_of(read_document(path))[0].scenario.agents
    assert len({id(agent.strategy) for agent in agents}) == len(agents) == 200
    assert dataclasses.replace(agents[0].strategy) == agents[1].strategy
