"""A scenario's TOML document: reading it, changing one value by its path, and the points of a sweep.

Knows: tables, lists and paths such as `agent.A.samples` (in a list of tables, by a table's `name` or its number from
0). Refuses to know: which keys there are and what they mean (table.py, scenario.py, worlds/). Every mistake raises
`ScenarioError`, which names the key and what could be there.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from p2pmarket.errors import ScenarioError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Document = dict[str, Any]
MAX_POINTS = 100_000
"""Of a sweep, times its seeds: more is a mistake."""


def parse_document(text: str) -> Document:
    """The document that a text of TOML is.

    :raises ScenarioError: it is none
    """
    try:
        document: Document = tomllib.loads(text)
        return document
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ScenarioError(f"the scenario is not valid TOML: {error}") from None


def read_document(path: Path) -> Document:
    """The document in a TOML file.

    :raises ScenarioError: no such file, or not TOML
    """
    try:
        return parse_document(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScenarioError(f"cannot read the scenario {path}: {reason}") from None
    except ScenarioError as error:
        raise ScenarioError(f"{path}: {error}") from None


def read_value(text: str) -> Any:
    """A value as a document has it: 3, 0.5, true, "a text", [1, 2]; what is none of them is a text without quotes.

    :raises ScenarioError: begins as a text, a list or a table does, and is none
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        if text[:1] in tuple("\"'[{"):
            raise ScenarioError(f"{text!r} is no TOML value: {error}") from None
        return text


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 of the document's contents, whatever the order of its keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def with_value(document: Document, path: str, value: object) -> Document:
    """A copy of the document with another value at `path`; tables on the way are made where they are missing.

    :raises ScenarioError: the path leads through something that is no table, or to an entry that is not there
    """
    changed = copy.deepcopy(document)
    *way, last = path.split(".")
    if not all((*way, last)):
        raise ScenarioError(f"{path!r} leads to no key of the scenario; write it as section.key or agent.NAME.key")
    here: Any = changed
    for depth, part in enumerate(way):
        here = _child(here, part, ".".join(way[: depth + 1]))
    if not isinstance(here, dict):
        raise ScenarioError(f"{path!r} leads to no key of the scenario; write it as section.key or agent.NAME.key")
    here[last] = value
    return changed


def _child(here: Any, part: str, path: str) -> Any:
    if isinstance(here, list):
        named = [one for one in here if isinstance(one, dict) and one.get("name") == part]
        if named or (part.isdecimal() and int(part) < len(here)):
            return named[0] if named else here[int(part)]
        names = ", ".join(str(one.get("name", number)) for number, one in enumerate(here) if isinstance(one, dict))
        raise ScenarioError(f"{path!r}: there is no {part!r} in that list; it has {names}")
    if not isinstance(here, dict):
        raise ScenarioError(f"{path!r} is a value, not a table")
    return here.setdefault(part, {})


@dataclasses.dataclass(frozen=True)
class Point:
    """One combination of a sweep's values."""

    number: int
    settings: Mapping[str, Any]
    """What differs, by path."""
    document: Document


def points_of(document: Document) -> list[Point]:
    """Every combination of the values in [sweep], in the order in which they are written; one point without a sweep.

    :raises ScenarioError: a sweep that is no table of lists, or of too many points; a value that no run can keep
    """
    _check_values(document, "")
    base = {key: value for key, value in document.items() if key != "sweep"}
    sweep = document.get("sweep", {})
    if not isinstance(sweep, dict):
        raise ScenarioError('[sweep] must be a table such as { "regression.distance" = [0, 5, 10] }')
    axes = dict(_axes(sweep, ""))
    count = 1
    for path, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ScenarioError(f"{path!r} in [sweep] must be a list of at least one value, not {values!r}")
        count *= len(values)
    if count > MAX_POINTS:
        raise ScenarioError(f"this sweep has {count:,} points; at most {MAX_POINTS:,} are run")
    found = []
    for number, values in enumerate(itertools.product(*axes.values())):
        settings = dict(zip(axes, values, strict=True))
        point = base
        for path, value in settings.items():
            point = with_value(point, path, value)
        found.append(Point(number, settings, point))
    return found


def axis_over(document: Document, path: str) -> str | None:
    """The path in [sweep] by which every point has another value at `path` than the document; None: there is none.

    :raises ScenarioError: one of the paths leads nowhere
    """
    sweep = document.get("sweep")
    if not isinstance(sweep, dict) or path.split(".")[0] == "sweep":
        return None
    for axis, values in _axes(sweep, ""):
        if axis.startswith(f"{path}."):
            continue  # a part of what is at the path: the rest of it stays
        one, other = (with_value(with_value(document, path, mark), axis, values) for mark in (0, 1))
        if one == other:
            return axis
    return None


def _check_values(value: object, path: str) -> None:
    if isinstance(value, dict):
        for key, one in value.items():
            _check_values(one, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            _check_values(one, f"{path}.{number}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ScenarioError(f"{path} is {value}, which is no number to reckon with")
    elif not isinstance(value, (str, int, float)):
        raise ScenarioError(f"{path} is {value}; a scenario has texts, numbers, true and false, lists and tables")


def _axes(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Paths and values; an unquoted a.b = [...] is a table in TOML and means the same."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _axes(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def as_toml(document: Mapping[str, Any]) -> str:
    """The document as TOML; it is read back equal. Comments are not part of a document."""
    return "\n".join(_lines(document, "")).lstrip("\n") + "\n"


def _lines(table: Mapping[str, Any], path: str) -> Iterator[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, dict) or _are_tables(value)}
    for key, value in table.items():
        if key not in tables:
            yield f"{_key(key)} = {as_value(value)}"
    for key, value in tables.items():
        name = f"{path}.{_key(key)}".lstrip(".")
        for one in [value] if isinstance(value, dict) else value:
            yield ""
            yield f"[{name}]" if isinstance(value, dict) else f"[[{name}]]"
            yield from _lines(one, name)


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else as_value(key)


def as_value(value: object) -> str:
    """A value as TOML has it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {as_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_value, value)) + "]"
    return repr(value)
