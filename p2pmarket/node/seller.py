"""The selling side of an agent: name a price when asked, keep the receipt when sold, hear what was refunded.

Knows: ask requests, sales and refunds. Refuses to know: what a price should be (strategy). An ask is written down
before it is sent. A request that comes too late is passed over; a receipt that does not hold is kept as evidence by the
journal and warned about.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Mapping

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import MarketError, NetworkFault, Refused, StrategyFault
from p2pmarket.ledger.agent_journal import AgentJournal, AgentTrade, AskGiven
from p2pmarket.messages import Ask, AskRequest, Message, Refund, Sold, Statistics, StatisticsRequest, Submit
from p2pmarket.node.consulting import amount_of, informed
from p2pmarket.node.link import BrokerLink, HearMail
from p2pmarket.node.results import Repaid, Sale, TradeResult
from p2pmarket.node.strategy import Knowledge, PastAsk, Strategy
from p2pmarket.node.welcome import Joined
from p2pmarket.pricing.history import PriceStatistics
from p2pmarket.tasks import end_tasks
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock

log = logging.getLogger(__name__)

MEMORY = 1000
"""Asks that a strategy learns from at most, of each buyer the newest; of its trades, the newest twice as many."""
STATISTICS_SECONDS = 10.0
"""How long a visit waits for the market's statistics."""


