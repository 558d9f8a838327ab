"""From a bid to its answer: place it, hear the seller, conclude.

Knows: when a seller is asked and how long it is waited for. Refuses to know: what a bid and an ask do to a trade
(negotiation), what a price is (pricing/) and how money moves (ledger/). A bid that is sent again while it is being
cleared waits for the same outcome; one that was cleared gets the stored reply; one that a broker did not live to clear
is cleared when it comes again, with the ask that was given meanwhile. Whatever goes wrong before the settlement leaves
all balances as they were.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from p2pmarket.broker_node import negotiation
from p2pmarket.broker_node.book import Book
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.broker_node.pseudonyms import pseudonym
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import MarketError, PeerFault
from p2pmarket.files import remove_tree
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import ENDS, REFUNDED
from p2pmarket.market import MarketTerms
from p2pmarket.messages import Ask, AskRequest, Bid
from p2pmarket.tasks import end_tasks, happens
from p2pmarket.units import Clock

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long a closing broker waits for bids that are being cleared."""


class Clearing:
    """Clears bids, one task for each."""

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
        online: Callable[[str], bool],
    ) -> None:
        """
        :param mail_waits: called with a peer id when there is new mail for it
        :param online: whether a peer has an open session
        """
        self._identity = identity
        self._terms = terms
        self._ledger = ledger
        self._book = book
        self._deliveries = deliveries
        self._clock = clock
        self._mail_waits = mail_waits
        self._online = online
        self._clearing: dict[tuple[bytes, bytes], asyncio.Task[bytes]] = {}
        self._answered: dict[bytes, asyncio.Event] = {}
        self._taking: set[asyncio.Task[bytes]] = set()
        self._closed = False

    def folder(self, trade: bytes) -> Path:
        """Where a trade's delivery lies."""
        return self._deliveries / trade.hex()

    async def forget(self, trades: Iterable[bytes]) -> None:
        """Removes the deliveries of those trades that have ended, and has both sides of a refund told of it; the ledger
        says which those are, never a peer.

        :raises RuleBroken: an unknown trade
        """
        wanted = list(trades)
        if not wanted:
            return
        rows = await self._ledger.run(lambda ledger: [ledger.trade(trade) for trade in wanted])
        for row in rows:
            if row.state == REFUNDED:
                self._mail_waits(row.buyer)
                self._mail_waits(row.seller)
            if row.state in ENDS:
                await asyncio.to_thread(remove_tree, self.folder(row.trade))

    async def bid(self, buyer: str, bid: Bid, data: bytes) -> bytes:
        """The signed Deal, Unmatched or NoDeal for a verified bid.

        :raises RuleBroken: the trade is not this buyer's, of another delivery, or takes no such bid now
        :raises Expired: past its time
        """
        # A buyer that disconnects must not undo a bid it is bound by, nor keep from the seller what became of it.
        task = asyncio.create_task(self._take(buyer, bid, data))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_unheard)
            raise

    async def _take(self, buyer: str, bid: Bid, data: bytes) -> bytes:
        # Also for a bid that is being cleared: the ledger knows whose trade this is, and which bid it waits with. In
        # one go, so that a bid without a stored reply is either new or still in `_clearing`.
        outcome = await self._ledger.run(
            lambda ledger: negotiation.place_bid(ledger, self._book, self._terms, buyer, bid, data, self._clock())
        )
        if outcome is not None:
            return await self._conclude(bid, outcome)
        key = (bid.trade, bid.message_id)
        task = self._clearing.get(key)
        if task is None:
            task = asyncio.create_task(self._clear(bid))
            self._clearing[key] = task
            task.add_done_callback(lambda _: self._clearing.pop(key, None))
        return await asyncio.shield(task)

    async def ask(self, seller: str, ask: Ask, data: bytes) -> None:
        """Takes a seller's answer to an AskRequest; it is durable then.

        :raises RuleBroken: nobody waits for it (any more), it is for another snapshot or bid, or above the one before
        """
        await self._ledger.run(lambda ledger: negotiation.take_ask(ledger, seller, ask, data))
        answered = self._answered.get(ask.trade)
        if answered is not None:
            answered.set()

    async def close(self) -> None:
        """Lets what is being cleared finish; bids that wait for an ask are answered by what there is.

        What takes longer than DRAIN_SECONDS is given up: its bid comes again after the next start.
        """
        self._closed = True
        for answered in self._answered.values():
            answered.set()
        if self._taking:
            await asyncio.wait(self._taking, timeout=DRAIN_SECONDS)
        await end_tasks((*self._taking, *self._clearing.values()))

    async def _clear(self, bid: Bid) -> bytes:
        answered = self._answered[bid.trade] = asyncio.Event()  # before the row is read, so that no ask is missed
        if self._closed:
            answered.set()
        try:
            await self._hear_seller(bid, answered)
        finally:
            if self._answered.get(bid.trade) is answered:
                del self._answered[bid.trade]
        outcome = await self._ledger.run(lambda ledger: negotiation.conclude(ledger, self._terms, bid, self._clock()))
        return await self._conclude(bid, outcome)

    async def _conclude(self, bid: Bid, outcome: negotiation.Outcome) -> bytes:
        """The reply, and what follows from it here; a broker that dies before that catches up on it at its start."""
        if outcome.price is not None:
            self._mail_waits(outcome.seller)
            log.info("settled trade %s at %d micro-credits", bid.trade.hex()[:8], outcome.price)
        else:
            await self.forget((bid.trade,))
        return outcome.reply

    async def _hear_seller(self, bid: Bid, answered: asyncio.Event) -> None:
        """Asks the seller for a price, where what it asked before does not decide, and waits for the answer.

        To a raised bid below the ask every seller is asked anew; one that is offline would only be waited for in vain.
        """
        trade = await self._ledger.run(Ledger.trade, bid.trade)
        ask = negotiation.standing_ask(trade, self._clock())
        if ask is not None:
            if negotiation.decides(bid, ask) or not self._online(trade.seller):
                return
        expires_ms = min(bid.expires_ms, self._clock() + self._terms.ask_ms)
        told = await self._ledger.run(lambda ledger: negotiation.disclosed(ledger, self._terms, trade))
        request = AskRequest(
            market=self._terms.name, trade=trade.trade,
            buyer=pseudonym(self._identity, self._terms.name, trade.seller, trade.buyer),
            snapshot=trade.seller_snapshot, expires_ms=expires_ms, revision=bid.revision,
            weight=told.weight, own_weight=told.own_weight, own_ratio=told.own_ratio,
        )  # fmt: skip
        await self._ledger.run(Ledger.queue_mail, trade.seller, sign(self._identity, request))
        self._mail_waits(trade.seller)
        await happens(answered, (expires_ms - self._clock()) / 1000)


def _unheard(task: asyncio.Task[bytes]) -> None:
    """Logs what went wrong with a bid whose buyer had hung up."""
    if not task.cancelled() and (error := task.exception()) is not None:
        level = logging.INFO if isinstance(error, PeerFault) else logging.ERROR
        log.log(level, "a bid failed: %s", error, exc_info=not isinstance(error, MarketError) and error)
