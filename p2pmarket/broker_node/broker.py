"""A broker at work: sessions and parcels in, appraisals and deliveries out.

Knows: which stream leads where, and what runs when. The decisions are elsewhere: answers in desk, prices in clearing,
whom to appraise in rounds, tensors in appraiser, money in ledger/. Everything that must survive a crash is in the
ledger's file or in a folder it names; this object can be dropped at any point and built again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import weakref
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from p2pmarket import limits
from p2pmarket.broker_node.appraisals import Appraisals, void_unreported
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.book import Book
from p2pmarket.broker_node.clearing import Clearing
from p2pmarket.broker_node.desk import Desk, last_word, level_of
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.broker_node.parcels import Parcels
from p2pmarket.broker_node.witness import Witness
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import ConnectionLost, MachineFault, MarketError, RuleBroken
from p2pmarket.files import private_folder, remove_tree
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import ENDS, SETTLED, STATES
from p2pmarket.market import MarketTerms
from p2pmarket.network.names import PARCELS, SESSIONS
from p2pmarket.network.session import Session, read_frame, write_frame
from p2pmarket.network.transport import Stream, StreamHandler, Transport
from p2pmarket.tasks import end_tasks
from p2pmarket.units import Clock
from p2pmarket.wire import Frame, Kind

log = logging.getLogger(__name__)

TIDY_EVERY_MS = 3600 * 1000
KEEP_MS = 2 * limits.MAX_MESSAGE_AGE_SECONDS * 1000
"""Replies and ended submissions are kept for this long after the last delivery of their time may have been fetched: a
buyer that was away must still learn what became of its bid."""
PAUSE_SECONDS = 5.0
"""How long to wait before trying again what this machine could not do, such as writing to a full disk."""
TICK_SECONDS = 0.5
"""How often deadlines are looked at when nothing else happens."""


class Broker:
    """One market on one transport. `await start()`, later `await close()`."""

    def __init__(
        self,
        *,
        transport: Transport,
        identity: Identity,
        keyring: Keyring,
        terms: MarketTerms,
        ledger: LedgerThread,
        appraiser: Appraiser,
        directory: Path,
        clock: Clock,
    ) -> None:
        self._transport = transport
        self._identity = identity
        self._terms = terms
        self._ledger = ledger
        self._appraiser = appraiser
        self._clock = clock
        self._snapshots = private_folder(directory / "snapshots")
        self._deliveries = private_folder(directory / "deliveries")
        self._book = Book(self._snapshots)
        self._clearing = Clearing(
            identity=identity,
            terms=terms,
            ledger=ledger,
            book=self._book,
            deliveries=self._deliveries,
            clock=clock,
            mail_waits=self._mail_waits,
            online=lambda peer: peer in self._sessions,
        )
        self._witness = Witness(identity, terms.name, ledger, directory, clock)
        self._desk = Desk(
            identity=identity,
            keyring=keyring,
            terms=terms,
            schemas=appraiser.schemas,
            data=appraiser.data,
            ledger=ledger,
            book=self._book,
            clearing=self._clearing,
            witness=self._witness,
            clock=clock,
        )
        self._parcels = Parcels(
            identity=identity,
            keyring=keyring,
            terms=terms,
            ledger=ledger,
            book=self._book,
            clearing=self._clearing,
            appraiser=appraiser,
            clock=clock,
            arrived=self._parcel_arrived,
        )
        self._sessions: dict[str, Session] = {}
        self._posting: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._tidied_ms = 0
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._serving: set[asyncio.Task[Any]] = set()
        self._working: list[asyncio.Task[None]] = []
        self._closed = False
        self.counts: Counter[str] = Counter()
        """What happened since the start: sessions, parcels, appraisals."""
        self._appraisals = Appraisals(
            identity=identity,
            terms=terms,
            ledger=ledger,
            book=self._book,
            clearing=self._clearing,
            appraiser=appraiser,
            clock=clock,
            mail_waits=self._mail_waits,
            counts=self.counts,
        )

    async def start(self) -> None:
        """Takes up what was under way, then serves. A ledger that was rolled back is left alone; agents are told."""
        await self._ledger.run(self._witness.look_back)
        if not self._witness.rolled_back:
            await self._ledger.run(self._recover)
            await self._forget_ended()
            self._working = [self._own(self._hold_rounds()), self._own(self._watch_deadlines())]
        await self._transport.serve(SESSIONS, self._until_closed(self._serve_session))
        await self._transport.serve(PARCELS, self._until_closed(self._parcels.serve))

    async def close(self) -> None:
        """Stops serving; bids being cleared finish, everything else is taken up at the next start."""
        self._closed = True
        await end_tasks(self._serving)
        await self._clearing.close()
        await end_tasks(self._tasks)
        await self._appraisals.close()

    @property
    def agents(self) -> int:
        """Agents with an open session."""
        return len(self._sessions)

    @property
    def alignment(self) -> dict[str, str]:
        """For each task, which of the model's units can be aligned, in words."""
        return self._appraiser.alignment

    @property
    def devices(self) -> dict[str, object]:
        """What appraisals run in and need."""
        return self._appraiser.devices

    def _until_closed(self, handler: StreamHandler) -> StreamHandler:
        """The handler, ended by `close`: nothing may ask the ledger for anything after that."""

        async def serve(stream: Stream) -> None:
            task = asyncio.current_task()
            if self._closed or task is None:
                return
            self._serving.add(task)
            try:
                await handler(stream)
            finally:
                self._serving.discard(task)

        return serve

    # ---- sessions -------------------------------------------------------------------------------------------

    async def _serve_session(self, stream: Stream) -> None:
        peer = stream.peer_id
        try:
            frame = await read_frame(stream)
            if frame.kind is not Kind.REQUEST:
                raise RuleBroken("a session begins with Hello", code="unknown-message")
            hello, welcome = await self._desk.welcome(peer, frame.body)
            await write_frame(stream, Frame(Kind.REPLY, frame.number, welcome))
        except MarketError as error:
            log.log(level_of(error), "refused a session of %s: %s", peer, error)
            if self._witness.rolled_back:
                await self._stop_trading()  # whoever showed it, everybody hears of it
            if not isinstance(error, ConnectionLost):
                await last_word(stream, self._identity, error)
            return
        session = Session(
            stream,
            on_request=lambda body: self._desk.answer(peer, body),
            mailed=hello.last_mail,
            on_ack=lambda number: self._ledger.run(Ledger.drop_mail, peer, number),
        )
        earlier = self._sessions.get(peer)
        self._sessions[peer] = session
        self.counts["sessions"] += 1
        try:
            if earlier is not None:
                await earlier.close()
            self._mail_waits(peer)
            await session.run()
        except MarketError as error:
            log.info("session of %s ended: %s", peer, error)
        finally:
            if self._sessions.get(peer) is session:
                del self._sessions[peer]

    async def _stop_trading(self) -> None:
        """This ledger was rolled back: what is under way ends where it is, and everybody comes again to hear why."""
        for task in self._working:
            task.cancel()
        for session in list(self._sessions.values()):
            await session.close()

    def _mail_waits(self, peer: str) -> None:
        session = self._sessions.get(peer)
        if session is not None:
            self._own(self._post(peer, session))

    async def _post(self, peer: str, session: Session) -> None:
        """Sends all mail the agent has not acknowledged, in order; it drops what it has already."""
        async with self._posting.setdefault(peer, asyncio.Lock()):
            for number, body in await self._ledger.run(Ledger.mail_after, peer, session.mailed):
                try:
                    await session.send_mail(number, body)
                except ConnectionLost:
                    return

    def _parcel_arrived(self) -> None:
        self.counts["parcels"] += 1
        self._wake.set()

    async def _hold_rounds(self) -> None:
        while True:
            try:
                if await self._appraisals.hold_next():
                    await self._forget_ended()
                    continue
            except Exception as error:  # its members still wait; the market must not stop for one round
                log.error("a round failed and is tried again: %s", error, exc_info=not isinstance(error, MachineFault))
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            await self._wake.wait()
            self._wake.clear()

    # ---- deadlines ------------------------------------------------------------------------------------------

    async def _watch_deadlines(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                ended, snapshots = await self._ledger.run(self._expire)
                await self._clearing.forget(ended)
                await self._remove(snapshots)
            except Exception as error:  # deadlines must be kept whatever went wrong with one of them
                known = isinstance(error, MachineFault)
                log.error("deadlines could not be looked at and are tried again: %s", error, exc_info=not known)
                await asyncio.sleep(PAUSE_SECONDS)
            self._wake.set()

    def _expire(self, ledger: Ledger) -> tuple[list[bytes], list[Path]]:
        """Trades that ended, and snapshots that are not needed any more: an agent may replace many in one round."""
        now = self._clock()
        with ledger.transaction() as db:
            self._book.expire(db, self._terms, now)
            if now - self._tidied_ms > TIDY_EVERY_MS:
                self._tidied_ms = now
                before_ms = now - KEEP_MS - self._terms.delivery_ms
                ledger.forget_replies(before_ms)
                self._book.forget(db, before_ms)
            return ledger.expire(), self._unneeded_snapshots(db)

    def _recover(self, ledger: Ledger) -> None:
        """After a crash: voids appraisals that were under way, takes in parcels that were complete."""
        with ledger.transaction() as db:
            self._book.create_tables(db)
            void_unreported(ledger, "restarted")
            for submission in self._book.awaited(db):
                if self._book.parcel(submission.id).exists():
                    self._book.book(db, submission.id)

    async def _forget_ended(self) -> None:
        """Removes the snapshots of ended submissions and the deliveries of ended trades."""
        await self._remove(await self._ledger.run(self._unneeded_folders))

    async def _remove(self, folders: list[Path]) -> None:
        """Removes folders that were found unneeded, but for those that an appraisal reads or a stream still fills: no
        other begins to, since the ledger says that they are over."""
        in_use = {key.hex() for key in self._appraisals.reading | self._parcels.under_way}
        for folder in folders:
            if folder.name not in in_use:
                await asyncio.to_thread(remove_tree, folder)

    def _unneeded_snapshots(self, db: sqlite3.Connection) -> list[Path]:
        """Listed in the ledger's thread: what is accepted meanwhile has no folder yet."""
        live = self._book.live_folders(db)
        return [folder for folder in self._snapshots.iterdir() if folder.name not in live]

    def _unneeded_folders(self, ledger: Ledger) -> list[Path]:
        """As `_unneeded_snapshots`, with deliveries."""
        now = self._clock()
        with ledger.transaction() as db:
            snapshots = self._unneeded_snapshots(db)
            live = [trade for state in STATES if state not in ENDS for trade in ledger.trades(state=state)]
        deliveries = {
            trade.trade.hex() for trade in live if trade.state != SETTLED or (trade.fetch_before_ms or 0) > now
        }
        return snapshots + [folder for folder in self._deliveries.iterdir() if folder.name not in deliveries]

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._disown)
        return task

    def _disown(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the broker failed: %s", error, exc_info=error)
