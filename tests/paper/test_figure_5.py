"""Figure 5: gaps as they are counted, which agent is dearer, and the whole of it on a market of few rounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from p2pmarket.experiments.document import Document
from p2pmarket.experiments.recording import TradeRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.experiments.strategies import EXACT, GAIN, LEARNED, PRINTED, RATIO, Following, RatioTrader
from p2pmarket.node.strategies.competitive import Competitive
from p2pmarket.paper import figure_5
from p2pmarket.paper.catalogue import scenario_folder
from p2pmarket.paper.common import paper_document, runs_of
from p2pmarket.paper.figure_5_measures import (
    PER_RATIO,
    Offer,
    above_no_gain,
    gap,
    gap_where_prices_stay,
    leader_is_dearer,
    lost,
    offers_by,
    offers_of,
)
from p2pmarket.paper.finding import QUICK, Context
from p2pmarket.units import CREDIT


def context(folder: Path, seeds: int | None = None) -> Context:
    return Context(folder, scenario_folder(), QUICK, None, "cpu", 1, seeds, lambda run, done, of: None)


def row(number: int, buyer: str, before: float, after: float, weight: float, bid: int | None, ask: int) -> TradeRow:
    """An appraised pair, settled at the midpoint where the bid reaches the ask."""
    price = None if bid is None or bid < ask else ask + (bid - ask) // 2
    return TradeRow(
        run="r", method="market", seed=0, round=number, time_s=0.0, trade="", buyer=buyer,
        seller="B" if buyer == "A" else "A", task="linear", after="", state="", reason="", weight=weight,
        own_weight=None, loss_before=before, loss_after=after, gain=before - after, gain_low=0.0, gain_high=0.0,
        merit=0.0, bid=bid, ask=ask, price=price, fee=0,
    )  # fmt: skip


def run_of(*rows: TradeRow) -> RunResult:
    return RunResult({"seed": 0}, (), rows)


def test_a_lost_trade_counts_with_its_whole_price() -> None:
    offers = [Offer(1, 100, 80), Offer(2, 100, None), Offer(3, 200, 190)]
    assert gap(offers) == pytest.approx(100 * (20 + 100 + 10) / 400)
    assert gap_where_prices_stay(offers) == pytest.approx(100 * (20 + 20 + 10) / 400)
    assert gap_where_prices_stay([Offer(1, 100, None)]) == 100.0
    assert lost(offers) == pytest.approx(100 / 3)
    never = [Offer(1, 100, None), Offer(2, 100, None)]
    assert gap(never) == 100.0  # nobody comes nearer by losing trades


def test_measures_of_no_bids_are_nothing() -> None:
    assert all(math.isnan(measure([])) for measure in (gap, gap_where_prices_stay, lost, above_no_gain))
    assert above_no_gain([Offer(1, CREDIT, 1), Offer(2, 3 * CREDIT // 2, 1)]) == pytest.approx(25.0)


def test_other_sellers_are_priced_from_the_same_rows() -> None:
    """e_a = (1, 0), e_b = (0, 2): the best weights are 0.2 and 0.8, the ratios 1.25 and 5."""
    pair = (row(1, "A", 1.0, 0.8, 0.2, CREDIT, 0), row(1, "B", 4.0, 0.8, 0.8, 5 * CREDIT, 0))
    run = run_of(*pair)
    assert offers_of(run, "A") == [Offer(1, 5 * CREDIT, 5 * CREDIT // 2)] and len(offers_of(run)) == 2
    (exact,) = offers_by(run, "A", EXACT, RATIO)
    assert exact.price == pytest.approx(5 * CREDIT, rel=1e-5)
    (printed,) = offers_by(run, "A", PRINTED, RATIO)
    assert printed.price == pytest.approx((5 + 0.0358) / 2 * CREDIT, rel=1e-3)
    alone = run_of(pair[1])  # B's report alone: the seller is told no ratio of its own
    assert offers_by(alone, "A", PRINTED, RATIO) == [Offer(1, 5 * CREDIT, 5 * CREDIT // 2)]
    unsold = dataclasses.replace(pair[1], bid=None)
    assert offers_by(run_of(unsold), "A", PRINTED, RATIO) == []


@pytest.mark.parametrize(("value", "seller"), [(GAIN, EXACT), (RATIO, PRINTED)])
def test_another_seller_is_priced_as_that_seller_would_ask(tmp_path: Path, value: str, seller: str) -> None:
    few = {"scenario.rounds": 10, "regression.dimension": 40, "regression.rate": 0.1}
    agents = {"agent.A.samples": 20, "agent.B.samples": 32}
    knobs = {"value_is": value, "seller": seller, "credits_per_ratio": PER_RATIO[value]}
    changes = {**few, **agents, **{f"agent.{agent}.knobs": knobs for agent in "AB"}}
    (run,) = runs_of(context(tmp_path), paper_document(context(tmp_path), "figure-5.toml", changes), "runs", 1)
    assert len(offers_of(run)) >= 10
    for agent in "AB":
        assert offers_by(run, agent, seller, value) == offers_of(run, agent)
    if seller == EXACT:
        assert lost(offers_of(run)) == 0.0, "rounding loses no trade"


def test_who_leads_is_who_has_the_smaller_error() -> None:
    a_behind = row(1, "A", 4.0, 0.8, 0.8, 5 * CREDIT, 10)
    b_ahead = row(1, "B", 1.0, 0.8, 0.2, CREDIT, 20)
    run = run_of(a_behind, b_ahead)
    assert leader_is_dearer(run, lambda one: one.bid) == 100.0  # B leads, and its parameters are bid 5 for
    assert leader_is_dearer(run, lambda one: one.ask) == 0.0
    assert math.isnan(leader_is_dearer(run_of(a_behind), lambda one: one.bid))


def test_the_scenarios_are_what_the_page_says(tmp_path: Path) -> None:
    plain = parse_scenario(paper_document(context(tmp_path), "figure-5.toml"))
    assert [(one.endowment.samples, one.endowment.noise) for one in plain.agents] == [(500, 0.0), (800, 0.5)]
    assert plain.rounds == 100 and plain.terms["pricing"]["disclosure"] == "paper"
    seconds = plain.terms["limits"]["bid_seconds"] + plain.terms["limits"]["ask_seconds"]
    assert seconds < plain.round_seconds  # or a seller learns of a refusal rounds too late
    for agent in plain.agents:
        assert isinstance(agent.strategy, RatioTrader)
        assert (agent.strategy.value_is, agent.strategy.seller) == (RATIO, PRINTED)
    eight = parse_scenario(paper_document(context(tmp_path), "figure-5-eight.toml"))
    assert {one.strategy.credits_per_gain for one in eight.agents} == {10 * CREDIT}, "credits, not micro-credits"
    assert len(eight.agents) == 8 and all(isinstance(one.strategy, Competitive) for one in eight.agents)


@pytest.mark.parametrize("of_eight", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_few_rounds_of_the_whole_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_eight: int) -> None:
    asked: list[Document] = []

    def smaller(context: Context, file: str, changes: Mapping[str, object] | None = None) -> Document:
        few = {"scenario.rounds": 6, "regression.dimension": 40, "regression.rate": 0.1}
        fewer = {"agent.A.samples": 20, "agent.B.samples": 32} if file == "figure-5.toml" else {"scenario.rounds": 2}
        asked.append(paper_document(context, file, {**few, **fewer, **(changes or {})}))
        return asked[-1]

    monkeypatch.setattr(figure_5, "paper_document", smaller)
    monkeypatch.setattr(figure_5, "SEEDS_OF_EIGHT", {QUICK: of_eight})
    finding = figure_5.run(context(tmp_path))
    rows = {one.row: one for one in finding.rows}
    assert rows["ratio, told weight and ratio: mean gap"].measured < rows["ratio, lower bound: mean gap"].measured
    assert rows["gain, lower bound: mean gap"].measured == pytest.approx(50.0, abs=0.1)
    if of_eight:
        assert rows["eight agents, reserve of 0: mean gap"].measured == pytest.approx(50.0, abs=0.1)
    assert len(finding.plots) == 2 and all(path.read_bytes().startswith(b"\x89PNG") for path in finding.plots)
    strategies = [[agent.strategy for agent in parse_scenario(document).agents] for document in asked]
    pairs = {(one.value_is, one.seller) for many in strategies for one in many if isinstance(one, RatioTrader)}
    assert pairs == {(RATIO, PRINTED), (RATIO, LEARNED), (GAIN, PRINTED), (GAIN, LEARNED)}
    assert any(type(one) is Following for many in strategies for one in many) == bool(of_eight)
    assert "lost trade" in finding.sentence
