"""How things are shown: events as JSON lines or sentences, rows as tables or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
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
    return words(event) if words else ""


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, title: str, empty: str) -> None:
    """Rows as one JSON array or as a table; `empty` is said where there are none."""
    if as_json:
        print(json.dumps([dict(row) for row in rows]))
        return
    if not rows:
        print(empty)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name, value in rows[0].items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        table.add_column(name.replace("_", " "), justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    Console(width=None if sys.stdout.isatty() else _PIPE_COLUMNS).print(table)


def short(peer: str) -> str:
    """A peer id as people compare it: its last eight characters, as all begin alike."""
    return f"...{peer[-8:]}"


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
