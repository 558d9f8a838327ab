"""Table 1 (section 6.1.1): accuracy of two agents out of the market, under FedAvg, and in markets of three kinds.

Knows: the paper's accuracies, and what of each scenario is run with which effort. Refuses to know: what a row is held
to (table_1_rows.py). A data set that is not there is told of in `Finding.missing`. What has the paper's own settings is
held against its numbers; what is smaller (a CPU's profile, or the stand-in), against the order of its rows alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmarket import charts
from p2pmarket.datasets import find_images
from p2pmarket.errors import DataError
from p2pmarket.experiments.document import with_value
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.worlds.contract import ALONE, FEDAVG, MARKET, PAPER, UNALIGNED
from p2pmarket.experiments.worlds.paper_broker import GRID
from p2pmarket.paper.common import agreement, draw_runs, paper_document, purchases_of, runs_of
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding
from p2pmarket.paper.table_1_rows import AGENTS as AGENTS
from p2pmarket.paper.table_1_rows import LABELS as LABELS
from p2pmarket.paper.table_1_rows import (
    Honest,
    Numbers,
    beside,
    by_method,
    common_rows,
    gap_of,
    honest_rows,
    means_of,
    order,
)

SEEDS = {QUICK: 1, NORMAL: 3, FULL: 3}
_METHODS = "scenario.method"
_MARKETS = (UNALIGNED, PAPER, MARKET)


@dataclasses.dataclass(frozen=True)
class Table1:
    """One data set's part of the table."""

    NAME: str
    TITLE: str
    data: str
    """The data set."""
    numbers: Numbers | None = None
    small: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What a CPU's profile changes of the scenario; none: the scenario is run as it is."""
    seldom: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What a first look changes where coefficients are learned, which is most of the work; none: nothing."""
    honest: Honest | None = None
    common: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What gives the scenario's agents the same first parameters, as federated averaging presumes; none: no run."""
    seeds: Mapping[str, int] = dataclasses.field(default_factory=lambda: SEEDS)
    remark: str = ""

    def run(self, context: Context) -> Finding:
        """Runs it, or says that the data set is not there."""
        try:
            find_images(self.data, context.data)
        except DataError as error:
            return Finding(self.NAME, self.TITLE, (), "", missing=str(error))
        runs = self.runs(context)
        whole = self.is_whole(context)
        numbers = self.numbers if whole else None
        rows = order(self.NAME, runs) if numbers is None else beside(self.NAME, runs, numbers)
        rows += (purchases_of(self.NAME, [run for run in runs if run.facts["method"] in _MARKETS]),)
        sentence = f"{agreement(rows)}: {means_of(runs)}{'' if whole and self.numbers else gap_of(runs)}"
        if self.common and context.effort != QUICK:
            rows += common_rows(self.NAME, runs, self._common_runs(context))
        plots = [_plot(context.folder / f"{self.NAME}.png", runs, f"{self.TITLE}, first agent A, then B")]
        if self.honest is not None:
            honest = self._honest_runs(context, self.honest)
            rows += honest_rows(self.NAME, honest, self.honest)
            sentence = f"{agreement(rows)}: {means_of(runs)}; with images of the broker's own: {means_of(honest)}"
        remark = (
            self.remark
            if whole
            else "a smaller network on fewer images and one trade at the end, which show the order of the methods alone"
        )
        if self.seldom and context.effort == QUICK:
            remark += "; in this first look learned coefficients are traded every few rounds only"
        return Finding(self.NAME, self.TITLE, rows, f"{sentence}{f' ({remark})' if remark else ''}.", tuple(plots))

    def is_whole(self, context: Context) -> bool:
        """Whether the scenario is run as it is in its file."""
        return not self.small or context.effort == FULL

    def runs(self, context: Context) -> list[RunResult]:
        """The runs of the scenario; those that are finished are taken up."""
        changes = {} if self.is_whole(context) else self.small
        document = paper_document(context, f"{self.NAME}.toml", changes)
        seeds = context.count(self.seeds)
        if context.effort != QUICK or not self.seldom:
            return runs_of(context, document, "runs", seeds)
        others = [method for method in LABELS if method != MARKET]
        learned = paper_document(
            context, f"{self.NAME}.toml", {**changes, **self.seldom, "sweep": {_METHODS: [MARKET]}}
        )
        return [
            *runs_of(context, with_value(document, "sweep", {_METHODS: others}), "runs", seeds),
            *runs_of(context, learned, "learned", seeds),
        ]

    def _common_runs(self, context: Context) -> list[RunResult]:
        changes = {**self.common, "sweep": {_METHODS: [FEDAVG]}}
        document = paper_document(context, f"{self.NAME}.toml", changes)
        return runs_of(context, document, "common", context.count(self.seeds))

    def _honest_runs(self, context: Context, honest: Honest) -> list[RunResult]:
        """With little effort only what has a goal."""
        changes = {**self.seldom, "sweep": {_METHODS: [MARKET]}} if context.effort == QUICK else {}
        document = paper_document(context, honest.file, changes)
        return runs_of(context, document, "honest", context.count(self.seeds))


