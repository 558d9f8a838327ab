"""Theorem 5.1 (section 5): how many rounds a buyer saves, promised and true.

Knows: the theorem's bounds, and its setting: A never buys, B always. With L the expected loss 1/2 |theta - theta*|^2,
the squared gradient of B's training loss is at most eps^2 after 2 (L0 - L*) / (eta eps^2 + 2 delta_b) rounds with
trading and 2 (L0 - L*) / (eta eps^2) without; delta_b is the least expected gain of a round until then. The scenario
has that gradient for its metric. What trading is for, the loss on test data, is looked at beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper.common import (
    agreement,
    draw_runs,
    having,
    paper_document,
    purchases_of,
    rounds_of,
    row_of,
    runs_of,
)
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding, Row

NAME = "theorem-5.1"
TITLE = "Theorem 5.1: rounds that a buyer saves"

SEEDS = {QUICK: 2, NORMAL: 10, FULL: 30}
FEWER = {"scenario.rounds": 60}
TARGETS = (0.25, 0.125, 0.06)
"""Parts of |theta*|^2, which is the first testing loss, and about the first squared gradient."""
_BUYER = "B"


def run(context: Context) -> Finding:
    """Runs it."""
    document = paper_document(context, "theorem-5-1.toml", FEWER if context.effort == QUICK else None)
    runs = runs_of(context, document, "runs", context.count(SEEDS))
    market, alone = having(runs, method="market"), having(runs, method="alone")
    first, rate = rounds_of(market[0], _BUYER)[0].loss, float(document["regression"]["rate"])
    gains = _gains(market)
    bounds = [(promised(part * first, first, rate, gains), promised(part * first, first, rate)) for part in TARGETS]
    truth = [tuple(_reached(_mean(these, _gradient), part * first) for these in (market, alone)) for part in TARGETS]
    saved = [_saved(part, first, market, alone) for part in TARGETS]
    rows = (
        *saved,
        *(
            _bounded(f"|gradient|^2 to {100 * part:g} %, {how}", reached, bound)
            for part, pair, both in zip(TARGETS, truth, bounds, strict=True)
            for how, reached, bound in zip(("with trading", "without"), pair, both, strict=True)
        ),
        purchases_of(NAME, market),
    )
    last = f"{100 * TARGETS[-1]:g} %"
    sentence = (
        f"{agreement(rows)}: the bounds hold, and B comes to {last} of its testing loss in {saved[-1].measured:.0f} % "
        f"of the rounds; but delta_b vanishes, so the theorem promises {bounds[-1][0]} rounds to {last} of the "
        f"gradient with trading and {bounds[-1][1]} without, and in truth B's gradient, of its own noisy data, takes "
        f"{_words(truth[-1][0])} with trading and {_words(truth[-1][1])} without."
    )
    plot = _plot(context.folder / "theorem-5-1.png", market, alone, bounds, first)
    return Finding(NAME, TITLE, rows, sentence, (plot,))


def promised(square: float, first: float, rate: float, gains: Sequence[float] = ()) -> int:
    """The theorem's T until the squared gradient is at most `square`.

    :param first: |theta_0 - theta*|^2, twice L0 - L*
    :param gains: of each round's trade, in L; none: no trade
    """
    for number in range(1, len(gains) + 1):
        if number >= first / (rate * square + 2 * max(0.0, min(gains[:number]))):
            return number
    return -int(-first // (rate * square))


def _gains(market: Sequence[RunResult]) -> list[float]:
    """Expected over seeds, by round, in L: half of the squared error that the broker measures."""
    found = [{trade.round: trade.gain / 2 for trade in run.trades if trade.buyer == _BUYER} for run in market]
    rounds = range(1, max(row.round for row in market[0].rounds) + 1)
    return [statistics.fmean(one.get(number, 0.0) for one in found) for number in rounds]


def _gradient(row: RoundRow) -> float:
    return row.metric


def _loss(row: RoundRow) -> float:
    return row.loss


def _mean(runs: Sequence[RunResult], value: Callable[[RoundRow], float]) -> list[float]:
    """Of B, over seeds, by round from 0."""
    columns = zip(*(map(value, rounds_of(run, _BUYER)) for run in runs), strict=True)
    return [statistics.fmean(column) for column in columns]


def _reached(values: Sequence[float], target: float) -> int | None:
    """The first round with at most that."""
    return next((number for number, value in enumerate(values) if value <= target), None)


def _words(rounds: int | None) -> str:
    return "more than all rounds" if rounds is None else f"{rounds} rounds"


def _saved(part: float, first: float, market: Sequence[RunResult], alone: Sequence[RunResult]) -> Row:
    """Rounds to a testing loss with trading, of those without; runs without trading that never come there count as if
    they did in their last round."""
    ratios = []
    for run, apart in zip(market, alone, strict=True):
        with_trade, without = (
            _reached([row.loss for row in rounds_of(one, _BUYER)], part * first) for one in (run, apart)
        )
        longest = max(row.round for row in apart.rounds)
        ratios.append(
            100.0 * (longest if with_trade is None else with_trade) / (longest if without is None else without)
        )
    return row_of(
        NAME, f"rounds to {100 * part:g} % of the testing loss, of those without trading", ratios, low=0.0, high=99.0,
        unit="%", note="trading converges faster; a run that never comes there counts as coming in its last round",
    )  # fmt: skip


def _bounded(row: str, reached: int | None, bound: int) -> Row:
    return row_of(
        NAME, row, [] if reached is None else [float(reached)], low=0.0, high=float(bound), unit="rounds",
        note="at most the theorem's T; of the mean over seeds",
    )  # fmt: skip


# ---- the plot -------------------------------------------------------------------------------------------------------


def _plot(
    path: Path,
    market: Sequence[RunResult],
    alone: Sequence[RunResult],
    bounds: Sequence[tuple[int, int]],
    first: float,
) -> Path:
    with charts.figure(1, 2, width=6.0, height=4.4) as (made, ((loss, gradient),)):
        for axis, value in ((loss, _loss), (gradient, _gradient)):
            draw_runs(axis, alone, _BUYER, color=charts.BASELINE, label="never trades", value=value, style="--")
            draw_runs(axis, market, _BUYER, color=charts.COLORS[0], label="buys in every round", value=value)
            axis.set(yscale="log", xlabel="round")
        loss.set(title="B's testing loss falls faster with trading", ylabel="|theta - theta*|²")
        for number, (how, marker) in enumerate((("with trading", "v"), ("without", "o"))):
            gradient.plot(
                [pair[number] for pair in bounds], [part * first for part in TARGETS], marker, linestyle="none",
                color=charts.COLORS[1 + number], fillstyle="none" if number else "full", markersize=9 if number else 5,
                label=f"promised by the theorem, {how}",
            )  # fmt: skip
        gradient.set(
            title="B's own gradient: both bounds hold, and are far", ylabel="squared gradient of B's training loss"
        )
        for axis in (loss, gradient):
            axis.legend()
        charts.save_png(made, path)
    return path
