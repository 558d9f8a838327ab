"""Agents with different tasks: what the rows are made of, and a small run of all of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from p2pmarket.errors import DataError
from p2pmarket.experiments.recording import RoundRow, TradeRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper import tasks_and_heads
from p2pmarket.paper.catalogue import scenario_folder
from p2pmarket.paper.finding import QUICK, Context

AGENTS = {"buyer": {"task": "parity"}, "same": {"task": "parity"}, "other": {"task": "digits"}}


def trade(seller: str, price: int | None, gain: float = 0.5, merit: float = 0.2) -> TradeRow:
    return TradeRow(
        "run", "market", 0, 1, 0.0, "", "buyer", seller, "parity", "", "delivered", "", 0.5, None, 1.0, 1.0 - gain,
        gain, 0.0, 0.0, merit, 0, 0, price, 0,
    )  # fmt: skip


def result(seed: int, accuracy: float, *trades: TradeRow, agents: Sequence[str] = tuple(AGENTS)) -> RunResult:
    losses = (2.0, 1.5, 0.5)
    rounds = tuple(
        RoundRow(
            "run", "market", seed, "buyer", "parity", number, 0.0, loss, accuracy, bought=number == 2, gain=0.8
        )
        for number, loss in enumerate(losses)
    )  # fmt: skip
    final = {"buyer": {"metric": accuracy, "loss": losses[-1], "balance": 0}}
    return RunResult(
        {"seed": seed, "settings": {}, "agents": {one: AGENTS[one] for one in agents}, "final": final}, rounds, trades
    )


def test_purchases_cross_tasks_where_the_sellers_is_another() -> None:
    mixed = result(0, 0.9, trade("same", 0), trade("other", 0), trade("other", 7), trade("other", None))
    assert tasks_and_heads.crossing(mixed) == pytest.approx(200 / 3)
    assert tasks_and_heads.crossing(result(0, 0.9, trade("same", 0), trade("other", None))) == 0.0
    assert tasks_and_heads.crossing(result(0, 0.9)) == 0.0


def test_a_buyer_is_compared_with_itself_alone_seed_by_seed() -> None:
    market = [result(1, 0.9, trade("other", 0), trade("other", None)), result(0, 0.8, trade("other", 0, 0.1, -0.1))]
    met = tasks_and_heads.met_by(market, [result(0, 0.7), result(1, 0.95)])
    assert met.accuracy == pytest.approx((10.0, -5.0))
    assert met.gain == pytest.approx((0.1, 0.5))
    assert met.merit == pytest.approx((-0.1, 0.2))


def test_a_gain_told_is_compared_with_the_fall_of_the_loss_in_its_round() -> None:
    one = result(0, 0.9, agents=("buyer",))
    assert tasks_and_heads.told_and_kept(one) == [(0.8, 1.0)]


def test_the_control_differs_from_its_seller_in_labels_alone() -> None:
    for seller, control in (
        (tasks_and_heads.OTHER, tasks_and_heads.CONTROL),
        (tasks_and_heads.OTHER_APART, tasks_and_heads.CONTROL_APART),
    ):
        assert control.changes == {**seller.changes, "agent.seller.shuffled": True}
    folders = [tasks_and_heads._folder(one) for one in tasks_and_heads.SELLERS["normal"]]
    assert len(set(folders)) == len(folders)


def test_images_that_are_not_there_are_missing_and_results_that_are_damaged_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    context = Context(
        tmp_path, scenario_folder(), QUICK, None, "cpu", 1, 1, lambda doing, done, of: None
    )  # fmt: skip
    damaged = tmp_path / "market-quick" / "runs" / "market-0" / "run.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text('{"cut sho')
    with pytest.raises(DataError, match=r"run\.json cannot be read"):
        tasks_and_heads.run(context)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    finding = tasks_and_heads.run(context)
    assert finding.missing.startswith("the digits come with scikit-learn") and not finding.rows


def test_a_small_run_has_every_row_and_its_plots(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    scenarios = tmp_path / "scenarios"
    scenarios.mkdir()
    for path in scenario_folder().glob("tasks-and-heads*.toml"):
        text = path.read_text()
        for old, new in (
            ("rounds = 40", "rounds = 3"), ("trade_from = 10", "trade_from = 2"), ("hidden = [32, 32]", "hidden = [8]"),
            ("share = 0.6", "share = 0.3"), ("broker_images = 300", "broker_images = 60"),
        ):  # fmt: skip
            assert old in text
            text = text.replace(old, new)
        (scenarios / path.name).write_text(text)
    told: list[str] = []
    context = Context(
        tmp_path / "out", scenarios, QUICK, None, "cpu", 1, 1, lambda doing, done, of: told.append(doing)
    )  # fmt: skip
    finding = tasks_and_heads.run(context)
    assert finding.experiment == tasks_and_heads.NAME and not finding.missing
    assert len({row.row for row in finding.rows}) == len(finding.rows) >= 9
    assert all(row.paper is None and row.note for row in finding.rows)
    assert all(math.isfinite(row.measured) or math.isnan(row.measured) for row in finding.rows)
    assert len(finding.plots) == 3 and all(path.stat().st_size > 10_000 for path in finding.plots)
    assert told
