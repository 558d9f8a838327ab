"""A market in which nobody buys and nothing is gained agrees with no experiment: a negative control of all of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from p2pmarket.experiments.document import Document, points_of
from p2pmarket.experiments.recording import RoundRow, TradeRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.paper import common, table_1
from p2pmarket.paper.catalogue import EXPERIMENTS, experiment, scenario_folder
from p2pmarket.paper.finding import NORMAL, QUICK, Context
from p2pmarket.paper.output import document_of

PURCHASES = "purchases in the run with a market that has the fewest"


def dead(context: Context, document: Document, name: str, seeds: int) -> list[RunResult]:
    """Runs of any scenario, in which every agent ends as it began, whatever the method; all that was appraised was
    found to help nobody.
    """
    found = []
    for point in points_of(document):
        scenario = parse_scenario(point.document)
        agents = {
            plan.name: {"peer": "", "task": plan.task, "strategy": "", "about": ""} for plan in scenario.agents
        }  # fmt: skip
        rows = tuple(
            RoundRow("run", scenario.method, 0, agent, about["task"], number, 0.0, loss=1.0, metric=0.5)
            for number in range(3)
            for agent, about in agents.items()
        )
        trades = tuple(
            TradeRow(
                "run", scenario.method, 0, number, 0.0, "", buyer, seller, about["task"], "", "reported", "", 0.0, None,
                1.0, 1.0, 0.0, 0.0, 0.0, 0.0, None, None, None, None,
            )
            for number in (1, 2)
            for buyer, about in agents.items()
            for seller in agents
            if seller != buyer
        )  # fmt: skip
        facts = {
            "method": scenario.method, "settings": dict(point.settings), "agents": agents, "ledger": {"moved": 0},
            "final": {agent: {"loss": 1.0, "metric": 0.5, "balance": 0} for agent in agents},
        }  # fmt: skip
        found += [RunResult({**facts, "seed": seed}, rows, trades) for seed in range(seeds)]
    return found


@pytest.mark.parametrize("effort", [QUICK, NORMAL])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_nothing_agrees_where_nobody_buys(
    name: str, effort: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in ("mnist.npz", "cifar-10-python.tar.gz", "tiny-imagenet-200.zip"):
        (tmp_path / data).touch()
    module = __import__(f"p2pmarket.paper.{EXPERIMENTS[name].partition(':')[0]}", fromlist=["runs_of"])
    for one in {module, table_1}:
        if hasattr(one, "runs_of"):
            assert one.runs_of is common.runs_of
            monkeypatch.setattr(one, "runs_of", dead)
    if hasattr(module, "TRIALS"):
        monkeypatch.setattr(module, "TRIALS", dict.fromkeys((QUICK, NORMAL), 300))
    monkeypatch.setattr("p2pmarket.charts.save_png", lambda made, path: None)
    folder = tmp_path / "out" / name
    folder.mkdir(parents=True)
    context = Context(folder, scenario_folder(), effort, tmp_path, "cpu", 1, 2, lambda doing, done, of: None)

    finding = experiment(name).run(context)

    assert not document_of([finding], effort)["agrees"]
    assert finding.sentence.startswith("Does not agree in ")
    wrong = {row.row for row in finding.rows if row.agrees is False}
    assert PURCHASES in wrong
    if name != "theorem-4.1":  # whose rows claim bounds, of random models too, and no gain
        assert len(wrong) > 1, "it is not the lack of purchases alone that shows"
    assert all(row.measured >= row.low for row in finding.rows if row.agrees)
    assert all(math.isfinite(row.measured) for row in finding.rows if row.agrees)
