"""What a broker tells of prices: statistics in which nobody is to be recognised.

Knows: the ledger's list of bids, and that counts are hidden with what they count. Refuses to know: how amounts are made
anonymous (pricing/history), who may ask (desk).
"""

from __future__ import annotations

from collections.abc import Iterable

from p2pmarket.messages import Statistics
from p2pmarket.pricing.history import PastBid, statistics_from

PastRow = tuple[str, int, int | None, int]
"""Buyer, bid, price (None: not settled), time."""


def statistics_for(peer: str, task: str, bids: Iterable[PastRow]) -> Statistics:
    """What `peer` may know of these bids: nothing of its own, and zeros where too few others bid or bought."""
    others = [PastBid(*row) for row in bids if row[0] != peer]
    told = statistics_from(others)
    if told is None:
        return Statistics(task=task, bids=0, trades=0, buyers=0, bid_quantiles=(), price_quantiles=())
    settled = sum(one.price is not None for one in others) if told.prices else 0
    return Statistics(
        task=task, bids=told.count, trades=settled, buyers=told.buyers, bid_quantiles=told.bids,
        price_quantiles=told.prices,
    )  # fmt: skip
