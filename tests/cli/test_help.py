"""The command line's face: help for everything at once, and nothing heavy before it is needed."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from p2pmarket import __version__
from p2pmarket.cli import main
from p2pmarket.cli.parser import build_parser


def commands(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and action, as one types it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield (*path, name)
                yield from commands(child, (*path, name))


ALL = list(commands(build_parser()))


def test_the_commands_are_those_that_are_documented() -> None:
    assert {path[0] for path in ALL} == {
        "demo", "testnet", "node", "broker", "peer", "offers", "trades", "ledger", "identity", "doctor", "config",
        "inspect", "verify", "simulate", "paper", "report",
    }  # fmt: skip
    assert {path[1] for path in ALL if path[0] == "ledger" and len(path) == 2} == {
        "balances", "history", "grant", "limit", "audit", "export", "salvage",
    }  # fmt: skip


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*path, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: p2pmarket {' '.join(path)}" in text
    for hidden in ("--initial-peers", "--identity-path", "--log-level"):
        assert hidden not in text, "a flag's second spelling is shown"


def test_every_command_leads_to_a_function() -> None:
    for path in ALL:
        parser = build_parser()
        for name in path:
            (choices,) = (a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
            parser = choices[name]
        command = parser.get_default("command")
        if command is not None:
            module, name = command.split(":")
            assert callable(getattr(importlib.import_module(f"p2pmarket.cli.{module}"), name))


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["node", "--help"], ["broker", "--help"], ["config", "show", "node"], ["ledger", "--help"]],
)
def test_it_answers_before_anything_heavy_is_imported(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom p2pmarket.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'hivemind', 'numpy', 'scipy', 'cryptography', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("module", "role"),
    [("p2pmarket", ""), ("p2pmarket.node", " node"), ("p2pmarket.broker_node", " broker")],
)
def test_the_programs_are_the_commands(module: str, role: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith(f"usage: p2pmarket{role} [-h]")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"p2pmarket {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["ledger"], ["node", "--nonsense"], ["node", "--mark", "x"]])
def test_what_it_does_not_understand_is_the_users_fault(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
