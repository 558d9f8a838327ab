"""A trade as every source tells it, and what tables say of many of them.

Knows: which states mean that money moved. Refuses to know: files; from_results, from_journal and from_ledger make
these records. Amounts are micro-credits. Pure functions that fail on nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from p2pmarket.ledger.trade import PAID
from p2pmarket.report.story import Cell, Heat, Matrix, Part, Table
from p2pmarket.report.words import credits, left_out, many, number, shown

MAX_LISTED = 50
"""Rows of a table of trades."""
MAX_PAIRS = 15
MAX_MATRIX = 16
"""Names that a matrix with texts can hold and be read."""
MAX_HEAT = 200
"""Agents of a picture with a cell for each pair; the others are one together."""
OTHERS = "\0"
"""Their name; no agent's, and never shown."""

SETTLED, REFUNDED, UNMATCHED, DECLINED, NOTHING, NO_DEAL, EXPIRED, VOID, OPEN = (
    "settled", "refunded", "bid below the ask", "declined", "no gain to buy", "no deal", "expired", "failed",
    "still open",
)  # fmt: skip
ENDINGS = (SETTLED, REFUNDED, UNMATCHED, DECLINED, NOTHING, NO_DEAL, EXPIRED, VOID, OPEN)
"""How a trade ended, for people; in this order."""

_OF_STATE = {
    **dict.fromkeys(PAID, SETTLED),
    "refunded": REFUNDED,
    "unmatched": UNMATCHED,
    "declined": DECLINED,
    "no-deal": NO_DEAL,
    "expired": EXPIRED,
    "void": VOID,
}


@dataclasses.dataclass(frozen=True)
class Deal:
    """One appraised pair, bought or not."""

    at: float
    """A round, or UTC in seconds."""
    trade: str
    buyer: str
    seller: str
    task: str
    state: str
    """As the ledger calls it."""
    reason: str = ""
    weight: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    loss_before: float | None = None
    snapshot: str = ""
    """Of the buyer's parameters, which the gain is of."""
    bid: int | None = None
    ask: int | None = None
    price: int | None = None
    """What was paid; None where nothing was."""
    fee: int = 0

    @property
    def paid(self) -> bool:
        """Whether the seller has been paid and still is."""
        return self.state in PAID

    @property
    def ending(self) -> str:
        """One of `ENDINGS`."""
        if not self.paid and self.weight == 0 and self.bid is None:
            return NOTHING
        return _OF_STATE.get(self.state, OPEN)


@dataclasses.dataclass(frozen=True)
class Sums:
    """Many trades in a few numbers."""

    appraised: int
    settled: int
    moved: int
    fees: int


def sums(deals: Sequence[Deal]) -> Sums:
    """Counts, and amounts in micro-credits."""
    paid = [deal for deal in deals if deal.paid]
    return Sums(len(deals), len(paid), sum(deal.price or 0 for deal in paid), sum(deal.fee for deal in paid))


def endings_table(deals: Sequence[Deal]) -> Table:
    """How trades ended, with the reasons that were given."""
    counts: Counter[str] = Counter(deal.ending for deal in deals)
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for deal in deals:
        if deal.reason and deal.reason != deal.state:
            reasons[deal.ending][shown(deal.reason.replace("-", " "))] += 1
    rows: tuple[tuple[str, ...], ...] = tuple(
        (
            ending,
            f"{counts[ending]:,}",
            f"{100 * counts[ending] / len(deals):.0f} %",
            ", ".join(f"{reason} ({count:,})" for reason, count in reasons[ending].most_common(3)),
        )
        for ending in ENDINGS
        if counts[ending]
    )
    columns: tuple[str, ...] = ("ending", "trades", "share", "reasons")
    if not any(reasons.values()):
        columns, rows = columns[:-1], tuple(row[:-1] for row in rows)
    return Table("How trades ended", columns, rows, frozenset({"trades", "share"}), empty="No trades yet.")


def largest_table(deals: Sequence[Deal], at_title: str, at_text: dict[float, str] | None = None) -> Table:
    """The settled trades with the highest prices."""
    paid = sorted((deal for deal in deals if deal.paid), key=lambda deal: -(deal.price or 0))
    tasks = len({deal.task for deal in paid}) > 1
    columns = (at_title, "buyer", "seller", *(("task",) if tasks else ()), "gain", "bid", "ask", "price", "fee")
    rows = tuple(
        (
            (at_text or {}).get(deal.at, f"{deal.at:g}"),
            shown(deal.buyer, 32),
            shown(deal.seller, 32),
            *((shown(deal.task, 32),) if tasks else ()),
            "" if deal.gain is None else number(deal.gain),
            *("" if amount is None else credits(amount) for amount in (deal.bid, deal.ask, deal.price, deal.fee)),
        )
        for deal in paid[:MAX_LISTED]
    )
    note = left_out(len(paid), len(rows), "settled trades", "those with the highest prices")
    right = frozenset({"gain", "bid", "ask", "price", "fee"})
    return Table("The largest trades", columns, rows, right, note, "Nothing was bought.")


