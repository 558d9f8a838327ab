"""A market of real processes as its members see it: trades, listings, money that an operator adds."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from testnet_market import Ended, Market, p2pmarket, save_clouds, trained

from p2pmarket.node.sidecar import read_checkpoint
from p2pmarket.units import CREDIT

pytestmark = [pytest.mark.testnet, pytest.mark.asyncio(loop_scope="session")]


def rows_of(ended: Ended) -> list[dict]:
    """What a listing printed."""
    assert ended.code == 0, ended.error
    assert ended.error == "", "nothing but errors goes to stderr"
    return json.loads(ended.out)


async def test_a_sidecar_buys_what_another_agent_sells(market: Market):
    before = market.balances()
    event = await market.buys("other")
    (purchase,) = event["bought"]
    assert purchase["seller"] == market.peer_id("seller")
    assert event["gain_low"] > 0
    after = market.balances()
    assert after[market.peer_id("other")] == before[market.peer_id("other")] - purchase["price"] == event["balance"]
    assert sum(after.values()) == sum(before.values())
    assert read_checkpoint(market.merged("other")).keys() == read_checkpoint(market.checkpoint("other")).keys()


async def test_a_sidecar_with_a_model_as_good_as_the_others_buys_nothing(market: Market):
    before = market.balances()
    event = await market.visit("buyer", trained(0))
    assert event["bought"] == []
    assert market.balances() == before


async def test_a_sidecar_trades_once_for_a_file_and_ends(market: Market):
    market.come("once")
    through = market.net.children["buyer"].ready["addresses"]
    child = await market.start_agent("once", "--no_sell", "--once", through=through)
    assert len((await market.told("once"))["bought"]) == 1
    assert (await child.until("done"))["balance"] < child.ready["balance"]
    assert await asyncio.wait_for(child.process.wait(), 90) == 0
    market.check_merged("once")


async def test_a_node_trains_on_a_file_trades_and_saves(market: Market):
    data, saved = save_clouds(market.folder / "few.npz", 24, seed=3), market.folder / "saved.safetensors"
    child = await market.net.start(
        "trainer", "node", "--market", "clouds", "--data", str(data), "--test", str(market.folder / "validation.npz"),
        "--epochs", "3", "--no_sell", "--compare_alone", "--save", str(saved), "--initial_peers", *market.peers,
    )  # fmt: skip
    rounds = [event async for event in child.events() if event["event"] == "round"]
    assert [event["epoch"] for event in rounds] == [1, 2, 3]
    assert [bool(event.get("bought")) for event in rounds[:2]] == [False, True], "it trades from the second epoch on"
    assert rounds[1]["score"] > rounds[1]["alone"]
    assert child.process.returncode == 0
    assert "layers.0.weight" in read_checkpoint(saved)
    assert child.log.read_text() == ""


async def test_listings_of_a_running_market(market: Market):
    through = ("--json", "--peers", *market.peers)
    purchase = (await market.buys("other"))["bought"][0]
    markets, offers = await asyncio.gather(
        p2pmarket("offers", "--state", market.folder / "passer-by", *through),
        p2pmarket("offers", "--state", market.folder / "visitor", "--market", "clouds", *through),
    )
    broker_trades, agent_trades, balances, verified = await asyncio.gather(
        p2pmarket("trades", "--json", "--state", market.broker_state),
        p2pmarket("trades", "--json", "--state", market.net.folder / "other"),
        p2pmarket("ledger", "balances", "--json", "--state", market.broker_state),
        p2pmarket("ledger", "audit", "--json", "--state", market.broker_state),
    )
    assert [(row["market"], row["broker"]) for row in rows_of(markets)] == [("clouds", market.broker.ready["peer_id"])]
    assert [row["seller"] for row in rows_of(offers)] == [market.peer_id("seller")]
    sold = next(row for row in rows_of(broker_trades) if row["trade"] == purchase["trade"])
    assert (sold["buyer"], sold["seller"]) == (market.peer_id("other"), market.peer_id("seller"))
    assert sold["state"] == "delivered"
    paid = next(row for row in rows_of(agent_trades) if row["trade"] == purchase["trade"])
    assert (paid["role"], paid["partner"], paid["price"]) == ("buyer", market.peer_id("seller"), sold["price"])
    assert {row["account"]: row["balance"] for row in rows_of(balances)} == market.balances()
    assert json.loads(verified.out)["verified"] is True


async def test_credit_granted_beside_a_running_broker_is_there_at_the_next_visit(market: Market):
    before = (await market.visit("buyer", trained(0)))["balance"]
    granted = await p2pmarket(
        "ledger", "grant", "--json", "--state", market.broker_state, market.peer_id("buyer"), "12.50"
    )
    assert granted.code == 0, granted.error
    assert json.loads(granted.out)["balance"] == before + 12_500_000
    assert (await market.visit("buyer", trained(0)))["balance"] == before + 12_500_000
    assert market.balances()[market.peer_id("buyer")] == before + 12.5 * CREDIT


async def test_ctrl_c_ends_a_node_without_a_traceback(market: Market):
    child = await market.start_agent("guest", "--no_sell")
    os.kill(child.process.pid, 2)
    await child.until("stopping")
    assert await asyncio.wait_for(child.process.wait(), 30) == 0
    assert child.log.read_text() == ""
