"""A sweep over several things as panels: one for each value of the first of them, what else differs as lines in each.

Knows: groups, and what differs between them. Refuses to know: rounds, charts. Pure functions that fail on nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from p2pmarket.charts import COLORS
from p2pmarket.report.groups import Group, settings_words
from p2pmarket.report.points import point_of
from p2pmarket.report.words import method_name


def values_of(groups: Sequence[Group], path: str) -> list[str]:
    """Every value that was swept, once."""
    return list(dict.fromkeys(point_of(group, (path,))[0][1] for group in groups))


def with_value(groups: Sequence[Group], path: str, value: str) -> list[Group]:
    """Those at one of them."""
    return [group for group in groups if point_of(group, (path,))[0][1] == value]


def as_in_panels(groups: Sequence[Group], paths: Sequence[str]) -> list[Group]:
    """With names that leave the first path out, and one colour for what is alike at all of its values: a method at
    other settings, and whoever is alone there too where that is beside one method."""
    several = len({group.method for group in groups}) > 1
    beside = {group.method for group in groups if group.method != "alone"}
    colors: dict[object, int] = {}
    found = []
    for group in groups:
        rest = point_of(group, paths[1:])
        color = colors.setdefault((rest, "" if len(beside) < 2 else group.method), len(colors) % len(COLORS))
        words = settings_words(rest)
        label = f"{method_name(group.method)}, {words}" if several else words
        found.append(dataclasses.replace(group, label=label, color=color))
    return found
