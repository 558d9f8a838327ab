"""Rounds at work: appraise who is due, chain purchases that help together, tell the members by mail.

Knows: in which order a round's pairs are appraised, which worker does it, what its members are told. Refuses to know:
when a round is due (rounds), what a pair is worth (appraiser), streams. Whatever is wrong with one pair ends that pair;
what is wrong with this machine ends the round, which is held again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import queue
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from p2pmarket.appraisal.memory import OUT_OF_MEMORY
from p2pmarket.appraisal.soup import in_turn, joins
from p2pmarket.broker_node.appraiser import Appraiser, Finding
from p2pmarket.broker_node.book import Book, Submission
from p2pmarket.broker_node.clearing import Clearing
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.broker_node.reporting import mail_of
from p2pmarket.broker_node.rounds import Round, next_round
from p2pmarket.broker_node.telling import as_told
from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import MachineFault, MarketError
from p2pmarket.files import private_folder, remove_tree
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import SUBMITTED
from p2pmarket.market import MarketTerms
from p2pmarket.tasks import end_tasks
from p2pmarket.units import Clock

log = logging.getLogger(__name__)

T = TypeVar("T")
Progress = Callable[[str, float], None]
"""Called between an appraisal's steps, in its thread; raises where that is to end."""


class Appraisals:
    """Holds the rounds of one market."""

    def __init__(
        self,
        *,
        identity: Identity,
        terms: MarketTerms,
        ledger: LedgerThread,
        book: Book,
        clearing: Clearing,
        appraiser: Appraiser,
        clock: Clock,
        mail_waits: Callable[[str], None],
        counts: Counter[str],
    ) -> None:
        """
        :param mail_waits: called with a peer id when there is new mail for it
        :param counts: where appraisals are counted
        """
        self._identity = identity
        self._terms = terms
        self._ledger = ledger
        self._book = book
        self._clearing = clearing
        self._appraiser = appraiser
        self._clock = clock
        self._mail_waits = mail_waits
        self._counts = counts
        self._threads = ThreadPoolExecutor(max_workers=appraiser.workers, thread_name_prefix="appraiser")
        self._idle: queue.SimpleQueue[int] = queue.SimpleQueue()
        for worker in range(appraiser.workers):
            self._idle.put(worker)
        self._closed = False
        self._since_ms = math.inf
        self.reading: frozenset[bytes] = frozenset()
        """Submissions whose parcels the round under way reads, also those that were replaced meanwhile."""

    async def hold_next(self) -> bool:
        """Holds the round that is due; False when none is.

        :raises MachineFault: something this machine could not do; the round's members still wait
        """
        due = await self._ledger.run(self._next_due)
        if due is None:
            return False
        try:
            await self._hold(due)
        finally:
            self.reading = frozenset()
        self._since_ms = math.inf
        return True

    async def close(self) -> None:
        """Ends what is under way at its next step; without holding up the event loop."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    def _next_due(self, ledger: Ledger) -> Round | None:
        """In the ledger's thread, so that no parcel is removed between being chosen and being known as read."""
        with ledger.transaction() as db:
            waiting, latest = self._book.waiting(db), self._book.latest(db)
        self._since_ms = min([self._since_ms, *(one.submitted_ms for one in waiting)]) if waiting else math.inf
        due = next_round(self._terms, waiting, latest, self._since_ms, self._clock())
        if due is not None:
            self.reading = frozenset(one.id for one in (*due.members, *due.sellers))
        return due

    async def _hold(self, due: Round) -> None:
        """Appraises a round and tells its members; of nothing, where that fails for a reason that would come again.

        :raises MachineFault: as `hold_next`; nothing is left of what was appraised, the same comes again
        """
        try:
            wanted = {buyer: due.sellers_for(buyer) for buyer in due.members if buyer.buy}
            chosen = await self._in_worker(
                lambda worker, progress: self._appraiser.shortlist(wanted, self._book.parcel, progress=progress)
            )
            findings = {buyer.id: await self._appraise_for(buyer, sellers) for buyer, sellers in chosen.items()}
            await self._finish(due, findings)
        except MachineFault:
            await self._drop_unreported()
            raise
        except Exception:
            log.exception("a round failed; its members are told of no reports")
            await self._finish(due, {})

    async def _appraise_for(self, buyer: Submission, sellers: Sequence[Submission]) -> list[Finding]:
        """Every seller alone; then those that add to the best, each upon the one before it: a chain of purchases by the
        rule of appraisal/soup, of sellers whose standing ask the buyer could pay: another would end its chain.
        """
        free = await self._ledger.run(lambda ledger: ledger.balance(buyer.agent) - ledger.held(buyer.agent))
        turns = asyncio.Semaphore(self._appraiser.workers)

        async def appraise(seller: Submission) -> Finding | None:
            async with turns:
                return await self._appraise_pair(buyer, seller)

        pairs = [asyncio.create_task(appraise(seller)) for seller in sellers]
        try:
            appraised = await asyncio.gather(*pairs)
        finally:  # where one ends the round, the others must not go on beside the next try
            await end_tasks(pairs)
        found = [finding for finding in appraised if finding is not None]
        payable = [finding for finding in found if finding.seller.ask is None or finding.seller.ask <= free]
        chain: list[Finding] = []
        for alone in in_turn(payable, lambda finding: finding.result):
            if len(chain) >= self._terms.max_chain:
                break
            step = await self._appraise_pair(buyer, alone.seller, upon=chain) if chain else alone
            if step is not None and joins(step.result):
                chain.append(step)
            elif step is not None and chain:
                await self._drop(step.trade, "nothing-added")
        return found + chain[1:]

    async def _appraise_pair(
        self, buyer: Submission, seller: Submission, *, upon: Sequence[Finding] = ()
    ) -> Finding | None:
        """One appraisal, of the buyer as it would be after the purchases `upon`; None when it failed: no trade."""
        trade = secrets.token_bytes(16)
        sides = (buyer.agent, seller.agent, buyer.snapshot, seller.snapshot)
        await self._ledger.run(Ledger.create_trade, trade, *sides, buyer.id, task=buyer.task)
        folder = private_folder(self._clearing.folder(trade))  # after the row, by which a folder is known to be over
        self._counts["appraisals"] += 1
        paths = (self._book.parcel(buyer.id), self._book.parcel(seller.id), folder / "delivery")
        before = tuple((step.trade, self._clearing.folder(step.trade) / "delivery") for step in upon)
        appraise = functools.partial(self._appraiser.appraise, trade, buyer, seller, *paths, upon=before)
        try:
            return await self._in_worker(lambda worker, progress: appraise(worker=worker, progress=progress))
        except Exception as error:  # whatever is wrong with one pair, the market goes on
            known = isinstance(error, MarketError)
            log.warning("appraisal of %s for %s failed: %s", seller.agent, buyer.agent, error, exc_info=not known)
            await self._drop(trade, error.code if isinstance(error, MarketError) else "failed")
            if isinstance(error, MachineFault) and error.code != OUT_OF_MEMORY:
                raise  # the round is held again when this machine can; a pair too large for it never will
            return None

    async def _in_worker(self, work: Callable[[int, Progress], T]) -> T:
        """Runs `work` in a thread, with the number of a worker that is free. Cancelled, it waits for the thread, which
        ends at its next step: nothing that was given up still writes."""
        given_up = threading.Event()

        def progress(doing: str, done: float) -> None:
            if self._closed or given_up.is_set():
                raise MarketError("the broker stops this", code="stopping")

        def run() -> T:
            worker = self._idle.get()
            try:
                progress("begins", 0.0)
                return work(worker, progress)
            finally:
                self._idle.put(worker)

        running = asyncio.get_running_loop().run_in_executor(self._threads, run)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            given_up.set()
            await asyncio.gather(running, return_exceptions=True)
            raise

    async def _drop(self, trade: bytes, reason: str) -> None:
        await self._ledger.run(Ledger.fail, trade, reason)
        await asyncio.to_thread(remove_tree, self._clearing.folder(trade))

    async def _drop_unreported(self) -> None:
        """Ends what was appraised for a round that is held again; kept, it would fill a disk that is full already."""
        await self._clearing.forget(await self._ledger.run(void_unreported, "failed"))

    def _why_nothing(self, due: Round, member: Submission) -> str:
        if due.sellers_for(member):
            return "the broker could not appraise what others offer now"
        return "nobody else offers parameters in this market now"

    async def _finish(self, due: Round, findings: dict[bytes, list[Finding]]) -> None:
        """Ends the round: reports go out as mail in the transaction that marks its members as appraised."""
        expires_ms = self._clock() + self._terms.bid_ms

        def record(ledger: Ledger) -> None:
            with ledger.transaction() as db:
                number = self._book.last_round(db) + 1
                for member in due.members:
                    self._book.appraised(db, member.id, number)
                    if not member.buy:
                        continue
                    write = functools.partial(
                        mail_of,
                        self._identity,
                        member.id,
                        number,
                        expires_ms=expires_ms,
                        nothing=self._why_nothing(due, member),
                    )
                    try:
                        mail = write(self._told(db, member, findings.get(member.id, [])))
                    except MachineFault:
                        raise
                    except (MarketError, ValueError, ArithmeticError) as error:  # the others' mail is good
                        log.warning("the findings for %s cannot be told: %s", member.agent, error)
                        mail = write([])
                    for finding, report in mail.reports:
                        ledger.record_report(finding.trade, report, finding.delivery, expires_ms)
                    ledger.queue_mail(member.agent, mail.data)
                void_unreported(ledger, "failed")

        await self._ledger.run(record)
        for member in due.members:
            self._mail_waits(member.agent)

    def _told(self, db: sqlite3.Connection, member: Submission, findings: Sequence[Finding]) -> list[Finding]:
        """The findings as coarse as the terms have them; what the agent was told so far is kept."""
        data = self._appraiser.data[member.task]
        state = self._book.told(db, member.agent, member.task, data)
        task = self._terms.task(member.task)
        told, state = as_told(
            findings, state, self._terms.report_steps, metric_is_loss=task is not None and task.metric == "loss"
        )
        self._book.keep_told(db, member.agent, member.task, data, state)
        return told


def void_unreported(ledger: Ledger, reason: str) -> list[bytes]:
    """Ends trades whose appraisal came to nothing, and which: rounds follow one another, so none is under way."""
    return [ledger.fail(trade.trade, reason).trade for trade in ledger.trades(state=SUBMITTED)]
