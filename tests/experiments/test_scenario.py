"""Scenarios that cannot be: each mistake is one sentence that names the key and what could be there."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from small import small

from p2pmarket.errors import MarketError, ScenarioError
from p2pmarket.experiments.document import Document, with_value
from p2pmarket.experiments.plan import plans_of
from p2pmarket.experiments.scenario import parse_scenario


def changed(path: str, value: object) -> Document:
    return with_value(small(), path, value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("scenario.round", 5, r"unknown key 'round' in \[scenario\]; known are name, .*rounds"),
        ("mystery.key", 1, r"unknown section \[mystery\] in the scenario; known are scenario, agent"),
        ("images.data", "digits", r"exactly one of the sections \[regression\] and \[images\]"),
        ("scenario.rounds", "ten", r"rounds in \[scenario\] must be a whole number, not 'ten'"),
        ("scenario.rounds", 0, r"rounds in \[scenario\] is 0; it is from 1"),
        ("scenario.rounds", True, r"must be a whole number, not True"),
        ("scenario.round_seconds", float("nan"), r"round_seconds in \[scenario\] is nan"),
        ("scenario.round_seconds", 301, "is 301.0; it is from 1 to 300, as a run walks through idle time too; shorten"),
        ("faults.away_seconds", 301, "is 301.0; it is from 0 to 300, as a run walks through idle time too"),
        ("terms.market.round_timeout_seconds", 3601, "terms.market.round_timeout_seconds is 3601; in a simulation it"),
        ("terms.limits.bid_seconds", 4000.5, "terms.limits.bid_seconds is 4000.5; in a simulation it is at most 3600"),
        ("terms.limits.ask_seconds", 1e6, "terms.limits.ask_seconds is 1e[+]06; in a simulation it is at most 3600"),
        ("scenario.method", "magic", r"method in \[scenario\] is 'magic'; it is one of market, fedavg, alone"),
        ("scenario.protocol", "mine", "it is one of honest, paper"),
        ("scenario.seeds", [], r"a list of 1 to 10000 whole numbers"),
        ("scenario.seeds", 0, r"seeds in \[scenario\] is 0; it is from 1"),
        ("scenario.seeds", True, "seeds in .scenario. is how many, or a list"),
        ("scenario.seeds", "all", "is how many, or a list"),
        ("scenario.seeds", [1, -1], "whole numbers from 0"),
        ("scenario.seeds", [1.5], "whole numbers from 0"),
        ("scenario.seeds", [True], "whole numbers from 0"),
        ("scenario.seed", -1, r"seed in \[scenario\] is -1"),
        ("scenario.about", "x" * 2000, "more than 1024 characters"),
        ("regression.dimension", 1, r"dimension in \[regression\] is 1; it is from 2"),
        ("regression.rate", float("inf"), r"rate in \[regression\] is inf"),
        ("regression.tasks", {"far": float("nan")}, "tasks.far in .regression. is a distance"),
        ("terms.trade", {"tradable": ["layers.*"]}, r"tradable in \[terms.trade\] leaves out 'theta'"),
        ("terms.trade", {"groups": {"all": ["*"]}}, r"groups in \[terms.trade\] means nothing in \[regression\]"),
        ("terms.appraisal", {"coefficients": "row"}, r"coefficients in \[terms.appraisal\] means nothing"),
        ("terms.appraisal", {"activations": True}, r"activations in \[terms.appraisal\] means nothing"),
        ("terms.appraisal", {"repair": True}, r"repair in \[terms.appraisal\] means nothing"),
        ("terms.appraisal", {"tell_classes": True}, r"tell_classes in \[terms.appraisal\] means nothing"),
        ("terms.appraisal", {"tell_tasks": True}, r"tell_tasks in \[terms.appraisal\] means nothing"),
        ("agent", [], "a scenario needs its agents"),
        ("agent", {"name": "A"}, "a scenario needs its agents"),
        ("agent", [5], r"\[\[agent\]\] 0 must be a table, not 5"),
        ("agent.A.samples", 0, r"samples in \[\[agent\]\] 'A' is 0; it is from 1"),
        ("agent.A.noise", -1.0, r"noise in \[\[agent\]\] 'A' is -1.0"),
        ("agent.A.noise", float("nan"), r"noise in \[\[agent\]\] 'A' is nan"),
        ("agent.A.sample", 3, r"unknown key 'sample' in \[\[agent\]\] 'A'"),
        ("agent.A.count", 0, r"count in \[\[agent\]\] 'A' is 0"),
        ("agent.A.count", 2000, r"count in \[\[agent\]\] 'A' is 2000; it is from 1 to 1024"),
        ("agent.A.count", 1024, "more than 1024 agents"),
        ("agent.A.task", "other", "task in .* is 'other'; it is one of linear"),
        ("agent.A.name", "B", "cannot be called 'B': the name is taken"),
        ("agent.A.name", "broker", "cannot be called 'broker'"),
        ("agent.A.strategy", "clever", "strategy is 'clever'; it is default, "),
        ("agent.A.strategy", "no_such_module:Mine", "there is no module 'no_such_module'"),
        ("agent.A.strategy", "os:getcwd", "is no strategy"),
        ("agent.A.knobs", {"harm": 1}, r"'A': knobs.harm: the strategy default makes nothing of it, it is for compet"),
        ("agent.A.knobs", {"reserve": "much"}, r"knobs.reserve: "),
        ("agent.A.knobs", {"strategy": "budgeted"}, "the strategy default has no knob .strategy.; it has budget, "),
        ("agent.A.knobs", {"cleverness": 3}, "has no knob .cleverness.; it has budget, buy, "),
        ("agent.A.knobs", {"minimum_gain": float("nan")}, "knobs.minimum_gain: 'nan' is not a number"),
        ("agent.A.knobs", 5, "knobs in .* must be a table"),
        ("terms.model.name", "mlp", r"unknown key 'model' in \[terms\]; known are market, trade"),
        ("terms.pricing.rule", "free", r"^\[terms\]: rule in \[pricing\]"),
        ("terms.pricing.rul", "posted", r"^\[terms\]: unknown key 'rul' in \[pricing\]"),
        ("terms.pricing.fee_percent", 101, r"^\[terms\]: fee_percent must be a percentage"),
        ("terms.limits.max_sellers", 0, r"^\[terms\]: max_sellers"),
        ("terms.pricing", "posted", r"pricing in \[terms\] must be a table"),
        ("faults.lost", 0.9, r"lost in \[faults\] is 0.9; it is from 0 to 0.5"),
        ("faults.crash", -0.1, r"crash in \[faults\] is -0.1"),
        ("faults.wind", 1, r"unknown key 'wind' in \[faults\]; known are delay_seconds"),
    ],
)
def test_one_wrong_value(path: str, value: Any, words: str) -> None:
    with pytest.raises(ScenarioError, match=words) as refused:
        parse_scenario(changed(path, value))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "..", ".", "a.b", "../up", "a\x00b", "red\x1b[31m", "line\nbreak", "-flag", "end ", "x" * 49,
     "right\u202eleft", "zero\u200bwidth", "C:\\"],
)  # fmt: skip
def test_names_that_would_be_no_file(name: str) -> None:
    for path in ("scenario.name", "agent.A.name"):
        with pytest.raises(ScenarioError, match="a name is 1 to 48 letters and digits"):
            parse_scenario(changed(path, name))


@pytest.mark.parametrize("name", ["a", "two agents", "A-1_b", "Zürich", "x" * 48, "0"])
def test_names_that_are_fine(name: str) -> None:
    assert parse_scenario(changed("scenario.name", name)).name == name


def test_worlds_that_are_missing_or_empty() -> None:
    document = small()
    del document["regression"]
    with pytest.raises(ScenarioError, match="exactly one of the sections"):
        parse_scenario(document)
    with pytest.raises(ScenarioError, match=r"\[regression\] must be a table, not 3"):
        parse_scenario({**document, "regression": 3})
    with pytest.raises(ScenarioError, match=r"\[scenario\] needs a 'name'"):
        parse_scenario({key: value for key, value in small().items() if key != "scenario"})
    with pytest.raises(ScenarioError, match="at most 134,217,728 numbers fit"):
        parse_scenario(with_value(changed("regression.dimension", 20_000), "agent.B.samples", 1_000_000))


def test_numbers_that_no_machine_holds() -> None:
    """What a broker and all agents together would keep is bounded, not only each agent's inputs."""
    wide = changed("regression.dimension", 20_000)
    with pytest.raises(ScenarioError, match=r"268,435,456 numbers fit, so lower broker_samples or dimension"):
        parse_scenario(with_value(wide, "regression.broker_samples", 13_422))
    parse_scenario(with_value(wide, "regression.broker_samples", 13_421))
    for dimension, samples, most in ((16_384, 8_192, 2), (16_384, 8_191, 4), (1024, 100_000, 512)):
        document = with_value(changed("regression.dimension", dimension), "agent.B.samples", samples)
        document["agent"] = document["agent"][1:]
        parse_scenario(with_value(document, "agent.B.count", most))
        with pytest.raises(ScenarioError, match="at most 536,870,912 fit, so lower dimension, count or samples"):
            parse_scenario(with_value(document, "agent.B.count", most + 1))


