"""What a run tells, row by row: agents' rounds and appraised pairs, as plain records that become CSV or Parquet.

Knows: the columns. Refuses to know: models, files, who writes. Amounts are whole micro-credits; times are virtual
seconds since the run began; None stands for what was never known.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class RoundRow:
    """One agent after one round; round 0 is before any training."""

    run: str
    method: str
    seed: int
    agent: str
    task: str
    round: int
    time_s: float
    loss: float
    """On test data by which nobody chose anything."""
    metric: float
    """On the same: accuracy as a part of 1, or the loss."""
    offered: int = 0
    """Reports of a purchase that there was."""
    bought: int = 0
    sold: int = 0
    gain: float = 0.0
    """Sum of the reported gains of what was bought, in the task's loss."""
    paid: int = 0
    earned: int = 0
    """Prices less fees."""
    balance: int = 0
    sent_bytes: int | None = 0
    received_bytes: int | None = 0
    """None: not counted. Of the visits since the row before, as all from `offered` on but the balance."""
    problem: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class TradeRow:
    """One appraised pair, bought or not."""

    run: str
    method: str
    seed: int
    round: int
    time_s: float
    trade: str
    """Its id, in hexadecimal."""
    buyer: str
    seller: str
    task: str
    after: str
    """The purchase it is upon; empty for none."""
    state: str
    reason: str
    weight: float
    """The purchased weight; 0: no merge helped."""
    own_weight: float | None
    """The seller's own purchased weight for this buyer's parameters, where that pair was appraised too."""
    loss_before: float
    loss_after: float
    gain: float
    gain_low: float
    gain_high: float
    merit: float
    bid: int | None
    ask: int | None
    price: int | None
    """That was paid and kept: None where nothing was sold, or the price was given back."""
    fee: int | None


Row = RoundRow | TradeRow


def columns(kind: type[Row]) -> tuple[str, ...]:
    """Names of a kind of row's columns, in order."""
    return tuple(field.name for field in dataclasses.fields(kind))


def from_text(kind: type[Any], cells: Mapping[str, str]) -> Any:
    """A row from the texts of a CSV line; empty is None where a column may be None.

    :raises ValueError, KeyError: a column is missing, or no number where one must be
    """
    return kind(**{field.name: _READ[str(field.type)](cells[field.name]) for field in dataclasses.fields(kind)})


_READ: Mapping[str, Any] = {
    "str": sys.intern,  # the same few names in every row
    "int": int,
    "float": float,
    "int | None": lambda text: int(text) if text else None,
    "float | None": lambda text: float(text) if text else None,
}
