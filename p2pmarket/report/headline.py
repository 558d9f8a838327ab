"""A folder of results in a sentence and a few tiles: of one setting what it came to, of a sweep what came of all.

Knows: groups. Refuses to know: charts, files. Pure functions that fail on nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pmarket.experiments.results import RunResult, is_sound
from p2pmarket.report.deals import sums, sums_sentence
from p2pmarket.report.groups import (
    Ends,
    Group,
    alone_beside,
    count,
    deals_of,
    ends_of_group,
    scores_of,
    settings_words,
)
from p2pmarket.report.points import Point, paths_of, point_of, points_of, span, which
from p2pmarket.report.results_tables import checked, mean_words
from p2pmarket.report.story import Tile, Tone
from p2pmarket.report.visits import failures_of, failures_words
from p2pmarket.report.words import credits, duration, listed, many, method_name, metric
from p2pmarket.units import format_bytes


def headline(groups: Sequence[Group], first: Group, *, trades_drawn: bool = True) -> str:
    """The whole folder in a sentence; of a sweep in two, where charts of trades follow."""
    if len(points_of(groups)) > 1:
        drawn = f" Charts of trades are of {which(first, groups)}." if trades_drawn else ""
        return _sweep_headline(groups, first) + drawn
    rows = [row for run in first.runs for row in run.rounds]
    rounds = max((row.round for row in rows), default=0)
    parts = f"{many(len(first.agents), 'agent')}, {many(rounds, 'round')}, {many(first.seeds, 'seed')}: "
    final, before = ends_of_group(first), alone_beside(first, groups)
    judged = scores_of([first])[0]
    accuracy = judged.accuracy
    if final.count:
        alone = ends_of_group(before) if before else None
        parts += f"mean {judged.name} {_mean(final, accuracy)}"
        parts += " in the market" if alone is not None else f" with {first.label}"
        parts += f" against {_mean(alone, accuracy)} alone" if alone is not None else ""
        parts += f"{_best_other_words(groups, first, final, accuracy)}; "
    deals = deals_of(first)
    parts += f"in {first.seeds:,} runs together " if deals and first.seeds > 1 else ""
    parts += sums_sentence(sums(deals))
    parts += failures_words(failures_of(first.runs), len(first.agents))
    return f"{parts}{_ledgers_words(first.runs) if first.has_broker else ''}."


def _sweep_headline(groups: Sequence[Group], first: Group) -> str:
    points, runs = points_of(groups), [run for group in groups for run in group.runs]
    agents = span((len({row.agent for row in run.rounds}) for run in runs), "agent")
    rounds = span((max((row.round for row in run.rounds), default=0) for run in runs), "round")
    parts = f"A sweep of {len(points):,} settings of {listed(paths_of(groups))}, each with {agents}, "
    parts += f"{rounds}, {span((group.seeds for group in groups), 'seed')}: "
    judged = scores_of(groups)[0]
    where = {"market": "in the market", "alone": "alone"}
    for place, method in enumerate(dict.fromkeys((first.method, *(group.method for group in groups)))):
        parts += ", " if place else f"mean {judged.name} "
        parts += f"{_range_words(groups, method, judged.accuracy)} {where.get(method, f'with {method_name(method)}')}"
    trading = [group for group in groups if group.has_broker]
    found = sums([deal for group in trading for deal in deals_of(group)])
    parts += f"; {sums_sentence(found)}" + (f", {credits(found.fees)} of them fees" if found.fees else "")
    names = {row.agent for run in runs for row in run.rounds}
    parts += failures_words(failures_of(runs), len(names))
    parts += _ledgers_words([run for group in trading for run in group.runs])
    return f"{parts}."


def _best_other(groups: Sequence[Group], first: Group, accuracy: bool) -> tuple[Group | None, int]:
    """Which method ended best of those that are neither the first nor alone, and how many there are; one in which an
    agent diverged is best of none."""
    others = [one for one in groups if one.method not in (first.method, "alone") and one.settings == first.settings]
    sound = [one for one in others if (ends := ends_of_group(one)).values and not ends.diverged]
    sign = -1 if accuracy else 1
    return min(sound, key=lambda one: sign * (ends_of_group(one).mean or 0.0), default=None), len(others)


def _best_other_words(groups: Sequence[Group], first: Group, final: Ends, accuracy: bool) -> str:
    """How the best of the other methods ended, and whether that was better; nothing where there is no other."""
    best, total = _best_other(groups, first, accuracy)
    if not total:
        return ""
    if best is None:
        return f"; {many(total, 'other method')} diverged"
    ends = ends_of_group(best)
    text = f", and {_mean(ends, accuracy)} with {method_name(best.method)}"
    text += f", the best of {total} other methods" if total > 1 else ""
    return text + (", which ended better" if _better(ends, final, accuracy) else "")


def _better(one: Ends, other: Ends, accuracy: bool) -> bool:
    """Whether the first mean is the better, of all agents each."""
    if one.mean is None or other.mean is None or one.diverged or other.diverged:
        return False
    return one.mean > other.mean if accuracy else one.mean < other.mean


def _means(groups: Sequence[Group], method: str) -> list[tuple[float, Point]]:
    """By point, how agents ended with a method; points at which nobody has a number are left out."""
    paths = paths_of(groups)
    found = [(ends_of_group(group).mean, point_of(group, paths)) for group in groups if group.method == method]
    return [(mean, point) for mean, point in found if mean is not None]


def _range_words(groups: Sequence[Group], method: str, accuracy: bool) -> str:
    """From the lowest to the highest mean over settings, with where they are, and how many diverged."""
    means = _means(groups, method)
    ends = [ends_of_group(group) for group in groups if group.method == method]
    diverged, total = sum(one.diverged for one in ends), sum(one.count for one in ends)
    lost = f" ({diverged:,} of {total:,} agents DIVERGED)" if diverged else ""
    if not means:
        return f"unknown{lost}"
    (low, at_low), (high, at_high) = min(means), max(means)
    if len(means) == 1 or metric(low, accuracy) == metric(high, accuracy):
        return f"{metric(low, accuracy)}{lost}"
    return (
        f"from {metric(low, accuracy)} ({settings_words(at_low)}) to {metric(high, accuracy)} "
        f"({settings_words(at_high)}){lost}"
    )


def _ledgers_words(runs: Sequence[RunResult]) -> str:
    verified = [run for run in runs if checked(run)]
    bad = sum(not is_sound(run.facts) for run in verified)
    if not verified:
        return ""
    if bad:
        return (
            "; THE LEDGER DOES NOT VERIFY"
            if len(verified) == 1
            else f"; {bad} OF {len(verified)} LEDGERS DO NOT VERIFY"
        )
    few = {1: "the ledger verifies", 2: "both ledgers verify"}
    return f"; {few.get(len(verified), f'all {len(verified)} ledgers verify')}"


def _mean(ends: Ends, accuracy: bool) -> str:
    """The mean of all agents and seeds at the end; unknown where one diverged, and that of the others is told."""
    if ends.mean is None or not ends.diverged:
        return "unknown, as all DIVERGED" if ends.mean is None else metric(ends.mean, accuracy)
    others = f", {metric(ends.mean, accuracy)} for the others" if len(ends.values) < ends.count else ""
    value = "unknown" if others else metric(ends.mean, accuracy)
    return f"{value} ({ends.diverged} of {ends.count} DIVERGED{others})"


def tiles(runs: Sequence[RunResult], groups: Sequence[Group], first: Group) -> tuple[Tile, ...]:
    """The numbers of the headline, and what the runs cost."""
    swept = len(points_of(groups)) > 1
    trading = [group for group in groups if group.has_broker] if swept else [first]
    found = sums([deal for group in trading for deal in deals_of(group)])
    total = sum(group.seeds for group in trading)
    together = f", in {total:,} runs" if total > 1 and found.appraised else ""
    made = _sweep_tiles(groups, first) if swept else _end_tile(groups, first)
    made += [
        Tile("trades settled", f"{found.settled:,}", f"of {found.appraised:,} appraised{together}"),
        Tile("credits moved", credits(found.moved), f"{credits(found.fees)} of them fees{together}"),
    ]
    verified = [run for group in trading for run in group.runs if group.has_broker and checked(run)]
    if verified:
        good = all(is_sound(run.facts) for run in verified)
        made.append(Tile("ledger", "verifies" if good else "does not verify", "", "good" if good else "bad"))
    counted = [run for group in trading for run in group.runs if run.facts.get("traffic_bytes") is not None]
    if counted:
        traffic = sum(count(run.facts, "traffic_bytes") for run in counted) / len(counted)
        made.append(Tile("traffic of a run", format_bytes(traffic), "sent by all parties"))
    wall = sum(count(run.facts, "wall_seconds") for run in runs)
    if wall:
        virtual = sum(count(run.facts, "virtual_seconds") for run in runs)
        note = f"for {many(len(runs), 'run')}" + (f", {duration(virtual)} of virtual time" if virtual else "")
        made.append(Tile("computing time", duration(wall), note))
    return tuple(made)


def _sweep_tiles(groups: Sequence[Group], first: Group) -> list[Tile]:
    """How many settings there are, and the lowest and highest outcome over them."""
    names = listed([path.rpartition(".")[2] for path in paths_of(groups)])
    made = [Tile("settings", f"{len(points_of(groups)):,}", f"of {names}")]
    same = [group for group in groups if group.method == first.method]
    judged = scores_of(same)[0]
    accuracy = judged.accuracy
    means = _means(groups, first.method)
    diverged, total = (sum(getattr(ends_of_group(one), what) for one in same) for what in ("diverged", "count"))
    if total:
        ends = (
            list(dict.fromkeys(metric(one, accuracy) for one, _ in (min(means), max(means)))) if means else ["unknown"]
        )
        note = f"over settings, with {method_name(first.method)}"
        note = f"{diverged:,} of {total:,} diverged; {note}" if diverged else note
        made.append(Tile(f"mean {judged.name}", " … ".join(ends), note, "bad" if diverged else "plain"))
    return made


def _end_tile(groups: Sequence[Group], first: Group) -> list[Tile]:
    """How agents ended."""
    judged = scores_of([first])[0]
    accuracy = judged.accuracy
    ends, alone = ends_of_group(first), alone_beside(first, groups)
    before = ends_of_group(alone) if alone else None
    best, _ = _best_other(groups, first, accuracy)
    other = ends_of_group(best) if best else None
    if not ends.count:
        return []
    note = f"alone {mean_words(before, accuracy)}" if before is not None and before.count else first.label
    if best is not None and other is not None:
        note += f", {method_name(best.method)} {mean_words(other, accuracy)}"
    label = f"mean {judged.name}"
    if ends.diverged:
        label += " of the others" if len(ends.values) < ends.count else ""
        note = f"{ends.diverged} of {ends.count} diverged; {note}"
    better = before is not None and _better(ends, before, accuracy)
    better = better and (other is None or not _better(other, ends, accuracy))
    tone: Tone = "bad" if ends.diverged else "good" if better else "plain"
    return [Tile(label, "unknown" if ends.mean is None else metric(ends.mean, accuracy), note, tone)]