def who_with_whom(deals: Sequence[Deal], agents: Sequence[str] = ()) -> tuple[Part, ...]:
    """Buyers against sellers: a matrix with counts and credits, or for many agents a picture and the largest pairs.

    :param agents: those who may have traded with nobody
    """
    counts: Counter[tuple[str, str]] = Counter()
    moved: Counter[tuple[str, str]] = Counter()
    for deal in deals:
        if deal.paid:
            counts[deal.buyer, deal.seller] += 1
            moved[deal.buyer, deal.seller] += deal.price or 0
    volume: Counter[str] = Counter()
    for pair, amount in moved.items():
        for name in pair:
            volume[name] += amount
    everyone = {*agents, *volume}
    names = sorted(everyone) if len(everyone) <= MAX_MATRIX else sorted(everyone, key=lambda one: (-volume[one], one))
    if not names:
        return (_pairs_table(counts, moved),)
    most = max(moved.values(), default=0)

    def strength(buyer: str, seller: str) -> float:
        share = min(moved[buyer, seller] / most, 1.0) if most else float(counts[buyer, seller] > 0)
        return max(math.sqrt(share), 0.15) if counts[buyer, seller] else 0.0

    if len(names) > MAX_MATRIX:
        pairs, others = _pairs_table(counts, moved), len(names) - MAX_HEAT
        caption = (
            f"One row a buyer, one column a seller, {len(names):,} agents with those who traded most first: "
            f"the darker, the more credits; the darkest pair moved {credits(most)}. {len(counts):,} pairs traded."
        )
        if others > 0:
            counts, moved = _summed(counts, {*names[:MAX_HEAT]}), _summed(moved, {*names[:MAX_HEAT]})
            names = [*names[:MAX_HEAT], OTHERS]
            caption += f" The last row and column are the {others:,} smallest traders together."
        cells = tuple(tuple(strength(buyer, seller) for seller in names) for buyer in names)
        heat = Heat("Who bought from whom", caption, "sellers, the largest traders first", "buyers", cells)
        return (heat, pairs)
    rows = tuple(
        tuple(
            Cell(
                f"{counts[buyer, seller]:,}" if counts[buyer, seller] else "–" if buyer == seller else "0",
                credits(moved[buyer, seller]) if counts[buyer, seller] else "",
                strength(buyer, seller),
            )
            for seller in names
        )
        for buyer in names
    )
    labels = tuple(shown(name, 24) for name in names)
    caption = "Trades, and below them the credits that were paid; the darker, the more credits."
    return (Matrix("Who bought from whom", caption, "buyer ↓ seller →", labels, labels, rows),)


def _summed(pairs: Counter[tuple[str, str]], kept: set[str]) -> Counter[tuple[str, str]]:
    """With everybody who is not kept as one."""
    found: Counter[tuple[str, str]] = Counter()
    for (buyer, seller), value in pairs.items():
        found[buyer if buyer in kept else OTHERS, seller if seller in kept else OTHERS] += value
    return found


def _pairs_table(counts: Counter[tuple[str, str]], moved: Counter[tuple[str, str]]) -> Table:
    pairs = sorted(counts, key=lambda pair: (-moved[pair], -counts[pair], pair))
    rows = tuple(
        (shown(pair[0], 32), shown(pair[1], 32), f"{counts[pair]:,}", credits(moved[pair]))
        for pair in pairs[:MAX_PAIRS]
    )
    note = left_out(len(pairs), len(rows), "pairs", "those with the most credits")
    columns = ("buyer", "seller", "trades", "credits")
    return Table("The closest pairs", columns, rows, frozenset(columns[2:]), note, "Nobody bought from anybody.")


def sums_sentence(found: Sums) -> str:
    """
    >>> sums_sentence(Sums(120, 56, 69_600_000, 700_000))
    '56 of 120 appraised trades settled, 69.60 credits moved'
    """
    if not found.appraised:
        return "no trades"
    trades = many(found.appraised, "appraised trade")
    return f"{found.settled:,} of {trades} settled, {credits(found.moved)} credits moved"
