"""Figure 4 (section 6.1.4): what the parameters of a related task are worth, by the distance between the tasks.

Knows: what the paper says of its plot, which has no numbers: A gains at all distances, most where the tasks are
closest. The gain is A's final testing loss in the market, against that of the same A out of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper.common import (
    SOME,
    agreement,
    draw_band,
    final,
    having,
    less_by,
    paper_document,
    purchases_of,
    rank_correlation,
    row_of,
    runs_of,
)
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding

NAME = "figure-4"
TITLE = "Figure 4: trading with an agent of a related task"

SEEDS = {QUICK: 2, NORMAL: 5, FULL: 20}
FEWER = {"scenario.rounds": 40, "sweep": {"scenario.method": ["market", "alone"], "regression.tasks.b": [0, 20, 80]}}
"""For a first look."""
_DISTANCE = "regression.tasks.b"
_AGENTS = ("A", "B")


def run(context: Context) -> Finding:
    """Runs it."""
    document = paper_document(context, "figure-4.toml", FEWER if context.effort == QUICK else None)
    runs = runs_of(context, document, "runs", context.count(SEEDS))
    gains = {agent: gains_of(agent, runs) for agent in _AGENTS}
    distances, ours = sorted(gains["A"]), gains["A"]
    near, far = distances[0], distances[-1]
    least = [min(by_seed) for by_seed in zip(*ours.values(), strict=True)]
    rows = (
        row_of(NAME, f"A: gain at distance {near}", ours[near], low=SOME, unit="%", note="same task; the plot's most"),
        row_of(NAME, f"A: gain at distance {far}", ours[far], low=SOME, unit="%", note="the gain stays above 0"),
        row_of(NAME, "A: least gain at any distance", least, low=SOME, unit="%", note="it gains at all of them"),
        row_of(
            NAME,
            "A: rank correlation of gain and distance",
            [rank_correlation([(one, ours[one][seed]) for one in distances]) for seed in range(len(least))],
            high=-0.9,
            note="the gain falls with the distance",
        ),
        purchases_of(NAME, having(runs, method="market")),
    )
    sentence = (
        f"{agreement(rows)}: A's gain falls from {rows[0].measured:.1f} % where both have the same task to "
        f"{rows[1].measured:.1f} % where the tasks' parameters are {far} apart, {far / _length(document):.1f} times "
        f"their own length; the least at any distance is {rows[2].measured:.1f} %."
    )
    return Finding(NAME, TITLE, rows, sentence, (_plot(context.folder / "figure-4.png", gains),))


def gains_of(agent: str, runs: Sequence[RunResult]) -> dict[float, list[float]]:
    """For each distance, by how many per cent the market lowers the agent's final testing loss, by seed."""
    found = {}
    for distance in dict.fromkeys(run.facts["settings"][_DISTANCE] for run in runs):
        here = [run for run in runs if run.facts["settings"][_DISTANCE] == distance]
        pairs = zip(having(here, method="market"), having(here, method="alone"), strict=True)
        found[distance] = [less_by(final(apart, agent), final(market, agent)) for market, apart in pairs]
    return found


def _length(document: Mapping[str, dict[str, float]]) -> float:
    return float(document["regression"].get("length", document["regression"]["dimension"] ** 0.5))


def _plot(path: Path, gains: Mapping[str, Mapping[float, Sequence[float]]]) -> Path:
    with charts.figure(1, 1, width=7.0, height=4.4) as (made, ((axis,),)):
        for agent, color in zip(_AGENTS, charts.COLORS, strict=False):
            distances = sorted(gains[agent])
            by_place = [gains[agent][one] for one in distances]
            draw_band(axis, distances, by_place, color=color, label=f"agent {agent}", style="o-")
        axis.axhline(0.0, color=charts.BASELINE, linestyle="--", label="out of the market")
        near, far = (statistics.fmean(gains["A"][pick(gains["A"])]) for pick in (min, max))
        axis.set(
            title=f"A's gain falls with the distance of B's task, {near:.0f} % to {far:.0f} %, and stays above 0",
            xlabel="distance between the tasks' true parameters",
            ylabel="testing loss, less than alone (%)",
            ylim=(min(-1.0, axis.get_ylim()[0]), None),
        )
        axis.legend()
        charts.save_png(made, path)
    return path
