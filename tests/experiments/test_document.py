"""Scenario documents: reading, paths, points, writing; every mistake is one sentence that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.errors import ScenarioError
from p2pmarket.experiments.document import (
    as_toml,
    axis_over,
    digest_of,
    parse_document,
    points_of,
    read_document,
    read_value,
    with_value,
)
from p2pmarket.experiments.table import Table


def test_files_that_are_no_scenario(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot read the scenario .*gone.toml: No such file"):
        read_document(tmp_path / "gone.toml")
    with pytest.raises(ScenarioError, match="cannot read the scenario .*: Is a directory"):
        read_document(tmp_path)
    for text in (b"a = ", b"[scenario\n", b"{}", b"a = 1\na = 2", b"x = " + b"[" * 5000):
        (tmp_path / "bad.toml").write_bytes(text)
        with pytest.raises(ScenarioError, match="bad.toml: the scenario is not valid TOML: "):
            read_document(tmp_path / "bad.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match="cannot read the scenario"):
        read_document(tmp_path / "bytes.toml")


def test_values_at_paths() -> None:
    document = {"scenario": {"rounds": 1}, "agent": [{"name": "A"}, {"name": "0", "samples": 3}]}
    assert with_value(document, "scenario.rounds", 5)["scenario"] == {"rounds": 5}
    assert with_value(document, "agent.A.samples", 5)["agent"][0] == {"name": "A", "samples": 5}
    assert with_value(document, "agent.0.samples", 5)["agent"][1]["samples"] == 5, "a name goes before a number"
    assert with_value(document, "agent.1.samples", 7)["agent"][1]["samples"] == 7
    assert with_value(document, "terms.pricing.rule", "posted")["terms"] == {"pricing": {"rule": "posted"}}
    assert document == {"scenario": {"rounds": 1}, "agent": [{"name": "A"}, {"name": "0", "samples": 3}]}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "leads to no key"),
        ("scenario..rounds", "leads to no key"),
        ("scenario.", "leads to no key"),
        ("scenario.rounds.deeper", "leads to no key"),
        ("scenario.rounds.deeper.still", "'scenario.rounds.deeper' is a value, not a table"),
        ("agent.A", "leads to no key"),
        ("agent.C.samples", "there is no 'C' in that list; it has A, B"),
        ("agent.7.samples", "there is no '7' in that list"),
    ],
)
def test_paths_that_lead_nowhere(path: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        with_value({"scenario": {"rounds": 1}, "agent": [{"name": "A"}, {"name": "B"}]}, path, 1)


def test_points_are_all_combinations_in_order() -> None:
    sweep = {"a": {"x": [1, 2]}, "b.y": ["p", "q"]}
    points = points_of({"a": {"x": 0, "z": 3}, "sweep": sweep})
    assert [point.settings for point in points] == [
        {"a.x": 1, "b.y": "p"},
        {"a.x": 1, "b.y": "q"},
        {"a.x": 2, "b.y": "p"},
        {"a.x": 2, "b.y": "q"},
    ]
    assert [point.number for point in points] == [0, 1, 2, 3]
    assert points[3].document == {"a": {"x": 2, "z": 3}, "b": {"y": "q"}}
    assert len({digest_of(point.document) for point in points}) == 4


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ([1], r"\[sweep\] must be a table"),
        ({"a.b": 3}, "'a.b' in .sweep. must be a list of at least one value, not 3"),
        ({"a.b": []}, "at least one value"),
        ({f"a.k{number}": list(range(10)) for number in range(6)}, "this sweep has 1,000,000 points"),
        ({"a.b": [float("nan")]}, "sweep.a.b.0 is nan, which is no number"),
    ],
)
def test_sweeps_that_are_none(sweep: Any, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        points_of({"a": {}, "sweep": sweep})


@pytest.mark.parametrize("value", ["nan", "inf", "1979-05-27", "07:32:00"])
def test_values_that_no_run_can_keep(value: str) -> None:
    with pytest.raises(ScenarioError, match="^deep.list.1.key is "):
        points_of(parse_document(f"[deep]\nlist = [1, {{ key = {value} }}]"))


texts = st.text(st.characters(codec="utf-8"), max_size=8)
values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, max_size=5))
def test_what_is_written_as_toml_is_read_back_equal(document: dict[str, Any]) -> None:
    again = parse_document(as_toml(document))
    assert again == document
    assert digest_of(again) == digest_of(document)


def test_values_of_a_command_line() -> None:
    given = ["3", "0.5", "true", '"3"', "[1, 2]", "{ a = 1 }", "posted", "two words", "", "a = b"]
    assert [read_value(one) for one in given] == [
        3, 0.5, True, "3", [1, 2], {"a": 1}, "posted", "two words", "", "a = b",
    ]  # fmt: skip
    for text in ("[1, 2", '"open', "{ a }"):
        with pytest.raises(ScenarioError, match="is no TOML value"):
            read_value(text)


def test_tables_refuse_what_nobody_asked_for_and_other_kinds() -> None:
    table = Table({"a": 1, "huge": 10**400, "flag": 1, "whole": True, "text": "x" * 1025}, "[t]")
    assert table.number("a") == 1.0
    for read, words in (
        (lambda: table.flag("flag", False), "flag in .t. must be true or false, not 1"),
        (lambda: table.whole("whole"), "whole in .t. must be a whole number, not True"),
        (lambda: table.number("huge"), "huge in .t. must be a number"),
        (lambda: table.text("text"), "more than 1024 characters"),
        (lambda: table.text("gone"), ".t. needs a 'gone': a text"),
        (lambda: table.number("a", high=0.5), "a in .t. is 1.0; it is from 0 to 0.5"),
    ):
        with pytest.raises(ScenarioError, match=words):
            read()
    table.done()
    with pytest.raises(ScenarioError, match="unknown key 'b' in .u.; known are a"):
        other = Table({"a": 1, "b": 2}, "[u]")
        other.whole("a")
        other.done()


@pytest.mark.parametrize(
    ("path", "axis"),
    [
        ("agent.A.samples", "agent.0.samples"),
        ("agent.0.samples", "agent.0.samples"),
        ("agent.A.knobs.part", "agent.A.knobs"),
        ("agent.B.samples", None),
        ("terms.pricing", None),
        ("terms.pricing.rule", "terms.pricing.rule"),
        ("sweep.terms.pricing.rule", None),
    ],
)
def test_what_a_sweep_sets_in_every_point(path: str, axis: str | None) -> None:
    document = {
        "agent": [{"name": "A", "knobs": {}}, {"name": "B"}],
        "terms": {"pricing": {"rule": "posted"}},
        "sweep": {"agent.0.samples": [1, 2], "agent": {"A": {"knobs": [{}]}}, "terms.pricing.rule": ["posted"]},
    }
    assert axis_over(document, path) == axis


def test_without_a_sweep_nothing_is_over_a_value() -> None:
    assert axis_over({"scenario": {}}, "scenario.rounds") is None
