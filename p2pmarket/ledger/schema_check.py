"""A file's schema against what this program makes: every table, index, trigger and view, and nothing else.

Knows: how SQLite keeps a schema. Refuses to know: rows, and what follows from a fault (database.py refuses the file,
audit.py goes on where it can). A trigger runs inside of the program's own transactions, so a foreign one must be found
before anything is written. Nothing raises for a schema that is wrong: each difference is a `SchemaFault`.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

_PLAIN = re.compile(r"CREATE (TABLE|(UNIQUE )?INDEX) ")
"""Neither a trigger, a view nor a virtual table, whatever a row of the schema calls itself."""


class SchemaFault(NamedTuple):
    """One object that is missing, foreign, or not as this program makes it."""

    sentence: str
    foreign: bool
    unreadable: bool
    """One of the program's own tables is not what it should be: its rows cannot be taken for what they seem."""


def schema_faults(
    connection: sqlite3.Connection, schema: Sequence[str], beside: Collection[str] = ()
) -> Iterator[SchemaFault]:
    """What differs between a file's schema and the one that these statements make.

    The texts are compared but for their white space: SQLite keeps a statement as it was written.

    :param beside: tables that other code may make in the same file, and see to itself, with their indexes
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as made:
        for statement in schema:
            made.execute(statement)
        left = {row[:2]: row for row in _objects(made)}
    for row in _objects(connection):
        kind, name, table, text = row
        known = left.pop((kind, name), None)
        if known is None and not (table in beside and _is_plain(kind, name, text)):
            of = f" on {_shown(table)}" if kind in ("index", "trigger") else ""
            yield SchemaFault(f"the {_shown(kind)} {_shown(name)}{of} is not this program's", True, False)
        elif known not in (None, row):
            yield SchemaFault(f"the {kind} {name} is not as this program makes it", False, kind == "table")
    for kind, name in left:
        yield SchemaFault(f"the {kind} {name} is missing", False, kind == "table")


def _objects(connection: sqlite3.Connection) -> list[tuple[str, str, str, str]]:
    """Type, name, table and text of each; those that SQLite makes by itself have no text."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")
    return [(str(kind), str(name), str(table), " ".join(str(sql or "").split())) for kind, name, table, sql in rows]


def _is_plain(kind: str, name: str, text: str) -> bool:
    if not text:
        return kind == "index" and name.startswith("sqlite_autoindex_")
    return kind in ("table", "index") and _PLAIN.match(text) is not None


def _shown(name: str) -> str:
    """A stranger's word on one line, with nothing in it that a terminal obeys."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:80])
