"""One round of two agents that both buy: what it does to models, money and records."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from market_examples import CREDIT, OpenMarket, accuracy, left, optimiser_of, right
from torch.nn import functional

from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.ledger.trade import DELIVERED
from p2pmarket.parameters.packing import unpack


async def test_both_sides_buy_pay_and_are_better_for_it(open_market: OpenMarket, tmp_path: Path) -> None:
    ours, theirs = left(), right()
    before = accuracy(ours), accuracy(theirs)
    async with open_market() as market:
        one, other = await market.start_agent("left"), await market.start_agent("right")
        results = await asyncio.gather(one.trade(ours), other.trade(theirs))
        balances = await market.balances()
        assert await market.problems() == ()
        trades = await market.running.ledger.run(Ledger.trades)

        assert accuracy(ours) > before[0] + 0.1 and accuracy(theirs) > before[1] + 0.1
        for agent, result in zip((one, other), results, strict=True):
            assert result.problem == "" and len(result.bought) == 1 and len(result.reports) == 1
            assert balances[agent.peer_id] == await agent.balance()
        assert {trade.state for trade in trades} == {DELIVERED} and len(trades) == 2

        # Money: each paid one price and got the other, less the fee, which is the broker's; nothing was made or lost.
        paid = [result.bought[0].price for result in results]
        fees = [price * 2 // 100 for price in paid]
        assert all(price > 0 for price in paid)
        assert balances[one.peer_id] == 10 * CREDIT - paid[0] + paid[1] - fees[1]
        assert balances[other.peer_id] == 10 * CREDIT - paid[1] + paid[0] - fees[0]
        assert balances[market.running.peer_id] == sum(fees)
        assert sum(balances.values()) == 20 * CREDIT

        # Receipts hold without the broker, on both sides.
        for name, agent in (("left", one), ("right", other)):
            with AgentJournal.open(tmp_path / "market" / name / "journal.sqlite", agent.peer_id) as journal:
                stages = {row.role: row for row in journal.trades()}
            assert stages["buyer"].stage == "loaded" and stages["seller"].stage == "sold"
            for row in stages.values():
                assert row.receipt is not None
                receipt = verify_receipt(row.receipt, market.running.peer_id)
                assert (receipt.price, receipt.trade) == (row.price, row.trade)


async def test_what_is_delivered_is_what_was_appraised(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest in the report, in the receipt and of the bytes that were sent are one; so are the tensors."""
    sent: dict[bytes, dict[str, torch.Tensor]] = {}
    original = Appraiser.digest

    def watch(self: Appraiser, path: Path) -> bytes:
        sent[original(self, path)] = unpack(path, schema=self.schemas["blobs"], partial=True)
        return original(self, path)

    monkeypatch.setattr(Appraiser, "digest", watch)
    ours = left()
    async with open_market(delivery_codec="int8") as market:
        one, other = await market.start_agent("left"), await market.start_agent("right")
        result, _ = await asyncio.gather(one.trade(ours), other.trade(right()))
    purchase = result.bought[0]
    assert purchase.report is not None
    assert purchase.report.delivery == purchase.receipt.delivery
    state = ours.state_dict()
    for name, tensor in sent[purchase.report.delivery].items():
        assert torch.equal(tensor, purchase.parameters[name]) and torch.equal(tensor, state[name])


async def test_the_optimiser_keeps_its_state_and_its_parameters(open_market: OpenMarket) -> None:
    model = left()
    optimiser = optimiser_of(model)
    functional.cross_entropy(model(torch.ones(1, 8)), torch.tensor([2])).backward()
    optimiser.step()
    places = [parameter.data_ptr() for parameter in model.parameters()]
    moments = copy.deepcopy(optimiser.state_dict())
    async with open_market() as market:
        one, other = await market.start_agent("left"), await market.start_agent("right")
        result, _ = await asyncio.gather(one.trade(model), other.trade(right()))
    assert result.bought
    assert [parameter.data_ptr() for parameter in model.parameters()] == places
    after = optimiser.state_dict()
    assert after["param_groups"] == moments["param_groups"]
    for index, values in moments["state"].items():
        assert torch.equal(values["momentum_buffer"], after["state"][index]["momentum_buffer"])


async def test_tensors_by_name_are_left_as_they_are(open_market: OpenMarket) -> None:
    tensors = {name: tensor.clone() for name, tensor in left().state_dict().items()}
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    async with open_market() as market:
        one, other = await market.start_agent("left"), await market.start_agent("right")
        result, _ = await asyncio.gather(one.trade(tensors), other.trade(right()))
    assert all(torch.equal(before[name], tensors[name]) for name in before)
    assert not all(torch.equal(before[name], value) for name, value in result.bought[0].parameters.items())


async def test_two_rounds_in_one_market_and_one_after_a_restart(open_market: OpenMarket) -> None:
    ours, theirs = left(), right()
    async with open_market() as market:
        one, other = await market.start_agent("left"), await market.start_agent("right")
        rounds = [await asyncio.gather(one.trade(ours), other.trade(theirs)) for _ in range(2)]
        await market.stop_broker()
        await market.start_broker()
        rounds.append(await asyncio.gather(one.trade(ours), other.trade(theirs)))
        assert [result.round for result, _ in rounds] == [1, 2, 3]
        assert all(result.problem == "" for each in rounds for result in each)
        assert await market.problems() == ()
        assert sum((await market.balances()).values()) == 20 * CREDIT


def test_the_balances_of_a_result_are_told_in_words() -> None:
    from p2pmarket.node.results import Sale, TradeResult

    result = TradeResult(sold=(Sale(bytes(16), 3 * CREDIT, 0),), balance=5 * CREDIT, note="nothing was offered")
    assert str(result) == "sold for 3.00; nothing was offered; balance 5.00"
    assert "left the market" in str(dataclasses.replace(result, problem="this agent has left the market"))
