"""The appraisal engine through the whole protocol: chains, tasks with heads of their own, groups, coarse reports."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from market_examples import CREDIT, OpenMarket, accuracy, blobs, left, right, specialist, trained
from torch import nn
from torch.nn import functional

from p2pmarket.appraisal.ladder import Told
from p2pmarket.broker_node.appraiser import NOTHING, Appraiser, Finding
from p2pmarket.crypto.signing import verify
from p2pmarket.datasets import Dataset
from p2pmarket.errors import ConnectionLost, MalformedMessage, ModelError
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.market import parse_terms
from p2pmarket.messages import Appraisal, Bid, Deal, GainReport
from p2pmarket.models import build_model
from p2pmarket.node.agent import AsyncAgent
from p2pmarket.node.buyer import Buyer
from p2pmarket.node.results import TradeResult
from p2pmarket.node.strategy import Strategy
from p2pmarket.node.welcome import Joined
from p2pmarket.simulation.market import MarketInMemory

SELL, BUY = Strategy(buy=False), Strategy(sell=False, minimum_gain=-1.0)


async def visits(
    market: MarketInMemory, models: dict[str, nn.Module], **strategies: Strategy
) -> dict[str, TradeResult]:
    """One visit of each, at a time."""
    agents = [await market.start_agent(name, strategies.get(name)) for name in models]
    results = await asyncio.gather(*(agent.trade(model) for agent, model in zip(agents, models.values(), strict=True)))
    return dict(zip(models, results, strict=True))


# ---- purchases upon one another ------------------------------------------------------------------------------------


SELLERS = {"two": specialist(2, seed=2), "three": specialist(3, seed=3), "also three": specialist(3, seed=4)}


async def test_sellers_are_bought_one_upon_the_other(open_market: OpenMarket) -> None:
    model = specialist(0, 1, seed=1)
    before = accuracy(model)
    async with open_market(round_agents=4) as market:
        results = await visits(market, {"poor": model, **SELLERS}, poor=BUY, **dict.fromkeys(SELLERS, SELL))
        assert await market.problems() == ()
        trades = {trade.trade: trade for trade in await market.running.ledger.run(Ledger.trades)}
    reports = results["poor"].reports
    assert sum(report.after is None for report in reports) == 3, "each alone"
    first, second = (purchase.report for purchase in results["poor"].bought[:2])
    assert first is not None and second is not None
    assert first.after is None and second.after == first.trade and second.seller != first.seller
    assert second.loss_before == pytest.approx(first.loss_after, abs=1e-6)
    assert {trades[one.trade].state for one in (first, second)} == {"delivered"}
    assert accuracy(model) > before + 0.1
    loaded = results["poor"].bought[-1].parameters
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items()), "the last holds all"


async def test_a_market_may_forbid_chains(open_market: OpenMarket) -> None:
    async with open_market(round_agents=4, max_chain=1) as market:
        results = await visits(
            market, {"poor": specialist(0, 1, seed=1), **SELLERS}, poor=BUY, **dict.fromkeys(SELLERS, SELL)
        )
    assert [report.after for report in results["poor"].reports] == [None] * 3


async def test_a_seller_that_the_buyer_cannot_pay_is_in_no_chain(open_market: OpenMarket) -> None:
    """The best by far asks more than the buyer has; the others are chained as if it were not there."""
    sellers = {"dear": specialist(0, 1, 2, 3, seed=5), **SELLERS}
    strategies = {"dear": Strategy(buy=False, reserve=11 * CREDIT), **dict.fromkeys(SELLERS, SELL)}
    async with open_market(round_agents=5) as market:
        results = await visits(market, {"poor": specialist(0, 1, seed=1), **sellers}, poor=BUY, **strategies)
        dear = market.agent("dear").peer_id
    result = results["poor"]
    alone = [report for report in result.reports if report.after is None]
    assert alone[0].seller == dear and alone == sorted(alone, key=lambda report: (-report.gain, report.trade))
    chained = result.reports[len(alone) :]
    head = next(report for report in alone if report.trade == chained[0].after)
    assert dear not in {head.seller, *(report.seller for report in chained)}
    assert [purchase.trade for purchase in result.bought[:2]] == [head.trade, chained[0].trade]


async def test_report_has_no_say_in_a_chain(open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is the best on SELECT, whatever REPORT says of it; the buyer is told what REPORT says."""
    told: list[dict[str, float]] = []
    heads: list[str] = []
    measure = Appraiser.appraise

    for backwards in (False, True):
        gains: dict[str, float] = {}

        def bent(
            self: Appraiser, *args: Any, gains: dict[str, float] = gains, backwards: bool = backwards, **rest: Any
        ) -> Finding:
            finding = measure(self, *args, **rest)
            if finding.after is None:
                gains[finding.seller.agent] = finding.result.select_gain
            bend = {"gain": -finding.result.gain, "low": -1.0, "merit_low": -1.0} if backwards else {}
            return dataclasses.replace(finding, result=dataclasses.replace(finding.result, **bend))

        monkeypatch.setattr(Appraiser, "appraise", bent)
        async with open_market(f"market-{backwards}", round_agents=4) as market:
            results = await visits(
                market, {"poor": specialist(0, 1, seed=1), **SELLERS}, poor=BUY, **dict.fromkeys(SELLERS, SELL)
            )
            names = {market.agent(name).peer_id: name for name in SELLERS}
        reports = results["poor"].reports
        (upon, *_) = [report for report in reports if report.after is not None]
        head = next(report for report in reports if report.trade == upon.after)
        assert head.seller == max(gains, key=lambda seller: gains[seller])
        heads.append(names[head.seller])
        told.append({names[report.seller]: report.gain for report in reports if report.after is None})
    assert heads[0] == heads[1] and told[0][heads[0]] > 0 > told[1][heads[0]]