def test_agents_of_a_kind_have_the_same_names_however_many_they_are() -> None:
    def names(count: int) -> list[str]:
        return [agent.name for agent in parse_scenario(changed("agent.A.count", count)).agents]

    assert [agent.name for agent in parse_scenario(small()).agents] == ["A", "B"]
    assert names(1) == ["A-0", "B"] and names(2) == ["A-0", "A-1", "B"]


def test_a_million_agents_in_many_tables_are_refused_at_once() -> None:
    with pytest.raises(ScenarioError, match="more than 1024 agents"):
        parse_scenario({**small(), "agent": [{"count": 1000, "samples": 1}] * 1000})


def test_terms_that_mean_something_to_linear_models() -> None:
    terms = {"trade": {"tradable": ["the*"], "delivery_codec": "int8"}, "appraisal": {"coefficients": "model"}}
    assert parse_scenario(small(terms=terms)).terms == terms


def test_seeds() -> None:
    assert parse_scenario(small()).seeds == (0,)
    assert parse_scenario(small(seed=7)).seeds == (7,)
    assert parse_scenario(small(seeds=3)).seeds == (0, 1, 2)
    assert parse_scenario(small(seeds=[4, 2, 4])).seeds == (4, 2)
    with pytest.raises(ScenarioError, match="both seed and seeds"):
        parse_scenario(small(seed=7, seeds=3))


