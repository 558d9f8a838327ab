"""docs/protocol.md says what the code does: messages, fields, codes, limits, the diagram."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

from p2pmarket import errors, limits
from p2pmarket.crypto.header import MAGIC
from p2pmarket.errors import PeerFault
from p2pmarket.ledger.leaves import Opened
from p2pmarket.ledger.trade import diagram
from p2pmarket.market import MarketTerms
from p2pmarket.messages import MESSAGE_TYPES, PROTOCOL_VERSION
from p2pmarket.network.announcement import BROKER_KEYS
from p2pmarket.network.names import PARCELS, SESSIONS
from p2pmarket.parameters.codecs import BLOCK
from p2pmarket.parcel import CODECS, Manifest, ParcelContext, Schema, TensorEntry
from p2pmarket.wire import Kind

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "protocol.md").read_text()
LINES = " ".join(PAGE.split())
SIGNED = {**MESSAGE_TYPES, **{kind.TYPE: kind for kind in (MarketTerms, Schema)}}


def rows(header: str) -> list[list[str]]:
    """The cells of every row of every table whose first column is called `header`."""
    found = []
    for table in re.findall(r"^\| " + header + r" \|.*\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE):
        found += [[cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return found


def names(kind: type) -> list[str]:
    """A record's fields."""
    return [field.name for field in dataclasses.fields(kind)]


def test_every_message_is_there_with_its_fields_and_no_other() -> None:
    told = {cells[0].strip("` "): cells[1] for cells in rows("type")}
    assert told == {name: ", ".join(names(kind)) or "-" for name, kind in SIGNED.items()}
    assert len(rows("type")) == len(SIGNED)


def test_every_limit_is_there_with_its_value_and_no_other() -> None:
    told = {cells[0].strip("` "): cells[1].replace(",", "") for cells in rows("limit")}
    assert told == {name: str(value) for name, value in vars(limits).items() if name.isupper()}


def codes_of_refusals() -> set[str]:
    """Codes in what the broker and its ledger raise, the reasons of NoDeal, and those of the classes."""
    found = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PeerFault)}
    for path in [*(ROOT / "p2pmarket" / "broker_node").glob("*.py"), *(ROOT / "p2pmarket" / "ledger").glob("*.py")]:
        if path.name.startswith("agent_"):  # what it refuses, it refuses its own agent
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name == "RuleBroken":
                found |= {word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            if name == "_no_deal":  # its first text is the reason
                found |= set([part.value for part in node.args if isinstance(part, ast.Constant)][:1])
    return found


def test_every_code_is_there_and_no_other() -> None:
    assert {cells[0].strip("` ") for cells in rows("code")} == codes_of_refusals()


def test_the_diagram_is_the_table_of_transitions() -> None:
    (drawn,) = re.findall(r"^```mermaid\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert drawn == diagram()


def test_frames_codecs_and_names() -> None:
    for kind in Kind:
        assert re.search(rf"\b{kind.value} {kind.name}\b", PAGE)
    assert [cells[0].strip("` ") for cells in rows("codec")] == list(CODECS)
    assert f"block of {BLOCK}" in PAGE
    for name in (SESSIONS, PARCELS):
        assert f"`{name}`" in PAGE
    assert f"`{BROKER_KEYS[0]}` ... `{len(BROKER_KEYS) - 1}`" in PAGE
    assert f"`hello.version` is {PROTOCOL_VERSION};" in PAGE
    assert f'"{MAGIC.decode()}" | version (1)' in PAGE


def test_the_records_of_a_parcel() -> None:
    said = re.sub(r" \([^)]*\)", "", LINES)
    assert ", ".join(names(ParcelContext)) in said
    assert f"(a msgpack array: {', '.join(names(Manifest))})" in LINES
    for name in names(TensorEntry):
        assert name in LINES
    assert Opened.KIND in LINES
