"""Theorem 4.1: the checks find what breaks a bound, and the rows say what holds and what does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_figure_5 import context, row, run_of

from p2pmarket.experiments.recording import RoundRow
from p2pmarket.paper import theorem_4_1
from p2pmarket.paper.finding import QUICK, Context
from p2pmarket.paper.theorem_4_1 import (
    Trade,
    breaks_printed_lower,
    breaks_printed_upper,
    breaks_tight,
    error_of_exact,
    proves_nothing_above,
    random_trades,
    trades_of,
)

EXAMPLE = Trade(64 / 257, 193 / 257, 257.0, 2329.0625)
"""e_a = (1, 0), e_b = (-3, 1/4): the printed upper bound is 5.15."""


def test_the_example_breaks_the_printed_upper_bound_alone() -> None:
    assert breaks_printed_upper(EXAMPLE) and proves_nothing_above(EXAMPLE)
    assert not breaks_printed_lower(EXAMPLE) and not breaks_tight(EXAMPLE)
    assert error_of_exact(EXAMPLE) < 1e-9


def test_what_is_wrong_is_seen() -> None:
    too_small = Trade(0.2, 0.8, 1.25, 0.03)
    too_large = Trade(0.2, 0.8, 1.25, 145.0)
    assert breaks_printed_lower(too_small) and breaks_tight(too_small)
    assert breaks_tight(too_large) and breaks_printed_upper(too_large)
    assert error_of_exact(Trade(0.2, 0.8, 1.25, 5.0)) < 1e-12
    assert error_of_exact(Trade(0.2, 0.8, 1.25, 5.1)) > 0.01


@pytest.mark.parametrize("best", [True, False])
def test_random_models(best: bool) -> None:
    trades = list(random_trades(np.random.default_rng(3), 3000, best=best))
    assert not any(map(breaks_tight, trades)) and not any(map(breaks_printed_lower, trades))
    assert any(map(breaks_printed_upper, trades))
    assert all(proves_nothing_above(one) for one in trades if breaks_printed_upper(one))
    if best:
        assert max(map(error_of_exact, trades)) < 1e-6
        assert all(one.ratio_a >= 1 - 1e-12 and one.ratio_b >= 1 - 1e-12 for one in trades)


def test_a_runs_trades_are_those_of_which_both_weights_are_told() -> None:
    both = (row(1, "A", 1.0, 0.8, 0.2, None, 0), row(1, "B", 4.0, 0.8, 0.8, None, 0))
    one = (row(2, "A", 1.0, 0.8, 0.2, None, 0), row(2, "B", 4.0, 4.0, 0.0, None, 0))
    assert list(trades_of(run_of(*both, *one))) == [Trade(0.8, 0.2, 5.0, 1.25), Trade(0.2, 0.8, 1.25, 5.0)]


def test_parameters_travel_in_float64_so_the_relation_is_exact(
    small: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theorem_4_1, "TRIALS", {QUICK: 200})
    found = {one.row: one for one in theorem_4_1.run(small("theorem-4.1", QUICK, seeds=1)).rows}
    exact = found["figure 3's trades: exact relation, largest relative error"]
    assert exact.agrees and exact.measured < 1e-9
    told_as_the_least = Trade(0.001, 0.99935, 1.00000000006, 1.00014)
    *_, exact = theorem_4_1._rows("best weights", [EXAMPLE, told_as_the_least], exact=True)
    assert exact.agrees and error_of_exact(told_as_the_least) > 1e-5
    as_float32 = Trade(0.2, 0.8, 1.25, 5.0 * (1 + 2**-24))
    *_, exact = theorem_4_1._rows("of single precision", [as_float32], exact=True)
    assert exact.agrees is False


def test_the_whole_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(5)
    rows = []
    for number, trade in enumerate(random_trades(draw, 40, best=True), 1):
        rows.append(row(number, "A", trade.ratio_a, 1.0, trade.weight_a, None, 0))
        rows.append(row(number, "B", trade.ratio_b, 1.0, trade.weight_b, None, 0))
    made_up = run_of(*rows)
    bought = RoundRow("r", "market", 0, "A", "linear", 1, 0.0, 1.0, 1.0, bought=1)
    made_up = type(made_up)({"seed": 0, "method": "market", "settings": {}}, (bought,), made_up.trades)
    monkeypatch.setattr(theorem_4_1, "runs_of", lambda *_: [made_up])
    monkeypatch.setattr(theorem_4_1, "TRIALS", {"quick": 2000})
    finding = theorem_4_1.run(context(tmp_path))
    found = {one.row: one for one in finding.rows}
    assert found["random models, best weights: printed upper bound broken"].measured > 5
    assert found["random models, any weights: tight bounds broken"].measured == 0
    wrong = [name for name, one in found.items() if one.agrees is False]
    assert wrong == ["figure 3's trades: printed upper bound broken"]  # these are no trades of figure 3
    assert finding.sentence.startswith("Does not agree in 1 of ")
    assert all(math.isfinite(one.measured) for one in finding.rows)
    assert finding.plots[0].read_bytes().startswith(b"\x89PNG")
