"""Agents with different tasks and heads: section 6.1.4, "models with different purposes", beyond linear regression.

Knows: two scenarios on one set of images. In the first a buyer with few images meets one seller at a time: of its own
task, of another task with another head, or one whose labels are shuffled, which is the control: what a buyer gains from
that seller it gains from the broker's data. In the second six agents of three tasks trade with one another. The paper
has no numbers for any of it. Accuracies are in points of the test images of the agent's own task.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Mapping, Sequence

from p2pmarket.experiments.document import Document, with_value
from p2pmarket.experiments.recording import TradeRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.paper.common import (
    SOME,
    agreement,
    final,
    having,
    mean_and_spread,
    paper_document,
    purchases_of,
    rank_correlation,
    rounds_of,
    row_of,
    runs_of,
    why_no_digits,
)
from p2pmarket.paper.finding import FULL, NORMAL, QUICK, Context, Finding, Row
from p2pmarket.paper.tasks_and_heads_plots import plot_accuracies, plot_partners, plot_sellers

NAME = "tasks-and-heads"
TITLE = "Agents with different tasks and heads"

SEEDS = {QUICK: 1, NORMAL: 5, FULL: 20}
SEEDS_OF_PAIRS = {QUICK: 2, NORMAL: 12, FULL: 20}
"""More, as a pair is cheap and what crosses tasks is little."""
FEWER = {"scenario.trade_every": 15}
"""For a first look: three visits, not four."""
COMMON, OWN = 7, 8
"""The seller's first parameters: the buyer's, or others (examples/paper/tasks-and-heads-pairs.toml)."""


@dataclasses.dataclass(frozen=True)
class Seller:
    """Whom the buyer meets."""

    name: str
    task: str
    start: int
    shuffled: bool = False

    @property
    def changes(self) -> dict[str, object]:
        """Of the scenario of pairs."""
        return {
            "agent.seller.task": self.task,
            "agent.seller.seed": self.start,
            "agent.seller.shuffled": self.shuffled,
        }


SAME = Seller("same task", "parity", COMMON)
OTHER = Seller("another head", "digits", COMMON)
OTHER_HALVES = Seller("another task", "halves", COMMON)
CONTROL = Seller("shuffled labels", "digits", COMMON, shuffled=True)
OTHER_APART = dataclasses.replace(OTHER, name="another head, own start", start=OWN)
CONTROL_APART = dataclasses.replace(CONTROL, name="shuffled labels, own start", start=OWN)
SELLERS = {
    QUICK: (SAME, OTHER, CONTROL),
    NORMAL: (SAME, OTHER, OTHER_HALVES, CONTROL, OTHER_APART, CONTROL_APART),
    FULL: (SAME, OTHER, OTHER_HALVES, CONTROL, OTHER_APART, CONTROL_APART),
}


@dataclasses.dataclass(frozen=True)
class Met:
    """What meeting one seller was worth to the buyer, one value a seed."""

    accuracy: tuple[float, ...]
    """Points above the same buyer alone."""
    gain: tuple[float, ...]
    """Sum of the reported gains of what was bought, in loss."""
    merit: tuple[float, ...]
    """The part of that which the broker took for the seller's."""


def run(context: Context) -> Finding:
    """Runs it."""
    if missing := why_no_digits(context):
        return Finding(NAME, TITLE, (), "", missing=missing)
    changes = FEWER if context.effort == QUICK else {}
    seeds = context.count(SEEDS_OF_PAIRS)
    pairs = paper_document(context, "tasks-and-heads-pairs.toml", changes)
    whole = runs_of(context, paper_document(context, "tasks-and-heads.toml", changes), "market", context.count(SEEDS))
    alone = runs_of(context, _with(pairs, {"scenario.method": "alone"}), "alone", seeds)
    by_seller = {
        seller: runs_of(context, _with(pairs, seller.changes), _folder(seller), seeds)
        for seller in SELLERS[context.effort]
    }
    met = {seller: met_by(runs, alone) for seller, runs in by_seller.items()}
    market, apart = having(whole, method="market"), having(whole, method="alone")
    honest = [run for seller, runs in by_seller.items() if not seller.shuffled for run in runs]
    rows = (*_rows_of_pairs(met), *_rows_of_market(market, apart), purchases_of(NAME, [*honest, *market]))
    plots = (
        plot_sellers(
            context.folder / "sellers.png",
            {seller.name: (one.accuracy, one.gain, one.merit) for seller, one in met.items()},
        ),
        plot_accuracies(context.folder / "accuracies.png", market, apart),
        plot_partners(context.folder / "partners.png", market),
    )
    return Finding(NAME, TITLE, rows, _sentence(met, market, rows), plots)


def met_by(runs: Sequence[RunResult], alone: Sequence[RunResult]) -> Met:
    """What the buyer of these runs has over the same buyer alone."""
    pairs = list(zip(having(runs), having(alone), strict=True))
    bought = [[trade for trade in _bought(one) if trade.buyer == "buyer"] for one, _ in pairs]
    return Met(
        tuple(_points(one, other, "buyer") for one, other in pairs),
        tuple(sum(trade.gain for trade in trades) for trades in bought),
        tuple(sum(trade.merit for trade in trades) for trades in bought),
    )


def crossing(run: RunResult) -> float:
    """Which part of a run's purchases, in per cent, was from an agent of another task; 0 where nobody bought."""
    bought = _bought(run)
    tasks = {name: about["task"] for name, about in run.facts["agents"].items()}
    across = sum(1 for one in bought if tasks[one.buyer] != tasks[one.seller])
    return 100.0 * across / max(1, len(bought))


