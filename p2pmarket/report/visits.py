"""Visits to the market that failed, by agent: what must not be overlooked where the numbers look well.

Knows: that a row's problem is of the visits since the row before. Refuses to know: why a visit failed; the agent said
so. Pure functions that fail on nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from p2pmarket.experiments.recording import RoundRow
from p2pmarket.experiments.results import RunResult
from p2pmarket.report.groups import count
from p2pmarket.report.words import MAX_SENTENCE, known, many, shown

MAX_NAMED = 5
"""Agents with a sentence of their own."""


@dataclasses.dataclass(frozen=True)
class Failures:
    """What one agent told of its visits, over several runs."""

    agent: str
    failed: int
    """Those with a problem."""
    visits: int
    problem: str
    """The most frequent one."""
    others: int
    """How many other problems there were."""
    each: bool
    """Whether these are visits, rather than rows of several."""


def failures_of(runs: Iterable[RunResult]) -> tuple[Failures, ...]:
    """Of every agent with a visit that failed, those that failed most first. A run that does not say how many visits
    there were, as those of before did not, is counted by its rows."""
    visits: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    problems: defaultdict[str, Counter[str]] = defaultdict(Counter)
    each = True
    for run in runs:
        if not (run.facts.get("broker") or run.trades):
            continue
        untold = {agent for agent, about in run.facts["agents"].items() if "visits" not in about}
        for agent in {*run.facts["agents"]} - untold:
            visits[agent] += int(count(run.facts, "agents", agent, "visits"))
            failed[agent] += int(count(run.facts, "agents", agent, "failed"))
        for row in filter(_visited, run.rounds):
            if row.problem:
                problems[row.agent][row.problem] += 1
            if row.agent in untold:
                visits[row.agent] += 1
                failed[row.agent] += bool(row.problem)
        rounds = {row.round for row in run.rounds}
        each = each and (not untold or rounds == {*range(max(rounds, default=-1) + 1)})
    found = [
        Failures(agent, times, visits[agent], *_reason(problems[agent]), each)
        for agent, times in failed.items()
        if 0 < times <= visits[agent]
    ]
    return tuple(sorted(found, key=lambda one: (-one.failed / one.visits, -one.failed, one.agent)))


def _reason(said: Counter[str]) -> tuple[str, int]:
    """The most frequent problem, and how many others there were."""
    return (said.most_common(1)[0][0], len(said) - 1) if said else ("it did not say why", 0)


def failure_sentences(found: Sequence[Failures]) -> list[str]:
    """One an agent, and one for all whom there is no room for."""
    sentences = []
    for one in found[:MAX_NAMED]:
        text = (
            f"{one.failed:,} of {many(one.visits, 'visit')} failed"
            if one.each
            else f"visits failed before {one.failed:,} of {many(one.visits, 'measurement')}"
        )
        more = f" (and {many(one.others, 'other problem')})" if one.others else ""
        sentences.append(f"{shown(one.agent, 32)}: {text}: {shown(one.problem, MAX_SENTENCE).rstrip('.')}{more}.")
    if left := found[MAX_NAMED:]:
        sentences.append(
            f"Visits of {many(len(left), 'more agent')} failed, up to {max(one.failed for one in left):,}."
        )
    return sentences


def failures_words(found: Sequence[Failures], agents: int) -> str:
    """What a headline says; nothing where no visit failed.

    >>> failures_words((Failures("greedy", 2, 2, "no", 0, True), Failures("A", 1, 2, "no", 0, True)), 3)
    '; EVERY VISIT OF 1 OF 3 AGENTS FAILED, some of 1 more'
    >>> failures_words((Failures("A", 1, 2, "no", 0, True),), 3), failures_words((), 3)
    ('; some visits of 1 of 3 agents failed', '')
    """
    whole = sum(one.failed == one.visits for one in found)
    some = len(found) - whole
    if whole:
        return f"; EVERY VISIT OF {whole:,} OF {many(agents, 'AGENT', 'AGENTS')} FAILED" + (
            f", some of {some:,} more" if some else ""
        )
    return f"; some visits of {some:,} of {many(agents, 'agent')} failed" if some else ""


def _visited(row: RoundRow) -> bool:
    """Whether there was a visit, as far as the row tells. That of an agent without finite parameters is told of as one
    that diverged."""
    told = row.problem or row.offered or row.bought or row.sent_bytes is None or row.sent_bytes
    return row.round > 0 and bool(told) and known(row.loss)
