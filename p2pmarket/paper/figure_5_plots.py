"""Figure 5's plots: prices and optimal prices by round, and how large the gaps are for each estimate.

Knows: runs by what buyers pay for and how sellers estimate it. Refuses to know: which of it agrees with anything.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.spread import mean_and_spread
from p2pmarket.experiments.strategies import EXACT, GAIN, LEARNED, PRINTED, RATIO, TIGHT
from p2pmarket.paper.figure_5_measures import AGENTS, Offers, gap, gaps_with, offers_of, over
from p2pmarket.units import CREDIT

Runs = Mapping[tuple[str, str], Sequence[RunResult]]
"""By what buyers pay for (GAIN, RATIO) and how sellers estimate it (PRINTED, LEARNED)."""
_WORDS = {PRINTED: "lower bound", TIGHT: "tight lower bound", LEARNED: "learned", EXACT: "told weight and ratio"}


def plot_prices(path: Path, runs: Runs) -> Path:
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
                paid = "its ratio" if value == RATIO else f"its gain, {_WORDS[seller]}"
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


def plot_gaps(path: Path, runs: Runs, half: float) -> Path:
    """Mean gaps with their 95 % intervals and seeds; a line at `half` of the lower bound's."""
    with charts.figure(1, 2) as (made, ((ratio, gain),)):
        for axis, value in ((ratio, RATIO), (gain, GAIN)):
            printed = runs[value, PRINTED]
            bars = {
                PRINTED: over(printed, gap),
                TIGHT: gaps_with(printed, TIGHT, value),
                LEARNED: over(runs[value, LEARNED], gap),
                EXACT: gaps_with(printed, EXACT, value),
            }
            for place, values in enumerate(bars.values()):
                mean, spread = mean_and_spread(values)
                axis.bar(place, mean, yerr=spread, color=charts.COLORS[place], alpha=0.6, capsize=4)
                axis.scatter([place] * len(values), values, s=10, color=charts.COLORS[5], zorder=3)
            level = statistics.fmean(bars[PRINTED]) * half
            axis.axhline(level, color=charts.BASELINE, linestyle="--", label=f"{half:g} of the lower bound's")
            axis.set(
                title="The buyer pays " + ("its ratio" if value == RATIO else "its gain alone"),
                ylabel="mean gap, " + "% of the optimal price", xticks=range(len(bars)),
                xticklabels=[_WORDS[kind].replace(" ", "\n", 1) for kind in bars],
            )  # fmt: skip
            axis.legend()
        charts.save_png(made, path)
    return path
