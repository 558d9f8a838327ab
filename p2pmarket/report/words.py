"""Numbers and names as people read them on a page.

Knows: how an amount, a size or a stranger's text is written. Refuses to know: HTML. Pure
functions that fail on nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

from p2pmarket.units import CREDIT, format_credits

MAX_SHOWN = 60
"""Characters of a stranger's text."""
MAX_SENTENCE = 400
"""Characters of a stranger's sentence."""
MAX_KNOWN = 1e100
"""A loss above it is on its way out of what a float holds: it counts as diverged, and no chart could show it."""
PEER_CHARACTERS = 8
"""Of a peer id, the last, as all begin alike; the command line shows as many."""
MAX_SECONDS = 1e12
"""Of a duration that anything took."""


def shown(text: str, most: int = MAX_SHOWN) -> str:
    """A text without characters that steer whatever shows it, and not too long.

    >>> shown("a\\u202eb"), shown("x" * 9, 5)
    ('a\\\\u202eb', 'xxxx…')
    """
    kept = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in kept
    )


def credits(micro: float) -> str:
    """Micro-credits in credits, to the cent where that says enough.

    >>> credits(4_200_000), credits(1_234_567_890), credits(4_567), credits(12), credits(0)
    ('4.20', '1,234.57', '0.0046', '0.000012', '0.00')
    """
    if 0 < abs(micro) < CREDIT // 10_000:
        return format_credits(round(micro))
    if 0 < abs(micro) < CREDIT // 100:
        return f"{micro / CREDIT:.4f}"
    return f"{micro / CREDIT:,.2f}"


def known(value: float) -> bool:
    """Whether a measured value can be drawn and averaged: finite, and not about to be otherwise."""
    return math.isfinite(value) and abs(value) <= MAX_KNOWN


def number(value: float) -> str:
    """A measured number, to three or four places that count.

    >>> number(0.12), number(1.5), number(12345.6), number(0), number(0.01234), number(2.5e-9), number(float("nan"))
    ('0.120', '1.50', '12,346', '0', '0.0123', '2.5e-09', 'unknown')
    """
    if not known(value):
        return "unknown"
    if abs(value) >= 1e12:
        return f"{value:.3g}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 0.1:
        return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
    return f"{value:.3g}"


def with_half(mean: float, half: float | None) -> str:
    """A mean and half of its interval, to as many places as the mean; more where nothing would be left of it.

    >>> with_half(41.012, 0.9621), with_half(334.2, 0.25), with_half(12.0, None), with_half(0.5, 0.0)
    ('41.01 ± 0.96', '334 ± 0.250', '12.00', '0.500 ± 0.000')
    """
    text = number(mean)
    if half is None:
        return text
    decimals = len(text.partition(".")[2])
    rounded = f"{half:,.{decimals}f}" if known(half) and "e" not in text else ""
    return f"{text} ± {rounded if rounded and (float(rounded.replace(',', '')) or not half) else number(half)}"


def percent(part: float) -> str:
    """A part of 1.

    >>> percent(0.9534), percent(0.00001), percent(1)
    ('95.3 %', '0.0 %', '100.0 %')
    """
    return f"{100 * part:.1f} %" if math.isfinite(part) else "unknown"


def metric(value: float, accuracy: bool) -> str:
    """An accuracy in percent, or a loss."""
    return percent(value) if accuracy else number(value)


def duration(seconds: float) -> str:
    """A time that passed.

    >>> duration(3.21), duration(250), duration(1800), duration(7500), duration(300_000)
    ('3.2 s', '4 min 10 s', '30 min', '2 h 5 min', '3 d 11 h')
    """
    if not math.isfinite(seconds) or abs(seconds) > MAX_SECONDS:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit} {rest} {name}" if rest else f"{whole // size} {unit}"
    raise AssertionError("unreachable")


def moment(at_ms: float) -> str:
    """UTC, to the second."""
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=at_ms)).strftime("%Y-%m-%d %H:%M:%S")


def listed(texts: Sequence[str]) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else ""


def many(count: int, one: str, several: str = "") -> str:
    """
    >>> many(1, "trade"), many(1200, "trade"), many(0, "loss", "losses")
    ('1 trade', '1,200 trades', '0 losses')
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def short_name(peer: str) -> str:
    """A peer id as people compare it.

    >>> short_name("12D3KooWeBdNMuv1"), short_name("peer"), short_name("")
    ('…eBdNMuv1', 'peer', 'unknown')
    """
    return f"…{peer[-PEER_CHARACTERS:]}" if len(peer) > PEER_CHARACTERS else peer or "unknown"


def short_names(peers: Iterable[str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """A name for every peer id: a known one, or its last characters; the whole id where those are two peers'."""
    names = dict(known or {})
    for peer in sorted({*peers} - {*names}):
        short = short_name(peer)
        names[peer] = peer if short in names.values() else short
    return names


def left_out(total: int, kept: int, what: str, order: str) -> str:
    """What a bounded table says below itself; nothing where it has all."""
    return f"{kept:,} of {total:,} {what} shown: {order}." if total > kept else ""


METHODS: Mapping[str, str] = {
    "market": "market",
    "alone": "alone",
    "fedavg": "FedAvg",
    "paper": "the paper's market",
    "unaligned": "the paper's market, unaligned",
}
"""Names of methods."""


def method_name(method: str) -> str:
    """A method as a page calls it."""
    return METHODS.get(method, shown(method))
