"""Theorem 5.1: its bounds by hand, and that the runs watch the gradient that it is about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from p2pmarket.experiments.results import SUMMARY_FILE, is_results, read_run
from p2pmarket.paper import theorem_5_1
from p2pmarket.paper.common import rounds_of
from p2pmarket.paper.finding import NORMAL, Context
from p2pmarket.paper.theorem_5_1 import promised


def test_rounds_that_are_promised_without_trade() -> None:
    assert promised(25.0, 100.0, 0.05) == 80  # 2 * 50 / (0.05 * 25)
    assert promised(6.0, 100.0, 0.05) == 334  # 333.3, and a round is whole


def test_rounds_that_are_promised_with_trade() -> None:
    assert promised(25.0, 100.0, 0.05, [5.0] * 100) == 9  # 100 / (1.25 + 10) = 8.9
    assert promised(25.0, 100.0, 0.05, [5.0] * 5 + [0.0] * 95) == 80, "delta_b is the least gain until then"
    assert promised(25.0, 100.0, 0.05, [5.0] * 5) == 80, "what no run tells of is no gain"
    assert promised(25.0, 100.0, 0.05, [-1.0] * 100) == 80, "a trade that harms is none of the theorem's"


def test_a_small_market(small: Callable[..., Context]) -> None:
    context = small("theorem-5.1")
    finding = theorem_5_1.run(context)
    rows = {row.row: row for row in finding.rows}
    assert len(rows) == 10
    assert rows["rounds to 25 % of the testing loss, of those without trading"].high == 99.0
    assert rows["|gradient|^2 to 25 %, without"].high == 80.0
    unreached = rows["|gradient|^2 to 6 %, with trading"]
    assert not unreached.agrees, "10 rounds are too few, and what was not reached is no agreement"
    assert finding.plots[0].read_bytes().startswith(b"\x89PNG")
    assert (
        is_results(context.folder / f"runs-{NORMAL}") and (context.folder / f"runs-{NORMAL}" / SUMMARY_FILE).is_file()
    )
    runs = sorted((context.folder / f"runs-{NORMAL}" / "runs").iterdir())
    assert [one.name for one in runs] == [
        f"{number:03d}-{how}-seed{seed}" for number, how in ((0, "market"), (1, "alone")) for seed in (0, 1)
    ]
    run = read_run(runs[-1])
    assert run is not None
    gradients = [row.metric for row in rounds_of(run, "B")]
    assert gradients == sorted(gradients, reverse=True), "gradient descent alone makes its own gradient small"
    assert gradients[0] != rounds_of(run, "B")[0].loss


def test_only_b_buys_and_what_is_finished_is_not_run_again(
    small: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = small("theorem-5.1", seeds=1)
    before = theorem_5_1.run(context)
    run = read_run(context.folder / f"runs-{NORMAL}" / "runs" / "000-market-seed0")
    assert run is not None and {trade.buyer for trade in run.trades if trade.state == "delivered"} == {"B"}

    def never(*_: object, **__: object) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr("p2pmarket.experiments.sweep.run_once", never)
    assert theorem_5_1.run(context).rows == before.rows
