"""The points of a sweep: what differs from one to the next, and how a sentence says so.

Knows: the settings of groups. Refuses to know: outcomes, charts. Pure functions that fail on nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from p2pmarket.report.groups import Group, settings_words

Point = tuple[tuple[str, str], ...]
"""Values by their dotted path."""
PROTOCOL = "scenario.protocol"
NOT_SET = "not set"


def paths_of(groups: Sequence[Group]) -> tuple[str, ...]:
    """What differs from point to point, the method aside; nothing where there is one point alone."""
    settings = [_settings(group) for group in groups]
    paths = dict.fromkeys(path for one in settings for path in one)
    return tuple(path for path in paths if len({one.get(path) for one in settings}) > 1)


def point_of(group: Group, paths: Sequence[str]) -> Point:
    """A group's values of these paths."""
    settings = _settings(group)
    return tuple((path, settings.get(path, NOT_SET)) for path in paths)


def points_of(groups: Sequence[Group]) -> list[Point]:
    """Every point once, in their order."""
    paths = paths_of(groups)
    return list(dict.fromkeys(point_of(group, paths) for group in groups))


def which(group: Group, groups: Sequence[Group]) -> str:
    """Of which setting a group is, for a sentence; nothing where there is one alone."""
    points = points_of(groups)
    if len(points) < 2:
        return ""
    point = point_of(group, paths_of(groups))
    return f"setting {points.index(point) + 1:,} of {len(points):,}, {settings_words(point)}"


def span(values: Iterable[int], one: str = "") -> str:
    """How many of something there are, where that may differ.

    >>> span([5, 5]), span([7, 5, 7], "agent"), span([4, 5, 7]), span(range(3, 9)), span([1], "agent"), span([])
    ('5', '5 or 7 agents', '4, 5 or 7', '3 to 8', '1 agent', '0')
    """
    sizes = [f"{value:,}" for value in sorted({*values})] or ["0"]
    text = (
        " or ".join(filter(None, (", ".join(sizes[:-1]), sizes[-1])))
        if len(sizes) <= 3
        else f"{sizes[0]} to {sizes[-1]}"
    )
    return f"{text} {one}{'' if sizes == ['1'] else 's'}" if one else text


def _settings(group: Group) -> dict[str, str]:
    return {**dict(group.settings), PROTOCOL: group.protocol}
