"""Figure 3: what its rows are made of, and a small market's table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from p2pmarket.experiments.recording import RoundRow, TradeRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper import figure_3
from p2pmarket.paper.finding import QUICK, Context


def trade(number: int, buyer: str, loss: float) -> TradeRow:
    return TradeRow(
        "run", "market", 0, number, 0.0, "", buyer, "", "linear", "", "delivered", "", 0.5, None, loss, loss / 2,
        loss / 2, 0.0, 0.0, 0.0, 0, 0, 0, 0,
    )  # fmt: skip


def market(*errors: tuple[float, float]) -> RunResult:
    """A run with these squared errors of A and B, before the trades of rounds 1, 2, ..."""
    trades = [
        trade(number, agent, error)
        for number, pair in enumerate(errors, 1)
        for agent, error in zip("AB", pair, strict=True)
    ]
    rounds = [RoundRow("run", "market", 0, agent, "linear", 1, 0.0, 1.0, 1.0, bought=agent == "B") for agent in "AB"]
    return RunResult({"seed": 0}, tuple(rounds), tuple(trades))


def test_the_ratio_is_of_as_error_by_bs_before_the_trade() -> None:
    assert figure_3.error_ratios(market((1.0, 2.0), (3.0, 2.0))) == [0.5, 1.5]


@pytest.mark.parametrize(
    ("errors", "when"),
    [
        ([(1, 2), (1, 1), (2, 1), (1, 2)], 3),
        ([(2, 1), (1, 2)], None),  # B led first
        ([(1, 2), (1, 2)], None),  # B never led
        ([(1, 1), (1, 2), (2, 1)], 3),  # tied at first
        ([(1, 1)], None),
    ],
)
def test_when_b_takes_the_lead_from_a(errors: list[tuple[float, float]], when: int | None) -> None:
    assert figure_3._overtaken(figure_3.error_ratios(market(*errors))) == when


def test_a_lead_that_no_seed_shows_is_told_as_what_does_not_agree() -> None:
    overtaken, never = market((1, 2), (1, 2), (2, 1)), market((1, 2), (1, 2))
    shown = "what the paper shows of one run, that A leads first and B later, happens in "
    assert figure_3._leading([never, never]) == f"what does not agree in every seed: {shown}0 of 2 seeds"
    some = f"what does not agree in every seed: {shown}1 of 2 seeds (B from round 3, the median)"
    assert figure_3._leading([overtaken, never]) == some
    assert figure_3._leading([overtaken]) == f"{shown}1 of 1 seeds (B from round 3, the median)"


def test_who_bought_when() -> None:
    assert figure_3.bought(market((1, 2)), "A") == []
    assert figure_3.bought(market((1, 2)), "B") == [1]


def test_a_small_market_has_the_table_and_the_plot(small: Callable[..., Context]) -> None:
    finding = figure_3.run(small("figure-3"))
    rows = {row.row: row for row in finding.rows}
    first = rows["A: final testing loss, less than alone"]
    assert first.paper == 42.84 and (first.low, first.high) == pytest.approx((39.84, 45.84))
    assert 0 < first.measured < 40 and first.spread is not None, "40 parameters and 8 rounds are not the paper's"
    assert not first.agrees
    assert finding.sentence.startswith("Does not agree in ")
    assert rows["A: rounds in which it buys"].measured == pytest.approx(8, abs=2)
    assert any("10,000 samples" in name for name in rows)
    assert [path.name for path in finding.plots] == ["figure-3.png"]
    assert finding.plots[0].read_bytes().startswith(b"\x89PNG")


def test_a_first_look_leaves_the_samples_out(small: Callable[..., Context]) -> None:
    rows = figure_3.run(small("figure-3", QUICK, seeds=1)).rows
    assert not any("samples" in row.row for row in rows)
    assert all(row.spread is None for row in rows), "one seed has no interval"


def test_what_is_finished_is_not_run_again(small: Callable[..., Context], monkeypatch: pytest.MonkeyPatch) -> None:
    context = small("figure-3", QUICK, seeds=1)
    before = figure_3.run(context).rows

    def never(*_: object, **__: object) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr("p2pmarket.experiments.sweep.run_once", never)
    assert figure_3.run(context).rows == before
