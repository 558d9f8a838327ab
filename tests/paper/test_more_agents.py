"""Three agents and more, competitive and collaborative ones: rows of small markets."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from p2pmarket.errors import DataError
from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.node.strategies.collaborative import Collaborative
from p2pmarket.node.strategy import Strategy
from p2pmarket.paper import competitive, three_agents
from p2pmarket.paper.common import paper_document
from p2pmarket.paper.finding import Context
from p2pmarket.units import CREDIT


def test_three_agents_gain_and_without_the_images_the_rest_is_told(
    small: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    context = small("three-agents", seeds=1)
    with monkeypatch.context() as change:
        change.setitem(sys.modules, "sklearn.datasets", None)
        finding = three_agents.run(context)
    assert finding.missing.startswith("the digits come with scikit-learn")
    assert "(the networks on images did not run)" in finding.sentence
    assert len(finding.rows) == 10 and len(finding.plots) == 2

    finding = three_agents.run(context)
    rows = {row.row: row for row in finding.rows}
    assert {f"{agent}: final testing loss, less than alone" for agent in "ABC"} < set(rows)
    assert rows["A: final testing loss, less than alone"].measured > 0
    assert rows["B: final testing loss, less than without C"].low == 0.1
    two, three = (rows[f"{count} equal agents: mean final testing loss, less than alone"].measured for count in (2, 3))
    assert three > two > 0
    assert rows["least that a further agent brings to all"].measured == pytest.approx(three - two)
    assert {f"digits, {agent}: accuracy, more than alone" for agent in ("low", "middle", "high")} < set(rows)
    assert finding.missing == ""
    assert [path.name for path in finding.plots] == ["three-agents.png", "many-agents.png", "three-agents-digits.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in finding.plots)

    damaged, *_ = (context.folder / f"digits-{context.effort}" / "runs").glob("*/run.json")
    damaged.write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        three_agents.run(context)


def test_further_agents_that_bring_nothing_do_not_agree() -> None:
    *_, added = three_agents._rows_of_many({2: [20.0, 22.0], 3: [25.0, 27.0], 5: [24.0, 26.0]})
    assert added.measured == pytest.approx(-0.5) and not added.agrees


def test_strategies_are_compared_on_the_same_endowments(small: Callable[..., Context]) -> None:
    document = paper_document(small("competitive"), "competitive.toml")
    kinds = {}
    for name in competitive.STRATEGIES:
        scenario = parse_scenario(competitive.with_strategy(document, name))
        assert [agent.endowment for agent in scenario.agents] == [
            agent.endowment for agent in parse_scenario(document).agents
        ]
        assert {agent.strategy.credits_per_gain for agent in scenario.agents if name != "collaborative"} <= {
            100 * CREDIT
        }
        kinds[name] = {type(agent.strategy) for agent in scenario.agents}
    assert kinds["collaborative"] == {Collaborative} and kinds["default"] == {Strategy}


def test_prices_in_a_small_market(small: Callable[..., Context]) -> None:
    finding = competitive.run(small("competitive", seeds=1))
    rows = {row.row: row for row in finding.rows}
    assert len(rows) == 13
    assert rows["collaborative: credits moved"].measured == 0 and rows["collaborative: credits moved"].agrees
    assert rows["default: credits moved"].measured > 0
    assert rows["competitive: purchases lost to asks that were too dear"].measured > 0
    assert rows["default: mean testing loss, less than alone"].measured == pytest.approx(
        rows["collaborative: mean testing loss, less than alone"].measured, abs=0.5
    ), "who asks nothing sells everything"
    assert finding.plots[0].read_bytes().startswith(b"\x89PNG")


def test_profit_is_what_an_agent_has_beyond_its_equal_part() -> None:
    rounds = tuple(RoundRow("run", "market", 0, agent, "linear", 0, 0.0, 1.0, 1.0) for agent in ("poor", "rich"))
    final = {"poor": {"balance": 90 * CREDIT}, "rich": {"balance": 110 * CREDIT}}
    assert competitive.profits(RunResult({"final": final}, rounds, ())) == {"poor": -10.0, "rich": 10.0}
