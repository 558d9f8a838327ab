"""Published prices: the asker's own bids are left out, and few buyers are nobody's to tell."""

from __future__ import annotations

import pytest

from p2pmarket.broker_node.publishing import PastRow, statistics_for
from p2pmarket.messages import Statistics
from p2pmarket.pricing.history import K_ANONYMOUS, LEVELS_PPM

NOTHING = Statistics("t", 0, 0, 0, (), ())


def bids(buyers: int, each: int = 2, settled: bool = True) -> list[PastRow]:
    """Bids of 1,000 times the buyer's number, sold at half of it."""
    return [
        (f"buyer {number}", 1000 * number, 500 * number if settled else None, 0)
        for number in range(1, buyers + 1)
        for _ in range(each)
    ]


def test_enough_buyers_make_statistics() -> None:
    told = statistics_for("seller", "t", bids(K_ANONYMOUS))
    assert (told.task, told.bids, told.trades, told.buyers) == ("t", 2 * K_ANONYMOUS, 2 * K_ANONYMOUS, K_ANONYMOUS)
    assert len(told.bid_quantiles) == len(told.price_quantiles) == len(LEVELS_PPM)
    assert sorted(told.bid_quantiles) == list(told.bid_quantiles)


@pytest.mark.parametrize("each", [1, 100])
def test_too_few_buyers_are_not_even_counted(each: int) -> None:
    assert statistics_for("seller", "t", bids(K_ANONYMOUS - 1, each)) == NOTHING
    assert statistics_for("seller", "t", []) == NOTHING


def test_the_askers_own_bids_are_not_in_it() -> None:
    assert statistics_for("buyer 1", "t", bids(K_ANONYMOUS)) == NOTHING, "without its own they are too few"
    others = bids(K_ANONYMOUS + 1)
    own = [("me", 9_999_999, 9_999_999, 0)] * 50
    assert statistics_for("me", "t", others + own) == statistics_for("seller", "t", others)
    assert statistics_for("seller", "t", others + own) != statistics_for("seller", "t", others)


def test_prices_of_too_few_who_bought_are_not_told() -> None:
    told = statistics_for("seller", "t", bids(K_ANONYMOUS, settled=False) + bids(K_ANONYMOUS - 1))
    assert told.bid_quantiles and told.price_quantiles == () and told.trades == 0
