"""The broker's parcel streams: snapshots in, deliveries out, each on a stream of its own.

Knows: whose parcel is awaited or owed, and where it lies. Refuses to know: what is in it (appraiser), what it cost
(ledger/). A parcel that is not what was announced ends its submission; a stream that breaks changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from pathlib import Path

from p2pmarket import limits
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.book import Book
from p2pmarket.broker_node.clearing import Clearing
from p2pmarket.broker_node.desk import last_word, level_of
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.crypto.header import Expectation
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import ConnectionLost, DataError, Expired, MarketError, PeerFault, RuleBroken
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import SETTLED
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.market import MarketTerms
from p2pmarket.messages import Done, Fetch, KeyStatement, Upload
from p2pmarket.network.session import read_frame, write_frame
from p2pmarket.network.spool import Incoming, Outgoing
from p2pmarket.network.transfer import receive_parcel, send_parcel
from p2pmarket.network.transport import Stream
from p2pmarket.units import Clock
from p2pmarket.wire import Frame, Kind

log = logging.getLogger(__name__)


class Parcels:
    """Serves parcel streams."""

    def __init__(
        self,
        *,
        identity: Identity,
        keyring: Keyring,
        terms: MarketTerms,
        ledger: LedgerThread,
        book: Book,
        clearing: Clearing,
        appraiser: Appraiser,
        clock: Clock,
        arrived: Callable[[], None],
    ) -> None:
        """:param arrived: called when a snapshot is in the book"""
        self._identity = identity
        self._keyring = keyring
        self._terms = terms
        self._ledger = ledger
        self._book = book
        self._clearing = clearing
        self._appraiser = appraiser
        self._clock = clock
        self._arrived = arrived
        # A lock is here while somebody holds it or waits for it, so that strangers' ids do not pile up.
        self._locks: weakref.WeakValueDictionary[bytes, asyncio.Lock] = weakref.WeakValueDictionary()

    @property
    def under_way(self) -> set[bytes]:
        """Submissions and trades whose parcels are being received or sent."""
        return set(self._locks)

    async def serve(self, stream: Stream) -> None:
        """One stream, from its Upload or Fetch to its end."""
        try:
            frame = await read_frame(stream)
            kind = type_of(frame.body)
            if kind == Upload.TYPE:
                await self._receive(stream, verify(frame.body, Upload, signer=stream.peer_id))
            elif kind == Fetch.TYPE:
                await self._send(stream, verify(frame.body, Fetch, signer=stream.peer_id))
            else:
                raise RuleBroken("a parcel stream begins with Upload or Fetch", code="unknown-message")
        except ConnectionLost as error:
            log.info("parcel stream of %s: %s", stream.peer_id, error)
        except MarketError as error:
            log.log(level_of(error), "refused a parcel stream of %s: %s", stream.peer_id, error)
            await last_word(stream, self._identity, error)

    async def _receive(self, stream: Stream, upload: Upload) -> None:
        """Takes the parcel of an accepted submission into the book."""
        async with self._lock(upload.submission):
            submission = await self._ledger.inside(lambda db: self._book.get(db, upload.submission))
            if submission is None or submission.agent != stream.peer_id or submission.state == "ended":
                raise RuleBroken("no parcel is awaited under this submission; submit again", code="unknown-submission")
            if submission.state != "accepted":
                raise RuleBroken("this parcel has arrived already", code="already-here")
            await self._go_on(stream)
            try:
                await receive_parcel(
                    stream,
                    Incoming.open(self._book.folder(submission.id)),
                    Expectation(
                        market=self._terms.name,
                        broker=self._identity.peer_id,
                        purpose="offer",
                        trade=submission.id,
                        sender=submission.agent,
                        receiver=self._identity.peer_id,
                        manifest_digest=submission.snapshot,
                        max_plain_bytes=submission.plain_bytes,
                    ),
                    self._keyring,
                    self._clock,
                    check=lambda path, _: self._appraiser.check(path, submission),
                )
            except PeerFault:
                await self._ledger.inside(lambda db: self._book.end(db, submission.id))
                raise
            if not await self._ledger.inside(lambda db: self._book.book(db, submission.id)):
                raise RuleBroken("this submission was replaced before its parcel was whole", code="unknown-submission")
        self._arrived()

    async def _send(self, stream: Stream, fetch: Fetch) -> None:
        """Sends the delivery of a settled trade to its buyer, as often as it asks."""
        # Everything is looked at once the stream before is over: the delivery's time may have ended meanwhile.
        async with self._lock(fetch.trade):
            trade = await self._ledger.run(self._deliverable, fetch.trade, stream.peer_id)
            try:
                outgoing = await self._outgoing(self._clearing.folder(trade.trade), trade.trade, trade.buyer)
            except RuleBroken as error:
                if error.code == "lost-delivery":
                    await self._ledger.run(self._refund, trade.trade, stream.peer_id)
                    await self._clearing.forget((trade.trade,))
                raise
            # Durable before the first byte: from then on the buyer may have it, and silence refunds nothing.
            await self._ledger.run(self._mark_served, trade.trade, stream.peer_id)
            await self._go_on(stream)
            await send_parcel(stream, outgoing)

    def _deliverable(self, ledger: Ledger, trade_id: bytes, buyer: str) -> TradeRow:
        """:raises RuleBroken, Expired: the trade's delivery does not wait for this peer"""
        trade = ledger.trade(trade_id)
        if trade.buyer != buyer:
            raise RuleBroken("this trade is not yours", code="not-yours")
        if trade.fetch_before_ms is not None and trade.fetch_before_ms <= self._clock():
            raise Expired("the time to fetch this delivery is over; it was kept as long as the market's terms say")
        if trade.state != SETTLED:
            raise RuleBroken(f"this trade is {trade.state}, nothing waits to be fetched", code="wrong-state")
        return trade

    def _mark_served(self, ledger: Ledger, trade_id: bytes, buyer: str) -> None:
        """Sealing took its time: a delivery whose own is over meanwhile was or will be refunded, and is not sent."""
        with ledger.transaction():
            self._deliverable(ledger, trade_id, buyer)
            ledger.mark_served(trade_id)

    def _refund(self, ledger: Ledger, trade_id: bytes, buyer: str) -> None:
        """Gives the price of a lost delivery back; one that was removed because its time was over is not lost."""
        with ledger.transaction():
            self._deliverable(ledger, trade_id, buyer)
            ledger.refund(trade_id, "lost-delivery")

    async def _outgoing(self, folder: Path, trade: bytes, buyer: str) -> Outgoing:
        """The sealed delivery: as it was sealed before, or sealed anew when the buyer has new keys."""
        signed = await self._ledger.inside(lambda db: self._book.member_keys(db, buyer))
        if signed is None:
            raise RuleBroken("say Hello first", code="unknown-message")
        keys = verify(signed, KeyStatement, signer=buyer)
        sealed = folder / "sealed"

        def prepare() -> Outgoing:
            try:
                outgoing = Outgoing.load(sealed, self._identity)
                if outgoing.context.receiver_epoch == keys.epoch and outgoing.context.expires_ms > self._clock():
                    return outgoing
            except DataError:
                log.debug("delivery %s is sealed for the first time", trade.hex()[:8])
            plain = next((path for path in (folder / "delivery", sealed / "plain") if path.exists()), None)
            if plain is None:
                raise RuleBroken("the broker lost this delivery and refunds it", code="lost-delivery")
            now = self._clock()  # one look: a second one would make a parcel of the longest life a little too long
            return Outgoing.create(
                sealed,
                plain,
                identity=self._identity,
                receiver=keys,
                market=self._terms.name,
                broker=self._identity.peer_id,
                purpose="delivery",
                trade=trade,
                manifest_digest=self._appraiser.digest(plain),
                issued_ms=now,
                expires_ms=now + min(self._terms.delivery_ms, limits.MAX_PARCEL_AGE_SECONDS * 1000),
            )

        return await asyncio.to_thread(prepare)

    async def _go_on(self, stream: Stream) -> None:
        await write_frame(stream, Frame(Kind.REPLY, 1, sign(self._identity, Done())))

    def _lock(self, key: bytes) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())
