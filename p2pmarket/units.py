"""Money, time and sizes: integers inside, words at the edge.

Money is an integer number of micro-credits (1 credit = 1,000,000). Time is UTC in integer milliseconds
where it leaves the process; durations are monotonic seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from p2pmarket.limits import MAX_AMOUNT

CREDIT = 1_000_000
"""Micro-credits in one credit."""

Clock = Callable[[], int]
"""Returns UTC in integer milliseconds; passed in wherever a rule needs the time."""


def now_ms() -> int:
    """UTC in integer milliseconds: the default `Clock`."""
    return time.time_ns() // 1_000_000


def parse_credits(text: str | int) -> int:
    """Credits as a person writes them ("4.20") to micro-credits.

    :raises ValueError: not a number, negative, finer than a micro-credit, or above MAX_AMOUNT
    """
    try:
        amount = Decimal(text) * CREDIT
    except InvalidOperation:
        raise ValueError(f"{text!r} is not an amount of credits; write a number such as 4.20") from None
    if not amount.is_finite() or amount != amount.to_integral_value():
        raise ValueError(f"{text} credits is finer than the smallest unit, 0.000001")
    if not 0 <= amount <= MAX_AMOUNT:
        raise ValueError(f"{text} credits is outside 0 ... {MAX_AMOUNT // CREDIT}")
    return int(amount)


def format_credits(micro: int) -> str:
    """Micro-credits as a person reads them: at least two decimals, no more than needed.

    >>> format_credits(4_200_000), format_credits(-1), format_credits(1_234_567)
    ('4.20', '-0.000001', '1.234567')
    """
    sign = "-" if micro < 0 else ""
    whole, fraction = divmod(abs(micro), CREDIT)
    decimals = f"{fraction:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


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
