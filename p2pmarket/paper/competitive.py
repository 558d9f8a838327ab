"""Competitive against collaborative agents: what prices cost in loss, who profits, which trades are lost to dear asks.

Knows: three strategies on the same endowments. The paper has both kinds of agents (sections 6.1 and 6.2) but no numbers
that compare them. Collaborative agents ask nothing; the default ones ask nothing either but pay half of what a gain is
worth; competitive ones ask what they believe that buyers pay, and learn it from what was refused.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.experiments.document import Document, with_value
from p2pmarket.experiments.recording import TradeRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.worlds.contract import ALONE
from p2pmarket.ledger.trade import NO_DEAL
from p2pmarket.paper.common import (
    SOME,
    agreement,
    draw_band,
    final,
    having,
    less_by,
    paper_document,
    purchases_of,
    row_of,
    runs_of,
)
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding, Row
from p2pmarket.units import CREDIT

NAME = "competitive"
TITLE = "Competitive against collaborative agents"

SEEDS = {QUICK: 1, NORMAL: 5, FULL: 20}
FEWER = {"scenario.rounds": 15}
COLLABORATIVE, DEFAULT, COMPETITIVE = STRATEGIES = ("collaborative", "default", "competitive")
RULES = {COLLABORATIVE: "posted", DEFAULT: "midpoint", COMPETITIVE: "midpoint"}
"""Between collaborative agents the price is what is asked: nothing."""
_LEFT = "competitive: part of collaborative agents' gain that is left"
_MOVED, _LOST = "credits moved", "purchases lost to asks that were too dear"
_PROFIT = "profit of an agent with more data"
_RICH = "rich"
"""What the names of the agents with more data begin with."""


def run(context: Context) -> Finding:
    """Runs it."""
    document = paper_document(context, "competitive.toml", FEWER if context.effort == QUICK else None)
    seeds = context.count(SEEDS)
    runs = {
        strategy: having(runs_of(context, with_strategy(document, strategy), strategy, seeds))
        for strategy in STRATEGIES
    }
    alone = having(runs_of(context, with_value(document, "scenario.method", ALONE), "alone", seeds))
    rows = (
        *(_gain(strategy, runs[strategy], alone) for strategy in STRATEGIES),
        _left(runs, alone),
        *(_moved(strategy, runs[strategy]) for strategy in STRATEGIES),
        *(_lost(strategy, runs[strategy]) for strategy in STRATEGIES),
        *(_profit(strategy, runs[strategy]) for strategy in (DEFAULT, COMPETITIVE)),
        purchases_of(NAME, [run for those in runs.values() for run in those]),
    )
    ours = {row.row: row.measured for row in rows}
    lost, profit = ours[f"{COMPETITIVE}: {_LOST}"], ours[f"{COMPETITIVE}: {_PROFIT}"]
    moved, usual = (ours[f"{strategy}: {_MOVED}"] for strategy in (COMPETITIVE, DEFAULT))
    sentence = (
        f"{agreement(rows)}, which has no numbers of it: competitive agents keep {ours[_LEFT]:.0f} % of what "
        f"collaborative ones gain, though asks that are too dear lose {lost:.0f} purchases a run; {moved:.1f} "
        f"credits move, against {usual:.1f} between default agents, an agent with more data profits by {profit:.1f}."
    )
    return Finding(NAME, TITLE, rows, sentence, (_plot(context.folder / "competitive.png", runs, alone),))


def with_strategy(document: Document, strategy: str) -> Document:
    """The same endowments and values of a gain, with another strategy for all."""
    for agent in document["agent"]:
        path, knobs = f"agent.{agent['name']}", agent["knobs"]
        if strategy != COMPETITIVE:
            knobs = {"credits_per_gain": knobs["credits_per_gain"]}
        document = with_value(with_value(document, f"{path}.strategy", strategy), f"{path}.knobs", knobs)
    return with_value(document, "terms.pricing.rule", RULES[strategy])


def mean_loss(run: RunResult) -> float:
    """Of all agents, at the end."""
    return statistics.fmean(final(run, agent) for agent in run.facts["final"])


def too_dear(run: RunResult) -> list[TradeRow]:
    """What a buyer wanted and an ask above its bid lost."""
    return [
        trade
        for trade in run.trades
        if trade.state == NO_DEAL and trade.bid is not None and trade.ask is not None and trade.ask > trade.bid
    ]


def profits(run: RunResult) -> dict[str, float]:
    """What each agent has more than in the beginning, in credits; the agents' opening credit is all there is."""
    begin = {row.agent: row.balance for row in run.rounds if row.round == min(one.round for one in run.rounds)}
    opening = sum(final(run, agent, "balance") for agent in begin) / len(begin)
    return {agent: (final(run, agent, "balance") - opening) / CREDIT for agent in begin}


