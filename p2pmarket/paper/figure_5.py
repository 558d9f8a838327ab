"""Figure 5 (section 6.2.1): what parameters cost when their owners compete, estimated against optimal.

Knows: the market of figure 3 with the paper's buyer, who bids its gain-from-trade (the ratio of equation 3), and the
paper's seller, who asks the printed lower bound of Theorem 4.1. The optimal price is the one at which the seller values
its parameters as the buyer does: with the price in the middle (equation 1) that is the bid. The paper shows no numbers.
Beside it: other sellers, buyers that pay for the gain alone (the ratio less 1), and eight agents.

Two readings of a lost trade, one whose ask was above the bid. Here its gap is the whole optimal price, so that nobody
comes nearer to the optimum by losing trades; and where a row says so, the last price stays, as in the paper's plot.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.experiments.recording import TradeRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.strategies import EXACT, GAIN, LEARNED, PRINTED, RATIO, TIGHT, estimate
from p2pmarket.paper.common import agreement, final, mean_and_spread, paper_document, row_of, runs_of
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding, Row
from p2pmarket.pricing.bargaining import strike
from p2pmarket.units import CREDIT

NAME = "figure-5"
TITLE = "Figure 5: market prices, estimated against optimal"

SEEDS = {QUICK: 1, NORMAL: 10, FULL: 20}
SEEDS_OF_EIGHT = {QUICK: 0, NORMAL: 3, FULL: 10}
AGENTS = ("A", "B")
PER_RATIO = {RATIO: CREDIT, GAIN: 1000 * CREDIT}
"""Micro-credits for 1 of what a buyer pays for; gains are some millionths to thousandths."""
OF_EIGHT = {
    "reserve of 0": {"strategy": "default", "knobs": {"credits_per_gain": 10 * CREDIT}},
    "competitive": {},
    "following each buyer": {
        "strategy": "p2pmarket.experiments.strategies:Following",
        "knobs": {"credits_per_gain": 10 * CREDIT},
    },
}
WORDS = {PRINTED: "lower bound", TIGHT: "tight lower bound", LEARNED: "learned", EXACT: "told weight and ratio"}
HALF = 0.5
ENOUGH = 10
"""Seeds for a mean of what depends much on the seed."""


@dataclasses.dataclass(frozen=True)
class Offer:
    """One bid and what became of it; micro-credits."""

    round: int
    optimal: int
    """The price where the seller values its parameters as their buyer does: the bid."""
    price: int | None
    """None: the ask was above the bid."""

    @property
    def gap(self) -> int:
        """From the price to the optimal one; all of it, where no price was agreed on."""
        return self.optimal - (self.price or 0)


Offers = Sequence[Offer]


def run(context: Context) -> Finding:
    """Runs it."""
    seeds = context.count(SEEDS)
    runs = {
        (value, seller): runs_of(context, _document(context, value, seller), f"{value}-{seller}", seeds)
        for value in (RATIO, GAIN)
        for seller in (PRINTED, LEARNED)
    }
    eight = _eight(context, min(seeds, SEEDS_OF_EIGHT[context.effort]))
    rows = (*_ratio_rows(runs), *_gain_rows(runs), *_eight_rows(eight))
    plots = (_plot_prices(context.folder / "figure-5.png", runs), _plot_gaps(context.folder / "gaps.png", runs))
    return Finding(NAME, TITLE, rows, _sentence(rows), plots)


# ---- runs -----------------------------------------------------------------------------------------------------------

Runs = Mapping[tuple[str, str], Sequence[RunResult]]


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


def offers_of(run: RunResult, seller: str | None = None) -> list[Offer]:
    """Every bid of a run for one seller's parameters, or for anybody's, in order."""
    rows = (row for row in run.trades if row.bid is not None and seller in (None, row.seller))
    return [Offer(row.round, row.bid or 0, row.price) for row in rows]


def offers_by(run: RunResult, seller: str, kind: str, value: str) -> list[Offer]:
    """What one seller's bids would have become with another estimate of what is bid (strategies.estimate), in the
    same run: exact for sellers that lose no trade, for then a price changes nothing that is learned.
    """
    mirror = {(row.round, row.buyer): row for row in run.trades}
    found = []
    for row in run.trades:
        if row.bid is None or row.seller != seller:
            continue
        ratio = estimate(kind, *_told(row, mirror))
        worth = ratio if value == RATIO else max(0.0, ratio - 1)
        price = strike(row.bid, math.floor(worth * PER_RATIO[value] * (1 - 1e-6)), 0)
        found.append(Offer(row.round, row.bid, price.price if price else None))
    return found


def _told(row: TradeRow, mirror: Mapping[tuple[int, str], TradeRow]) -> tuple[float | None, float, float | None]:
    """What the paper's broker tells the seller: its own weight, the buyer's, its own ratio."""
    own = mirror.get((row.round, row.seller))
    if own is None or not own.weight:
        return None, row.weight, None
    return own.weight, row.weight, own.loss_before / own.loss_after


# ---- measures, one number of a run ----------------------------------------------------------------------------------


def gap(offers: Offers) -> float:
    """The mean gap, in per cent of the mean optimal price."""
    return 100.0 * sum(one.gap for one in offers) / sum(one.optimal for one in offers)


def gap_where_prices_stay(offers: Offers) -> float:
    """The same where a lost trade leaves the last price as it was (0 before the first)."""
    last, total = 0, 0
    for one in offers:
        last = last if one.price is None else one.price
        total += abs(one.optimal - last)
    return 100.0 * total / sum(one.optimal for one in offers)


def lost(offers: Offers) -> float:
    """Trades lost because the ask was above the bid, in per cent of bids."""
    return 100.0 * sum(one.price is None for one in offers) / len(offers)


def leader_is_dearer(run: RunResult, amount: Callable[[TradeRow], int | None]) -> float:
    """In how many per cent of the rounds with both trades the agent that has the smaller error sells dearer."""
    rows = {(row.round, row.seller): row for row in run.trades if row.bid is not None and row.price is not None}
    right = []
    for number in {number for number, _ in rows}:
        if all((number, agent) in rows for agent in AGENTS):
            a, b = (rows[number, agent] for agent in AGENTS)
            a_leads = b.loss_before < a.loss_before  # each row's losses are its buyer's: of B's parameters, A
            right.append(((amount(a) or 0) > (amount(b) or 0)) == a_leads)
    return 100.0 * statistics.fmean(right) if right else math.nan


def _over(runs: Sequence[RunResult], measure: Callable[[Offers], float]) -> list[float]:
    return [measure(offers_of(one)) for one in runs]


def _other(runs: Sequence[RunResult], kind: str, value: str) -> list[float]:
    return [gap([one for agent in AGENTS for one in offers_by(run, agent, kind, value)]) for run in runs]


# ---- rows -----------------------------------------------------------------------------------------------------------

LEADER_OPTIMAL = "the leader's parameters are the dearer, optimal"
LEADER_BY_ASKS = "the leader's are the dearer, by the asks of the lower bound"
OPTIMUM = "% of the optimal price"
REVENUE = "what is left of 100 % is the sellers' revenue as a part of the optimum's"


def _row(name: str, values: Sequence[float], low: float, high: float, unit: str = "", note: str = "") -> Row:
    return row_of(NAME, name, values, low=low, high=high, unit=unit, note=note)


def _ratio_rows(runs: Runs) -> list[Row]:
    printed, learned = runs[RATIO, PRINTED], runs[RATIO, LEARNED]
    near, far = _over(learned, gap), _over(printed, gap)
    stays = [a / b for a, b in zip(_over(learned, gap_where_prices_stay), far, strict=True)]
    alike = [leader_is_dearer(one, lambda row: row.bid) for one in printed]
    below = [leader_is_dearer(one, lambda row: row.ask) for one in printed]
    paid = [
        100.0 * statistics.fmean(max(0, one.optimal - CREDIT) for one in offers_of(run)) / CREDIT for run in printed
    ]
    return [
        _row(
            "ratio, lower bound: mean gap", far, 1.0, 50.1, OPTIMUM,
            "the paper's plot shows a gap, without numbers; asks of 0 would make it 50 %",
        ),
        _row("ratio, learned: mean gap", near, 0.0, 25.0, OPTIMUM, REVENUE),
        _row(
            "ratio: learned gap / lower bound's", [a / b for a, b in zip(near, far, strict=True)], 0.0, HALF,
            note="a lost trade counts with its whole price",
        ),
        _row("ratio: the same where the last price stays", stays, 0.0, HALF),
        _row("ratio, learned: trades lost", _over(learned, lost), 0.0, 5.0, "% of bids"),
        _row("ratio, tight lower bound: mean gap", _other(printed, TIGHT, RATIO), 0.0, 25.0, OPTIMUM),
        _row(
            "ratio, told weight and ratio: mean gap", _other(printed, EXACT, RATIO), 0.0, 0.1, OPTIMUM,
            "what the paper's broker tells is the buyer's value itself wherever both weights are inside 0 ... 1",
        ),
        _row(
            "ratio: optimal price above that of no gain", paid, 0.0, math.inf, "%",
            "a ratio of 1 is no gain: nearly all that is paid is for nothing",
        ),
        _row(LEADER_OPTIMAL, alike, 95.0, 100.0, "% of rounds"),
        _row(
            LEADER_BY_ASKS, below, 0.0, 100.0, "% of rounds",
            "no interval: the printed bound is the lower, the more the buyer takes over",
        ),
    ]  # fmt: skip


def _gain_rows(runs: Runs) -> list[Row]:
    printed, learned = runs[GAIN, PRINTED], runs[GAIN, LEARNED]
    near, far = _over(learned, gap), _over(printed, gap)
    exact = _other(printed, EXACT, GAIN)
    wide = 1.0 if len(near) >= ENOUGH else 1.6
    return [
        _row(
            "gain, lower bound: mean gap", far, 25.0, 50.1, OPTIMUM,
            "the bound is below 1, so it says nothing of a gain, and the ask is 0 (prices are rounded towards it)",
        ),
        _row("gain, learned: mean gap", near, 0.0, HALF * 50.0 * wide, OPTIMUM, REVENUE),
        _row(
            "gain: learned gap / lower bound's", [a / b for a, b in zip(near, far, strict=True)], 0.0, HALF * wide,
            note=f"seeds differ; the interval is {wide:g} times as wide below {ENOUGH} of them" if wide > 1 else "",
        ),
        _row("gain, learned: trades lost", _over(learned, lost), 0.0, 10.0 * wide, "% of bids"),
        _row("gain, tight lower bound: mean gap", _other(printed, TIGHT, GAIN), 0.0, 50.1, OPTIMUM),
        _row(
            "gain, told weight and ratio: mean gap", exact, 0.0, 50.0, OPTIMUM,
            "all of it from rounds in which a weight is 0 or 1 and the seller is told nothing",
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
        rows.append(
            _row(
                f"eight agents, {name}: mean gap", _over(runs, gap), 0.0, 100.0, OPTIMUM, "no interval: for comparison"
            )
        )
        rows.append(_row(f"eight agents, {name}: trades lost", _over(runs, lost), 0.0, 100.0, "% of bids"))
    return rows


def _sentence(rows: Sequence[Row]) -> str:
    by = {row.row: row.measured for row in rows}
    ratio, gain = (by[f"{value}: learned gap / lower bound's"] for value in (RATIO, GAIN))
    return (
        f"{agreement(rows)}, and history closes most of the gap to the optimal price: a learned ask leaves "
        f"{ratio:.3f} of the lower bound's gap where buyers pay the ratio and {gain:.2f} where they pay for the gain "
        f"alone, with the whole price of every lost trade counted; what the paper's broker tells a seller needs no "
        f"learning, for it is the buyer's value (a gap of {by['ratio, told weight and ratio: mean gap']:.3f} %). "
        f"Who leads has the dearer parameters at optimal prices in {by[LEADER_OPTIMAL]:.0f} % of "
        f"rounds, by the lower bound's asks in {by[LEADER_BY_ASKS]:.0f} %, where the paper tells of the former."
    )


# ---- plots ----------------------------------------------------------------------------------------------------------


def _plot_prices(path: Path, runs: Runs) -> Path:
    """The first seed. A lost trade changes what is learned, so each market has optimal prices of its own."""
    blue, red, green, orange, *_ = charts.COLORS
    markets = ((RATIO, PRINTED, "estimated: lower bound", blue), (GAIN, PRINTED, "estimated: lower bound", blue),
               (GAIN, LEARNED, "learned", green))  # fmt: skip
    with charts.figure(3, 2, height=3.2) as (made, axes):
        for line, (value, seller, label, color) in zip(axes, markets, strict=True):
            for axis, agent in zip(line, AGENTS, strict=True):
                offers = offers_of(runs[value, seller][0], agent)
                optimal = [(one.round, one.optimal / CREDIT) for one in offers]
                axis.plot(*_columns(optimal), color=orange, marker=".", linewidth=0.6, label="optimal")
                axis.plot(*_columns(_prices(offers)), color=color, marker=".", linewidth=0.6, label=label)
                if value == RATIO:
                    learned = _prices(offers_of(runs[RATIO, LEARNED][0], agent))
                    axis.plot(*_columns(learned), color=green, marker=".", linewidth=0.6, label="learned")
                    axis.set_ylim(0, 1.15)
                else:
                    axis.set_yscale("log")
                missed = [(one.round, one.optimal / CREDIT) for one in offers if one.price is None]
                if missed:
                    axis.scatter(*_columns(missed), marker="x", s=25, color=red, zorder=3, label="lost")
                paid = "its ratio" if value == RATIO else f"its gain, {WORDS[seller]}"
                axis.set(title=f"{agent}'s parameters, the buyer pays {paid}", xlabel="round", ylabel="credits")
                axis.legend(loc="lower right" if value == RATIO else "upper right", fontsize="small")
        charts.save_png(made, path)
    return path


def _prices(offers: Offers) -> list[tuple[int, float]]:
    """Round and price; where there is none the last one stays."""
    found: list[tuple[int, float]] = []
    for one in offers:
        if one.price is not None:
            found.append((one.round, one.price / CREDIT))
        elif found:
            found.append((one.round, found[-1][1]))
    return found


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [number for number, _ in points], [amount for _, amount in points]


def _plot_gaps(path: Path, runs: Runs) -> Path:
    with charts.figure(1, 2) as (made, ((ratio, gain),)):
        for axis, value in ((ratio, RATIO), (gain, GAIN)):
            printed = runs[value, PRINTED]
            bars = {
                PRINTED: _over(printed, gap),
                TIGHT: _other(printed, TIGHT, value),
                LEARNED: _over(runs[value, LEARNED], gap),
                EXACT: _other(printed, EXACT, value),
            }
            for place, values in enumerate(bars.values()):
                mean, spread = mean_and_spread(values)
                axis.bar(place, mean, yerr=spread, color=charts.COLORS[place], alpha=0.6, capsize=4)
                axis.scatter([place] * len(values), values, s=10, color=charts.COLORS[5], zorder=3)
            half = statistics.fmean(bars[PRINTED]) * HALF
            axis.axhline(half, color=charts.BASELINE, linestyle="--", label="half of the lower bound's")
            axis.set(
                title="The buyer pays " + ("its ratio" if value == RATIO else "its gain alone"),
                ylabel="mean gap, " + OPTIMUM, xticks=range(len(bars)),
                xticklabels=[WORDS[kind].replace(" ", "\n", 1) for kind in bars],
            )  # fmt: skip
            axis.legend()
        charts.save_png(made, path)
    return path
