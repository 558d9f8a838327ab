"""The runs of a results folder in groups: one point of the sweep and one method, over its seeds.

Knows: what a run.json says, also where an older program left something out of it. Refuses to know: charts.
Pure functions that fail on nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from p2pmarket import charts
from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import Facts, RunResult
from p2pmarket.report.deals import Deal
from p2pmarket.report.story import BASELINE
from p2pmarket.report.words import known, method_name, shown

_ORDER = ("market", "paper", "unaligned", "fedavg", "alone")
_OWN_FIELDS = ("scenario.method", "scenario.protocol")
"""Settings that every run tells in a field of its own too."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone."""

    method: str
    protocol: str
    settings: tuple[tuple[str, str], ...]
    label: str
    """Tells it from the other groups of its folder."""
    runs: tuple[RunResult, ...]
    color: int

    @property
    def seeds(self) -> int:
        """How many runs there are."""
        return len(self.runs)

    @property
    def has_broker(self) -> bool:
        """Whether anything could be traded."""
        return any(run.facts.get("broker") or run.trades for run in self.runs)

    @property
    def agents(self) -> tuple[str, ...]:
        """Everybody in any run, in the order of their names."""
        return tuple(sorted({row.agent for run in self.runs for row in run.rounds}))


def groups_of(runs: Sequence[RunResult]) -> tuple[Group, ...]:
    """All groups, by point and then by method: markets first, whoever is alone last."""
    found: dict[tuple[Any, ...], list[RunResult]] = {}
    for run in runs:
        found.setdefault((settings_of(run.facts), _word(run.facts, "method"), _word(run.facts, "protocol")), []).append(
            run
        )
    order = list(dict.fromkeys(settings for settings, _, _ in found))
    protocols = {protocol for _, _, protocol in found}
    groups = []
    for settings, method, protocol in sorted(found, key=lambda key: (order.index(key[0]), _rank(key[1]))):
        words = [method_name(method)]
        words += [f"protocol {shown(protocol)}"] if len(protocols) > 1 else []
        words += [settings_words(settings)] if len(order) > 1 else []
        members = found[settings, method, protocol]
        groups.append(Group(method, protocol, settings, ", ".join(filter(None, words)), tuple(members), 0))
    return tuple(
        dataclasses.replace(group, color=_color(group, place, groups, order)) for place, group in enumerate(groups)
    )


def _color(group: Group, place: int, groups: Sequence[Group], order: Sequence[Any]) -> int:
    """By method where that is all in which groups differ; with whoever is alone in the colour of the same setting."""
    if len({one.method for one in groups}) == len(groups):
        return color_of_method(group.method)
    beside = {one.method for one in groups} - {"alone"}
    return (order.index(group.settings) if len(beside) == 1 else place) % 8


def color_of_method(method: str) -> int:
    """A method's colour in charts.py, as story.py counts it."""
    color = charts.METHOD_COLORS.get(method, charts.COLORS[5])
    return BASELINE if color == charts.BASELINE else charts.COLORS.index(color)


def settings_of(facts: Facts) -> tuple[tuple[str, str], ...]:
    """What the sweep set in this run: dotted path and value."""
    settings = facts.get("settings")
    if not isinstance(settings, dict):
        return ()
    return tuple(
        (shown(str(path)), shown(_value(value))) for path, value in settings.items() if path not in _OWN_FIELDS
    )


def settings_words(settings: Sequence[tuple[str, str]]) -> str:
    """
    >>> settings_words((("agents.count", "20"), ("terms.k", "0.5"))), settings_words((("a.k", "1"), ("b.k", "2")))
    ('count=20, k=0.5', 'a.k=1, b.k=2')
    """
    names = [path.rpartition(".")[2] for path, _ in settings]
    unique = len({*names}) == len(names)
    return ", ".join(f"{name if unique else path}={value}" for name, (path, value) in zip(names, settings, strict=True))