class Seller:
    """Sells for one agent."""

    def __init__(
        self,
        identity: Identity,
        link: BrokerLink,
        journal: OwnThread[AgentJournal],
        strategy: Strategy,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._link = link
        self._journal = journal
        self._strategy = strategy
        self._clock = clock
        self._sales: list[Sale] = []
        self._refunds: list[Repaid] = []
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def mail(self) -> Mapping[type[Message], HearMail]:
        """Which mail is heard here; a refund is for both sides."""
        return {AskRequest: self._hear_request, Sold: self._hear_sale, Refund: self._hear_refund}

    def report(self, result: TradeResult) -> TradeResult:
        """The result with the sales and refunds that became known since the last one, and the balance heard of last."""
        sales, self._sales = self._sales, []
        refunds, self._refunds = self._refunds, []
        balance = self._link.joined.balance if self._link.joined else 0
        return dataclasses.replace(result, sold=tuple(sales), repaid=tuple(refunds), balance=balance)

    async def standing_ask(self, joined: Joined, task: str) -> int | None:
        """The ask that goes with a snapshot, by what is known now; None to be asked.

        :raises StrategyFault: the strategy names none
        """
        if not self._strategy.sell:
            return None
        if self._strategy.learns:
            self._strategy = informed(self._strategy, await self._knowledge(joined, task))
        return amount_of(self._strategy.standing_ask)

    async def close(self) -> None:
        """Ends what is being answered."""
        await end_tasks(self._answering)

    # ---- what a strategy learns from ----------------------------------------------------------------------------

    async def _knowledge(self, joined: Joined, task: str) -> Knowledge:
        broker, terms, now = joined.broker, joined.terms, self._clock()

        def read(journal: AgentJournal) -> tuple[list[AgentTrade], list[AskGiven], dict[str, bytes]]:
            return journal.trades(2 * MEMORY), journal.asks(broker, MEMORY), journal.buyers(broker)

        trades, asks, buyers = await self._journal.run(read)
        sales = {row.trade: row for row in trades if row.role == "seller" and row.receipt and row.broker == broker}
        open_since = now - terms.bid_ms - terms.ask_ms  # a younger ask may still be met
        past = [
            _sale(row, buyers[row.partner].hex() if row.partner in buyers else row.partner) for row in sales.values()
        ]
        past += [
            PastAsk(ask.amount, None, _name(ask), ask.made_ms)
            for ask in asks
            if ask.trade not in sales and ask.made_ms < open_since
        ]
        return Knowledge(
            now_ms=now, k_ppm=terms.k_ppm, fee_ppm=terms.fee_ppm, past=tuple(past),
            statistics=await self._statistics(joined, task) if terms.publish_prices else None,
        )  # fmt: skip

    async def _statistics(self, joined: Joined, task: str) -> PriceStatistics | None:
        """The market's, where it has some; a visit does not fail for want of them."""
        request = StatisticsRequest(secrets.token_bytes(16), task)
        try:
            told = await self._link.request(request, Statistics, STATISTICS_SECONDS, broker=joined.broker)
            if not told.bid_quantiles:
                return None
            return PriceStatistics(told.bids, told.buyers, told.bid_quantiles, told.price_quantiles)
        except (NetworkFault, Refused, ValueError) as error:
            log.info("the market's statistics are not known: %s", error)
            return None

    # ---- mail ---------------------------------------------------------------------------------------------------

    async def _hear_sale(self, broker: str, data: bytes) -> None:
        sold = verify(data, Sold, signer=broker)
        receipt = await self._journal.run(AgentJournal.keep_sale, broker, data)
        self._link.note_balance(broker, sold.balance, receipt.settled_ms)
        self._sales.append(Sale(sold.trade, sold.price, sold.fee))

    async def _hear_refund(self, broker: str, data: bytes) -> None:
        refund = verify(data, Refund, signer=broker)
        await self._journal.run(AgentJournal.keep_refund, broker, data)
        bought = refund.buyer == self._identity.peer_id
        amount = refund.price if bought else refund.proceeds
        self._refunds.append(Repaid(refund.trade, bought, amount, refund.reason))

    async def _hear_request(self, broker: str, data: bytes) -> None:
        request = verify(data, AskRequest, signer=broker)
        if request.expires_ms <= self._clock():
            return
        word = await self._journal.run(AgentJournal.asked, broker, request.snapshot, request.trade)
        try:
            amount = self._price(request, word)
        except StrategyFault as error:  # it must not end the session that this mail came by
            log.warning("no price was named: %s", error)
            return
        if amount is None:
            return
        ask = Ask(
            message_id=secrets.token_bytes(16),
            market=request.market,
            broker=broker,
            trade=request.trade,
            snapshot=request.snapshot,
            amount=amount,
            expires_ms=request.expires_ms + self._bound_longer(),
            revision=request.revision,
        )
        # Mail is heard by the task that reads the session's replies: the answer must not be waited for there.
        task = asyncio.create_task(self._answer(broker, sign(self._identity, ask), request))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def _price(self, request: AskRequest, word: bytes | None) -> int | None:
        """What to ask. To a raised bid what was asked before, the `word`, is said again where it stays, so that nobody
        waits."""
        if request.revision == 0:
            return amount_of(self._strategy.ask, request)
        if word is None:  # this journal does not know what it asked; the broker does, and that stands
            return None
        last = _amount(word)
        lowered = amount_of(self._strategy.lower_ask, request, last)
        return last if lowered is None else min(last, lowered)

    def _bound_longer(self) -> int:
        """Milliseconds that an ask holds beyond its request: as long as its trade can, where bids may be raised."""
        joined = self._link.joined
        return joined.terms.bid_ms if joined is not None and joined.terms.max_revisions > 0 else 0

    async def _answer(self, broker: str, data: bytes, request: AskRequest) -> None:
        try:
            await self._journal.run(AgentJournal.keep_ask, broker, data, request.buyer)
            await self._link.exchange(data, broker, (request.expires_ms - self._clock()) / 1000)
        except MarketError as error:
            log.info("the ask was not taken: %s", error)


def _sale(row: AgentTrade, buyer: str) -> PastAsk:
    asked = _amount(row.ask) if row.ask is not None else None
    return PastAsk(asked, row.price, buyer, row.settled_ms or row.noted_ms)


def _name(ask: AskGiven) -> str:
    """Of a buyer that a strategy can tell from others; of one that nobody named, this one time."""
    return (ask.buyer or ask.trade).hex()


def _amount(word: bytes) -> int:
    """What this agent's own signed Ask, or Submit with a standing ask, asks for."""
    if type_of(word) == Submit.TYPE:
        return verify(word, Submit, signer=None).ask or 0
    return verify(word, Ask, signer=None).amount