def test_faults_without_a_crash_and_empty_ones() -> None:
    assert parse_scenario(small()).climate is None
    empty = parse_scenario(small(faults={})).climate
    assert empty is not None and (empty.crash, empty.lost, empty.delay_seconds) == (0.0, 0.0, (0.0, 0.1))


def test_many_agents_of_a_kind_have_names_and_strategies_of_their_own() -> None:
    agents = parse_scenario(changed("agent.A.count", 3)).agents
    assert [agent.name for agent in agents] == ["A-0", "A-1", "A-2", "B"]
    assert len({id(agent.strategy) for agent in agents}) == 4


def test_a_strategy_of_ones_own_and_its_knobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_for_scenarios.py").write_text(
        "import dataclasses\nfrom p2pmarket import Strategy\n"
        "@dataclasses.dataclass(frozen=True)\nclass Careful(Strategy):\n    part: float = 0.5\n"
        "    def __post_init__(self):\n        super().__post_init__()\n"
        "        assert self.part < 1, 'part is below 1'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    document = with_value(changed("agent.A.strategy", "mine_for_scenarios:Careful"), "agent.A.knobs.reserve", "2.5")
    document["sweep"] = {"agent.A.knobs.part": [0.25, 0.75]}
    strategies = [plan.scenario.agents[0].strategy for plan in plans_of(document)]
    assert [dataclasses.asdict(one)["part"] for one in strategies] == [0.25, 0.75]
    assert {one.reserve for one in strategies} == {2_500_000}
    assert {type(one).__name__ for one in strategies} == {"Careful"}
    with pytest.raises(MarketError, match="does not take these knobs: part is below 1"):
        parse_scenario(with_value(document, "agent.A.knobs.part", 2))
    del sys.modules["mine_for_scenarios"]
