"""What a scenario's parser asks of its tables: keys, kinds, defaults, bounds; for tests that hold a page to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from p2pmarket.experiments.document import Document
from p2pmarket.experiments.scenario import parse_scenario
from p2pmarket.experiments.table import Table


class Asked(NamedTuple):
    """One key as docs/simulation.md writes it."""

    key: str
    kind: str
    default: str
    allowed: str


def asked_by(document: Document, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Asked]]:
    """Every key that parsing the document asks for, by section: [scenario], [[agent]], ..."""
    found: dict[str, dict[str, Asked]] = {}

    def note(table: Table, key: str, kind: str, default: object, allowed: str) -> None:
        section = re.sub(r"(\[+\w+\]+).*", r"\1", table.where)
        found.setdefault(section, {}).setdefault(key, Asked(key, kind, written(default), allowed))

    def watch(name: str, kind: str, bounds: Callable[[dict[str, Any]], str], defaults: dict[str, Any]) -> None:
        original = getattr(Table, name)

        def ask(self: Table, key: str, *given: Any, **named: Any) -> Any:
            order = [one for one in ("default", "low", "high", "choices") if one in {**defaults, "default": None}]
            values = {"default": None, **defaults, **dict(zip(order, given, strict=False)), **named}
            note(self, key, kind, values["default"], bounds(values))
            return original(self, key, *given, **named)

        monkeypatch.setattr(Table, name, ask)

    watch("text", "text", lambda all_: ", ".join(all_["choices"]), {"choices": ()})
    watch("name", "name", lambda all_: "", {})
    watch("whole", "whole number", lambda all_: f"{all_['low']} to {all_['high']}", {"low": 0, "high": 10**9})
    watch("number", "number", lambda all_: f"{all_['low']:g} to {all_['high']:g}", {"low": 0.0, "high": 1e12})
    watch("flag", "true or false", lambda all_: "", {})
    watch("table", "table", lambda all_: "", {"default": {}})
    watch("many", "list", lambda all_: "", {})
    parse_scenario(document)
    return {section: list(keys.values()) for section, keys in found.items()}


def written(default: object) -> str:
    """A default as the page writes it."""
    if default is None:
        return "required"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, str):
        return default or "none"
    return "none" if default in ({}, []) else str(default)
