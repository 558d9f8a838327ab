"""docs/simulation.md says what the code does: every key with its bounds, every column, every flag."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from asked import Asked, asked_by, written
from small import alone, small

from p2pmarket.cli.parser import build_parser
from p2pmarket.errors import ModelError
from p2pmarket.experiments.combined import RUN_COLUMNS
from p2pmarket.experiments.document import Document, parse_document, read_document
from p2pmarket.experiments.plan import plans_of
from p2pmarket.experiments.recording import RoundRow, TradeRow, columns
from p2pmarket.experiments.run import run_once
from p2pmarket.experiments.scenario import TERMS_SECTIONS
from p2pmarket.experiments.summary import summary_of
from p2pmarket.experiments.templates import TEMPLATES, template
from p2pmarket.experiments.worlds.regression import RegressionSettings
from p2pmarket.limits import MAX_MODEL_DEPTH
from p2pmarket.market import terms_defaults
from p2pmarket.models.registry import _BUILT_IN, MODEL_NAMES, build_model
from p2pmarket.node.strategies.choosing import STRATEGIES, UNUSED
from p2pmarket.node.strategies.competitive import Competitive
from p2pmarket.settings import STRATEGY, NodeSettings
from p2pmarket.units import CREDIT, parse_credits

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "simulation.md").read_text()

REGRESSION: Document = {
    "scenario": {"name": "x", "rounds": 1},
    "regression": {"dimension": 4},
    "agent": [{"samples": 3}],
    "faults": {},
}
IMAGES: Document = {
    "scenario": {"name": "x", "rounds": 1},
    "images": {"data": "digits", "model": "mlp"},
    "agent": [{}],
}
TOLD_IN_WORDS = {
    ("[regression]", "length"): Asked("length", "number", "√dimension", "0 to 1e+12"),
    ("[[agent]]", "name"): Asked("name", "name", "agent-NUMBER", ""),
    ("[[agent]]", "task"): Asked("task", "text", "the first", ""),
    ("[[agent]]", "seed"): Asked("seed", "whole number", "the run's", "0 to 1000000000"),
}
"""What depends on the rest of the scenario."""


def cells_after(words: str) -> list[list[str]]:
    """The cells of the first table after these words."""
    (table,) = re.findall(re.escape(words) + r"\n(?:(?!#|\|).*\n)*?\|.*\n\|---.*\n((?:\|.*\n)+)", PAGE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def keys_after(words: str) -> list[Asked]:
    return [Asked(cells[0].strip("`"), *cells[1:4]) for cells in cells_after(words)]


@pytest.mark.parametrize(("world", "document"), [("regression", REGRESSION), ("images", IMAGES)])
def test_every_key_with_its_default_and_bounds(world: str, document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asked_by(document, monkeypatch)
    assert {"[scenario]", f"[{world}]", "[[agent]]", "[terms]"} <= asked.keys()
    for section, keys in asked.items():
        told = keys_after(f"### `{section}`")
        if section == "[[agent]]":
            told += keys_after(f"Where the world is `[{world}]`:")
        wanted = [TOLD_IN_WORDS.get((section, one.key), one) for one in keys]
        if section == "[scenario]":
            told = [one for one in told if one.key != "seeds"]
            if world == "regression":
                methods = ", ".join(RegressionSettings.METHODS)
                assert f"Its methods are {methods.replace(', alone', ' and alone')}" in PAGE
                wanted = [one._replace(allowed="*") if one.key == "method" else one for one in wanted]
                told = [one._replace(allowed="*") if one.key == "method" else one for one in told]
        assert told == wanted


def test_every_column_in_order() -> None:
    for words, wanted in (
        ("### rounds.csv: one row for each agent and round", columns(RoundRow)),
        ("### trades.csv: one row for each appraised pair, bought or not", columns(TradeRow)),
        ("### runs.csv: one row for each run", RUN_COLUMNS),
    ):
        assert tuple(cells[0].strip("`") for cells in cells_after(words)) == wanted


def test_every_key_of_a_run_and_of_a_summary() -> None:
    run = run_once(plans_of(alone())[0])
    assert [cells[0].strip("`") for cells in cells_after("### run.json")] == list(run.facts)
    summary = summary_of([run])
    assert [cells[0].strip("`") for cells in cells_after("### summary.json")] == list(summary["points"][0])
    told = PAGE[PAGE.index("### summary.json") :].split("\n\n")[1]
    assert [key for key in summary if f"`{key}`" not in told] == []


def test_the_ledgers_facts_are_told() -> None:
    run = run_once(plans_of(small())[0])
    (told,) = [cells[1] for cells in cells_after("### run.json") if cells[0] == "`ledger`"]
    assert told.startswith(", ".join(run.facts["ledger"]))


def test_every_flag() -> None:
    parsers = build_parser()._subparsers
    assert parsers is not None
    simulate = parsers._group_actions[0].choices["simulate"]  # type: ignore[index]
    flags = {action.option_strings[0] for action in simulate._actions if action.option_strings and action.help}
    told = set(re.findall(r"--\w+", "".join(map(str, cells_after("## The command")))))
    assert flags - {"-h", "--no-plots"} == told


def test_the_whole_scenarios_of_the_page_are_some() -> None:
    texts = re.findall(r"```toml\n(\[scenario\].*?)```", PAGE, flags=re.DOTALL)
    scenarios = [plans_of(parse_document(text))[0].scenario for text in texts]
    assert [(scenario.world.KEY, len(scenario.agents)) for scenario in scenarios] == [("regression", 2), ("images", 2)]


def test_every_model_with_its_arguments() -> None:
    told = [tuple(cell.strip("`") for cell in cells[:4]) for cells in cells_after("takes, and `outputs`.")]
    wanted = [
        (model, name, written(argument.default), allowed_of(argument))
        for model, one in _BUILT_IN.items()
        for name, argument in one.arguments.items()
        if name not in ("inputs", "channels", "outputs")  # they follow from the data and the task
    ]
    depths = [depth for depth in range(1, 40) if builds("wide_resnet", depth=depth, width=1, outputs=2)]
    allowed = f"{', '.join(map(str, depths[:3]))}, ... up to {MAX_MODEL_DEPTH}"
    wanted = [(*one[:3], allowed) if one[:2] == ("wide_resnet", "depth") else one for one in wanted]
    assert told == wanted and {model for model, *_ in told} == set(MODEL_NAMES)
    assert all(f"`{model}`" in PAGE for model in MODEL_NAMES)


def allowed_of(argument: Any) -> str:
    """As the page writes it."""
    if argument.words:
        return ", ".join(argument.words)
    return f"list, at most {MAX_MODEL_DEPTH} of 1 to {argument.high}" if argument.many else f"1 to {argument.high}"


def builds(model: str, **arguments: Any) -> bool:
    """Whether there is such a model."""
    try:
        build_model(model, arguments, allow_import=False)
    except ModelError:
        return False
    return True


def test_every_knob_of_the_ready_made_strategies_with_its_unit_and_default() -> None:
    of_nodes = {field.name: field for field in dataclasses.fields(NodeSettings) if field.metadata["group"] == STRATEGY}
    takes = {
        name: {field.name for field in dataclasses.fields(kind)} - UNUSED.get(name, frozenset()) - {"known"}
        for name, kind in STRATEGIES.items()
    }
    told = {cells[0].strip("`"): cells[1:4] for cells in cells_after("a strategy does not have is an error.")}
    assert list(told) == [*(name for name in of_nodes if name != "strategy"), "haggle"]
    assert set(told) == set().union(*takes.values())
    for knob, (unit, default, strategies) in told.items():
        have = [name for name in STRATEGIES if knob in takes[name]]
        assert strategies == ("all" if len(have) == len(STRATEGIES) else ", ".join(have)), knob
        field = of_nodes.get(knob)
        if field is None:
            assert default == f"{Competitive.haggle:g}"
            continue
        in_credits = field.metadata["parse"] is parse_credits
        assert (unit == "credits") is in_credits, knob
        value: Any = field.default
        assert default == (
            "none" if value in (None, ()) else f"{value / CREDIT:g}" if in_credits else written(value)
        ), knob


def test_every_key_of_the_terms_is_explained_where_the_page_points_to() -> None:
    told = PAGE[PAGE.index("### `[terms]`") :].split("\n\n")[1]
    (link,) = re.findall(r"\]\((\S*market\.example\.toml)\)", told)
    explained = parse_document((ROOT / "docs" / link).read_text())
    text = (ROOT / "docs" / link).read_text()
    sections = terms_defaults()
    assert [section for section in TERMS_SECTIONS if f"`{section}`" not in PAGE[PAGE.index("### `[terms]`") :]] == []
    for section in TERMS_SECTIONS:
        lacking = [key for key in sections[section] if key not in explained[section] and f"# {key} = " not in text]
        assert lacking == [], section


@pytest.mark.parametrize("kind", TEMPLATES)
def test_what_a_new_scenario_begins_with_parses(kind: str, tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text(template(kind, "mine"))
    plans = plans_of(read_document(tmp_path / "new.toml"))
    assert {plan.scenario.name for plan in plans} == {"mine"}
    assert {plan.scenario.method for plan in plans} == {"market", "alone"}
    (tmp_path / "whole.toml").write_text(re.sub(r"(?m)^# (\[faults\]|\w+ = )", r"\1", template(kind, "mine")))
    assert plans_of(read_document(tmp_path / "whole.toml"))[0].scenario.climate is not None


def test_the_files_that_the_page_names_are_there() -> None:
    names = re.findall(r"examples/[\w/-]+\.toml", PAGE) + [
        f"examples/scenarios/{name}" for name in re.findall(r"`([\w-]+\.toml)`[;,:]", PAGE)
    ]
    assert len(names) >= 5
    assert [name for name in names if not (ROOT / name).exists() and "scenario.toml" not in name] == []