def _gain(strategy: str, runs: Sequence[RunResult], alone: Sequence[RunResult]) -> Row:
    values = [less_by(mean_loss(apart), mean_loss(run)) for run, apart in zip(runs, alone, strict=True)]
    return row_of(
        NAME, f"{strategy}: mean testing loss, less than alone", values, low=SOME, unit="%",
        note="every kind of market is to help",
    )  # fmt: skip


def _left(runs: Mapping[str, Sequence[RunResult]], alone: Sequence[RunResult]) -> Row:
    values = []
    for one, other, apart in zip(runs[COMPETITIVE], runs[COLLABORATIVE], alone, strict=True):
        whole = mean_loss(apart) - mean_loss(other)
        values.append(100 * (mean_loss(apart) - mean_loss(one)) / whole if whole else math.nan)
    return row_of(
        NAME, _LEFT, values, low=50.0, high=101.0, unit="%",
        note="prices lose trades, so hardly more than all; learned asks are to keep most of it",
    )  # fmt: skip


def _moved(strategy: str, runs: Sequence[RunResult]) -> Row:
    values = [run.facts["ledger"]["moved"] / CREDIT for run in runs]
    free = strategy == COLLABORATIVE
    return row_of(
        NAME, f"{strategy}: {_MOVED}", values, low=0.0 if free else 0.01, high=0.0 if free else float("inf"),
        unit="credits", note="collaborative agents pay nothing (section 6.1), others something",
    )  # fmt: skip


def _lost(strategy: str, runs: Sequence[RunResult]) -> Row:
    values = [float(len(too_dear(run))) for run in runs]
    asks = strategy == COMPETITIVE
    return row_of(
        NAME, f"{strategy}: {_LOST}", values, low=1.0 if asks else 0.0,
        high=float("inf") if asks else 0.0, unit="a run", note="only those who ask something can ask too much",
    )  # fmt: skip


def _profit(strategy: str, runs: Sequence[RunResult]) -> Row:
    values = [
        statistics.fmean(profit for agent, profit in profits(run).items() if agent.startswith(_RICH)) for run in runs
    ]
    return row_of(
        NAME, f"{strategy}: {_PROFIT}", values, low=0.01, unit="credits",
        note="what it earns less what it pays; better parameters sell for more",
    )  # fmt: skip


def _plot(path: Path, runs: Mapping[str, Sequence[RunResult]], alone: Sequence[RunResult]) -> Path:
    with charts.figure(1, 3, width=4.9, height=4.0) as (made, ((loss, profit, asks),)):
        for those, label, color in (
            (alone, "alone", charts.BASELINE),
            *((runs[strategy], strategy, color) for strategy, color in zip(STRATEGIES, charts.COLORS, strict=False)),
        ):
            rounds = sorted({row.round for row in those[0].rounds})
            means = [
                [statistics.fmean(row.loss for row in run.rounds if row.round == number) for run in those]
                for number in rounds
            ]
            style = {"alone": "--", DEFAULT: ":"}.get(label, "-")
            draw_band(loss, rounds, means, color=color, label=label, style=style)
        loss.set(
            title="Prices cost little loss", xlabel="round", ylabel="testing loss, mean of the agents", ylim=(0, None)
        )
        loss.legend()
        agents = list(runs[DEFAULT][0].facts["final"])
        for place, strategy in enumerate(STRATEGIES):
            heights = [statistics.fmean(profits(run)[agent] for run in runs[strategy]) for agent in agents]
            where = [number + 0.27 * (place - 1) for number in range(len(agents))]
            profit.bar(where, heights, width=0.25, color=charts.COLORS[place], label=strategy)
        profit.set(
            title="Who earns and who pays", xticks=range(len(agents)), ylabel="earned less paid (credits)",
        )  # fmt: skip
        profit.set_xticklabels(agents, rotation=20)
        profit.legend()
        first = runs[COMPETITIVE][0]
        sold = [trade for trade in first.trades if trade.price is not None and trade.ask is not None]
        for trades, color, label in ((too_dear(first), charts.COLORS[1], "lost"), (sold, charts.COLORS[2], "sold")):
            amounts = [(trade.ask or 0) / CREDIT for trade in trades]
            asks.scatter([trade.round for trade in trades], amounts, s=9, color=color, alpha=0.6, label=label)
        asks.set(
            title="Competitive asks come down (first seed)", xlabel="round", ylabel="ask (credits)", ylim=(0, None)
        )
        asks.legend()
        charts.save_png(made, path)
    return path
