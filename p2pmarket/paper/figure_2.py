"""Figure 2 (section 6.1.1): the testing loss of Table 1's networks on MNIST, round by round.

Knows: what the paper reads off its plot: trading lowers the loss faster than staying apart, and faster with alignment.
It has no numbers. The runs are Table 1's: whichever of the two is asked for first makes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.datasets import find_images
from p2pmarket.errors import DataError
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.worlds.contract import ALONE, MARKET, PAPER, UNALIGNED
from p2pmarket.paper.common import SOME, agreement, having, purchases_of, rounds_of, row_of
from p2pmarket.paper.finding import Context, Finding, Row
from p2pmarket.paper.table_1 import AGENTS, LABELS, MNIST, draw_methods

NAME = "figure-2"
TITLE = "Figure 2: testing loss of MNIST's networks"


def run(context: Context) -> Finding:
    """Draws it from Table 1's runs."""
    try:
        find_images(MNIST.data, context.data)
    except DataError as error:
        return Finding(NAME, TITLE, (), "", missing=str(error))
    runs = MNIST.runs(dataclasses.replace(context, folder=context.folder.parent / MNIST.NAME))
    means = {method: [_mean_loss(run) for run in having(runs, method=method)] for method in LABELS}
    rows = (
        *(_less(means, method, other) for method, other in ((UNALIGNED, ALONE), (PAPER, UNALIGNED), (MARKET, PAPER))),
        purchases_of(NAME, [run for run in runs if run.facts["method"] in (UNALIGNED, PAPER, MARKET)]),
    )
    sentence = (
        f"{agreement(rows)}: over all rounds the mean testing loss is {_average(means[ALONE]):.2f} out of the market, "
        f"{_average(means[UNALIGNED]):.2f} without alignment, {_average(means[PAPER]):.2f} with it, and "
        f"{_average(means[MARKET]):.2f} with learned coefficients."
    )
    return Finding(NAME, TITLE, rows, sentence, (_plot(context.folder / "figure-2.png", runs),))


def _less(means: dict[str, list[float]], method: str, other: str) -> Row:
    by = [100 * (1 - one / before) for one, before in zip(means[method], means[other], strict=True)]
    note = "" if method == MARKET else "the lines' order in the paper's plot; the less, the faster the convergence"
    name = f"mean testing loss over the rounds, {LABELS[method]}, below {LABELS[other]}"
    return row_of(NAME, name, by, low=SOME, unit="%", note=note)


def _mean_loss(run: RunResult) -> float:
    """Over rounds and agents: the area under the curves."""
    losses = [row.loss for agent in AGENTS for row in rounds_of(run, agent)]
    return _average(losses)


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _plot(path: Path, runs: Sequence[RunResult]) -> Path:
    with charts.figure(1, len(AGENTS)) as (made, (axes,)):
        draw_methods(axes, runs, lambda row: row.loss, "testing loss")
        charts.save_png(made, path)
    return path
