"""Figure 5 (section 6.2.1): what parameters cost when their owners compete, estimated against optimal.

Knows: the market of figure 3 with the paper's buyer, who bids its gain-from-trade (the ratio of equation 3), and the
paper's seller, who asks the printed lower bound of Theorem 4.1. The optimal price is the one at which the seller values
its parameters as the buyer does: with the price in the middle (equation 1) that is the bid. The paper shows no numbers.
Beside it: other sellers, buyers that pay for the gain alone (the ratio less 1), and eight agents.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.strategies import EXACT, GAIN, LEARNED, PRINTED, RATIO, TIGHT
from p2pmarket.paper.common import agreement, final, paper_document, purchases_of, row_of, runs_of
from p2pmarket.paper.figure_5_measures import (
    AGENTS,
    PER_RATIO,
    above_no_gain,
    gap,
    gap_where_prices_stay,
    gaps_with,
    leader_is_dearer,
    lost,
    over,
)
from p2pmarket.paper.figure_5_plots import Runs, plot_gaps, plot_prices
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding, Row

NAME = "figure-5"
TITLE = "Figure 5: market prices, estimated against optimal"

SEEDS = {QUICK: 1, NORMAL: 10, FULL: 20}
SEEDS_OF_EIGHT = {QUICK: 0, NORMAL: 3, FULL: 10}
NO_RESERVE, FOLLOWING = "reserve of 0", "following each buyer"
OF_EIGHT = {
    NO_RESERVE: {"strategy": "default", "knobs": {"credits_per_gain": "10"}},
    "competitive": {},
    FOLLOWING: {
        "strategy": "p2pmarket.experiments.strategies:Following",
        "knobs": {"credits_per_gain": "10"},
    },
}
_GAPS_OF_EIGHT = {
    NO_RESERVE: (49.9, 50.1, "the price is half of the bid"),
    "competitive": (-math.inf, math.inf, "for comparison"),
    FOLLOWING: (0.0, 49.9, "less than asks of 0 leave, though lost trades count with their whole price"),
}
HALF = 0.5
ENOUGH = 10
"""Seeds for a mean of what depends much on the seed."""


def run(context: Context) -> Finding:
    """Runs it."""
    seeds = context.count(SEEDS)
    runs = {
        (value, seller): runs_of(context, _document(context, value, seller), f"{value}-{seller}", seeds)
        for value in (RATIO, GAIN)
        for seller in (PRINTED, LEARNED)
    }
    eight = _eight(context, context.count(SEEDS_OF_EIGHT))
    markets = [run for those in (*runs.values(), *eight.values()) for run in those]
    rows = (*_ratio_rows(runs), *_gain_rows(runs), *_eight_rows(eight), purchases_of(NAME, markets))
    plots = (plot_prices(context.folder / "figure-5.png", runs), plot_gaps(context.folder / "gaps.png", runs, HALF))
    return Finding(NAME, TITLE, rows, _sentence(rows), plots)


# ---- runs -----------------------------------------------------------------------------------------------------------


def _document(context: Context, value: str, seller: str) -> dict[str, object]:
    knobs = {"value_is": value, "seller": seller, "credits_per_ratio": PER_RATIO[value]}
    return paper_document(context, "figure-5.toml", {f"agent.{agent}.knobs": knobs for agent in AGENTS})


def _eight(context: Context, seeds: int) -> dict[str, list[RunResult]]:
    found = {}
    for name, changes in OF_EIGHT.items() if seeds else ():
        paths = {f"agent.{agent}.{key}": value for agent in ("few", "noisy") for key, value in changes.items()}
        document = paper_document(context, "figure-5-eight.toml", paths)
        found[name] = runs_of(context, document, "eight-" + name.replace(" ", "-"), seeds)
    return found


# ---- rows -----------------------------------------------------------------------------------------------------------

LEADER_OPTIMAL = "rounds in which the better parameters are the dearer, at optimal prices"
LEADER_BY_ASKS = "rounds in which the better parameters are the dearer, by the asks of the lower bound"
OPTIMUM = "% of the optimal price"
REVENUE = "what is left of 100 % is the sellers' revenue as a part of the optimum's"


def _row(name: str, values: Sequence[float], low: float, high: float, unit: str = "", note: str = "") -> Row:
    return row_of(NAME, name, values, low=low, high=high, unit=unit, note=note)


def _part(some: Sequence[float], whole: Sequence[float]) -> list[float]:
    """Seed by seed; nan of nothing."""
    return [one / other if other else math.nan for one, other in zip(some, whole, strict=True)]


def _ratio_rows(runs: Runs) -> list[Row]:
    printed, learned = runs[RATIO, PRINTED], runs[RATIO, LEARNED]
    near, far = over(learned, gap), over(printed, gap)
    alike = [leader_is_dearer(one, lambda row: row.bid) for one in printed]
    below = [leader_is_dearer(one, lambda row: row.ask) for one in printed]
    return [
        _row(
            "ratio, lower bound: mean gap", far, 1.0, 50.1, OPTIMUM,
            "the paper's plot shows a gap, without numbers; asks of 0 would make it 50 %",
        ),
        _row("ratio, learned: mean gap", near, 0.0, 25.0, OPTIMUM, REVENUE),
        _row(
            "ratio: learned gap / lower bound's", _part(near, far), 0.0, HALF,
            note="a lost trade counts with its whole price",
        ),
        _row("ratio: the same where the last price stays", _part(over(learned, gap_where_prices_stay), far), 0.0, HALF),
        _row("ratio, learned: trades lost", over(learned, lost), 0.0, 5.0, "% of bids"),
        _row("ratio, tight lower bound: mean gap", gaps_with(printed, TIGHT, RATIO), 0.0, 25.0, OPTIMUM),
        _row(
            "ratio, told weight and ratio: mean gap", gaps_with(printed, EXACT, RATIO), 0.0, 0.01, OPTIMUM,
            "what the paper's broker tells is the buyer's value itself wherever both weights are inside 0 ... 1",
        ),
        _row(
            "ratio: optimal price above that of no gain", over(printed, above_no_gain), 0.0, 1.0, "%",
            "a ratio of 1 is no gain: nearly all that is paid is for nothing",
        ),
        _row(LEADER_OPTIMAL, alike, 95.0, 100.0, "% of rounds"),
        _row(
            LEADER_BY_ASKS, below, 0.0, HALF * 100, "% of rounds",
            "the printed bound is the lower, the more the buyer takes over, which turns the order around",
        ),
    ]  # fmt: skip


def _gain_rows(runs: Runs) -> list[Row]:
    printed, learned = runs[GAIN, PRINTED], runs[GAIN, LEARNED]
    near, far = over(learned, gap), over(printed, gap)
    exact = gaps_with(printed, EXACT, GAIN)
    wide = 1.0 if len(near) >= ENOUGH else 1.6
    return [
        _row(
            "gain, lower bound: mean gap", far, 25.0, 50.1, OPTIMUM,
            "the bound is below 1, so it says nothing of a gain, and the ask is 0 (prices are rounded towards it)",
        ),
        _row("gain, learned: mean gap", near, 0.0, HALF * 50.0 * wide, OPTIMUM, REVENUE),
        _row(
            "gain: learned gap / lower bound's", _part(near, far), 0.0, HALF * wide,
            note=f"seeds differ; the interval is {wide:g} times as wide below {ENOUGH} of them" if wide > 1 else "",
        ),
        _row("gain, learned: trades lost", over(learned, lost), 0.0, 10.0 * wide, "% of bids"),
        _row("gain, tight lower bound: mean gap", gaps_with(printed, TIGHT, GAIN), 0.0, 50.1, OPTIMUM),
        _row(
            "gain, told weight and ratio: mean gap", exact, 0.0, 50.0, OPTIMUM,
            "all of it from rounds in which a weight is 0 or 1 and the seller is told nothing, or is below 0.001 and "
            "told as that",
        ),
        _row(
            "gain: final losses, learned / lower bound",
            [
                statistics.fmean(final(a, agent) / final(b, agent) for agent in AGENTS)
                for a, b in zip(learned, printed, strict=True)
            ],
            0.9, 1.1, "", "what lost trades cost in training",
        ),
    ]  # fmt: skip


def _eight_rows(eight: Mapping[str, Sequence[RunResult]]) -> list[Row]:
    rows = []
    for name, runs in eight.items():
        low, high, note = _GAPS_OF_EIGHT[name]
        rows.append(_row(f"eight agents, {name}: mean gap", over(runs, gap), low, high, OPTIMUM, note))
        most = 0.0 if name == NO_RESERVE else math.inf
        rows.append(_row(f"eight agents, {name}: trades lost", over(runs, lost), -math.inf, most, "% of bids"))
    return rows


def _sentence(rows: Sequence[Row]) -> str:
    by = {row.row: row.measured for row in rows}
    ratio, gain = (by[f"{value}: learned gap / lower bound's"] for value in (RATIO, GAIN))
    return (
        f"{agreement(rows)}, and history closes most of the gap to the optimal price: a learned ask leaves "
        f"{ratio:.3f} of the lower bound's gap where buyers pay the ratio and {gain:.2f} where they pay for the gain "
        f"alone, with the whole price of every lost trade counted; what the paper's broker tells a seller needs no "
        f"learning, for it is the buyer's value (a gap of {by['ratio, told weight and ratio: mean gap']:.3f} %). "
        f"The agent that is ahead has the dearer parameters at optimal prices in {by[LEADER_OPTIMAL]:.0f} % of "
        f"rounds, by the lower bound's asks in {by[LEADER_BY_ASKS]:.0f} %, where the paper tells of the former."
    )
