"""docs/settlement.md says what the code does: the diagram, the leaves, the kinds of problems, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from p2pmarket.ledger.audit_tables import TABLE_CHECKS
from p2pmarket.ledger.audit_words import FILE_CHECKS, WORD_CHECKS
from p2pmarket.ledger.fold import LEAVES
from p2pmarket.ledger.trade import diagram

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "settlement.md").read_text()


def rows(header: str) -> list[list[str]]:
    """The cells of every row of the table whose first column is called `header`."""
    (table,) = re.findall(r"^\| " + header + r" \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]


def test_the_diagram_is_the_table() -> None:
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", PAGE, flags=re.DOTALL)
    assert drawn == diagram()


def test_the_leaves_are_those_that_the_auditor_reads() -> None:
    told = {cells[0].strip("` ").encode(): cells[1].strip().split(", ") for cells in rows("kind")}
    assert told == {kind: list(fields) for kind, fields in LEAVES.items()}


def test_every_kind_of_problem_is_there_and_no_other() -> None:
    kinds = TABLE_CHECKS.keys() | WORD_CHECKS.keys() | FILE_CHECKS.keys()
    for path in (ROOT / "p2pmarket" / "ledger").glob("*.py"):
        kinds |= set(re.findall(r"\b(?:problem|Problem|findings)\(\s*\"([a-z-]+)\"", path.read_text()))
    told = [cells[0].strip("`| ") for cells in rows("kind of problem")]
    assert sorted(told) == sorted(kinds)


def test_every_test_that_it_names_exists() -> None:
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(names) > 15
    assert {name for name in names if f"def {name}(" not in written} == set()


def test_every_code_that_it_names_is_in_the_protocol() -> None:
    told = {code for cells in rows("code") for code in re.findall(r"`([a-z-]+)`", cells[0])}
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    assert {code for code in told if f"| `{code}` |" not in protocol} == set()


def test_no_page_names_the_commands_that_are_gone() -> None:
    pages = [path for path in ROOT.rglob("*.md") if not {".venv", "decisions"} & set(path.parts)]
    assert [path for path in pages if "ledger verify" in path.read_text()] == []
