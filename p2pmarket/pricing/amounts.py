"""What counts as an amount of money, and which numbers can be computed with.

Knows: the bounds of an amount, and what a float holds. Refuses to know: what an amount is paid for. Fails with a
ValueError of one sentence that names the number. Money that moves is an `int` alone: floats round where nobody asked,
so that what buyer, seller and broker get need not sum to nothing, and True is a slip for some other argument.
"""

from __future__ import annotations

import math

from p2pmarket.limits import MAX_AMOUNT


def check_amount(name: str, amount: int) -> None:
    """:raises ValueError: not an int, or outside 0 ... MAX_AMOUNT micro-credits"""
    if type(amount) is int and 0 <= amount <= MAX_AMOUNT:
        return
    check_whole(name, amount)
    raise ValueError(f"{name} of {amount} micro-credits is outside 0 ... {MAX_AMOUNT}")


def check_whole(name: str, number: int, unit: str = "micro-credits") -> None:
    """:raises ValueError: not an int (a bool is none)"""
    if type(number) is not int:
        raise ValueError(f"{name} of {number!r} is not a whole number of {unit}, an int")


def is_finite(number: float) -> bool:
    """A float holds it: not NaN, not infinite, and no integer beyond the largest float."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
