"""A caller's own strategy that fails in the midst of a visit: it costs that visit, and nothing is lost."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from market_examples import CREDIT, OpenMarket, left, specialist
from peers import eventually
from test_markets import SELL, booked, in_order, seller_and_buyer, states

from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.messages import GainReport, Unmatched
from p2pmarket.node.strategy import Knowledge, Strategy, Wallet


@dataclasses.dataclass(frozen=True)
class Wrong(Strategy):
    """Fails in one method, or names there what is no amount, until it is mended."""

    learns = True
    method: str = "none"
    answer: Any = None
    mended: list[int] = dataclasses.field(default_factory=list)

    def _answer(self, method: str, right: Any) -> Any:
        if self.mended or method != self.method:
            return right
        if self.answer is None:
            raise ZeroDivisionError("a bug")
        return self.answer

    def informed(self, knowledge: Knowledge) -> Strategy:
        return self._answer("informed", self)  # type: ignore[no-any-return]

    def standing_ask(self) -> int | None:
        return self._answer("standing_ask", 0)  # type: ignore[no-any-return]

    def wants(self, report: GainReport) -> bool:
        return self._answer("wants", True)  # type: ignore[no-any-return]

    def value(self, report: GainReport, wallet: Wallet) -> int:
        return self._answer("value", CREDIT)  # type: ignore[no-any-return]

    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        return self._answer("bid", super().bid(report, wallet))  # type: ignore[no-any-return]

    def raise_bid(self, report: GainReport, unmatched: Unmatched, last_bid: int, wallet: Wallet) -> int | None:
        return self._answer("raise_bid", 5 * CREDIT)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("method", "answer", "sentence"),
    [
        ("bid", None, "Wrong failed in bid: ZeroDivisionError: a bug"),
        ("wants", None, "Wrong failed in bid: ZeroDivisionError: a bug"),
        ("value", None, "Wrong failed in bid: ZeroDivisionError: a bug"),
        ("raise_bid", None, "Wrong failed in raise_bid: ZeroDivisionError: a bug"),
        ("standing_ask", None, "Wrong failed in standing_ask: ZeroDivisionError: a bug"),
        ("informed", None, "Wrong failed in informed: ZeroDivisionError: a bug"),
        ("bid", 1.5, "Wrong returned 1.5 as a bid; amounts are whole micro-credits"),
        ("raise_bid", float("nan"), "Wrong returned nan as a raised bid; amounts are whole micro-credits"),
        ("standing_ask", -5, "Wrong returned -5 as a standing ask; amounts are whole micro-credits"),
    ],
)
async def test_a_strategy_that_fails_costs_a_visit_and_nothing_else(
    open_market: OpenMarket, method: str, answer: Any, sentence: str
) -> None:
    async with open_market(rounds="continuous", max_revisions=2) as market:
        strategy = Wrong(method=method, answer=answer)
        seller, buyer = await seller_and_buyer(market, Strategy(buy=False, reserve=2 * CREDIT), strategy)
        result = await buyer.trade(left())
        assert sentence in result.problem and result.bought == ()
        assert await buyer._journal.run(lambda journal: journal.spent(0)) == 0
        assert await buyer._journal.run(AgentJournal.unanswered, market.running.peer_id) == []
        if method not in ("standing_ask", "informed"):
            assert await states(market) == {"declined": 1}
        strategy.mended.append(1)
        again = await buyer.trade(left())
        assert again.problem == "" and len(again.bought) == 1, "the next visit is as any other"
        await in_order(market, 2)


async def test_what_was_bought_before_a_strategy_failed_is_loaded(open_market: OpenMarket) -> None:
    """The bid for what is upon a purchase fails when the purchase is made."""

    class FailsUpon(Strategy):
        def bid(self, report: GainReport, wallet: Wallet) -> int | None:
            if report.after is not None and wallet.spent > 0:
                raise ZeroDivisionError("a bug")
            return super().bid(report, wallet)

    async with open_market(rounds="continuous", max_chain=2) as market:
        for name, model in (("two", specialist(2, seed=2)), ("three", specialist(3, seed=3))):
            agent = await market.start_agent(name, SELL)
            assert (await agent.trade(model)).problem == ""
        await eventually(lambda: booked(market, 2))
        buyer = await market.start_agent("buyer", FailsUpon(sell=False))
        result = await buyer.trade(specialist(0, 1, seed=1))
        assert any(report.after is not None for report in result.reports), "else this test shows nothing"
        assert len(result.bought) == 1 and "FailsUpon failed in bid" in result.problem
        assert "bought from" in str(result) and "FailsUpon failed in bid" in str(result)
        assert await buyer._journal.run(AgentJournal.owed) == []
        assert (await states(market))["delivered"] == 1 and (await states(market))["declined"] >= 1
        await in_order(market, 3)
