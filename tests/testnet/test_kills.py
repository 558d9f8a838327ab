"""SIGKILL in mid-trade: money is where it was, what was settled stays settled, what is owed is delivered."""

from __future__ import annotations

import asyncio

import pytest
from testnet_market import OPENING, Market, thaw

from p2pmarket.simulation.processes import Event

pytestmark = [pytest.mark.testnet, pytest.mark.asyncio(loop_scope="session")]


async def all_go_on_trading(market: Market) -> None:
    """Both buyers still buy, and the seller still offers."""
    await asyncio.gather(market.buys("buyer"), market.buys("other"))


def bought(event: Event, trade: str) -> int:
    """What an agent tells to have paid for this trade, its only one."""
    assert [purchase["trade"] for purchase in event["bought"]] == [trade], event
    return int(event["bought"][0]["price"])


async def test_broker_killed_between_appraisal_and_settlement(market: Market):
    trade = await market.freeze_at("buyer", "appraised")
    await market.broker.kill()
    before = market.balances()

    await market.start_broker()
    price = bought(await market.told("buyer"), trade)
    assert (trade, "delivered") in (market.trades_of("buyer") or [])
    after = market.balances()
    assert price > 0
    assert after[market.peer_id("buyer")] == before[market.peer_id("buyer")] - price
    assert sum(after.values()) == sum(before.values())
    market.check_merged("buyer")
    await all_go_on_trading(market)


async def test_broker_killed_between_settlement_and_delivery(market: Market):
    trade = await market.freeze_at("buyer", "settled")
    await market.broker.kill()
    settled = market.balances()

    await market.start_broker()
    price = bought(await market.told("buyer"), trade)
    assert price > 0
    assert (trade, "delivered") in (market.trades_of("buyer") or [])
    assert market.balances() == settled, "paid once, before the kill"
    market.check_merged("buyer")
    await all_go_on_trading(market)


async def test_buyer_killed_after_it_paid(market: Market):
    trade = await market.freeze_at("buyer", "settled")
    await market.net.children["buyer"].kill()
    thaw(market.broker)
    peer_id, settled = market.peer_id("buyer"), market.balances()

    market.come("buyer")
    restarted = await market.start_agent("buyer", "--no_sell")
    assert restarted.ready["peer_id"] == peer_id, "the same identity, so the same account"
    assert restarted.ready["balance"] == settled[peer_id]
    bought(await market.told("buyer"), trade)
    assert (trade, "delivered") in (market.trades_of("buyer") or [])
    assert market.balances() == settled, "a late delivery costs nothing more"
    market.check_merged("buyer")
    await all_go_on_trading(market)


async def test_seller_killed_is_paid_and_hears_of_it_later(market: Market):
    """Its snapshot stays on offer with a standing ask: a seller need not be up to sell."""
    before = market.balances()
    await market.net.children["seller"].kill()
    price = (await market.buys("other"))["bought"][0]["price"]
    restarted = await market.start_agent("seller", "--no_buy")
    balance = restarted.ready["balance"]
    assert before[market.peer_id("seller")] < balance <= before[market.peer_id("seller")] + price
    sold = (await market.told("seller"))["sold"]
    assert [sale["price"] for sale in sold] == [price]


async def test_everything_killed_at_once_comes_back_with_every_micro_credit(market: Market):
    trade = await market.freeze_at("other", "settled")
    for child in market.net.children.values():
        await child.kill()
    settled = market.balances()
    assert sum(settled.values()) == market.issued() >= OPENING * (len(settled) - 1)

    peers = market.peers
    await market.net.start("bootstrap", "peer", "--host_maddrs", peers[0].rpartition("/p2p/")[0])
    await market.start_broker()
    market.come("other")
    # Each comes back with the checkpoint that it watches, so each is on a visit.
    await asyncio.gather(
        market.start_agent("seller", "--no_buy"),
        market.start_agent("buyer", "--no_sell"),
        market.start_agent("other", "--no_sell"),
    )
    price = bought(await market.told("other"), trade)
    assert price > 0
    await asyncio.gather(market.told("seller"), market.told("buyer"))
    after = market.balances()
    assert after[market.peer_id("other")] == settled[market.peer_id("other")], "paid once, before the kill"
    assert sum(after.values()) == sum(settled.values())
    await all_go_on_trading(market)
