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
HOW_TO_READ = (
    "A dot on the dashed line kept its promise; above it the loss fell further than promised, below it less far."
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
        caption = "Means of all bids, of all asks, and of the prices that were paid; the band holds 8 of 10 prices."
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
    caption += "" if few else " The band holds 8 of 10 purchases."
    marks = (mark,) if mark.x else ()
    return Chart("Gains that were bought", caption, x_label, "fall of the loss", marks, x_axis=axis, whole_x=whole)


def kept_promises(pairs: Sequence[tuple[float, float]], caption: str) -> Chart:
    """Promised gains (x) against how the loss changed afterwards (y)."""
    kept = [pair for pair in pairs if all(map(known, pair))]
    few = every(kept, MAX_DOTS)
    caption += f" {HOW_TO_READ}"
    caption += f" {len(few)} of {len(kept)} shown." if len(few) < len(kept) else ""
    dots = Dots("a purchase", tuple(x for x, _ in few), tuple(y for _, y in few), 0)
    marks = (dots,) if few else ()
    return Chart(
        "Promised and kept", caption, "promised fall of the loss", "fall of the loss", marks, diagonal=bool(few)
    )


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
