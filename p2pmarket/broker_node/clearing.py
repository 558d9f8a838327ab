"""From a bid to a deal: find the ask, strike the price, settle once.

Knows: the order of the steps and how long to wait for a seller. Refuses to know: what a price is (pricing/) and how
money moves (ledger/). A bid that is sent again while it is being cleared waits for the same outcome; one that was
cleared gets the stored reply. Whatever goes wrong before the settlement leaves all balances as they were.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from p2pmarket.broker_node.appraiser import NOTHING
from p2pmarket.broker_node.book import Book
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import Expired, RuleBroken
from p2pmarket.files import remove_tree
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import ENDS, PAID
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.market import MarketTerms
from p2pmarket.messages import Ask, AskRequest, Bid, GainReport
from p2pmarket.network.streams import end_tasks
from p2pmarket.pricing.bargaining import strike
from p2pmarket.units import Clock

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long a closing broker waits for bids that are being cleared."""


class Clearing:
    """Clears bids, one task a trade."""

    def __init__(
        self,
        *,
        identity: Identity,
        terms: MarketTerms,
        ledger: LedgerThread,
        book: Book,
        deliveries: Path,
        clock: Clock,
        mail_waits: Callable[[str], None],
    ) -> None:
        """:param mail_waits: called with a peer id when there is new mail for it"""
        self._identity = identity
        self._terms = terms
        self._ledger = ledger
        self._book = book
        self._deliveries = deliveries
        self._clock = clock
        self._mail_waits = mail_waits
        self._clearing: dict[bytes, asyncio.Task[bytes]] = {}
        self._asks: dict[bytes, tuple[str, bytes, asyncio.Future[bytes]]] = {}

    def folder(self, trade: bytes) -> Path:
        """Where a trade's delivery lies."""
        return self._deliveries / trade.hex()

    async def forget(self, trades: Iterable[bytes]) -> None:
        """Removes the deliveries of those trades that have ended; the ledger says which, never a peer.

        :raises RuleBroken: an unknown trade
        """
        ended = await self._ledger.run(lambda ledger: [t for t in trades if ledger.trade(t).state in ENDS])
        for trade in ended:
            await asyncio.to_thread(remove_tree, self.folder(trade))

    async def bid(self, buyer: str, bid: Bid, data: bytes) -> bytes:
        """The signed Deal or NoDeal for a verified bid.

        :raises RuleBroken: the trade is not this buyer's, past its time, or of another delivery
        """

        def place(ledger: Ledger) -> bytes | None:
            stored = ledger.seen_reply(buyer, bid.message_id)
            if stored is not None:
                return stored
            trade = ledger.trade(bid.trade)
            if trade.buyer != buyer:
                raise RuleBroken("this trade is another buyer's", code="not-yours")
            _check_order(ledger, trade)
            if bid.delivery == NOTHING:
                raise RuleBroken("no merge helped on this trade, there is nothing to buy", code="nothing-to-buy")
            ledger.place_bid(data)
            return None

        # Also for a bid that is being cleared: the ledger knows whose trade this is, and that there is one bid. In one
        # go, so that a bid without a stored reply is either new or still in `_clearing`.
        stored = await self._ledger.run(place)
        if stored is not None:
            return stored
        task = self._clearing.get(bid.trade)
        if task is None:
            task = asyncio.create_task(self._clear(buyer, bid))
            self._clearing[bid.trade] = task
            task.add_done_callback(lambda _: self._clearing.pop(bid.trade, None))
        # A buyer that disconnects must not undo a bid it is bound by.
        return await asyncio.shield(task)

    def ask(self, seller: str, ask: Ask, data: bytes) -> None:
        """Takes a seller's answer to an AskRequest.

        :raises RuleBroken: nobody waits for it (any more), or it is for another snapshot
        """
        waiting = self._asks.get(ask.trade)
        if waiting is None or waiting[0] != seller:
            raise RuleBroken("no bid waits for this ask; it came too late or was not asked for", code="no-bid")
        if waiting[1] != ask.snapshot:
            raise RuleBroken("this ask is for another snapshot than the one that is bid for", code="wrong-snapshot")
        if not waiting[2].done():
            waiting[2].set_result(data)

    async def close(self) -> None:
        """Lets what is being cleared finish; bids that wait for an ask end as no deal.

        What takes longer than DRAIN_SECONDS is given up: its bid comes again after the next start.
        """
        for _, _, answer in self._asks.values():
            answer.cancel()
        if self._clearing:
            await asyncio.wait(self._clearing.values(), timeout=DRAIN_SECONDS)
        await end_tasks(self._clearing.values())

    async def _clear(self, buyer: str, bid: Bid) -> bytes:
        trade = await self._ledger.run(Ledger.trade, bid.trade)
        found = await self._find_ask(trade, bid)
        if found is None:
            return await self._no_deal(buyer, bid, "no-ask", "the seller named no price in time")
        ask, signed = found
        price = strike(bid.amount, ask, self._terms.fee_ppm)
        if price is None:
            return await self._no_deal(buyer, bid, "no-overlap", "the seller asks more than this bid")
        fetch_before_ms = self._clock() + self._terms.delivery_ms

        def settle(ledger: Ledger) -> bytes:
            ledger.record_ask(bid.trade, signed)
            return ledger.settle(bid.trade, price.price, price.fee, fetch_before_ms=fetch_before_ms).reply

        try:
            reply = await self._ledger.run(settle)
        except (RuleBroken, Expired) as error:
            return await self._no_deal(buyer, bid, error.code, str(error))
        self._mail_waits(trade.seller)
        log.info("settled trade %s at %d micro-credits", bid.trade.hex()[:8], price.price)
        return reply

    async def _find_ask(self, trade: TradeRow, bid: Bid) -> tuple[int, bytes] | None:
        """The seller's price and the signed bytes that bind it: its standing ask, or its answer to an AskRequest."""
        snapshot = trade.seller_snapshot
        submission = await self._ledger.inside(lambda db: self._book.by_snapshot(db, trade.seller, snapshot))
        if submission is not None and submission.ask is not None:
            return submission.ask, submission.signed
        return await self._ask_seller(trade, min(bid.expires_ms, self._clock() + self._terms.ask_ms))

    async def _ask_seller(self, trade: TradeRow, expires_ms: int) -> tuple[int, bytes] | None:
        request = AskRequest(
            market=self._terms.name, trade=trade.trade, snapshot=trade.seller_snapshot, expires_ms=expires_ms
        )
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asks[trade.trade] = (trade.seller, trade.seller_snapshot, answer)
        try:
            await self._ledger.run(Ledger.queue_mail, trade.seller, sign(self._identity, request))
            self._mail_waits(trade.seller)
            data = await asyncio.wait_for(answer, max(0, expires_ms - self._clock()) / 1000)
        except (asyncio.TimeoutError, asyncio.CancelledError):
            return None
        finally:
            self._asks.pop(trade.trade, None)
        return verify(data, Ask, signer=trade.seller).amount, data

    async def _no_deal(self, buyer: str, bid: Bid, reason: str, sentence: str) -> bytes:
        """Ends the trade; where it has ended meanwhile (its time ran out, the money lacked), what was said then."""

        def end(ledger: Ledger) -> bytes:
            stored = ledger.seen_reply(buyer, bid.message_id)
            return stored or ledger.no_deal(bid.trade, reason, sentence)

        reply = await self._ledger.run(end)
        await self.forget((bid.trade,))
        return reply


def _check_order(ledger: Ledger, trade: TradeRow) -> None:
    """:raises RuleBroken: the gain is upon another purchase, which is not settled"""
    if trade.report is None:
        return
    after = verify(trade.report, GainReport, signer=None).after
    if after is not None and ledger.trade(after).state not in PAID:
        raise RuleBroken(
            "this gain is upon another purchase of the same appraisal; buy that one first", code="out-of-order"
        )
