"""The arrows of the package: imports only go down, and torch and hivemind are where they may be.

The one table of floors is here. A module imports from floors below its own and from its own folder, never from a
neighbour on the same floor; so nothing can turn in a circle, and a rule can be read without the loops that carry it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "p2pmarket"

FLOORS = (
    ("errors", "limits"),
    ("units", "failpoints", "records", "files", "events", "threads", "tasks", "plugins", "permutation"),
    ("parcel", "messages", "options", "charts"),
    ("market", "settings"),
    ("crypto",),
    ("parameters", "alignment", "pricing", "ledger", "models", "datasets", "wire"),
    ("appraisal",),
    ("network",),
    ("node", "broker_node"),
    ("simulation",),
    ("experiments",),
    ("paper", "report"),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

DOORS = {"__main__.py", "node/__main__.py", "broker_node/__main__.py"}
"""Files that only open the command line."""
FRONT = "__init__.py"
"""The package's public names: mentions the roles to type checkers, imports them when first used."""

TORCH = {
    *("parameters", "alignment", "appraisal", "models", "datasets", "node", "broker_node", "simulation"),
    *("experiments", "paper"),
}
"""Rooms that compute with tensors. The command line imports it inside functions only."""
HIVEMIND_FILE = "network/libp2p.py"


class Import(NamedTuple):
    """One imported module."""

    module: str
    line: int
    at_top: bool
    """Runs when the file is imported."""


def imports_of(source: str) -> Iterator[Import]:
    """Every module that a file imports anywhere; `from package import name` as package.name."""
    tree = ast.parse(source)
    later = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)) or _is_for_type_checkers(outer)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) not in later)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where it leads"
            for alias in node.names:
                yield Import(f"{node.module}.{alias.name}", node.lineno, id(node) not in later)


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def problems(path: str, source: str) -> list[str]:
    """What is wrong with the imports of one file of the package, in words."""
    found = []
    room = path.split("/")[0].removesuffix(".py")
    for module, line, at_top in imports_of(source):
        top = module.split(".")[0]
        where = f"{path}:{line} imports {module}"
        if top == "torch" and (room not in TORCH and (room != "cli" or at_top)):
            found.append(f"{where}: torch belongs in {', '.join(sorted(TORCH))}")
        if top == "hivemind" and path != HIVEMIND_FILE:
            found.append(f"{where}: hivemind belongs in {HIVEMIND_FILE}")
        if top == "p2pmarket":
            found += _arrow_problem(path, room, module.split(".")[1], where, at_top)
    return found


def _arrow_problem(path: str, room: str, target: str, where: str, at_top: bool) -> list[str]:
    if path in DOORS:
        return [] if target == "cli" else [f"{where}: a door leads to the command line only"]
    if path == FRONT:
        return [] if not at_top else [f"{where}: the front imports nothing when it is imported"]
    if target == "__version__" or target == room:
        return []
    if FLOOR_OF[target] >= FLOOR_OF[room]:
        return [f"{where}: {target} is not below {room}"]
    return []


def sources() -> dict[str, str]:
    """Every file of the package by its path inside it."""
    return {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


def test_every_module_has_a_floor() -> None:
    rooms = {path.split("/")[0].removesuffix(".py") for path in sources() if path not in {FRONT, "__main__.py"}}
    assert rooms == set(FLOOR_OF)


def test_imports_only_go_down() -> None:
    assert [problem for path, source in sources().items() for problem in problems(path, source)] == []


def test_exactly_one_file_imports_hivemind() -> None:
    users = [
        path
        for path, source in sources().items()
        if any(i.module.split(".")[0] == "hivemind" for i in imports_of(source))
    ]
    assert users == [HIVEMIND_FILE]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ledger/journal.py", "import torch"),
        ("ledger/journal.py", "def late():\n    import torch.nn"),
        ("cli/doctor.py", "import torch"),
        ("network/memory.py", "from hivemind.p2p import P2P"),
        ("node/agent.py", "from p2pmarket.broker_node.book import Book"),
        ("broker_node/book.py", "from p2pmarket.node.link import Link"),
        ("pricing/bargaining.py", "from p2pmarket.ledger import journal"),
        ("alignment/matching.py", "from p2pmarket.parameters.codecs import encode"),
        ("crypto/keys.py", "from p2pmarket import network"),
        ("units.py", "import p2pmarket.records"),
        ("node/__main__.py", "from p2pmarket.node.agent import AsyncAgent"),
        ("node/agent.py", "from p2pmarket.cli import main"),
        ("__init__.py", "from p2pmarket.node.agent import AsyncAgent"),
    ],
)
def test_a_wrong_import_is_seen(path: str, source: str) -> None:
    assert len(problems(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cli/doctor.py", "def late():\n    import torch"),
        ("__init__.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p2pmarket.node.agent import A"),
        ("simulation/market.py", "from p2pmarket.node.agent import A\nfrom p2pmarket.broker_node.broker import B"),
        ("appraisal/appraise.py", "from p2pmarket.alignment import weight_matching"),
    ],
)
def test_a_right_import_is_not(path: str, source: str) -> None:
    assert problems(path, source) == []


def modules_loaded_by(code: str) -> set[str]:
    """torch and hivemind, where a fresh interpreter has them after running `code`."""
    ending = "\nimport sys; print(*({'torch', 'hivemind'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + ending], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_and_asking_for_help_is_light() -> None:
    ask = "import p2pmarket, p2pmarket.cli\ntry:\n    p2pmarket.cli.main(['--help'])\nexcept SystemExit:\n    pass"
    assert modules_loaded_by(ask) == set()
    assert modules_loaded_by("import torch") == {"torch"}


def test_rooms_without_tensors_do_not_load_torch_through_others() -> None:
    names = [
        "p2pmarket." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in sources()
        if (room := path.split("/")[0].removesuffix(".py")) in FLOOR_OF
        and room not in TORCH | {"cli"}
        and path != HIVEMIND_FILE
    ]
    assert "p2pmarket.ledger.journal" in names
    assert modules_loaded_by("\n".join(f"import {name}" for name in names)) == set()
