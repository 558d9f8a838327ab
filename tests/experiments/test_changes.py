"""What changed between two scenarios, in words."""

from __future__ import annotations

from small import small

from p2pmarket.experiments.changes import told_changes
from p2pmarket.experiments.document import with_value


def test_nothing_changed() -> None:
    assert told_changes(small(), small()) == ""
    reordered = dict(reversed(small().items()))
    assert told_changes(small(), reordered) == ""


def test_values_tables_and_agents_by_name() -> None:
    changed = with_value(with_value(small(), "agent.B.noise", 0.25), "terms.pricing.rule", "posted")
    assert told_changes(small(), changed) == (
        'agent.B.noise was 0.5, is 0.25; terms.pricing.rule was not given, is "posted"'
    )
    assert told_changes(changed, small(), without=["agent.B"]) == 'terms.pricing.rule was "posted", is not given'
    assert told_changes(changed, small(), without=["agent.B.noise", "terms"]) == ""
    assert told_changes(small(), {**small(), "faults": {}}) == "faults was not given, is {}"


def test_values_that_are_equal_and_not_the_same() -> None:
    assert told_changes({"x": {"y": 1, "z": 2}}, {"x": {"y": 1.0, "z": 2}}) == "x.y was 1, is 1.0"
    assert told_changes({"x": {"y": 1}}, {"x": {"y": True}}) == "x.y was 1, is true"


def test_agents_of_one_name_have_numbers() -> None:
    twins = {"agent": [{"name": "A", "samples": 1}, {"name": "A", "samples": 2}]}
    assert told_changes(twins, {"agent": [{"name": "A", "samples": 1}, {"name": "A"}]}) == (
        "agent.1.samples was 2, is not given"
    )


def test_few_of_many_changes_are_told_and_long_values_are_cut() -> None:
    before = {"x": {str(number): number for number in range(9)} | {"0": ["a"] * 99}}
    told = told_changes(before, {"x": {str(number): -number - 1 for number in range(9)}})
    assert told.startswith('x.0 was ["a", "a", ') and "..., is -1; x.1 was 1, is -2; x.2 was 2, is -3" in told
    assert told.endswith("; and 6 more") and len(told) < 200
