"""Files of results as they are read: however damaged or hostile, they are good records or one ValueError or OSError.
A run.json in a format that a newer package began is a `DataError`: it is no damage, and nothing to remove.

Knows: how large a file may be, and what of a run.json its readers count on. Refuses to know: folders, what a run means.
A number that is not finite is fine where something was measured: a run may diverge. An amount or a count is within 64
bits, or whatever reckons with it might fail.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from p2pmarket.errors import DataError
from p2pmarket.experiments.recording import from_text

FORMAT = 1
"""Of a run.json, also of one that names none. It goes up when readers of this one would misunderstand a file."""
MAX_DOCUMENT_BYTES = 64 * 2**20
"""Of a run.json or a rows.json: ten thousand agents take a tenth of it."""
MAX_ROWS_BYTES = 2**30
"""Of a rounds.csv or a trades.csv: some millions of rows."""
MAX_WHOLE = 2**63 - 1
"""The largest amount or count, below zero too."""
_MAX_REASON = 300

UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error)
"""What reading may raise, for whoever makes a sentence of it."""

_NUMBER = (int, float)
_FACTS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("run", "scenario", "digest", "method", "protocol", "broker"), (str,)),
    **dict.fromkeys(("settings", "agents", "final", "ledger"), (dict,)),
    **dict.fromkeys(("traffic_bytes", "messages"), (int, type(None))),
    **dict.fromkeys(("seed", "crashes"), (int,)),
    **dict.fromkeys(("wall_seconds", "virtual_seconds"), _NUMBER),
}
_MEASURED = ("loss", "metric")
_FINAL = (*_MEASURED, "balance")
_LEDGER: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("trades", "settled", "moved", "fees"), (int,)),
    "verified": (bool,),
    "problems": (list,),
}
"""Each may be missing: without a broker there is no ledger."""


def reason_of(error: BaseException) -> str:
    """Why something cannot be read, for a sentence: short, whatever the file says."""
    said = repr(error)
    return said if len(said) <= _MAX_REASON else f"{said[:_MAX_REASON]}..."


def open_regular(path: Path, most: int) -> BinaryIO:
    """A file to read from. Nothing waits for whoever writes to a pipe.

    :param most: bytes
    :raises ValueError: no regular file, or larger
    :raises OSError: it cannot be opened
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > most:
        os.close(descriptor)
        raise ValueError(f"{path.name} is no regular file of at most {most:,} bytes")
    return os.fdopen(descriptor, "rb")


def read_json(path: Path) -> Any:
    """A document.

    :raises OSError, ValueError, RecursionError: it is none, is too large, or has a whole number beyond 64 bits
    """
    with open_regular(path, MAX_DOCUMENT_BYTES) as file:
        return json.loads(file.read(MAX_DOCUMENT_BYTES).decode("utf-8"), parse_int=_whole)


def read_facts_file(path: Path) -> dict[str, Any]:
    """A run.json that has what everybody who reads one counts on.

    :raises OSError, ValueError, RecursionError: it cannot be read, or lacks something
    :raises DataError: a newer format
    """
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise ValueError(f"{path.name} is no object")
    _check(facts.get("format", FORMAT), (int,), "format")
    if facts.get("format", FORMAT) > FORMAT:
        raise DataError(f"{path} was written by a newer p2pmarket, in its format {facts['format']}; update this one")
    for key, types in _FACTS.items():
        if key not in facts:
            raise ValueError(f"{key!r} is missing in {path.name}")
        _check(facts[key], types, key)
    for key in ("versions", "code"):
        _check(facts.get(key, {}), (dict,), key)
        for name, value in facts.get(key, {}).items():
            _check(value, (str,), f"{key}.{name}")
    _check(facts.get("data", ""), (str,), "data")
    for agent, about in facts["agents"].items():
        _check(about, (dict,), f"agents.{agent}")
    for agent, last in facts["final"].items():
        _check(last, (dict,), f"final.{agent}")
        for key in _MEASURED:
            if key in last and last[key] is None:
                last[key] = math.nan  # JSON has no other word for it
        for key in _FINAL:
            _check(last.get(key), _NUMBER, f"final.{agent}.{key}")
    for key, types in _LEDGER.items():
        if key in facts["ledger"]:
            _check(facts["ledger"][key], types, f"ledger.{key}")
    return facts


def read_rows(kind: type[Any], path: Path) -> Iterator[Any]:
    """The rows of a CSV file.

    :raises OSError, ValueError, KeyError, csv.Error: one cannot be read, or the file is too large
    """
    whole = [field.name for field in dataclasses.fields(kind) if str(field.type).startswith("int")]
    with (
        open_regular(path, MAX_ROWS_BYTES) as file,
        io.TextIOWrapper(file, encoding="utf-8", newline="") as text,
    ):
        for cells in csv.DictReader(text):
            if None in cells.values():
                raise ValueError(f"a row of {path.name} is too short")
            row = from_text(kind, cells)
            for name in whole:
                if not -MAX_WHOLE <= (getattr(row, name) or 0) <= MAX_WHOLE:
                    raise ValueError(f"{name} is beyond 64 bits in {path.name}")
            yield row


def _check(value: object, types: tuple[type, ...], what: str) -> None:
    """Python's bool is an int, but a truth is no number."""
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(f"{what} is {type(value).__name__}, no {types[0].__name__}")


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -MAX_WHOLE <= (value := int(digits)) <= MAX_WHOLE:
        raise ValueError("a whole number is beyond 64 bits")
    return value
