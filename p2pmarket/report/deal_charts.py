"""Trades as charts: prices between bids and asks, how many there were, what they promised and what came of it.

Knows: `Deal` records and how many points a chart can bear. Refuses to know: where they come from, how charts are drawn.
Pure functions that fail on nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from p2pmarket.report.deals import ENDINGS, Deal
from p2pmarket.report.story import BASELINE, Axis, Chart, Dots, Line, Stack
from p2pmarket.report.words import known
from p2pmarket.units import CREDIT

MAX_DOTS = 700
"""Of one kind in one chart; of more every so many is shown."""
MAX_BARS = 40
DECADE = 10
"""Losses that differ by more are on a logarithmic axis."""
HOW_TO_READ = (
    "On the dashed line it fell as far as promised, above it further, below it less far; with training in between, "
    "dots above it do not show that too little was promised."
)
_SINGLY = 60
"""Up to so many bids are shown one by one, more by their mean in each bin."""

_COLOR = {
    name: color for name, color in zip(ENDINGS, (2, 4, 3, 0, BASELINE, 1, 7, 5, 6), strict=True)
}  # fmt: skip

Value = Callable[[Deal], "float | None"]


def over(axis: Axis) -> tuple[str, bool]:
    """The label of the axis on which trades lie, and whether it counts."""
    return ("time, UTC", False) if axis == "time" else ("round", True)


def prices(deals: Sequence[Deal], axis: Axis) -> Chart:
    """Bids, asks and prices over time, in credits."""
    bids = [deal for deal in deals if deal.bid is not None]
    asks = [deal for deal in deals if deal.ask is not None]
    paid = [deal for deal in deals if deal.paid and deal.price is not None]
    marks: tuple[Line | Dots, ...]
    x_label, whole = over(axis)
    if max(len(bids), len(asks), len(paid)) <= _SINGLY:
        marks = (
            _dots("bid: what the buyer would pay at most", bids, _bid, 1, "down"),
            _dots("ask: what the seller wanted at least", asks, _ask, 2, "up"),
            _dots("price", paid, _price, 0),
        )
        caption = "Every bid, ask and price; a price lies between its bid and its ask."
    else:
        marks = (
            _mean_line("bids, mean", bids, _bid, 1, axis, band=None),
            _mean_line("asks, mean", asks, _ask, 2, axis, band=None),
            _mean_line("price, mean", paid, _price, 0, axis, band=EIGHT_OF_TEN),
        )
        caption = "Means of all bids, of all asks, and of the prices that were paid; the band holds 80 % of the prices."
    marks = tuple(mark for mark in marks if mark.x)
    return Chart("Prices, bids and asks", caption, x_label, "credits", marks, x_axis=axis, whole_x=whole)


def endings(deals: Sequence[Deal], axis: Axis) -> Chart:
    """How many trades there were, by how they ended."""
    x_label, whole = over(axis)
    places = _bins([deal.at for deal in deals], axis, MAX_BARS)
    counts: dict[str, dict[float, int]] = defaultdict(lambda: defaultdict(int))
    for deal, place in zip(deals, places, strict=True):
        counts[deal.ending][place] += 1
    x = tuple(sorted(set(places)))
    stacks = tuple(
        Stack(ending, x, tuple(float(counts[ending][place]) for place in x), _COLOR[ending])
        for ending in ENDINGS
        if ending in counts
    )
    caption = "Every appraised pair of agents, by what became of it."
    return Chart("Trades over time", caption, x_label, "trades", stacks, x_axis=axis, whole_x=whole)


def gains(deals: Sequence[Deal], axis: Axis) -> Chart:
    """What was promised for the trades that settled."""
    x_label, whole = over(axis)
    bought = [deal for deal in deals if deal.paid and deal.gain is not None]
    few = len(bought) <= _SINGLY
    mark = _dots("gain that was bought", bought, _gain, 0) if few else _mean_line(
        "gain of a purchase, mean", bought, _gain, 0, axis, band=EIGHT_OF_TEN
    )  # fmt: skip
    caption = "By how much the buyer's loss falls with a purchase, as the broker measured it before the bid."
    caption += "" if few else " The band holds 80 % of the purchases."
    marks = (mark,) if mark.x else ()
    return Chart("Gains that were bought", caption, x_label, "fall of the loss", marks, x_axis=axis, whole_x=whole)


def promised_falls(pairs: Sequence[tuple[float, float]], caption: str) -> Chart:
    """Promised gains (x) against how the loss changed until the next visit (y), training in between included."""
    few, left = _finite(pairs)
    dots = Dots("a visit with a purchase", tuple(x for x, _ in few), tuple(y for _, y in few), 0)
    return Chart(
        "Promised, and what came of it with the training until the next visit", f"{caption} {HOW_TO_READ}{left}",
        "promised fall of the loss", "fall of the loss", (dots,) if few else (), diagonal=bool(few),
    )  # fmt: skip


def promised_losses(pairs: Sequence[tuple[float, float]]) -> Chart:
    """Losses that were promised (x) against those on test data as soon as the purchase was loaded (y)."""
    few, left = _finite(pairs)
    log = spans_decades(one for pair in few for one in pair)
    dots = Dots("an agent's round with a purchase", tuple(x for x, _ in few), tuple(y for _, y in few), 0)
    caption = (
        "The loss that the broker measured for the merge that was bought, on its own data, against the loss on test "
        "data right after it was loaded, before any training. On the dashed line it was as promised, below it less, "
        f"above it more.{' The axes are logarithmic.' if log else ''}{left}"
    )
    return Chart(
        "Promised and kept", caption, "promised loss", "loss on test data", (dots,) if few else (),
        diagonal=bool(few), log_x=log, log_y=log,
    )  # fmt: skip


def _finite(pairs: Sequence[tuple[float, float]]) -> tuple[Sequence[tuple[float, float]], str]:
    """At most so many as a chart can bear, and how many these are where they are not all."""
    kept = [pair for pair in pairs if all(map(known, pair))]
    few = every(kept, MAX_DOTS)
    return few, f" {len(few)} of {len(kept)} shown." if len(few) < len(kept) else ""


def spans_decades(values: Iterable[float]) -> bool:
    """Whether only a logarithmic axis shows all of them."""
    found = [value for value in values if known(value)]
    return bool(found) and min(found) > 0 and max(found) > DECADE * min(found)


def next_losses(deals: Iterable[Deal]) -> list[tuple[float, float]]:
    """For each settled trade the promised gain, and how far the buyer's loss had fallen when the broker measured its
    next parameters; of several purchases upon the same parameters the sum."""
    measured: dict[tuple[str, str], list[tuple[str, float, float]]] = defaultdict(list)
    for deal in sorted(deals, key=lambda one: one.at):
        if deal.loss_before is None or not deal.snapshot:
            continue
        steps = measured[deal.buyer, deal.task]
        if not steps or steps[-1][0] != deal.snapshot:
            steps.append((deal.snapshot, deal.loss_before, 0.0))
        if deal.paid and deal.gain is not None:
            steps[-1] = (*steps[-1][:2], steps[-1][2] + deal.gain)
    return [
        (promised, before - after)
        for steps in measured.values()
        for (_, before, promised), (_, after, _) in zip(steps, steps[1:], strict=False)
        if promised
    ]


def every(values: Sequence[tuple[float, float]], most: int) -> Sequence[tuple[float, float]]:
    """At most so many of them, evenly."""
    return values[:: math.ceil(len(values) / most)] if len(values) > most else values


EIGHT_OF_TEN, RANGE = 0.1, 0.0
"""What a band holds: the part of the values that is left out at each of its sides."""


def mean_by(values: Mapping[float, Sequence[float]], label: str, color: int, *, band: float | None) -> Line:
    """A line through the means at each x, with a band where one is asked for."""
    x = sorted(place for place, found in values.items() if len(found))
    found = [np.asarray(values[place], dtype=float) for place in x]
    low = () if band is None else tuple(float(np.quantile(one, band)) for one in found)
    high = () if band is None else tuple(float(np.quantile(one, 1 - band)) for one in found)
    return Line(label, tuple(x), tuple(float(one.mean()) for one in found), color, low, high)


def _mean_line(label: str, deals: Sequence[Deal], value: Value, color: int, axis: Axis, *, band: float | None) -> Line:
    places = _bins([deal.at for deal in deals], axis, 2 * MAX_BARS)
    values: dict[float, list[float]] = defaultdict(list)
    for deal, place in zip(deals, places, strict=True):
        found = value(deal)
        if found is not None and known(found):
            values[place].append(found)
    return mean_by(values, label, color, band=band)


def _dots(label: str, deals: Sequence[Deal], value: Value, color: int, shape: str = "dot") -> Dots:
    pairs = [(deal.at, found) for deal in deals if (found := value(deal)) is not None and known(found)]
    few = every(sorted(pairs), MAX_DOTS)
    return Dots(label, tuple(x for x, _ in few), tuple(y for _, y in few), color, shape)  # type: ignore[arg-type]


def _bins(at: Sequence[float], axis: Axis, most: int) -> list[float]:
    """Where each lies when there are at most so many places: rounds by whole rounds, times by the middle of a bin."""
    if not at or len(set(at)) <= (most if axis != "time" else 1):
        return list(at)
    first, last = min(at), max(at)
    size = (last - first) / most if axis == "time" else math.ceil((last - first + 1) / most)
    middle = size / 2 if axis == "time" else 0
    return [first + min(int((one - first) / size), most - 1) * size + middle for one in at]


def _bid(deal: Deal) -> float | None:
    return None if deal.bid is None else deal.bid / CREDIT


def _ask(deal: Deal) -> float | None:
    return None if deal.ask is None else deal.ask / CREDIT


def _price(deal: Deal) -> float | None:
    return None if deal.price is None else deal.price / CREDIT


def _gain(deal: Deal) -> float | None:
    return deal.gain
