"""Table 2 (section 6.1.2): accuracy where only some layers of the network are for sale.

Knows: the paper's accuracies, and what it reads off them: layers near the pixels help more than those near the classes,
all of them most. Its rows "out of the market" and "all layers" are Table 1's runs: whichever of the two tables is asked
for first makes them, all methods of them, so that what Table 1's folder says of itself is whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.datasets import find_images
from p2pmarket.errors import DataError
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.worlds.contract import ALONE, PAPER
from p2pmarket.paper.common import SOME, agreement, final, having, paper_document, purchases_of, row_of, runs_of
from p2pmarket.paper.finding import QUICK, Context, Finding, Row
from p2pmarket.paper.table_1 import AGENTS, MNIST

NAME = "table-2"
TITLE = "Table 2: some layers for sale, MNIST"

OUT, DEEP, DEEPER, SHALLOWER, SHALLOW, ALL = (
    *("out of the market", "layers {3, 4}", "layers {2, 3, 4}", "layers {0, 1, 2}", "layers {0, 1}"),
    "all layers",
)
NUMBERS = {
    OUT: (71.29, 72.54),
    DEEP: (66.28, 71.98),
    DEEPER: (70.73, 73.36),
    SHALLOWER: (74.76, 74.16),
    SHALLOW: (78.86, 79.82),
    ALL: (86.96, 86.96),
}
"""The paper's, in per cent: A, B."""
_TRADABLE = "terms.trade.tradable"
_LAYERS = {
    tuple(f"layers.{layer}.*" for layer in layers): name
    for layers, name in (((3, 4), DEEP), ((2, 3, 4), DEEPER), ((0, 1, 2), SHALLOWER), ((0, 1), SHALLOW))
}
_FIRST_LOOK = (DEEP, SHALLOW)
"""The least and the most that is for sale in part."""
_FEWER_IMAGES = {"images.test_images": 3000}
"""What a first look changes: most of the work is the broker's, on the test images, and one merge of a part is not the
other agent's too. An accuracy of 70 % has a standard error of 0.8 points then."""


def run(context: Context) -> Finding:
    """Runs it, or says that MNIST is not there."""
    try:
        find_images(MNIST.data, context.data)
    except DataError as error:
        return Finding(NAME, TITLE, (), "", missing=str(error))
    runs = _runs(context)
    values = {name: [_pair(run) for run in those] for name, those in runs.items()}
    rows = (
        *(_beside(agent, name, values) for name in values for agent in AGENTS),
        *_order(values),
        purchases_of(NAME, [run for name, those in runs.items() if name != OUT for run in those]),
    )
    shown = ", ".join(f"{name} {_mean(accuracies):.1f} %" for name, accuracies in values.items())
    less = " (parts of the network on 3,000 test images)" if context.effort == QUICK else ""
    sentence = f"{agreement(rows)}: {shown}, the mean of both agents{less}."
    return Finding(NAME, TITLE, rows, sentence, (_plot(context.folder / "table-2.png", values),))


Accuracies = Mapping[str, Sequence[tuple[float, ...]]]
"""What is for sale -> one pair (A, B) a seed, in per cent."""


def _runs(context: Context) -> dict[str, list[RunResult]]:
    ends = MNIST.runs(dataclasses.replace(context, folder=context.folder.parent / MNIST.NAME))
    seeds = context.count(MNIST.seeds)
    names = _FIRST_LOOK if context.effort == QUICK else _LAYERS.values()
    chosen = [list(layers) for layers, name in _LAYERS.items() if name in names]
    fewer = _FEWER_IMAGES if context.effort == QUICK else {}
    document = paper_document(context, "table-2.toml", {**fewer, "sweep": {_TRADABLE: chosen}})
    parts = runs_of(context, document, "runs", seeds)
    found = {OUT: having(ends, method=ALONE)}
    for layers in chosen:
        found[_LAYERS[tuple(layers)]] = [run for run in having(parts) if run.facts["settings"][_TRADABLE] == layers]
    found[ALL] = having(ends, method=PAPER)
    return found


def _pair(run: RunResult) -> tuple[float, ...]:
    return tuple(100 * final(run, agent, "metric") for agent in AGENTS)


def _mean(pairs: Sequence[tuple[float, ...]]) -> float:
    return sum(map(sum, pairs)) / (len(pairs) * len(AGENTS))


def _beside(agent: str, name: str, values: Accuracies) -> Row:
    place = AGENTS.index(agent)
    return row_of(
        NAME,
        f"{agent}, {name}",
        [pair[place] for pair in values[name]],
        paper=NUMBERS[name][place],
        unit="%",
        note="the paper states the order, not these numbers, which differ by points from seed to seed",
    )


def _order(values: Accuracies) -> list[Row]:
    """Shallow above deep, all above everything."""
    found = []
    for better, worse in ((SHALLOW, DEEP), (SHALLOWER, DEEPER), (SHALLOW, OUT), *((ALL, name) for name in values)):
        if better == worse or better not in values or worse not in values:
            continue
        more = [(sum(one) - sum(other)) / len(AGENTS) for one, other in zip(values[better], values[worse], strict=True)]
        paper = (sum(NUMBERS[better]) - sum(NUMBERS[worse])) / len(AGENTS)
        note = "the order that the paper reads off its table"
        found.append(row_of(NAME, f"{better}, above {worse}", more, paper=paper, low=SOME, unit="points", note=note))
    return found


def _plot(path: Path, values: Accuracies) -> Path:
    """Ours as bars, the paper's as marks."""
    with charts.figure(width=7.5) as (made, ((axis,),)):
        for place, (agent, color) in enumerate(zip(AGENTS, charts.COLORS, strict=False)):
            across = [number + 0.4 * place for number in range(len(values))]
            means = [sum(pair[place] for pair in pairs) / len(pairs) for pairs in values.values()]
            axis.bar(across, means, width=0.38, color=color, label=agent)
            axis.plot(across, [NUMBERS[name][place] for name in values], "k_", markersize=14)
        axis.plot([], [], "k_", markersize=14, label="the paper's")
        axis.set(ylabel="test accuracy (%)", ylim=(50, 95), title="What is for sale")
        axis.set_xticks([number + 0.2 for number in range(len(values))], list(values), rotation=15)
        axis.legend()
        charts.save_png(made, path)
    return path
