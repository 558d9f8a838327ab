"""Theorem 4.1 (section 4): what a seller can find out of its buyer's gain, printed, corrected and exact.

Knows: the rounds of figure 3's market, and models drawn at random. In both the true Delta_b is set against the bounds
that the paper prints, the tight ones, and the relation that holds at the best weights (pricing/theorem). The printed
upper bound is not one; the rows about it say what was found, not what the paper claims.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from p2pmarket import charts
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper.common import agreement, having, paper_document, purchases_of, row_of, runs_of
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding, Row
from p2pmarket.pricing.theorem import bounds, printed_bounds, printed_upper, ratio_at_optimal_weights

NAME = "theorem-4.1"
TITLE = "Theorem 4.1: bounds on the buyer's gain-from-trade"

SEEDS = {QUICK: 1, NORMAL: 5, FULL: 20}
TRIALS = {QUICK: 20_000, NORMAL: 100_000, FULL: 400_000}
MOST_DIMENSIONS = 4
_ROUNDING = 1e-9
"""Relative: the tight bounds are reached, so that the last bits of float64 decide; and what the exact relation may be
wrong by."""


@dataclasses.dataclass(frozen=True)
class Trade:
    """One sale: what the seller A is told, and the truth that it is not."""

    weight_a: float
    weight_b: float
    ratio_a: float
    ratio_b: float


def run(context: Context) -> Finding:
    """Runs it."""
    document = paper_document(context, "figure-3.toml", {"sweep": {"scenario.method": ["market"]}})
    market = having(runs_of(context, document, "runs", context.count(SEEDS)), method="market")
    rounds = [trade for one in market for trade in trades_of(one)]
    trials, draw = TRIALS[context.effort], np.random.default_rng(1)
    best = list(random_trades(draw, trials, best=True))
    anyhow = list(random_trades(draw, trials, best=False))
    rows = (
        *_rows("figure 3's trades", rounds, exact=True, sure=False),
        *_rows("random models, best weights", best, exact=True),
        *_rows("random models, any weights", anyhow, exact=False),
        purchases_of(NAME, market),
    )
    sentence = (
        f"{agreement(rows, 'Half of it holds')}: the printed lower bound is never broken, but the printed upper bound "
        f"is false in {_per_cent(best, breaks_printed_upper):.1f} % of random models with the best weights and in "
        f"{_per_cent(anyhow, breaks_printed_upper):.1f} % of those with any (where the denominator is negative, as it "
        f"is in {_per_cent(rounds, proves_nothing_above):.0f} % of figure 3's trades without harm); the corrected "
        f"bounds always hold, and at the best weights the seller knows its buyer's gain exactly."
    )
    return Finding(NAME, TITLE, rows, sentence, (_plot(context.folder / "theorem-4.1.png", market[0], best),))


# ---- trades ---------------------------------------------------------------------------------------------------------


def trades_of(run: RunResult) -> Iterator[Trade]:
    """A run's appraised pairs in which both would gain, and so both weights are told; each seller in turn is A."""
    for _, trade in _numbered(run):
        yield trade


def _numbered(run: RunResult) -> Iterator[tuple[int, Trade]]:
    """The same, with their rounds."""
    reports = {(row.round, row.buyer): row for row in run.trades}
    for row in run.trades:
        own = reports.get((row.round, row.seller))
        if own is not None and own.weight > 0 and row.weight > 0:
            ratios = (own.loss_before / own.loss_after, row.loss_before / row.loss_after)
            yield row.round, Trade(own.weight, row.weight, *ratios)


def random_trades(draw: np.random.Generator, count: int, *, best: bool) -> Iterator[Trade]:
    """Two normal errors of one to MOST_DIMENSIONS dimensions and of unequal size, with any weights or the best ones.

    Of the best ones those pairs alone in which both are inside 0 ... 1, as the relation demands.
    """
    for _ in range(count):
        size = int(draw.integers(1 + best, MOST_DIMENSIONS + 1))
        a, b = draw.normal(size=(2, size)) * np.exp(draw.normal(size=(2, 1)))
        weight_a, weight_b = draw.uniform(0.001, 1.0, 2)
        if best:
            weight_a = float(a @ (a - b) / ((a - b) @ (a - b)))
            weight_b = 1 - weight_a
            if not 1e-3 < weight_a < 1 - 1e-3:
                continue
        merged_a, merged_b = (1 - weight_a) * a + weight_a * b, (1 - weight_b) * b + weight_b * a
        ratios = float(a @ a / (merged_a @ merged_a)), float(b @ b / (merged_b @ merged_b))
        yield Trade(float(weight_a), float(weight_b), *ratios)


# ---- what is true of a trade ----------------------------------------------------------------------------------------


def breaks_printed_lower(trade: Trade) -> bool:
    """Delta_b is below the printed lower bound."""
    return trade.ratio_b < printed_bounds(*_told(trade)).lower * (1 - _ROUNDING)


def breaks_printed_upper(trade: Trade) -> bool:
    """Delta_b is above the number that the printed upper bound's formula gives."""
    return trade.ratio_b > printed_upper(*_told(trade)) * (1 + _ROUNDING)


def proves_nothing_above(trade: Trade) -> bool:
    """The printed upper bound's denominator is not above 0, so that its proof ends there."""
    return math.isinf(printed_bounds(*_told(trade)).upper)


