"""More agents than the paper's two: what a third one brings to both, and each further one to all.

Knows: the comparison with agents alone, with two of the three, and with FedAvg. The paper has no numbers of this; it
says that its market is of any number of agents (section 3). The agents are the linear regressions of section 6.1.3, and
three small networks that are each short of other digits.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmarket import charts
from p2pmarket.experiments.document import Document
from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.worlds.contract import ALONE, FEDAVG, MARKET
from p2pmarket.paper.common import (
    SOME,
    agreement,
    draw_band,
    draw_runs,
    final,
    having,
    less_by,
    paper_document,
    purchases_of,
    row_of,
    runs_of,
    why_no_digits,
)
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding, Row

NAME = "three-agents"
TITLE = "Three agents and more"

SEEDS = {QUICK: 2, NORMAL: 5, FULL: 10}
SEEDS_OF_MANY = SEEDS_OF_DIGITS = {**SEEDS, QUICK: 1}
FEWER = {"scenario.rounds": 20}
FEWER_MANY = {"scenario.rounds": 12, "sweep": {"scenario.method": [MARKET, ALONE], "agent.member.count": [2, 3, 5]}}
FEWER_DIGITS = {"scenario.rounds": 10}
_AGENTS = ("A", "B", "C")
_PAIR = ("A", "B")


def run(context: Context) -> Finding:
    """Runs it."""
    seeds, quick = context.count(SEEDS), context.effort == QUICK
    document = paper_document(context, "three-agents.toml", FEWER if quick else None)
    three = runs_of(context, document, "three", seeds)
    pair = runs_of(context, _without_third(document), "pair", seeds)
    equals = paper_document(context, "many-agents.toml", FEWER_MANY if quick else None)
    many = runs_of(context, equals, "many", context.count(SEEDS_OF_MANY))
    market, alone, fedavg = (having(three, method=method) for method in (MARKET, ALONE, FEDAVG))
    by_count = gains_by_count(many)
    missing = why_no_digits(context)
    digits = [] if missing else _digits(context)
    rows = (
        *(_less(f"{agent}: final testing loss, less than alone", agent, market, alone) for agent in _AGENTS),
        *(_less(f"{agent}: final testing loss, less than without C", agent, market, pair) for agent in _PAIR),
        _beside_fedavg(market, fedavg),
        *_rows_of_many(by_count),
        *_rows_of_digits(digits),
        purchases_of(NAME, [run for run in (*three, *pair, *many, *digits) if run.facts["method"] == MARKET]),
    )
    most, all_three = max(by_count), ", ".join(f"{row.measured:.1f} %" for row in rows[:3])
    part = " (the networks on images did not run)" if missing else ""
    sentence = (
        f"{agreement(rows)}, which has no numbers of it{part}: all three agents gain ({all_three}), the third brings "
        f"A and B a further {rows[3].measured:.1f} % and {rows[4].measured:.1f} %, and every agent that comes to a "
        f"market of equals helps all, up to {statistics.fmean(by_count[most]):.1f} % with {most}."
    )
    plots = [
        _plot(context.folder / "three-agents.png", market, alone, pair),
        _plot_many(context.folder / "many-agents.png", by_count),
    ]
    if digits:
        plots.append(_plot_digits(context.folder / "three-agents-digits.png", digits))
    return Finding(NAME, TITLE, rows, sentence, tuple(plots), missing)


def _digits(context: Context) -> list[RunResult]:
    """The runs of the networks."""
    document = paper_document(context, "three-agents-digits.toml", FEWER_DIGITS if context.effort == QUICK else None)
    return runs_of(context, document, "digits", context.count(SEEDS_OF_DIGITS))


def gains_by_count(runs: Sequence[RunResult]) -> dict[int, list[float]]:
    """For each number of agents, by how many per cent the market lowers their mean testing loss, by seed."""
    found = {}
    for count in sorted({int(run.facts["settings"]["agent.member.count"]) for run in runs}):
        pairs = zip(having(runs, method=MARKET, count=count), having(runs, method=ALONE, count=count), strict=True)
        found[count] = [less_by(_mean_loss(apart), _mean_loss(market)) for market, apart in pairs]
    return found


def _mean_loss(run: RunResult) -> float:
    return statistics.fmean(final(run, agent) for agent in run.facts["final"])


def _without_third(document: Document) -> Document:
    """The same market of A and B alone."""
    agents = [agent for agent in document["agent"] if agent["name"] in _PAIR]
    return {**document, "agent": agents, "sweep": {"scenario.method": [MARKET]}}


def _less(row: str, agent: str, market: Sequence[RunResult], other: Sequence[RunResult]) -> Row:
    values = [
        less_by(final(before, agent), final(run, agent)) for run, before in zip(market, having(other), strict=True)
    ]
    return row_of(NAME, row, values, low=SOME, unit="%", note="the market is to help, so above 0")


def _beside_fedavg(market: Sequence[RunResult], fedavg: Sequence[RunResult]) -> Row:
    values = [less_by(_mean_loss(before), _mean_loss(run)) for run, before in zip(market, fedavg, strict=True)]
    return row_of(
        NAME, "A, B and C: mean final testing loss, less than under FedAvg", values, low=-1.0, unit="%",
        note="nobody here gives parameters away; at most a point worse than the mean of all",
    )  # fmt: skip


def _rows_of_many(by_count: Mapping[int, Sequence[float]]) -> list[Row]:
    rows = [
        row_of(
            NAME, f"{count} equal agents: mean final testing loss, less than alone", values, low=SOME, unit="%",
            note="every market is to help",
        )
        for count, values in by_count.items()
    ]  # fmt: skip
    counts = sorted(by_count)
    added = [
        statistics.fmean(more - fewer for fewer, more in zip(by_count[few], by_count[many], strict=True)) / (many - few)
        for few, many in zip(counts, counts[1:], strict=False)
    ]
    least = row_of(
        NAME, "least that a further agent brings to all", [min(added)], low=SOME, unit="points",
        note="of the gains above, between one number of agents and the next",
    )  # fmt: skip
    return [*rows, least]


def _rows_of_digits(digits: Sequence[RunResult]) -> list[Row]:
    pairs = list(zip(having(digits, method=MARKET), having(digits, method=ALONE), strict=True))
    return [
        row_of(
            NAME, f"digits, {agent}: accuracy, more than alone",
            [100 * (final(run, agent, "metric") - final(other, agent, "metric")) for run, other in pairs],
            low=10.0, unit="points", note="each lacks 6 or 7 of the 10 digits, which the two others have",
        )
        for agent in (digits[0].facts["final"] if digits else ())
    ]  # fmt: skip


def _plot(path: Path, market: Sequence[RunResult], alone: Sequence[RunResult], pair: Sequence[RunResult]) -> Path:
    with charts.figure(1, 3, width=4.4, height=3.9, sharey=True) as (made, (axes,)):
        for axis, agent in zip(axes, _AGENTS, strict=True):
            draw_runs(axis, alone, agent, color=charts.BASELINE, label="alone", style="--")
            if agent in _PAIR:
                draw_runs(axis, having(pair), agent, color=charts.COLORS[3], label="A and B trade")
            draw_runs(axis, market, agent, color=charts.COLORS[0], label="A, B and C trade")
            about = market[0].facts["agents"][agent]["about"]
            less = statistics.fmean(
                less_by(final(b, agent), final(a, agent)) for a, b in zip(market, alone, strict=True)
            )
            axis.set(title=f"{agent} ({about}): {less:.1f} % less", xlabel="round")
            axis.legend()
        axes[0].set(ylabel="testing loss")
        charts.save_png(made, path)
    return path


def _plot_many(path: Path, by_count: Mapping[int, Sequence[float]]) -> Path:
    with charts.figure(1, 1, width=6.0) as (made, ((axis,),)):
        counts = sorted(by_count)
        draw_band(
            axis, counts, [by_count[count] for count in counts], color=charts.COLORS[0],
            label="mean of seeds; band: all of them", style="o-",
        )  # fmt: skip
        axis.set(
            title="Every further agent helps all", xlabel="agents in the market, with as many samples each",
            ylabel="mean testing loss, less than alone (%)", ylim=(0, None), xticks=counts,
        )  # fmt: skip
        axis.legend()
        charts.save_png(made, path)
    return path


def _plot_digits(path: Path, digits: Sequence[RunResult]) -> Path:
    agents = list(digits[0].facts["final"])
    with charts.figure(1, len(agents), width=4.4, height=3.9, sharey=True) as (made, (axes,)):
        for axis, agent in zip(axes, agents, strict=True):
            for method, label in ((ALONE, "alone"), (FEDAVG, "FedAvg"), (MARKET, "in the market")):
                draw_runs(
                    axis, having(digits, method=method), agent, color=charts.METHOD_COLORS[method], label=label,
                    value=lambda row: 100 * row.metric, style="--" if method == ALONE else "-",
                )  # fmt: skip
            axis.set(title=f"who has the {agent} digits gains the others", xlabel="round")
            axis.legend(loc="upper left")
        axes[0].set(ylabel="test accuracy on all digits (%)", ylim=(0, 100))
        charts.save_png(made, path)
    return path
