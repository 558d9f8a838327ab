"""Which classes of a data set make a task, and which an agent is short of, as a scenario writes them.

Knows: how many classes there are. Refuses to know: images. Every mistake raises `ScenarioError`, which names the key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from p2pmarket.datasets import IMAGE_SETS
from p2pmarket.errors import ScenarioError
from p2pmarket.experiments.table import Table

CLASSES = {name: 200 if name == "tinyimagenet" else 10 for name in IMAGE_SETS}
"""How many classes each data set has."""
_HALVES = ("first-half", "second-half")
_ALL = "all"

Groups = tuple[tuple[int, ...], ...]
"""The classes of a task, each with the data set's classes that it is made of."""


@dataclasses.dataclass(frozen=True)
class ImageEndowment:
    """What one agent can learn from."""

    share: float
    """Part of the training images, drawn at random."""
    scarce: tuple[int, ...]
    """Classes of the data set that it is short of."""
    keep: float
    """Part of its scarce classes that it has."""
    shuffled: bool
    """Whether its labels are dealt out among its images: what it learns is of no use to anybody."""
    seed: int | None
    """Of its first parameters, for torch.manual_seed; None: from the run's."""

    @property
    def whole(self) -> bool:
        """Whether it has every image."""
        return self.share == 1 and (not self.scarce or self.keep == 1)


def each(classes: int) -> Groups:
    """Every class by itself: the task that the data set is made for."""
    return tuple((label,) for label in range(classes))


def read_groups(table: Table, classes: int) -> Mapping[str, Groups]:
    """Task -> its classes; without `tasks` in the section there is one, of all classes.

    :raises ScenarioError: a task that is neither "all" nor lists of different classes
    """
    found: dict[str, Groups] = {}
    for name, value in (table.table("tasks") or {"images": _ALL}).items():
        if value == _ALL:
            found[name] = each(classes)
            continue
        known = isinstance(value, list) and all(
            isinstance(group, list) and group and all(type(one) is int and 0 <= one < classes for one in group)
            for group in value
        )
        labels = [label for group in value for label in group] if known else []
        if not known or len(value) < 2 or len(set(labels)) < len(labels):
            raise ScenarioError(
                f'tasks.{name} in {table.where} is "all", or at least two lists of classes from 0 to {classes - 1}, '
                "no class in two of them, such as [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]"
            )
        found[name] = tuple(map(tuple, value))
    return found


def read_scarce(table: Table, classes: int) -> tuple[int, ...]:
    """The classes that an agent is short of, in order; none where the table does not say.

    :raises ScenarioError: neither a half of the classes nor a list of some
    """
    if "scarce" not in table:
        table.many("scarce", [])  # known from now on
        return ()
    try:
        half = table.text("scarce", choices=_HALVES)
        return tuple(range(classes // 2) if half == _HALVES[0] else range(classes // 2, classes))
    except ScenarioError:
        pass
    try:
        labels = table.many("scarce")
    except ScenarioError:
        labels = [None]
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise ScenarioError(
            f"scarce in {table.where} is {_HALVES[0]}, {_HALVES[1]}, or a list of classes from 0 to {classes - 1}"
        )
    return tuple(sorted(set(labels)))
