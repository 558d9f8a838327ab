"""Table 1 (section 6.1.1): accuracy of two agents out of the market, under FedAvg, and in markets of three kinds.

Knows: the paper's accuracies, and what of each scenario is run with which effort. A data set that is not there is told
of in `Finding.missing`. What has the paper's own settings is held against its numbers; what is smaller (a CPU's
profile, or the stand-in) is held against the order of its rows alone.
"""

from __future__ import annotations

import dataclasses
import math
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
from p2pmarket.paper.common import (
    SOME,
    agreement,
    draw_runs,
    final,
    having,
    less_by,
    mean_and_spread,
    paper_document,
    purchases_of,
    row_of,
    runs_of,
)
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding, Row

AGENTS = ("A", "B")
LABELS = {
    ALONE: "out of the market",
    FEDAVG: "FedAvg",
    UNALIGNED: "without alignment",
    PAPER: "with alignment",
    MARKET: "learned coefficients",
}
"""Methods of runs, as the paper's table calls them, and ours."""
SEEDS = {QUICK: 1, NORMAL: 3, FULL: 3}
ENOUGH_SEEDS = 3
"""From which the narrower tolerance is stated."""
CHANCE, CHANCE_OF_ONE = 1.0, 3.0
"""Points by which a method of a small profile may fall short of the one before it, with three seeds and with one:
merges are chosen by loss, and with 600 test images less loss may be less accuracy. At first trades of seeds other than
those shown, alignment brought from -0.9 to 15 points, and always less loss."""
_METHODS = "scenario.method"
_MARKETS = (UNALIGNED, PAPER, MARKET)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The paper's, in per cent, and how near ours are to be."""

    rows: Mapping[str, tuple[float, float]]
    """Method -> A, B."""
    tolerance: float
    """In points of accuracy, of a mean over `ENOUGH_SEEDS`."""
    tolerance_apart: float
    """The same where there is no broker."""
    tolerance_of_one: float
    """Of one seed."""
    why: str = ""
    """Why not nearer, where there is no broker."""


@dataclasses.dataclass(frozen=True)
class Honest:
    """The same market with a broker that has data of its own."""

    file: str
    goal: float
    """Per cent: the least accuracy with learned coefficients, the mean of both agents."""


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
        rows = self._order(runs) if numbers is None else self._beside(runs, numbers)
        rows += (purchases_of(self.NAME, [run for run in runs if run.facts["method"] in _MARKETS]),)
        sentence = f"{agreement(rows)}: {_means(runs)}{'' if whole and self.numbers else _gap(runs)}"
        plots = [_plot(context.folder / f"{self.NAME}.png", runs, f"{self.TITLE}, first agent A, then B")]
        if self.honest is not None:
            honest = self._honest_runs(context, self.honest)
            rows += self._honest_rows(honest, self.honest)
            sentence = f"{agreement(rows)}: {_means(runs)}; with images of the broker's own: {_means(honest)}"
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

    def _honest_runs(self, context: Context, honest: Honest) -> list[RunResult]:
        """With little effort only what has a goal."""
        changes = {**self.seldom, "sweep": {_METHODS: [MARKET]}} if context.effort == QUICK else {}
        document = paper_document(context, honest.file, changes)
        return runs_of(context, document, "honest", context.count(self.seeds))

    def _beside(self, runs: Sequence[RunResult], numbers: Numbers) -> tuple[Row, ...]:
        """The paper's numbers and ours."""
        found = []
        for method, those in _by_method(runs).items():
            many = len(those) >= ENOUGH_SEEDS
            apart = method in (ALONE, FEDAVG)
            three = numbers.tolerance_apart if apart else numbers.tolerance
            reach = three if many else numbers.tolerance_of_one
            for place, agent in enumerate(AGENTS):
                accuracies = [100 * final(run, agent, "metric") for run in those]
                name = f"{agent}, {LABELS[method]}"
                if method in numbers.rows:
                    paper = numbers.rows[method][place]
                    note = f"within {reach:g} points of the paper's one run"
                    note += numbers.why if apart else ""
                    note += "" if many else f"; a single seed: {three:g} for {ENOUGH_SEEDS}"
                    found.append(
                        row_of(
                            self.NAME, name, accuracies, paper=paper, low=paper - reach, high=paper + reach,
                            unit="%", note=note,
                        )
                    )  # fmt: skip
                else:
                    note = "not in the paper; at least its accuracy with alignment"
                    best = numbers.rows[PAPER][place]
                    found.append(row_of(self.NAME, name, accuracies, low=best, unit="%", note=note))
        return tuple(found)

    def _order(self, runs: Sequence[RunResult]) -> tuple[Row, ...]:
        """What each method brings beside the one before it, and the accuracies themselves, which nothing is held to."""
        means = {method: _accuracies(those) for method, those in _by_method(runs).items()}
        found = [
            row_of(
                self.NAME, f"both, {LABELS[method]}", values, unit="%", note="no number of the paper's is of this size"
            )
            for method, values in means.items()
        ]
        slack = CHANCE if len(next(iter(means.values()))) >= ENOUGH_SEEDS else CHANCE_OF_ONE
        for method, other, low in ((UNALIGNED, ALONE, SOME), (PAPER, UNALIGNED, -slack), (MARKET, PAPER, -slack)):
            note = "the order of the table's rows" + (f", but for {slack:g} points of chance" if low < 0 else "")
            name = f"{LABELS[method]}, above {LABELS[other]}"
            more = [one - before for one, before in zip(means[method], means[other], strict=True)]
            found.append(row_of(self.NAME, name, more, low=low, unit="points", note=note))
            name = f"loss {LABELS[method]}, below {LABELS[other]}"
            note = "the same order in the loss, which merges are chosen by and which chance moves less"
            found.append(row_of(self.NAME, name, _less_loss(runs, method, other), low=SOME, unit="%", note=note))
        return tuple(found)

    def _honest_rows(self, runs: Sequence[RunResult], honest: Honest) -> tuple[Row, ...]:
        return tuple(
            row_of(
                self.NAME,
                f"both, {LABELS[method]}, broker with images of its own",
                _accuracies(those),
                low=honest.goal if method == MARKET else -math.inf,
                unit="%",
                note="test images untouched; first parameters from the seed"
                + ("" if method == MARKET else "; the paper has no such row"),
            )
            for method, those in _by_method(runs).items()
        )


