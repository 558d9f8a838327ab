"""Published prices in a whole market: what enough buyers bid is told, to others, and a seller asks by it."""

from __future__ import annotations

import dataclasses

import pytest
from market_examples import CREDIT, OpenMarket, left, right

from p2pmarket.messages import AskRequest, GainReport, Statistics
from p2pmarket.node.strategies.competitive import Competitive
from p2pmarket.node.strategy import Knowledge, Strategy, Wallet
from p2pmarket.pricing.history import K_ANONYMOUS, PriceStatistics, reserve_from_statistics
from p2pmarket.simulation.market import MarketInMemory

NOTHING = Statistics("blobs", 0, 0, 0, (), ())
BIDS = [number * CREDIT // 2 for number in range(1, K_ANONYMOUS + 1)]
"""What the buyers bid, in micro-credits, each another amount."""
HIGHEST = 100 * CREDIT


@dataclasses.dataclass(frozen=True)
class Bids(Strategy):
    """Bids an amount whatever the gain, and sells nothing."""

    sell: bool = False
    amount: int = 0

    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        return self.amount


@dataclasses.dataclass(frozen=True)
class Learner(Competitive):
    """Keeps what it was told, and what it asked."""

    buy: bool = False
    highest_value: int = HIGHEST
    heard: list[Knowledge] = dataclasses.field(default_factory=list)
    asked: list[int | None] = dataclasses.field(default_factory=list)

    def informed(self, knowledge: Knowledge) -> Strategy:
        self.heard.append(knowledge)
        return super().informed(knowledge)

    def ask(self, request: AskRequest) -> int | None:
        self.asked.append(super().ask(request))
        return self.asked[-1]


async def sales(market: MarketInMemory, buyers: int) -> None:
    """A seller that asks nothing, and this many buyers that each buy once of it."""
    seller = await market.start_agent("seller", Strategy(buy=False))
    assert (await seller.trade(right())).problem == ""
    for number in range(buyers):
        buyer = await market.start_agent(f"buyer {number}", Bids(amount=BIDS[number]))
        (purchase,) = (await buyer.trade(left())).bought
        assert purchase.price == BIDS[number] // 2, "the midpoint of the bid and an ask of nothing"


async def test_a_market_tells_what_enough_buyers_bid_and_paid(open_market: OpenMarket) -> None:
    async with open_market(rounds="continuous", publish_prices=True) as market:
        await sales(market, K_ANONYMOUS)
        told = await market.agent("seller").statistics()
        assert (told.task, told.bids, told.trades, told.buyers) == ("blobs", K_ANONYMOUS, K_ANONYMOUS, K_ANONYMOUS)
        assert BIDS[1] <= told.bid_quantiles[0] <= told.bid_quantiles[-1] <= BIDS[-2], "no lone outlier shows"
        assert [2 * price for price in told.price_quantiles] == list(told.bid_quantiles)
        assert len(set(told.bid_quantiles)) > 1
        assert await market.agent("buyer 0").statistics() == NOTHING, "without its own they are too few"


@pytest.mark.parametrize("buyers", [K_ANONYMOUS, K_ANONYMOUS - 1], ids=["enough", "control: too few"])
async def test_a_competitor_without_a_past_asks_by_what_the_market_tells(open_market: OpenMarket, buyers: int) -> None:
    learner = Learner()
    async with open_market(rounds="continuous", publish_prices=True) as market:
        await sales(market, buyers)
        told = await market.agent("seller").statistics()
        newcomer = await market.start_agent("newcomer", learner)
        assert (await newcomer.trade(right())).problem == ""
        await market.stop_agent("seller")
        other = await market.start_agent(
            "seller", Bids(amount=CREDIT)
        )  # which leaves the newcomer alone with its offer
        assert (await other.trade(left())).problem == ""
    (knowledge,), (asked,) = learner.heard, learner.asked
    assert knowledge.past == ()
    if buyers < K_ANONYMOUS:
        assert told == NOTHING and knowledge.statistics is None
        assert asked == HIGHEST // 2, "the interval's reserve: it knows nothing else"
    else:
        known = PriceStatistics(told.bids, told.buyers, told.bid_quantiles, told.price_quantiles)
        assert knowledge.statistics == known
        assert asked == reserve_from_statistics(known) <= BIDS[-1]