def breaks_tight(trade: Trade) -> bool:
    """Delta_b is outside of the tight bounds."""
    found = bounds(*_told(trade))
    return not found.lower * (1 - _ROUNDING) <= trade.ratio_b <= found.upper * (1 + _ROUNDING)


def error_of_exact(trade: Trade) -> float:
    """Of the relation at the best weights, relative."""
    return abs(ratio_at_optimal_weights(trade.weight_a, max(1.0, trade.ratio_a)) / trade.ratio_b - 1)


def at_best_weights(trade: Trade) -> bool:
    """Whether the told weights can be the best ones, which add up to 1 where both are inside 0 ... 1."""
    return abs(trade.weight_a + trade.weight_b - 1) <= _ROUNDING


def _told(trade: Trade) -> tuple[float, float, float]:
    return trade.weight_a, trade.weight_b, trade.ratio_a


def _width(trade: Trade, tight: bool) -> float:
    """Upper by lower end; infinite where nothing is known of one."""
    found = (bounds if tight else printed_bounds)(*_told(trade))
    return found.upper / found.lower if found.lower > 0 else math.inf


# ---- rows and plot --------------------------------------------------------------------------------------------------


def _per_cent(trades: Sequence[Trade], breaks: Callable[[Trade], bool]) -> float:
    return 100.0 * sum(map(breaks, trades)) / len(trades) if trades else math.nan


def _rows(name: str, trades: Sequence[Trade], *, exact: bool, sure: bool = True) -> list[Row]:
    """
    :param sure: that the printed upper bound is broken by some of these
    """
    share = f"% of {len(trades):,}"

    def row(
        what: str, value: float, low: float = -math.inf, high: float = math.inf, note: str = "",
        *, paper: float | None = None,
    ) -> Row:  # fmt: skip
        unit = share if "broken" in what or "denominator" in what else ""
        return row_of(NAME, f"{name}: {what}", [value], low=low, high=high, unit=unit, note=note, paper=paper)

    found = [
        row("printed lower bound broken", _per_cent(trades, breaks_printed_lower), 0.0, 0.0, paper=0.0),
        row(
            "printed upper bound broken", _per_cent(trades, breaks_printed_upper), 1e-6 if sure else 0.0,
            100.0 if sure else 0.0,
            "the paper's claim does not hold; the interval is of what is found" if sure else "none is, by luck",
            paper=0.0,
        ),
        row(
            "its denominator not above 0", _per_cent(trades, proves_nothing_above), 1e-6, 100.0,
            "there the printed number bounds nothing",
        ),
        row("tight bounds broken", _per_cent(trades, breaks_tight), 0.0, 0.0),
        row("tight upper / lower, median", _median(trades, tight=True), note="1: Delta_b is known"),
        row("printed upper / lower where valid, median", _median(trades, tight=False)),
    ]  # fmt: skip
    if exact:
        worst = max((error_of_exact(trade) for trade in trades if at_best_weights(trade)), default=math.nan)
        found.append(
            row(
                "exact relation, largest relative error", worst, 0.0, _ROUNDING,
                "of those in which the weights that are told add up to 1: one below 0.001 is told as that",
            )
        )  # fmt: skip
    return found


def _median(trades: Sequence[Trade], *, tight: bool) -> float:
    """Of those that have both ends."""
    widths = [width for trade in trades if math.isfinite(width := _width(trade, tight))]
    return statistics.median(widths) if widths else math.nan


def _plot(path: Path, run: RunResult, best: Sequence[Trade]) -> Path:
    blue, red, green, orange, *_ = charts.COLORS
    with charts.figure(1, 2) as (made, ((rounds, random),)):
        sold = {(number, trade.weight_a): trade for number, trade in _numbered(run)}
        some = [(number, trade) for (number, weight), trade in sold.items() if weight >= 0.5]
        where = [number for number, _ in some]
        told = [_told(trade) for _, trade in some]
        for label, color, values in (
            ("printed upper", red, [printed_upper(*one) for one in told]),
            ("tight upper", green, [bounds(*one).upper for one in told]),
            ("tight lower", green, [bounds(*one).lower for one in told]),
            ("printed lower", red, [printed_bounds(*one).lower for one in told]),
            ("true, and by the exact relation", orange, [trade.ratio_b for _, trade in some]),
        ):
            rounds.plot(
                where, values, "^" if "upper" in label else "v" if "lower" in label else "o", color=color, label=label,
                markersize=3,
            )  # fmt: skip
        rounds.set(
            title="Figure 3's market, sales by the one behind", xlabel="round", ylabel="the buyer's ratio",
            yscale="log", ylim=(0.1, 1e10),
        )  # fmt: skip
        rounds.legend(ncols=2, loc="upper center", fontsize="small")
        few = best[:2000]
        for label, color, false in (("printed upper, holds", blue, False), ("printed upper, false", red, True)):
            chosen = [trade for trade in few if breaks_printed_upper(trade) is false]
            random.scatter(
                [trade.ratio_b for trade in chosen], [printed_upper(*_told(trade)) for trade in chosen], s=5,
                color=color, label=label,
            )  # fmt: skip
        ends = (1.0, 1e6)
        random.plot(ends, ends, color=charts.BASELINE, linestyle="--", label="the truth")
        random.set(
            title="Random models, best weights", xlabel="true ratio of the buyer", ylabel="upper bound", xscale="log",
            yscale="log", xlim=ends, ylim=(0.1, 1e9),
        )  # fmt: skip
        random.legend(loc="upper right")
        charts.save_png(made, path)
    return path