MNIST = Table1(
    "table-1-mnist",
    "Table 1: MNIST and a small network",
    "mnist",
    Numbers(
        {ALONE: (68.50, 72.97), FEDAVG: (81.98, 81.98), UNALIGNED: (84.64, 84.64), PAPER: (86.96, 86.96)},
        tolerance=1.0,
        tolerance_apart=2.0,
        tolerance_of_one=3.0,
        why=", which the published script, run again, misses by 1.3 for A out of the market",
    ),
    seldom={"scenario.trade_every": 5},
    honest=Honest("table-1-mnist-honest.toml", 93.0),
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


def _by_method(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    found = {method: having(runs, method=method) for method in LABELS}
    return {method: those for method, those in found.items() if those}


def _accuracies(runs: Sequence[RunResult]) -> list[float]:
    """Per cent, one a seed: the mean of both agents."""
    return [100 * sum(final(run, agent, "metric") for agent in AGENTS) / len(AGENTS) for run in runs]


def _less_loss(runs: Sequence[RunResult], method: str, other: str) -> list[float]:
    """By how many per cent the mean loss of both agents is less at the end, one a seed."""

    def losses(method: str) -> list[float]:
        return [sum(final(run, agent) for agent in AGENTS) for run in having(runs, method=method)]

    return [less_by(before, one) for before, one in zip(losses(other), losses(method), strict=True)]


def _gap(runs: Sequence[RunResult]) -> str:
    """What alignment brings, and how sure that is."""
    by = _by_method(runs)
    more = [one - other for one, other in zip(_accuracies(by[PAPER]), _accuracies(by[UNALIGNED]), strict=True)]
    mean, spread = mean_and_spread(more)
    sure = f"{mean:+.1f} points" + (
        "" if spread is None else f" (95 % interval {mean - spread:+.1f} to {mean + spread:+.1f})"
    )
    less, _ = mean_and_spread(_less_loss(runs, PAPER, UNALIGNED))
    return f"; alignment brings {sure} and {less:.0f} % less loss"


def _means(runs: Sequence[RunResult]) -> str:
    parts = []
    for method, those in _by_method(runs).items():
        values = _accuracies(those)
        parts.append(f"{LABELS[method]} {sum(values) / len(values):.1f} %")
    return ", ".join(parts)


def _plot(path: Path, runs: Sequence[RunResult], title: str) -> Path:
    """Accuracy by round, an axis for each agent."""
    with charts.figure(1, len(AGENTS)) as (made, (axes,)):
        made.suptitle(title)
        draw_methods(axes, runs, lambda row: 100 * row.metric, "test accuracy (%)")
        charts.save_png(made, path)
    return path


def draw_methods(axes: Any, runs: Sequence[RunResult], value: Any, label: str) -> None:
    """One line a method; an axis for each agent."""
    colors = (charts.BASELINE, *charts.COLORS)
    for axis, agent in zip(axes, AGENTS, strict=True):
        for (method, those), color in zip(_by_method(runs).items(), colors, strict=False):
            style = "--" if method == ALONE else "-"
            draw_runs(axis, those, agent, color=color, label=LABELS[method], value=value, style=style)
        axis.set(title=agent, xlabel="round (epoch)", ylabel=label)
        axis.legend()
