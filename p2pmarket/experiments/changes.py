"""What changed between two scenario documents, in words: which path had which value, and which it has now.

Knows: tables and lists of tables, by the paths that --set and [sweep] take. Refuses to know: what a key means, so a
default that is written out counts as a change. Nothing here fails.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from p2pmarket.experiments.document import as_value

MOST_TOLD = 3
"""Changes that a sentence names."""
MOST_SHOWN = 40
"""Characters of a value in it."""


def told_changes(before: Mapping[str, Any], after: Mapping[str, Any], without: Collection[str] = ()) -> str:
    """The first changes, such as "scenario.rounds was 8, is 9; faults.lost was 0.1, is not given"; empty: none.

    :param without: paths that are not looked at, with what is below them
    """
    values, others = dict(_values(before, "")), dict(_values(after, ""))
    paths = [
        path
        for path in {**values, **others}
        if _written(values, path) != _written(others, path)
        and not any(f"{path}.".startswith(f"{one}.") for one in without)
    ]
    told = [f"{path} was {_shown(values, path)}, is {_shown(others, path)}" for path in paths[:MOST_TOLD]]
    if len(paths) > MOST_TOLD:
        told.append(f"and {len(paths) - MOST_TOLD} more")
    return "; ".join(told)


def _written(values: Mapping[str, Any], path: str) -> str:
    """As a file has it, where 1, 1.0 and true are three values."""
    if path not in values:
        return "not given"
    return as_value(values[path]) if values[path] != {} else "{}"


def _shown(values: Mapping[str, Any], path: str) -> str:
    text = _written(values, path)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."


def _values(here: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Every value by its path; a table with nothing in it is a value."""
    for key, value in here.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _values(value, f"{path}.")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            yield from _values(dict(zip(_names(value), value, strict=True)), f"{path}.")
        else:
            yield path, value


def _names(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of a list's tables, as paths have them: their own, or their numbers where two have one."""
    names = [str(one.get("name", number)) for number, one in enumerate(tables)]
    return names if len(set(names)) == len(names) else [str(number) for number in range(len(tables))]
