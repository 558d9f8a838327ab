"""A broker at work: sessions and parcels in, appraisals and deliveries out.

Knows: which stream leads where, and what runs when. The decisions are elsewhere: answers in desk, prices in clearing,
whom to appraise in rounds, tensors in appraiser, money in ledger/. Everything that must survive a crash is in the
ledger's file or in a folder it names; this object can be dropped at any point and built again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from p2pmarket import limits
from p2pmarket.broker_node.appraiser import Appraiser, Finding
from p2pmarket.broker_node.book import Book, Submission
from p2pmarket.broker_node.clearing import Clearing
from p2pmarket.broker_node.desk import Desk, refusal
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.broker_node.rounds import Round, next_round
from p2pmarket.crypto.header import Expectation
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import ConnectionLost, DataError, MarketError, RuleBroken
from p2pmarket.files import private_folder, remove_tree
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import ENDS, SETTLED, STATES, SUBMITTED
from p2pmarket.market import MarketTerms
from p2pmarket.messages import Appraisal, Done, Fetch, KeyStatement, Upload
from p2pmarket.network.names import PARCELS, SESSIONS
from p2pmarket.network.session import Session, read_frame, write_frame
from p2pmarket.network.spool import Incoming, Outgoing
from p2pmarket.network.transfer import receive_parcel, send_parcel
from p2pmarket.network.transport import Stream, Transport
from p2pmarket.units import Clock
from p2pmarket.wire import Frame, Kind

log = logging.getLogger(__name__)

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
        self._keyring = keyring
        self._terms = terms
        self._ledger = ledger
        self._appraiser = appraiser
        self._clock = clock
        self._book = Book(private_folder(directory / "snapshots"))
        self._clearing = Clearing(
            identity=identity,
            terms=terms,
            ledger=ledger,
            book=self._book,
            deliveries=private_folder(directory / "deliveries"),
            clock=clock,
            mail_waits=self._mail_waits,
        )
        self._desk = Desk(
            identity=identity,
            keyring=keyring,
            terms=terms,
            schema=appraiser.schema,
            ledger=ledger,
            book=self._book,
            clearing=self._clearing,
            clock=clock,
        )
        self._snapshots, self._deliveries = directory / "snapshots", directory / "deliveries"
        self._sessions: dict[str, Session] = {}
        self._posting: dict[str, asyncio.Lock] = {}
        self._parcel_locks: dict[bytes, asyncio.Lock] = {}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="appraiser")
        self.counts: Counter[str] = Counter()
        """What happened since the start: sessions, parcels, appraisals."""

    async def start(self) -> None:
        """Takes up what was under way, then serves."""
        await self._ledger.run(self._recover)
        await self._forget_ended()
        await self._transport.serve(SESSIONS, self._serve_session)
        await self._transport.serve(PARCELS, self._serve_parcel)
        self._own(self._appraise_for_ever())
        self._own(self._watch_deadlines())

    async def close(self) -> None:
        """Stops serving; bids being cleared finish, everything else is taken up at the next start."""
        await self._clearing.close()
        for session in list(self._sessions.values()):
            await session.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._worker.shutdown(wait=True, cancel_futures=True)

    @property
    def agents(self) -> int:
        """Agents with an open session."""
        return len(self._sessions)

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
            log.info("refused a session of %s: %s", peer, error)
            if not isinstance(error, ConnectionLost):
                await self._last_word(stream, refusal(self._identity, error))
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
        if earlier is not None:
            await earlier.close()
        self._mail_waits(peer)
        try:
            await session.run()
        except MarketError as error:
            log.info("session of %s ended: %s", peer, error)
        finally:
            if self._sessions.get(peer) is session:
                del self._sessions[peer]

    async def _last_word(self, stream: Stream, body: bytes) -> None:
        """Sends a refusal and waits until the other end hung up: closing at once would lose the bytes."""
        try:
            await write_frame(stream, Frame(Kind.REPLY, 1, body))
            await asyncio.wait_for(stream.read_exactly(1), 5)
        except (MarketError, asyncio.TimeoutError):
            return

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

    # ---- parcels --------------------------------------------------------------------------------------------

    async def _serve_parcel(self, stream: Stream) -> None:
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
            log.info("refused a parcel stream of %s: %s", stream.peer_id, error)
            await self._last_word(stream, refusal(self._identity, error))

    async def _receive(self, stream: Stream, upload: Upload) -> None:
        """Takes the parcel of an accepted submission into the book."""
        async with self._parcel_locks.setdefault(upload.submission, asyncio.Lock()):
            submission = await self._ledger.inside(lambda db: self._book.get(db, upload.submission))
            if submission is None or submission.agent != stream.peer_id or submission.state == "ended":
                raise RuleBroken("no parcel is awaited under this submission; submit again", code="unknown-submission")
            if submission.state != "accepted":
                raise RuleBroken("this parcel has arrived already", code="already-here")
            await self._go_on(stream)
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
            await self._ledger.inside(lambda db: self._book.set_state(db, submission.id, "booked"))
        self._parcel_locks.pop(upload.submission, None)
        self.counts["parcels"] += 1
        self._wake.set()

    async def _send(self, stream: Stream, fetch: Fetch) -> None:
        """Sends the delivery of a settled trade to its buyer, as often as it asks."""
        trade = await self._ledger.run(Ledger.trade, fetch.trade)
        if trade.buyer != stream.peer_id:
            raise RuleBroken("this trade is not yours", code="not-yours")
        if trade.state != SETTLED:
            raise RuleBroken(f"this trade is {trade.state}, nothing waits to be fetched", code="wrong-state")
        folder = self._clearing.folder(trade.trade)
        async with self._parcel_locks.setdefault(trade.trade, asyncio.Lock()):
            try:
                outgoing = await self._outgoing(folder, trade.trade, trade.buyer)
            except RuleBroken as error:
                if error.code == "lost-delivery":
                    await self._ledger.run(Ledger.refund, trade.trade, "lost-delivery")
                raise
            await self._go_on(stream)
            await send_parcel(stream, outgoing)

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
            now = self._clock()
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

        return await asyncio.get_running_loop().run_in_executor(None, prepare)

    async def _go_on(self, stream: Stream) -> None:
        await write_frame(stream, Frame(Kind.REPLY, 1, sign(self._identity, Done())))

    # ---- appraisals -----------------------------------------------------------------------------------------

    async def _appraise_for_ever(self) -> None:
        while True:
            due = await self._next_round()
            if due is None:
                await self._wake.wait()
                self._wake.clear()
                continue
            try:
                await self._appraise_round(due)
            except MarketError:
                log.exception("a round failed; its members are marked as done")
                await self._finish(due, {})

    async def _next_round(self) -> Round | None:
        waiting, latest = await self._ledger.inside(lambda db: (self._book.waiting(db), self._book.latest(db)))
        return next_round(self._terms, waiting, latest, self._clock())

    async def _appraise_round(self, due: Round) -> None:
        reports: dict[bytes, list[Finding]] = {}
        for buyer in due.members:
            if buyer.buy:
                reports[buyer.id] = [
                    finding
                    for seller in due.sellers_for(buyer, self._terms.max_sellers)
                    if (finding := await self._appraise_pair(buyer, seller)) is not None
                ]
        await self._finish(due, reports)

    async def _appraise_pair(self, buyer: Submission, seller: Submission) -> Finding | None:
        """One appraisal; None when it failed, which voids its trade."""
        trade = secrets.token_bytes(16)
        folder = private_folder(self._clearing.folder(trade))
        await self._ledger.run(
            Ledger.create_trade, trade, buyer.agent, seller.agent, buyer.snapshot, seller.snapshot, buyer.id
        )
        self.counts["appraisals"] += 1
        paths = (self._book.parcel(buyer.id), self._book.parcel(seller.id), folder / "delivery")
        appraise = functools.partial(self._appraiser.appraise, trade, buyer, seller, *paths)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, appraise)
        except Exception as error:  # whatever is wrong with one pair, the market goes on
            known = isinstance(error, MarketError)
            log.warning("appraisal of %s for %s failed: %s", seller.agent, buyer.agent, error, exc_info=not known)
            await self._ledger.run(Ledger.fail, trade, error.code if isinstance(error, MarketError) else "failed")
            remove_tree(folder)
            return None

    async def _finish(self, due: Round, findings: dict[bytes, list[Finding]]) -> None:
        """Ends the round: reports go out as mail in the transaction that marks its members as appraised."""
        expires_ms = self._clock() + self._terms.bid_ms

        def record(ledger: Ledger) -> None:
            with ledger.transaction() as db:
                number = self._book.last_round(db) + 1
                for member in due.members:
                    self._book.set_state(db, member.id, "appraised", number)
                    if not member.buy:
                        continue
                    reports = [finding.report(expires_ms) for finding in findings.get(member.id, [])]
                    reports.sort(key=lambda report: -report.gain)
                    signed = []
                    for report in reports:
                        signed.append(sign(self._identity, report))
                        ledger.record_report(report.trade, signed[-1], report.delivery, expires_ms)
                    note = "" if signed else "nobody else offers parameters in this market now"
                    mail = Appraisal(submission=member.id, round=number, reports=tuple(signed), note=note)
                    ledger.queue_mail(member.agent, sign(self._identity, mail))

        await self._ledger.run(record)
        await self._forget_ended()
        for member in due.members:
            self._mail_waits(member.agent)

    # ---- deadlines ------------------------------------------------------------------------------------------

    async def _watch_deadlines(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._clearing.forget(await self._ledger.run(self._expire))
            self._wake.set()

    def _expire(self, ledger: Ledger) -> list[bytes]:
        now = self._clock()
        with ledger.transaction() as db:
            self._book.expire(db, self._terms, now)
            return ledger.expire()

    def _recover(self, ledger: Ledger) -> None:
        """After a crash: voids appraisals that were under way, takes in parcels that were complete."""
        with ledger.transaction() as db:
            self._book.create_tables(db)
            for trade in ledger.trades(state=SUBMITTED):
                ledger.fail(trade.trade, "the broker restarted")
            for submission in self._book.awaited(db):
                if self._book.parcel(submission.id).exists():
                    self._book.set_state(db, submission.id, "booked")

    async def _forget_ended(self) -> None:
        """Removes the snapshots of ended submissions and the deliveries of ended trades."""
        snapshots, deliveries = await self._ledger.run(self._needed_folders)
        for folder in self._snapshots.iterdir():
            if folder.name not in snapshots:
                remove_tree(folder)
        for folder in self._deliveries.iterdir():
            if folder.name not in deliveries:
                remove_tree(folder)

    def _needed_folders(self, ledger: Ledger) -> tuple[set[str], set[str]]:
        with ledger.transaction() as db:
            live = {trade.trade.hex() for state in STATES if state not in ENDS for trade in ledger.trades(state=state)}
            return self._book.live_folders(db), live

    def _own(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
