"""The selling side of an agent: name a price when asked, keep the receipt when sold.

Knows: ask requests and sales. Refuses to know: what a price should be (strategy). A request that comes too late is
passed over; a receipt that does not hold is kept as evidence by the journal and warned about.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Mapping

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import MarketError
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.messages import Ask, AskRequest, Message, Sold
from p2pmarket.network.streams import end_tasks
from p2pmarket.node.link import BrokerLink, HearMail
from p2pmarket.node.results import Sale, TradeResult
from p2pmarket.node.strategy import Strategy
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock

log = logging.getLogger(__name__)


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
        self._news: list[Sale] = []
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def mail(self) -> Mapping[type[Message], HearMail]:
        """Which mail is for the seller."""
        return {AskRequest: self._hear_request, Sold: self._hear_sale}

    def report(self, result: TradeResult) -> TradeResult:
        """The result with the sales that became known since the last one, and the balance that was heard of last."""
        news, self._news = self._news, []
        balance = self._link.joined.balance if self._link.joined else 0
        return dataclasses.replace(result, sold=tuple(news), balance=balance)

    async def close(self) -> None:
        """Ends what is being answered."""
        await end_tasks(self._answering)

    async def _hear_sale(self, broker: str, data: bytes) -> None:
        sold = verify(data, Sold, signer=broker)
        receipt = await self._journal.run(AgentJournal.keep_receipt, broker, sold.receipt)
        self._link.note_balance(broker, sold.balance, receipt.settled_ms)
        self._news.append(Sale(sold.trade, sold.price, sold.fee))

    async def _hear_request(self, broker: str, data: bytes) -> None:
        request = verify(data, AskRequest, signer=broker)
        if request.expires_ms <= self._clock():
            return
        try:
            amount = self._strategy.ask(request)
        except Exception:  # a caller's own code must not end the session that this mail came by
            log.exception("the strategy failed to name a price")
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
            expires_ms=request.expires_ms,
        )
        # Mail is heard by the task that reads the session's replies: the answer must not be waited for there.
        task = asyncio.create_task(
            self._answer(broker, sign(self._identity, ask), (request.expires_ms - self._clock()) / 1000)
        )
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, broker: str, data: bytes, timeout_seconds: float) -> None:
        try:
            await self._link.exchange(data, broker, timeout_seconds)
        except MarketError as error:
            log.info("the ask was not taken: %s", error)
