"""One table of a scenario's document, read key by key, each value of its kind and within its bounds.

Knows: kinds, bounds, defaults, and which keys were asked for, so that one that nobody asked for is a mistake. Refuses
to know: what any key means (scenario.py, worlds/). Every mistake raises `ScenarioError`, which names the key, its table
and what could be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from p2pmarket import limits
from p2pmarket.errors import ScenarioError

T = TypeVar("T")
MAX_NAME_CHARACTERS = 48
_NAME = re.compile(rf"\w(?:[\w -]{{0,{MAX_NAME_CHARACTERS - 2}}}\w)?")


class Table:
    """One table of a document, read key by key; what nobody asked for is a mistake."""

    def __init__(self, values: object, where: str) -> None:
        """
        :param where: as people write it: [scenario], [[agent]] 'A'
        :raises ScenarioError: not a table
        """
        if not isinstance(values, dict):
            raise ScenarioError(f"{where} must be a table, not {values!r}")
        self._values = values
        self._asked: dict[str, Any] = {}
        self.where = where

    def __contains__(self, key: str) -> bool:
        self._asked.setdefault(key, None)
        return key in self._values

    @property
    def asked(self) -> Mapping[str, Any]:
        """Keys that were asked for, in order, each with its value or default; None where it has neither."""
        return self._asked

    def holds(self, key: str, kind: type) -> bool:
        """Whether the value of a key is of a kind."""
        return type(self._values.get(key)) is kind

    def text(self, key: str, default: str | None = None, choices: Sequence[str] = ()) -> str:
        """A text of at most MAX_TEXT_CHARACTERS; of `choices`, where there are any."""
        value = self._take(key, default, str, "a text")
        if len(value) > limits.MAX_TEXT_CHARACTERS:
            raise ScenarioError(f"{key} in {self.where} has more than {limits.MAX_TEXT_CHARACTERS} characters")
        if choices and value not in choices:
            raise ScenarioError(f"{key} in {self.where} is {value!r}; it is one of {', '.join(choices)}")
        return value

    def name(self, key: str, default: str | None = None) -> str:
        """A text that can be the name of a file and a part of a path: no dots, no slashes, nothing invisible."""
        value = self.text(key, default)
        if not _NAME.fullmatch(value):
            raise ScenarioError(
                f"{key} in {self.where} is {value!r}; a name is 1 to {MAX_NAME_CHARACTERS} letters and digits, with "
                "'-', '_' and spaces between them"
            )
        return value

    def whole(self, key: str, default: int | None = None, low: int = 0, high: int = 10**9) -> int:
        """A whole number in low ... high."""
        value = self._take(key, default, int, "a whole number")
        if not low <= value <= high:
            raise ScenarioError(f"{key} in {self.where} is {value}; it is from {low} to {high}")
        return value

    def number(
        self, key: str, default: float | None = None, low: float = 0.0, high: float = 1e12, *, why: str = ""
    ) -> float:
        """A finite number in low ... high; `why` no other is the sentence's end."""
        value = self._take(key, default, float, "a number")
        if not low <= value <= high:
            raise ScenarioError(f"{key} in {self.where} is {value}; it is from {low:g} to {high:g}{why}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        return self._take(key, default, bool, "true or false")

    def table(self, key: str) -> dict[str, Any]:
        """A table; empty where it is not given."""
        return self._take(key, {}, dict, "a table")

    def many(self, key: str, default: list[Any] | None = None) -> list[Any]:
        """A list."""
        return self._take(key, default, list, "a list")

    def done(self) -> None:
        """:raises ScenarioError: a key that nobody asked for"""
        unknown = sorted(set(self._values) - set(self._asked))
        if unknown:
            raise ScenarioError(f"unknown key {unknown[0]!r} in {self.where}; known are {', '.join(self._asked)}")

    def _take(self, key: str, default: T | None, kind: type[T], words: str) -> T:
        value = self._asked[key] = self._values.get(key, default)
        if value is None:
            raise ScenarioError(f"{self.where} needs a {key!r}: {words}")
        if kind is float and type(value) is int and abs(value) < 2**1000:
            value = float(value)
        if type(value) is not kind:
            raise ScenarioError(f"{key} in {self.where} must be {words}, not {value!r}")
        return value