def told_and_kept(run: RunResult) -> list[tuple[float, float]]:
    """For each agent's visit that bought: the gain that was reported, and by how much the test loss fell from the round
    before, whose training is in it too.
    """
    found = []
    for agent in run.facts["agents"]:
        rounds = rounds_of(run, agent)
        found += [
            (after.gain, before.loss - after.loss)
            for before, after in zip(rounds, rounds[1:], strict=False)
            if after.bought
        ]
    return found


# ---- rows -----------------------------------------------------------------------------------------------------------


def _rows_of_pairs(met: Mapping[Seller, Met]) -> list[Row]:
    row = functools.partial(row_of, NAME)
    same, other, control = met[SAME], met[OTHER], met[CONTROL]
    rows = [
        row(
            "seller of the same task: accuracy above alone", same.accuracy, low=SOME, unit="points",
            note="> 0: few images, and a seller with many",
        ),
        row(
            "seller with another head: accuracy above alone", other.accuracy, low=SOME, unit="points",
            note="> 0: the gain persists across tasks",
        ),
        row(
            "the same, above a seller of shuffled labels", _less(other.accuracy, control.accuracy), low=SOME,
            unit="points", note="> 0: it is not all the broker's data",
        ),
        row(
            "the same, below a seller of the same task", _less(same.accuracy, other.accuracy), low=SOME, unit="points",
            note="> 0: a related task is worth less than the same",
        ),
        row(
            "seller with another head: merit above shuffled labels'", _less(other.merit, control.merit), low=0.001,
            unit="loss", note="> 0: the broker tells what a seller knows from what its own data teaches",
        ),
    ]  # fmt: skip
    if OTHER_HALVES in met:
        rows.append(
            row(
                "seller of another task, two classes too: accuracy above alone", met[OTHER_HALVES].accuracy, low=SOME,
                unit="points", note="> 0; here the head fits and is for sale too",
            )
        )  # fmt: skip
    if OTHER_APART in met:
        apart, knows_nothing = met[OTHER_APART], met[CONTROL_APART]
        rows += [
            row(
                "own start, another head: accuracy above alone", apart.accuracy, low=SOME, unit="points",
                note="> 0: the gain persists where trunks are aligned that began apart",
            ),
            row(
                "own start, above a seller of shuffled labels", _less(apart.accuracy, knows_nothing.accuracy), low=SOME,
                unit="points", note="> 0: it is not all the broker's data",
            ),
            row(
                "common start above own start, accuracy", _less(other.accuracy, apart.accuracy), low=-3.0, high=3.0,
                unit="points", note="a common start is not needed: alignment makes up for it",
            ),
        ]  # fmt: skip
    return rows


def _rows_of_market(market: Sequence[RunResult], alone: Sequence[RunResult]) -> list[Row]:
    row = functools.partial(row_of, NAME)
    agents = list(market[0].facts["agents"])
    few, many = ([name for name in agents if name.endswith(end)] for end in ("-few", "-many"))
    above = [{name: _points(one, other, name) for name in agents} for one, other in zip(market, alone, strict=True)]
    told = [told_and_kept(one) for one in market]
    return [
        row(
            "six agents: those with few images, accuracy above alone",
            [statistics.fmean(one[name] for name in few) for one in above], low=SOME, unit="points", note="> 0",
        ),
        row(
            "six agents: those with many images, accuracy above alone",
            [statistics.fmean(one[name] for name in many) for one in above], low=-1.0, unit="points",
            note="at most a point lost",
        ),
        row(
            "six agents: purchases across tasks", [crossing(one) for one in market], low=1.0, high=99.0, unit="%",
            note="both kinds happen",
        ),
        row(
            "six agents: rank correlation of the gains told and the falls of the test loss",
            [rank_correlation(one) for one in told if len(one) > 2], low=0.3,
            note="> 0.3: what the broker tells holds on images it never saw",
        ),
        row(
            "six agents: fall of the test loss for each unit of gain told",
            [sum(kept for _, kept in one) / sum(gain for gain, _ in one) for one in told if one], low=0.5, high=1.5,
            note="1 where reports are right; an epoch of training is in it too",
        ),
    ]  # fmt: skip


def _sentence(met: Mapping[Seller, Met], market: Sequence[RunResult], rows: Sequence[Row]) -> str:
    same, other, control = (statistics.fmean(met[one].accuracy) for one in (SAME, OTHER, CONTROL))
    part = statistics.fmean(map(crossing, market))
    begin = agreement(rows, "As section 6.1.4 says of linear models")
    _, spread = mean_and_spread(_less(met[OTHER].accuracy, met[CONTROL].accuracy))
    sure = "" if spread is None else f", {other - control:.1f} +- {spread:.1f} less"
    return (
        f"{begin}: from agents that began with the same parameters a buyer with few images gains {other:.1f} points "
        f"across tasks, {same:.1f} from its own task and {control:.1f} from shuffled labels{sure}; among six agents "
        f"{part:.0f} % of the purchases cross tasks."
    )


# ---- helpers --------------------------------------------------------------------------------------------------------


def _with(document: Document, changes: Mapping[str, object]) -> Document:
    for path, value in changes.items():
        document = with_value(document, path, value)
    return document


def _folder(seller: Seller) -> str:
    return seller.name.replace(", ", "-").replace(" ", "-")


def _bought(run: RunResult) -> list[TradeRow]:
    return [trade for trade in run.trades if trade.price is not None]


def _points(run: RunResult, other: RunResult, agent: str) -> float:
    return 100.0 * (final(run, agent, "metric") - final(other, agent, "metric"))


def _less(values: Sequence[float], others: Sequence[float]) -> tuple[float, ...]:
    return tuple(value - other for value, other in zip(values, others, strict=True))
