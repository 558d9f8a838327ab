"""How things are shown: events as JSON lines or sentences, rows as tables or JSON.

A person sees no character that steers a terminal, whoever wrote the text: such characters are written out. Programs
read texts as they are, and every amount as an integer of micro-credits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from p2pmarket.events import Emit, Event
from p2pmarket.units import format_credits

_PIPE_COLUMNS = 240
"""Of a table that no terminal shows: wide enough that no cell is folded."""


def emitter(as_json: bool) -> Emit:
    """Prints events to stdout as they come, a JSON object or a line of text each."""

    def emit(event: Event) -> None:
        text = json.dumps(event) if as_json else sentence(event)
        if text:
            print(text, flush=True)

    return emit


def sentence(event: Event) -> str:
    """An event in words; empty for those that say nothing to a person."""
    words = _SENTENCES.get(event["event"])
    return words(_printable_in(event)) if words else ""


def printable(text: str) -> str:
    """A text that does nothing to the terminal it is shown on: what is no printable character is written out.

    >>> printable("red \\x1b[31m")
    'red \\\\x1b[31m'
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def print_rows(
    rows: Sequence[Mapping[str, Any]], *, as_json: bool, title: str, empty: str, amounts: Collection[str] = ()
) -> None:
    """Rows as one JSON array or as a table; `empty` is said where there are none.

    :param amounts: columns of micro-credits; the table shows them in credits, with as many decimals in all its rows
    """
    if as_json:
        print(json.dumps([dict(row) for row in rows]))
        return
    if not rows:
        print(empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(title)), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in rows[0]:
        right = name in amounts or any(_is_number(row[name]) for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if right else "left", overflow="fold")
    columns = [
        _aligned([row[name] for row in rows]) if name in amounts else [_cell(row[name]) for row in rows]
        for name in rows[0]
    ]
    for cells in zip(*columns, strict=True):
        table.add_row(*(Text(printable(cell)) for cell in cells))
    Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS).print(table)


def short(peer: str) -> str:
    """A peer id as people compare it: its last eight characters, as all begin alike."""
    return f"...{peer[-8:]}"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _aligned(column: Sequence[int | None]) -> list[str]:
    """Amounts in credits, their points below one another; empty where there is none."""
    texts = ["" if micro is None else format_credits(micro) for micro in column]
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return [text and text.ljust(text.index(".") + 1 + decimals, "0") for text in texts]


def _printable_in(value: Any) -> Any:
    """The same with every text in it `printable`."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {name: _printable_in(inner) for name, inner in value.items()}
    return [_printable_in(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return "" if value is None else str(value)


def _ready(event: Event) -> str:
    market = f" on the market {event['market']!r}" if event["market"] else ""
    lines = [f"{event['role']} {event['peer_id']} is ready{market}"]
    peers = " ".join(event["addresses"])
    if event["role"] == "peer":
        lines.append(f"To connect other peers to this one, use --initial_peers {peers}")
    elif event["role"] == "broker":
        lines += [
            f"state folder: {event['state']} (its identity file is this broker's account: back it up)",
            *(f"{task}: {words}" for task, words in event.get("alignment", {}).items()),
            f"To connect other peers to this one, use --initial_peers {peers}",
            "An agent joins with:",
            f"  p2pmarket node --market {event['market']} --data TRAIN.npz --peers {peers}",
        ]
    else:
        lines.append(f"broker {event['broker']}; balance {format_credits(event['balance'])}")
        lines += [f"To connect other peers through this one, use --initial_peers {peers}"] if peers else []
    return "\n".join(lines)


def _round(event: Event) -> str:
    parts = [f"epoch {event['epoch']}"]
    if event.get("score") is not None:
        parts.append(f"test {event['score']:.2f}")
    if event.get("alone") is not None:
        parts.append(f"alone {event['alone']:.2f}")
    parts.append(f"loss {event['loss']:.4f}")
    if event.get("trade"):
        parts.append(event["trade"])
    return ", ".join(parts)


def _status(event: Event) -> str:
    return ", ".join(f"{name} {value}" for name, value in event.items() if name != "event")


_SENTENCES: dict[str, Callable[[Event], str]] = {
    "ready": _ready,
    "round": _round,
    "status": _status,
    "trade": lambda event: str(event["trade"]),
    "problem": lambda event: f"problem: {event['sentence']}",
    "saved": lambda event: f"wrote {event['path']}",
    "stopping": lambda event: "stopping",
    "done": lambda event: f"done; balance {format_credits(event['balance'])}",
}