MNIST = Table1(
    "table-1-mnist",
    "Table 1: MNIST and a small network",
    "mnist",
    Numbers(
        {ALONE: (68.50, 72.97), FEDAVG: (81.98, 81.98), UNALIGNED: (84.64, 84.64), PAPER: (86.96, 86.96)},
        tolerance=1.0,
        tolerance_apart=1.0,
        tolerance_of_one=3.0,
        why=", which the published script, run again, misses by 1.3 for A out of the market",
    ),
    seldom={"scenario.trade_every": 5},
    honest=Honest("table-1-mnist-honest.toml", 93.0),
    common={"agent.B.seed": 321},
    remark="the first parameters have the paper's seeds, 321 and 231, which decide these numbers by many points; ours "
    "change the images of the scarce digits and the order of batches",
)
_CPU = {
    "scenario.rounds": 12,
    "scenario.trade_from": 12,
    "scenario.measure_every": 3,
    "images.size": 16,
    "images.train_images": 2000,
    "images.test_images": 600,
    "images.arguments": {"depth": 10, "width": 1},
    "images.optimizer": "sgd",
    "images.learning_rate": 0.03,
    "images.momentum": 0.9,
    "images.batch_size": 16,
    "images.reset_optimizer": False,
    "images.coefficients": list(GRID),
    "terms.appraisal": {"coefficients": "tensor"},
}
"""A narrower network on fewer and smaller images, with one trade at the end, as the stand-in below: minutes. Why is
said in table-1-resnet-small.toml."""
CIFAR10 = Table1(
    "table-1-cifar10",
    "Table 1: CIFAR-10 and a residual network",
    "cifar10",
    Numbers(
        {ALONE: (71.14, 70.56), FEDAVG: (70.35, 67.85), UNALIGNED: (78.31, 78.31), PAPER: (79.90, 79.90)},
        tolerance=3.0,
        tolerance_apart=3.0,
        tolerance_of_one=3.0,
    ),
    small=_CPU,
)
TINY_IMAGENET = Table1(
    "table-1-tinyimagenet",
    "Table 1: TinyImageNet and a residual network",
    "tinyimagenet",
    Numbers(
        {ALONE: (21.67, 15.89), FEDAVG: (19.95, 19.33), UNALIGNED: (31.28, 31.30), PAPER: (31.69, 31.82)},
        tolerance=3.0,
        tolerance_apart=3.0,
        tolerance_of_one=3.0,
    ),
    small={**_CPU, "images.train_images": 10_000, "images.batch_size": 64},
)
RESNET_SMALL = Table1(
    "table-1-resnet-small",
    "Table 1's order with a small residual network: MNIST as a stand-in for CIFAR-10",
    "mnist",
    remark="a stand-in with a single trade at the end: a narrow residual network on small images of MNIST says nothing "
    "about CIFAR-10's numbers",
)


def _plot(path: Path, runs: Sequence[RunResult], title: str) -> Path:
    """Accuracy by round, an axis for each agent."""
    with charts.figure(1, len(AGENTS)) as (made, (axes,)):
        made.suptitle(title)
        draw_methods(axes, runs, lambda row: 100 * row.metric, "test accuracy (%)")
        charts.save_png(made, path)
    return path


def draw_methods(axes: Any, runs: Sequence[RunResult], value: Any, label: str) -> None:
    """One line a method; an axis for each agent."""
    for axis, agent in zip(axes, AGENTS, strict=True):
        for method, those in by_method(runs).items():
            style, color = "--" if method == ALONE else "-", charts.METHOD_COLORS[method]
            draw_runs(axis, those, agent, color=color, label=LABELS[method], value=value, style=style)
        axis.set(title=agent, xlabel="round (epoch)", ylabel=label)
        axis.legend()
