"""Table 1's rows: accuracies beside the paper's, or the order of the methods where sizes are not the paper's.

Knows: which row is held to what, and how near. Refuses to know: the paper's numbers, scenarios and plots (table_1.py).
A run without a method that a row needs raises `KeyError`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from p2pmarket.experiments.results import RunResult
from p2pmarket.experiments.worlds.contract import ALONE, FEDAVG, MARKET, PAPER, UNALIGNED
from p2pmarket.paper.common import SOME, final, having, less_by, mean_and_spread, row_of
from p2pmarket.paper.finding import Row

AGENTS = ("A", "B")
LABELS = {
    ALONE: "out of the market",
    FEDAVG: "FedAvg",
    UNALIGNED: "without alignment",
    PAPER: "with alignment",
    MARKET: "learned coefficients",
}
"""Methods of runs, as the paper's table calls them, and ours."""
ENOUGH_SEEDS = 3
"""From which the narrower tolerance is stated."""
CHANCE, CHANCE_OF_ONE = 1.0, 3.0
"""Points by which a method of a small profile may fall short of the one before it, with three seeds and with one:
merges are chosen by loss, and with 600 test images less loss may be less accuracy. At first trades of seeds other than
those shown, alignment brought from -0.9 to 15 points, and always less loss."""


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


def beside(experiment: str, runs: Sequence[RunResult], numbers: Numbers) -> tuple[Row, ...]:
    """The paper's numbers and ours, of runs with the paper's own settings."""
    found = []
    for method, those in by_method(runs).items():
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
                        experiment, name, accuracies, paper=paper, low=paper - reach, high=paper + reach,
                        unit="%", note=note,
                    )
                )  # fmt: skip
            else:
                note = "not in the paper; at least its accuracy with alignment"
                best = numbers.rows[PAPER][place]
                found.append(row_of(experiment, name, accuracies, low=best, unit="%", note=note))
    return tuple(found)


def order(experiment: str, runs: Sequence[RunResult]) -> tuple[Row, ...]:
    """What each method brings beside the one before it, and the accuracies themselves, which nothing is held to."""
    means = {method: _accuracies(those) for method, those in by_method(runs).items()}
    found = [
        row_of(experiment, f"both, {LABELS[method]}", values, unit="%", note="no number of the paper's is of this size")
        for method, values in means.items()
    ]
    slack = CHANCE if len(next(iter(means.values()))) >= ENOUGH_SEEDS else CHANCE_OF_ONE
    for method, other, low in ((UNALIGNED, ALONE, SOME), (PAPER, UNALIGNED, -slack), (MARKET, PAPER, -slack)):
        note = "the order of the table's rows" + (f", but for {slack:g} points of chance" if low < 0 else "")
        name = f"{LABELS[method]}, above {LABELS[other]}"
        more = [one - before for one, before in zip(means[method], means[other], strict=True)]
        found.append(row_of(experiment, name, more, low=low, unit="points", note=note))
        name = f"loss {LABELS[method]}, below {LABELS[other]}"
        note = "the same order in the loss, which merges are chosen by and which chance moves less"
        found.append(row_of(experiment, name, _less_loss(runs, method, other), low=SOME, unit="%", note=note))
    return tuple(found)


def honest_rows(experiment: str, runs: Sequence[RunResult], honest: Honest) -> tuple[Row, ...]:
    """Of each method that was run; nothing but learned coefficients has a goal."""
    return tuple(
        row_of(
            experiment,
            f"both, {LABELS[method]}, broker with images of its own",
            _accuracies(those),
            low=honest.goal if method == MARKET else -math.inf,
            unit="%",
            note="test images untouched; first parameters from the seed"
            + ("" if method == MARKET else "; the paper has no such row"),
        )
        for method, those in by_method(runs).items()
    )


def common_rows(experiment: str, runs: Sequence[RunResult], common: Sequence[RunResult]) -> tuple[Row, ...]:
    """FedAvg of agents that began with the same parameters (McMahan et al. 2017, section 3), a stronger opponent than
    the paper's, and what learned coefficients bring beside it though they need no common start.

    :param runs, common: of the same seeds
    """
    federated, learned = _accuracies(common), _accuracies(having(runs, method=MARKET))
    name = f"{LABELS[FEDAVG]} from common first parameters"
    return (
        row_of(
            experiment,
            f"both, {name}",
            federated,
            unit="%",
            note="the paper's agents have first parameters of their own",
        ),
        row_of(
            experiment,
            f"{LABELS[MARKET]}, above {name}",
            [one - other for one, other in zip(learned, federated, strict=True)],
            low=SOME,
            unit="points",
            note="agents of a market need not have begun together",
        ),
    )


def by_method(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """The runs of each method that has some, in the order of `LABELS`."""
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


def gap_of(runs: Sequence[RunResult]) -> str:
    """What alignment brings, and how sure that is."""
    by = by_method(runs)
    more = [one - other for one, other in zip(_accuracies(by[PAPER]), _accuracies(by[UNALIGNED]), strict=True)]
    mean, spread = mean_and_spread(more)
    sure = f"{mean:+.1f} points" + (
        "" if spread is None else f" (95 % interval {mean - spread:+.1f} to {mean + spread:+.1f})"
    )
    less, _ = mean_and_spread(_less_loss(runs, PAPER, UNALIGNED))
    return f"; alignment brings {sure} and {less:.0f} % less loss"


def means_of(runs: Sequence[RunResult]) -> str:
    """The mean accuracy of each method, in words."""
    parts = []
    for method, those in by_method(runs).items():
        values = _accuracies(those)
        parts.append(f"{LABELS[method]} {sum(values) / len(values):.1f} %")
    return ", ".join(parts)
