"""Figure 3 (section 6.1.3): two linear regressions that help one another, against the same two that stay apart.

Knows: the paper's two improvements, and what its plots show of one run. The paper names neither step size nor
distributions; the scenario's (rate 0.01, normal inputs, |theta*| = sqrt(d)) are a calibration. The testing loss is the
expected one on noiseless samples, |theta - theta*|^2, so that no test set of 10,000 adds its own error.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper.common import (
    agreement,
    draw_runs,
    final,
    having,
    less_by,
    paper_document,
    purchases_of,
    row_of,
    runs_of,
)
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding, Row

NAME = "figure-3"
TITLE = "Figure 3: two linear regressions that help one another"

IMPROVEMENT = {"A": 42.84, "B": 23.88}
"""Per cent of the testing loss of the same agent that stays out of the market, of one run."""
TOLERANCE = 3.0
SEEDS = {QUICK: 3, NORMAL: 20, FULL: 50}
SEEDS_WITH_SAMPLES = {QUICK: 0, NORMAL: 5, FULL: 20}
"""Each takes three times as long."""
_TIE = 1e-9


def run(context: Context) -> Finding:
    """Runs it."""
    seeds = context.count(SEEDS)
    document = paper_document(context, "figure-3.toml")
    runs = runs_of(context, document, "runs", seeds)
    market, alone = having(runs, method="market"), having(runs, method="alone")
    few = context.count(SEEDS_WITH_SAMPLES)
    honest = {"scenario.protocol": "honest", "sweep": {"scenario.method": ["market"]}}
    sampled = having(runs_of(context, paper_document(context, "figure-3.toml", honest), "samples", few)) if few else []
    rows = (
        *(_improvement(agent, market, alone) for agent in IMPROVEMENT),
        *(_with_samples(agent, sampled, alone) for agent in IMPROVEMENT if sampled),
        *(_purchases(agent, market) for agent in IMPROVEMENT),
        purchases_of(NAME, [*market, *sampled]),
    )
    first, second = rows[:2]
    sentence = (
        f"{agreement(rows, 'Agrees with the paper in both improvements')}: over {len(market)} seeds "
        f"the market lowers A's testing loss by {first.measured:.1f} % and B's by {second.measured:.1f} %, "
        f"where the paper's one run has {first.paper} % and {second.paper} %; "
        f"{_leading(market)}."
    )
    return Finding(NAME, TITLE, rows, sentence, (_plot(context.folder / "figure-3.png", market, alone),))


def error_ratios(run: RunResult) -> list[float]:
    """A's squared error by B's after each round's training, before what is bought in it; above 1, B leads."""
    before = {(trade.round, trade.buyer): trade.loss_before for trade in run.trades}
    rounds = sorted({number for number, _ in before})
    return [before[number, "A"] / before[number, "B"] for number in rounds]


def bought(run: RunResult, agent: str) -> list[int]:
    """The rounds in which an agent bought."""
    return [row.round for row in run.rounds if row.agent == agent and row.bought]


def _improvement(agent: str, market: Sequence[RunResult], alone: Sequence[RunResult]) -> Row:
    return row_of(
        NAME,
        f"{agent}: final testing loss, less than alone",
        _improvements(agent, market, alone),
        paper=IMPROVEMENT[agent],
        low=IMPROVEMENT[agent] - TOLERANCE,
        high=IMPROVEMENT[agent] + TOLERANCE,
        unit="%",
        note="the paper's one run; seeds differ by about as much as the interval is wide",
    )


def _with_samples(agent: str, sampled: Sequence[RunResult], alone: Sequence[RunResult]) -> Row:
    return row_of(
        NAME,
        f"{agent}: the same, broker with 10,000 samples, not the truth",
        _improvements(agent, sampled, alone),
        low=IMPROVEMENT[agent] - 2 * TOLERANCE,
        high=IMPROVEMENT[agent] + 2 * TOLERANCE,
        unit="%",
        note="half of the samples choose the weight, half measure the gain; twice the interval, for fewer seeds",
    )


def _improvements(agent: str, market: Sequence[RunResult], alone: Sequence[RunResult]) -> list[float]:
    return [less_by(final(apart, agent), final(run, agent)) for run, apart in zip(market, alone, strict=False)]


def _purchases(agent: str, market: Sequence[RunResult]) -> Row:
    return row_of(
        NAME,
        f"{agent}: rounds in which it buys",
        [float(len(bought(run, agent))) for run in market],
        low=1.0,
        unit="of 100",
        note="the paper's log shows both agents buying, without numbers",
    )


def _leading(market: Sequence[RunResult]) -> str:
    """In how many seeds it is as in the paper's plot, in words: a seed decides it, so it is no row."""
    whens = [when for run in market if (when := _overtaken(error_ratios(run))) is not None]
    words = "what the paper shows of one run, that A leads first and B later, happens in "
    words += f"{len(whens)} of {len(market)} seeds"
    if len(whens) < len(market):
        words = f"what does not agree in every seed: {words}"
    return f"{words} (B from round {statistics.median(whens):.0f}, the median)" if whens else words


def _overtaken(ratios: Sequence[float]) -> int | None:
    """The round in which B takes the lead that A had from the first; None: it was never so."""
    leaders = [ratio > 1 for ratio in ratios if abs(ratio - 1) > _TIE]
    if not leaders or leaders[0]:
        return None
    return next((number for number, ratio in enumerate(ratios, 1) if ratio > 1 + _TIE), None)


def _plot(path: Path, market: Sequence[RunResult], alone: Sequence[RunResult]) -> Path:
    first = market[0]
    blue, red, green, *_ = charts.COLORS
    with charts.figure(2, 2) as (made, ((log, ratio), curves)):
        for place, agent in enumerate(IMPROVEMENT):
            buys = set(bought(first, agent))
            for color, label, those in ((green, "buys", True), (red, "does not buy", False)):
                where = [row.round for row in first.rounds if row.agent == agent and row.round]
                where = [number for number in where if (number in buys) is those]
                log.scatter(where, [place] * len(where), s=12, color=color, label=label if place == 0 else None)
        log.set(
            title="Who buys in which round (first seed)", xlabel="round", yticks=(0, 1), yticklabels=("A", "B"),
            ylim=(-0.6, 1.9),
        )  # fmt: skip
        log.legend(loc="upper right")
        for run in reversed(market):
            ratios = error_ratios(run)
            strong = run is first
            ratio.plot(
                range(1, len(ratios) + 1), ratios, color=blue, alpha=1.0 if strong else 0.2,
                linewidth=1.4 if strong else 0.7, label="first seed" if strong else None,
            )  # fmt: skip
        ratio.axhline(1.0, color=red, linestyle="--", label="tied; above, B leads")
        ratio.set(
            title="Who leads before the round's trade", xlabel="round", ylabel="A's squared error / B's", xscale="log"
        )
        ratio.legend()
        for axis, agent in zip(curves, IMPROVEMENT, strict=True):
            draw_runs(axis, alone, agent, color=charts.BASELINE, label="out of the market", style="--")
            draw_runs(axis, market, agent, color=blue, label="in the market")
            less = statistics.fmean(_improvements(agent, market, alone))
            axis.set(title=f"{agent} ends {less:.1f} % lower in the market", xlabel="round", ylabel="testing loss")
            axis.legend()
        charts.save_png(made, path)
    return path
