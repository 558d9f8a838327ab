"""The operators' files say what the programs do: every key known, every known key mentioned, defaults as they are."""

from __future__ import annotations

import argparse
import configparser
import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from p2pmarket.cli.parser import build_parser
from p2pmarket.market import _SECTIONS, _TASK_KEYS, load_terms
from p2pmarket.models.registry import build_model
from p2pmarket.options import resolve, written
from p2pmarket.settings import BrokerSettings, NodeSettings, PeerSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
EXAMPLES: list[tuple[str, type[PeerSettings]]] = [
    ("node/node.example.toml", NodeSettings),
    ("broker_node/broker.example.toml", BrokerSettings),
]
TEXTS = [*ROOT.glob("*node/README.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "README.md"]


@pytest.mark.parametrize(("file", "kind"), EXAMPLES)
def test_an_example_of_settings_is_right_as_it_stands(file: str, kind: type[PeerSettings]) -> None:
    settings, _ = resolve(kind, {}, {}, ROOT / file)
    assert settings != kind()


@pytest.mark.parametrize(("file", "kind"), EXAMPLES)
def test_an_example_shows_every_setting_and_its_default(file: str, kind: type[PeerSettings], tmp_path: Path) -> None:
    text = (ROOT / file).read_text()
    everything = tmp_path / "all.toml"
    everything.write_text(re.sub(r"^#(?=\w+ = )", "", text, flags=re.MULTILINE))
    settings, origins = resolve(kind, {}, {}, everything)
    assert "default" not in origins.values(), [name for name, origin in origins.items() if origin == "default"]
    shown = set(re.findall(r"^#(\w+) = ", text, flags=re.MULTILINE))
    for field in dataclasses.fields(kind):
        default = getattr(kind(), field.name)
        if field.name in shown and written(field, default):
            assert getattr(settings, field.name) == default, field.name


def test_the_example_of_terms_shows_every_key() -> None:
    path = ROOT / "broker_node" / "market.example.toml"
    document = tomllib.loads(path.read_text())
    assert {section: set(keys) for section, keys in document.items() if section != "task"} == {
        section: set(keys) for section, keys in _SECTIONS.items()
    }
    assert [set(task) for task in document["task"]] == [_TASK_KEYS]


def test_the_example_of_terms_names_the_defaults_and_a_model_that_can_be_built() -> None:
    path = ROOT / "broker_node" / "market.example.toml"
    terms = load_terms(path)
    build_model(terms.model, terms.arguments(terms.tasks[0].name), allow_import=False)
    text = path.read_text()
    for section, keys in _SECTIONS.items():
        for key, default in keys.items():
            above = text[: text.index(f"\n{key} = ", text.index(f"\n[{section}]"))].splitlines()
            comment = next(" ".join(above[i:]) for i in range(len(above) - 1, -1, -1) if not above[i].startswith("#"))
            if type(default) is int:
                assert re.search(rf"[Dd]efault:? {default}\b", comment), key
            elif default is not ...:
                assert "efault" in comment, key


@pytest.mark.parametrize("file", ["node/p2pmarket-node.service", "broker_node/p2pmarket-broker.service"])
def test_a_unit_starts_a_program_that_is_there(file: str) -> None:
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((ROOT / file).read_text())
    service = unit["Service"]
    program, *arguments = service["ExecStart"].split()
    assert program == "/opt/p2pmarket/bin/p2pmarket"
    build_parser().parse_args(arguments)
    variables = dict(pair.split("=", 1) for pair in service["Environment"].split())
    assert variables["P2PMARKET_STATE"] == f"/var/lib/{service['StateDirectory']}"


@pytest.mark.parametrize("file", ["node/Containerfile", "broker_node/Containerfile"])
def test_a_container_does_not_run_as_root(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    user, entry = (
        lines.index("USER p2pmarket"),
        next(i for i, line in enumerate(lines) if line.startswith("ENTRYPOINT")),
    )
    assert user < entry
    for line in lines:
        if line.startswith("COPY"):
            assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
    (command,) = (line for line in lines if line.startswith("CMD"))
    build_parser().parse_args(re.findall(r'"([^"]+)"', command))


def commands_in(text: str) -> list[str]:
    """Every `p2pmarket ...` that a page tells to type, one line each."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    spans = re.findall(r"`((?:python -m )?p2pmarket [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    found = []
    for line in [*lines, *(" ".join(span.split()) for span in spans)]:
        match = re.search(
            r"(?:^|\s|/)p2pmarket ((?:demo|testnet|node|broker|peer|offers|trades|ledger|identity|doctor|config)\b.*)",
            line,
        )
        if match and "..." not in match[1].split()[-1:]:
            found.append(match[1].split("#")[0].split("&&")[0].strip())
    return found


def flags_of(words: list[str]) -> set[str]:
    """The flags that the command in `words` takes."""
    parser: Any = build_parser()
    for word in words:
        subparsers = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not subparsers or word not in subparsers[0].choices:
            break
        parser = subparsers[0].choices[word]
    return set(parser._option_string_actions)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_flag_on_a_page_is_one_of_its_command(path: Path) -> None:
    for command in commands_in(path.read_text() if path.exists() else ""):
        words = command.split()
        wrong = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)} - flags_of(words)
        assert not wrong, f"{command}: {wrong}"


def test_such_a_flag_would_be_seen() -> None:
    (command,) = commands_in("```\nsudo p2pmarket node --colour red  # --peers\n```\n")
    assert command == "node --colour red"
    assert "--colour" not in flags_of(command.split())
    assert "--peers" in flags_of(["node"])


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text() if path.exists() else ""):
        assert (path.parent / target).exists(), target
