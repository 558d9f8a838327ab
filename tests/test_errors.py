"""Every error has a code of its own, an exit code that is documented, and its place in the drawn tree."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from p2pmarket import cli, errors
from p2pmarket.cli import parser
from p2pmarket.errors import MarketError


def below(kind: type[MarketError], depth: int = 0) -> Iterator[tuple[int, type[MarketError]]]:
    """The classes of the file in the order they are written, each with its depth in the tree."""
    yield depth, kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from below(child, depth + 1)


ALL = [kind for _, kind in below(MarketError)]


def test_codes_are_unique_and_fit_a_refusal() -> None:
    codes = [kind.code for kind in ALL]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z][a-z-]{1,63}", code) for code in codes)


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    assert errors.__doc__ is not None
    drawn = re.findall(r"^    ([|+ -]*)([A-Z]\w+)", errors.__doc__, flags=re.MULTILINE)
    assert [(len(indent) // 4, name) for indent, name in drawn] == [
        (depth, kind.__name__) for depth, kind in below(MarketError)
    ]


def test_exit_codes_are_drawn_and_inherited() -> None:
    assert errors.__doc__ is not None
    drawn = dict(re.findall(r"(\w+) +exit (\d)", errors.__doc__))
    for kind in ALL:
        family = next(base for base in kind.__mro__ if base.__name__ in drawn)
        assert kind.exit_code == int(drawn[family.__name__]), kind


@pytest.mark.parametrize("code", sorted({kind.exit_code for kind in ALL} | {0, 130}))
def test_exit_codes_are_documented_where_people_look(code: int) -> None:
    assert cli.__doc__ is not None
    assert re.search(rf"\b{code} [a-z]", cli.__doc__)
    assert re.search(rf"\b{code} [a-z]", " ".join(parser.build_parser().format_help().split()))


def test_every_error_says_what_it_is() -> None:
    for kind in ALL:
        assert kind.__doc__, kind
        assert str(kind("a sentence")) == "a sentence"


def test_one_error_may_carry_a_finer_code() -> None:
    assert errors.RuleBroken("no", code="unknown-task").code == "unknown-task"
    assert errors.RuleBroken("no").code == "rule-broken"