async def test_what_cannot_be_told_to_one_is_told_to_the_others(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoilt: list[str] = []
    report = Finding.report

    def once(self: Finding, expires_ms: int) -> GainReport:
        if not spoilt:
            spoilt.append(self.buyer.agent)
        if self.buyer.agent in spoilt:
            raise MalformedMessage("GainReport.gain is not finite")
        return report(self, expires_ms)

    monkeypatch.setattr(Finding, "report", once)
    async with open_market(round_agents=3) as market:
        results = await visits(market, {"left": left(), "right": right(), "third": trained(1, 3)})
        told = {market.agent(name).peer_id: len(result.reports) for name, result in results.items()}
    assert told.pop(spoilt[0]) == 0 and min(told.values()) > 0
    assert f"the findings for {spoilt[0]} cannot be told" in caplog.text


async def test_what_is_upon_another_purchase_cannot_be_bought_alone(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def impatient(self: Buyer, joined: Joined, appraisal: Appraisal) -> TradeResult:
        reports = [verify(data, GainReport, signer=joined.broker) for data in appraisal.reports]
        upon = next(report for report in reports if report.after is not None)
        outcome = await self._buy(joined, upon, CREDIT)
        return TradeResult(note=str(outcome))

    monkeypatch.setattr(Buyer, "decide", impatient)
    async with open_market(round_agents=4) as market:
        results = await visits(
            market, {"poor": specialist(0, 1, seed=1), **SELLERS}, poor=BUY, **dict.fromkeys(SELLERS, SELL)
        )
        assert "must be bought first" in results["poor"].note
        broker = market.running.peer_id
        open_words = await market.agent("poor")._journal.run(AgentJournal.unanswered, broker)
        assert open_words == [], "sent again it would be refused again"
        assert len(set((await market.balances()).values())) == 1, "nothing moved"


def in_parts() -> tuple[nn.Module, dict[str, nn.Module], dict[str, Strategy]]:
    """A buyer that lost two layers, and two sellers who sell one of them each: no delivery holds the other's."""
    whole = specialist(0, 1, 2, 3, seed=5)
    model, generator = specialist(0, 1, 2, 3, seed=5), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("weight"):
                tensor += tensor.std() * torch.randn(tensor.shape, generator=generator)
    strategies = {part: Strategy(buy=False, sell_groups=(part,)) for part in GROUPS}
    return model, dict.fromkeys(GROUPS, whole), strategies


async def test_a_chain_that_comes_late_is_loaded_whole_and_in_order(open_market: OpenMarket) -> None:
    model, sellers, strategies = in_parts()
    before = accuracy(model)
    tensors = dict(model.state_dict())
    async with open_market(round_agents=3, groups=GROUPS) as market:
        buyer = await market.start_agent("poor", BUY)
        others = [await market.start_agent(part, strategies[part]) for part in GROUPS]

        async def round_of(buyer: AsyncAgent) -> TradeResult:
            visits = [one.trade(sellers[part]) for one, part in zip(others, GROUPS, strict=True)]
            return (await asyncio.gather(buyer.trade(tensors), *visits))[0]

        first = await round_of(buyer)
        assert [purchase.report.after is None for purchase in first.bought if purchase.report] == [True, False]
        assert not set(first.bought[0].parameters) & set(first.bought[1].parameters)
        await market.stop_agent("poor")  # before it says that they are loaded
        buyer = await market.start_agent("poor", BUY)
        second = await round_of(buyer)
        assert [purchase.trade for purchase in second.bought] == [purchase.trade for purchase in first.bought]
        assert "late" in second.note
        for purchase in second.bought:
            model.load_state_dict({**model.state_dict(), **purchase.parameters})
        assert accuracy(model) > before
        assert (await buyer.loaded(second)).problem == ""
        assert await buyer._journal.run(AgentJournal.owed) == []


async def test_a_chain_without_its_first_purchase_is_given_up(open_market: OpenMarket) -> None:
    model, sellers, strategies = in_parts()
    tensors = dict(model.state_dict())
    async with open_market(round_agents=3, groups=GROUPS) as market:
        buyer = await market.start_agent("poor", BUY)
        others = [await market.start_agent(part, strategies[part]) for part in GROUPS]
        results = []
        for lost in (True, False):
            visits = [one.trade(sellers[part]) for one, part in zip(others, GROUPS, strict=True)]
            results.append((await asyncio.gather(buyer.trade(tensors), *visits))[0])
            if lost:
                first, second = results[0].bought
                broker = market.running.peer_id
                await market.stop_agent("poor")
                buyer = await market.start_agent("poor", BUY)
                await buyer._journal.run(AgentJournal.give_up, broker, first.trade, "lost-delivery")
        row = await buyer._journal.run(AgentJournal.trade, broker, second.trade)
        assert row is not None and row.reason == "too-late"
        assert second.trade not in [purchase.trade for purchase in results[1].bought]


async def test_a_chained_bid_without_an_answer_still_binds(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, sent = Buyer._send_bid, 0

    async def lost(self: Buyer, joined: Joined, bid: Bid, data: bytes) -> Deal | str:
        nonlocal sent
        sent += 1
        outcome = "" if sent == 2 else await send(self, joined, bid, data)
        if sent == 2:
            raise ConnectionLost("the answer was lost")
        return outcome

    monkeypatch.setattr(Buyer, "_send_bid", lost)
    async with open_market(round_agents=4) as market:
        results = await visits(
            market, {"poor": specialist(0, 1, seed=1), **SELLERS}, poor=BUY, **dict.fromkeys(SELLERS, SELL)
        )
        journal = market.agent("poor")._journal
        rows = await journal.run(AgentJournal.trades)
        (open_row,) = [row for row in rows if row.stage == "bid"]
        (purchase,) = results["poor"].bought
        assert await journal.run(AgentJournal.spent, 0) == purchase.price + open_row.bid_amount
        trades = {trade.trade: trade.state for trade in await market.running.ledger.run(Ledger.trades)}
        declined = [row.trade for row in rows if row.reason == "declined"]
        assert declined and {trades[trade] for trade in declined} == {"declined"}, "the broker took the rest"
        assert trades[open_row.trade] == "appraised"


# ---- tasks with heads of their own ---------------------------------------------------------------------------------


def halves(count: int, seed: int) -> Dataset:
    """The same points; only whether they belong to the first two centres."""
    data = blobs(count, seed)
    return Dataset(data.inputs, data.targets // 2)


def two_tasks(folder: Path) -> MarketInMemory:
    document = {
        "market": {"name": "blobs", "rounds": "barrier", "round_agents": 2, "round_timeout_seconds": 20},
        "model": {"name": "mlp", "arguments": {"inputs": 8, "hidden": [16], "outputs": 4}},
        "appraisal": {"coefficients": "model", "tell_tasks": True},
        "task": [
            {"name": "centres", "loss": "cross_entropy", "metric": "accuracy"},
            {"name": "halves", "loss": "cross_entropy", "metric": "accuracy", "arguments": {"outputs": 2}},
        ],
        "pricing": {"opening_credit": "10"},
    }
    return MarketInMemory(parse_terms(document), {"centres": blobs(800, 99), "halves": halves(800, 98)}, folder)


def trained_on_halves(count: int) -> nn.Module:
    torch.manual_seed(1)
    model = build_model("mlp", {"inputs": 8, "hidden": [16], "outputs": 2}, False)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = halves(count, 17)
    for _ in range(60):
        optimiser.zero_grad()
        functional.cross_entropy(model(data.inputs), data.targets).backward()
        optimiser.step()
    return model


async def test_tasks_with_different_heads_trade_what_they_share(tmp_path: Path) -> None:
    async with two_tasks(tmp_path) as market:
        one, other = await market.start_agent("one"), await market.start_agent("other")
        ours, theirs = left(), trained_on_halves(20)
        heads = [model.state_dict()["layers.1.weight"].clone() for model in (ours, theirs)]
        results = await asyncio.gather(one.trade(ours, task="centres"), other.trade(theirs, task="halves"))
        assert await market.problems() == ()
    for result, task in zip(results, ("centres", "halves"), strict=True):
        assert result.problem == ""
        (report,) = result.reports
        assert report.task == task
        assert report.left_out == ("layers.1.bias", "layers.1.weight"), "another head"
    for model, head, result in zip((ours, theirs), heads, results, strict=True):
        assert torch.equal(model.state_dict()["layers.1.weight"], head), "the head stays the buyer's own"
        assert all(set(purchase.parameters) == {"layers.0.bias", "layers.0.weight"} for purchase in result.bought)


async def test_a_snapshot_of_another_tasks_model_is_the_users_mistake(tmp_path: Path) -> None:
    async with two_tasks(tmp_path) as market:
        agent = await market.start_agent("one")
        with pytest.raises(ModelError, match=r"layers\.1"):
            await agent.trade(left(), task="halves")
        with pytest.raises(ModelError, match="no task 'thirds'; it has centres, halves"):
            await agent.trade(left(), task="thirds")


# ---- parameter groups ----------------------------------------------------------------------------------------------

GROUPS = {"first": ["layers.0.*"], "last": ["layers.1.*"]}


async def test_reports_say_what_each_group_adds(open_market: OpenMarket) -> None:
    async with open_market(groups=GROUPS) as market:
        results = await visits(market, {"left": left(), "right": right()})
    (report,) = results["left"].reports
    assert {one.group for one in report.groups} == {"first", "last"}
    assert max(one.gain for one in report.groups) > 0


@pytest.mark.parametrize(
    ("buys", "sells", "changed"),
    [
        (("last",), (), {"layers.1.bias", "layers.1.weight"}),
        ((), ("first",), {"layers.0.bias", "layers.0.weight"}),
        (("last",), ("first",), set()),
    ],
)
async def test_a_trade_is_restricted_to_what_one_buys_and_the_other_sells(
    buys: Sequence[str], sells: Sequence[str], changed: set[str], open_market: OpenMarket
) -> None:
    async with open_market(groups=GROUPS) as market:
        buyer = Strategy(sell=False, minimum_gain=-1.0, buy_groups=tuple(buys))
        results = await visits(
            market, {"left": left(), "right": right()}, left=buyer, right=Strategy(buy=False, sell_groups=tuple(sells))
        )
    (report,) = results["left"].reports
    everything = {f"layers.{index}.{part}" for index in (0, 1) for part in ("weight", "bias")}
    assert set(report.left_out) == everything - changed
    for purchase in results["left"].bought:
        assert set(purchase.parameters) == changed
    assert bool(changed) or report.weight == 0


async def test_an_unknown_group_is_refused(open_market: OpenMarket) -> None:
    async with open_market(groups=GROUPS) as market:
        agent = await market.start_agent("left", Strategy(buy_groups=("middle",)))
        assert "no parameter group 'middle'; it has first, last" in (await agent.trade(left())).problem


# ---- coarse reports -------------------------------------------------------------------------------------------------


async def test_reports_come_in_steps_and_what_was_told_is_kept(open_market: OpenMarket) -> None:
    async with open_market(report_steps=16, groups=GROUPS, tell_classes=True) as market:
        results = await visits(market, {"left": left(), "right": right()})
        (report,) = results["left"].reports
        step = report.loss_before / 16
        assert report.gain > 0 and report.gain / step == pytest.approx(round(report.gain / step))
        assert report.classes == () and report.groups == (), "they would be finer than the steps"
        agent = market.agent("left").peer_id
        data = market._appraiser.data["blobs"]
        book = market.running.broker._book
        told = await market.running.ledger.inside(lambda db: book.told(db, agent, "blobs", data))
        assert told.loss == report.loss_before
        assert await market.running.ledger.inside(lambda db: book.told(db, agent, "blobs", b"other")) == Told()


async def test_what_is_not_told_is_not_sold(open_market: OpenMarket) -> None:
    """The merge helps a little; in steps of half the loss that is no gain, and there is nothing to fetch."""
    reports: list[GainReport] = []
    for steps in (0, 2):
        async with open_market(f"market-{steps}", report_steps=steps) as market:
            results = await visits(market, {"left": right(), "right": trained(2, 5)}, right=SELL)
            reports += results["left"].reports
    exact, coarse = reports
    if exact.weight > 0 and exact.gain < exact.loss_before / 2:
        assert coarse.weight == 0 and coarse.delivery == NOTHING and coarse.gain == 0.0
        assert "2th of your loss" in coarse.reason


# ---- the broker answers while it works -----------------------------------------------------------------------------


async def test_the_event_loop_answers_while_a_large_pair_is_appraised(tmp_path: Path) -> None:
    """Three million parameters, seconds of work; no answer waits for a second."""
    document = {
        "market": {"name": "large", "rounds": "barrier", "round_agents": 2},
        "model": {"name": "mlp", "arguments": {"inputs": 64, "hidden": [1024, 1024, 1024], "outputs": 4}},
        "task": [{"name": "large", "loss": "cross_entropy", "metric": "accuracy"}],
    }
    generator = torch.Generator().manual_seed(0)
    data = Dataset(torch.randn(600, 64, generator=generator), torch.randint(0, 4, (600,), generator=generator))
    waits: list[float] = []

    async def heartbeat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            waits.append(time.monotonic() - before)

    arguments = document["model"]["arguments"]  # type: ignore[index]
    async with MarketInMemory(parse_terms(document), {"large": data}, tmp_path) as market:
        agents: list[AsyncAgent] = [await market.start_agent(name) for name in ("one", "other")]
        models = []
        for seed in range(2):
            torch.manual_seed(seed)
            models.append(build_model("mlp", arguments, False))
        beating = asyncio.create_task(heartbeat())
        began = time.monotonic()
        results = await asyncio.gather(*(agent.trade(model) for agent, model in zip(agents, models, strict=True)))
        took = time.monotonic() - began
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
    assert all(result.problem == "" and result.reports for result in results)
    assert max(waits) < 1.0, f"{max(waits):.2f} s of {took:.1f}"


# ---- options --------------------------------------------------------------------------------------------------------


async def test_activations_and_repair_serve_both_directions(open_market: OpenMarket) -> None:
    async with open_market(activations=True, repair=True, coefficients="auto") as market:
        ours, theirs = left(), right()
        before = [accuracy(model) for model in (ours, theirs)]
        results = await visits(market, {"left": ours, "right": theirs})
        assert await market.problems() == ()
    for result, model, was in zip(results.values(), (ours, theirs), before, strict=True):
        assert result.problem == "" and result.reports[0].alignment in ("identity", "weights", "activations")
        assert accuracy(model) > was
