"""Plots of agents with different tasks: what sellers are worth, accuracies by task, who bought from which task.

Knows: rows of runs and how they are drawn. Refuses to know: which of it agrees with anything.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper.common import draw_runs

Values = Sequence[float]
"""One a seed."""
_OF_TASK = {"digits": "which of ten", "parity": "even or odd", "halves": "below five or not"}


def plot_sellers(path: Path, met: Mapping[str, tuple[Values, Values, Values]]) -> Path:
    """For each seller the buyer's points above alone, and the gain and merit of what it bought."""
    names, places = list(met), range(len(met))
    with charts.figure(1, 2, width=6.0, height=4.4) as (made, ((left, right),)):
        left.barh(places, [statistics.fmean(met[name][0]) for name in names], color=charts.COLORS[0], alpha=0.7)
        for place, name in enumerate(names):
            left.plot(met[name][0], [place] * len(met[name][0]), ".", color=charts.COLORS[5])
        left.axvline(0.0, color=charts.BASELINE)
        left.set(title="What the seller was worth to the buyer", xlabel="accuracy above alone (points; dots: seeds)")
        for part, (label, color) in enumerate(
            (("gain told", charts.COLORS[3]), ("merit: the seller's", charts.COLORS[2]))
        ):
            values = [statistics.fmean(met[name][part + 1]) for name in names]
            right.barh([place + 0.38 * part - 0.19 for place in places], values, 0.36, color=color, label=label)
        right.axvline(0.0, color=charts.BASELINE)
        right.set(title="What the broker told of it", xlabel="sum over purchases (cross entropy)")
        right.legend()
        for axis in (left, right):
            axis.set_yticks(list(places), names)
            axis.invert_yaxis()
        charts.save_png(made, path)
    return path


def plot_accuracies(path: Path, market: Sequence[RunResult], alone: Sequence[RunResult]) -> Path:
    """For each task the accuracy of its agents by round, in the market and alone."""
    tasks: dict[str, list[str]] = {}
    for name, about in market[0].facts["agents"].items():
        tasks.setdefault(about["task"], []).append(name)
    with charts.figure(1, len(tasks), width=4.4, height=4.2, sharey=True) as (made, (axes,)):
        for axis, (task, agents) in zip(axes, tasks.items(), strict=True):
            for agent, color in zip(agents, charts.COLORS, strict=False):
                for runs, style, where in ((market, "-", "in the market"), (alone, "--", "alone")):
                    draw_runs(
                        axis, runs, agent, color=color, label=f"{agent.rpartition('-')[2]} images, {where}",
                        style=style, value=lambda row: 100.0 * row.metric,
                    )  # fmt: skip
            axis.set(title=f"task {task}: {_OF_TASK.get(task, task)}", xlabel="round", ylim=(0.0, 100.0))
        axes[-1].legend(loc="lower right", fontsize=9)  # two classes: nothing is drawn so low
        axes[0].set(ylabel="accuracy on test images (%)")
        charts.save_png(made, path)
    return path


def plot_partners(path: Path, market: Sequence[RunResult]) -> Path:
    """How many purchases a run each agent made from each other one."""
    names = list(market[0].facts["agents"])
    pairs = Counter((one.buyer, one.seller) for run in market for one in run.trades if one.price is not None)
    counts = [[pairs[buyer, seller] / len(market) for seller in names] for buyer in names]
    with charts.figure(1, 1, width=7.0, height=5.0) as (made, ((axis,),)):
        axis.grid(False)
        image = axis.imshow(counts, cmap="Blues", vmin=0.0)
        middle = max(map(max, counts)) / 2
        for row, values in enumerate(counts):
            for column, value in enumerate(values):
                shown = "" if row == column else f"{value:.1f}"
                axis.text(column, row, shown, ha="center", va="center", color="white" if value > middle else "black")
        axis.set_xticks(range(len(names)), names, rotation=35, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.set(title="Who bought from which task: purchases a run", xlabel="seller", ylabel="buyer")
        made.colorbar(image, ax=axis)
        charts.save_png(made, path)
    return path