def chief(groups: Sequence[Group]) -> Group | None:
    """The group that a page is about first: the first market in which something was traded, else the first group."""
    trading = [group for group in groups if any(run.trades for run in group.runs)]
    return next(iter(trading or [group for group in groups if group.has_broker] or groups), None)


def alone_beside(group: Group, groups: Sequence[Group]) -> Group | None:
    """The same agents without a market, where that was run too."""
    return next(
        (one for one in groups if one.method == "alone" and one.settings == group.settings and one is not group), None
    )


def is_accuracy(rows: Sequence[RoundRow]) -> bool:
    """Whether the metric of these rows is a part of 1, rather than the loss again."""
    measured = [row for row in rows if known(row.metric)]
    return any(row.metric != row.loss for row in measured) and all(0 <= row.metric <= 1 for row in measured)


@dataclasses.dataclass(frozen=True)
class Score:
    """One of the numbers by which a model is judged."""

    name: str
    of: Callable[[RoundRow], float]
    accuracy: bool = False
    """A part of 1, of which more is better."""


LOSS = Score("loss", lambda row: row.loss)


def scores_of(groups: Iterable[Group]) -> tuple[Score, ...]:
    """What there is to show of these groups, what they are judged by first: the metric and then the loss, or the loss
    alone where the metric is no other number."""
    runs = [run for group in groups for run in group.runs]
    rows = [row for run in runs for row in run.rounds]
    if not any(known(row.metric) and row.metric != row.loss for row in rows):
        return (LOSS,)
    accuracy = is_accuracy(rows)
    name = next((str(run.facts["metric_name"]) for run in runs if run.facts.get("metric_name")), "metric")
    return (Score("accuracy" if accuracy else shown(name), lambda row: row.metric, accuracy), LOSS)


@dataclasses.dataclass(frozen=True)
class Ends:
    """How agents ended, over agents and runs."""

    values: tuple[float, ...]
    """Metrics, of those that have one."""
    diverged: int
    """How many have a loss or a metric that is no finite number."""
    count: int

    @property
    def mean(self) -> float | None:
        """Of the values; None where there is none."""
        return sum(self.values) / len(self.values) if self.values else None


def ends_of(rows: Iterable[RoundRow]) -> Ends:
    """What the last rows of agents come to."""
    rows = list(rows)
    diverged = sum(not (known(row.loss) and known(row.metric)) for row in rows)
    return Ends(tuple(row.metric for row in rows if known(row.metric)), diverged, len(rows))


def ends_of_group(group: Group) -> Ends:
    """Of all its runs."""
    return ends_of(row for run in group.runs for row in last_rows(run).values())


def last_rows(run: RunResult) -> dict[str, RoundRow]:
    """By agent, how it ended."""
    return {row.agent: row for row in sorted(run.rounds, key=lambda row: row.round)}


def deals_of(group: Group) -> list[Deal]:
    """The trades of all its runs, at their rounds."""
    return [
        Deal(
            at=float(row.round),
            trade=row.trade,
            buyer=row.buyer,
            seller=row.seller,
            task=row.task,
            state=row.state,
            reason=row.reason,
            weight=row.weight,
            gain=row.gain,
            gain_low=row.gain_low,
            gain_high=row.gain_high,
            loss_before=row.loss_before,
            bid=row.bid,
            ask=row.ask,
            price=row.price,
            fee=row.fee or 0,
        )
        for run in group.runs
        for row in run.trades
    ]


def fact(facts: Facts, *path: str) -> Any:
    """A value inside of a run.json, None where it is not there."""
    value: Any = facts
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def count(facts: Facts, *path: str) -> float:
    """A number inside of a run.json, 0 where it is not there."""
    value = fact(facts, *path)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) else 0


def _word(facts: Facts, key: str) -> str:
    return str(facts.get(key) or "")


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rank(method: str) -> int:
    return _ORDER.index(method) if method in _ORDER else len(_ORDER) - 1
