"""Money, time and sizes: integers inside, words at the edge.

Money is an integer number of micro-credits (1 credit = 1,000,000). Time is UTC in integer milliseconds
where it leaves the process; durations are monotonic seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from p2pmarket.limits import MAX_AMOUNT

CREDIT = 1_000_000
"""Micro-credits in one credit."""

_DECIMALS = 6
_SHOWN_CHARACTERS = 40
_CREDITS = re.compile(r"(?=\.?[0-9])([0-9]*)\.?([0-9]*)")

Clock = Callable[[], int]
"""Returns UTC in integer milliseconds; passed in wherever a rule needs the time."""


def now_ms() -> int:
    """UTC in integer milliseconds: the default `Clock`."""
    return time.time_ns() // 1_000_000


def parse_credits(text: str | int) -> int:
    """Credits as a person writes them ("4.20") to micro-credits: ASCII digits with at most one dot, nothing else.

    :raises ValueError: not so written, finer than a micro-credit, or above MAX_AMOUNT
    """
    shown = str(text) if len(str(text)) <= _SHOWN_CHARACTERS else f"{str(text)[:_SHOWN_CHARACTERS]}..."
    found = _CREDITS.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{shown!r} is not an amount of credits; write a number such as 4.20")
    whole, fraction = found[1].lstrip("0"), found[2].rstrip("0")
    if len(fraction) > _DECIMALS:
        raise ValueError(f"{shown} credits is finer than the smallest unit, 0.000001")
    micro = int(whole[:_SHOWN_CHARACTERS] + fraction.ljust(_DECIMALS, "0"))
    if micro > MAX_AMOUNT:
        raise ValueError(f"{shown} credits is outside 0 ... {MAX_AMOUNT // CREDIT}")
    return micro


def format_credits(micro: int) -> str:
    """Micro-credits as a person reads them: at least two decimals, no more than needed.

    >>> format_credits(4_200_000), format_credits(-1), format_credits(1_234_567)
    ('4.20', '-0.000001', '1.234567')
    """
    sign = "-" if micro < 0 else ""
    whole, fraction = divmod(abs(micro), CREDIT)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def counted(count: int, one: str, many: str = "") -> str:
    """How many there are of what, in words; `many` where it is more than an s longer.

    >>> counted(1, "problem"), counted(0, "problem"), counted(2, "leaf", "leaves")
    ('1 problem', '0 problems', '2 leaves')
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def format_bytes(count: float) -> str:
    """A size as a person reads it, in binary units.

    >>> format_bytes(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")
