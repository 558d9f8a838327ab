"""The buying side of an agent: hear what the broker measured, bid, fetch what was paid for, account for it.

Knows: gain reports, bids, deals, deliveries. Refuses to know: what a gain is worth (strategy), how bytes travel (link).
A bid is written down before it is sent and answered once; what was paid for is fetched until it is here, also by a
later process. Deliveries of a chain are loaded one after the other; they may change different tensors. What comes late
is used only where it is still better than what training has reached, and of a chain all that is here or nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from p2pmarket import limits
from p2pmarket.crypto.header import Expectation
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import BadSnapshot, NetworkFault, Refused, StrategyFault
from p2pmarket.files import remove_tree
from p2pmarket.ledger.agent_journal import UNMATCHED, AgentJournal, AgentTrade
from p2pmarket.messages import (
    Appraisal,
    Balance,
    BalanceRequest,
    Bid,
    Deal,
    Decline,
    Delivered,
    Done,
    Fetch,
    GainReport,
    NoDeal,
    Receipt,
    Unmatched,
)
from p2pmarket.network.spool import Incoming
from p2pmarket.network.transfer import receive_parcel
from p2pmarket.node.consulting import amount_of
from p2pmarket.node.link import BrokerLink, again
from p2pmarket.node.results import Purchase, TradeResult
from p2pmarket.node.strategy import Strategy, Wallet
from p2pmarket.node.welcome import Joined
from p2pmarket.parameters.packing import digest_of, read_manifest, unpack
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock, format_credits

log = logging.getLogger(__name__)

FINAL_CODES = frozenset(
    {
        "expired",
        "insufficient-balance",
        "lower-bid",
        "malformed",
        "nothing-to-buy",
        "not-yours",
        "out-of-order",
        "spending-limit",
        "unknown-trade",
        "wrong-delivery",
        "wrong-revision",
        "wrong-state",
    }
)
"""Refusals of a bid that sending it again does not mend; after any other the bid still binds and is sent again."""
LOST_CODES = frozenset({"expired", "lost-delivery", "not-yours", "unknown-trade", "wrong-state"})
"""Refusals of a fetch that asking again does not mend."""
ACKNOWLEDGE_SECONDS = 10.0
"""How long a buyer that has its delivery waits to tell the broker so; it tells it again at its next visit."""
BID_SECONDS = 60
"""A bid binds for this long at most."""
DAY_MS = 24 * 3600 * 1000


class Buyer:
    """Buys for one agent."""

    def __init__(
        self,
        identity: Identity,
        keyring: Keyring,
        link: BrokerLink,
        journal: OwnThread[AgentJournal],
        strategy: Strategy,
        deliveries: Path,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._keyring = keyring
        self._link = link
        self._journal = journal
        self._strategy = strategy
        self._deliveries = deliveries
        self._clock = clock
        self._expected: dict[bytes, asyncio.Future[Appraisal]] = {}
        self._visit = 0
        self._spent_before = 0

    def expect(self, submission: bytes) -> asyncio.Future[Appraisal]:
        """Completes when the appraisal of this submission is heard."""
        self._expected[submission] = asyncio.get_running_loop().create_future()
        return self._expected[submission]

    def forget(self, submission: bytes) -> None:
        """Nobody waits for it any more."""
        future = self._expected.pop(submission, None)
        if future is not None:
            future.cancel()

    async def hear(self, broker: str, data: bytes) -> None:
        """Takes mail with an appraisal: keeps its reports, wakes who waits for it."""
        appraisal = verify(data, Appraisal, signer=broker)
        for report in appraisal.reports:
            await self._journal.run(AgentJournal.keep_report, broker, report)
        future = self._expected.get(appraisal.submission)
        if future is not None and not future.done():
            future.set_result(appraisal)

    async def settle_open(self, joined: Joined) -> None:
        """Takes up what an interruption left: bids without an answer, purchases without a delivery.

        :raises NetworkFault: the broker cannot be reached
        :raises Refused: a delivery that was paid for is lost; it is not asked for again
        """
        for intent in await self._journal.run(AgentJournal.unanswered, joined.broker):
            if type_of(intent.body) == Delivered.TYPE:
                await self._acknowledge(joined.broker, intent.message_id, intent.body)
            else:
                bid = verify(intent.body, Bid, signer=self._identity.peer_id)
                if isinstance(await self._send_bid(joined, bid, intent.body), Unmatched):
                    await self._say_no(joined, (bid.trade,))  # it was raised, or not, for a snapshot of then
        for row in await self._journal.run(AgentJournal.owed):
            if row.broker == joined.broker and row.stage == "bought":
                await self._fetch(joined, row)
        await asyncio.to_thread(self._sweep, {row.trade.hex() for row in await self._journal.run(AgentJournal.owed)})

    async def decide(self, joined: Joined, appraisal: Appraisal) -> TradeResult:
        """Buys the best gain that the strategy bids for and that can be had, with what is upon it; declines the rest.

        :raises NetworkFault: the broker cannot be reached
        :raises Refused: it refused in a way that leaves a bid open, or a delivery that was paid for is lost
        """
        reports = tuple(verify(data, GainReport, signer=joined.broker) for data in appraisal.reports)
        for report in reports:
            if report.data != joined.data.get(report.task):
                raise BadSnapshot("the broker measured on other validation data than it committed to; trade elsewhere")
        late = await self._late_deliveries(joined, reports)
        if late:
            await self._decline(joined, reports)
            return TradeResult(late, reports=reports, round=appraisal.round, note="a late delivery was still better")
        self._visit += 1
        self._spent_before = await self._journal.run(AgentJournal.spent, 0)
        wallet = await self._wallet(joined)
        try:
            purchases, note, problem = await self._buy_best(joined, reports, wallet)
        except StrategyFault as error:
            purchases, note, problem = (), "", str(error)
        await self._decline(joined, reports)
        return TradeResult(
            purchases,
            reports=reports,
            round=appraisal.round,
            note="" if purchases else note or appraisal.note or _why_not(reports),
            problem=problem,
        )

    async def loaded(self, purchases: Iterable[Purchase]) -> None:
        """These purchases are in the caller's hands; their parcels are needed no longer."""
        for purchase in purchases:
            await self._journal.run(AgentJournal.loaded, purchase.receipt.broker, purchase.trade)
            await asyncio.to_thread(remove_tree, self._deliveries / purchase.trade.hex())

    async def _buy_best(
        self, joined: Joined, reports: Sequence[GainReport], wallet: Wallet
    ) -> tuple[tuple[Purchase, ...], str, str]:
        """What was bought, why not, and what kept the rest from being bought.

        :raises StrategyFault: before anything was bought
        """
        wanted = [
            (amount, report)
            for report in reports
            if report.after is None and (amount := amount_of(self._strategy.bid, report, wallet)) is not None
        ]
        wanted.sort(key=lambda pair: -self._whole_gain(pair[1], reports, wallet))
        note = ""
        for amount, report in wanted:
            outcome = await self._buy(joined, report, amount)
            if isinstance(outcome, Deal):
                first = await self._collect(joined, report.trade)
                upon, problem = await self._buy_upon(joined, report, reports)
                return (first, *upon), "", problem
            note = outcome
        return (), note, ""

    def _whole_gain(self, report: GainReport, reports: Sequence[GainReport], wallet: Wallet) -> float:
        """A purchase's gain with those upon it that the strategy would bid for."""
        gain, rest = report.gain, list(reports)
        while upon := next((one for one in rest if one.after == report.trade), None):
            if amount_of(self._strategy.bid, upon, wallet) is None:
                break
            rest.remove(upon)
            gain, report = gain + upon.gain, upon
        return gain

    # ---- one purchase ---------------------------------------------------------------------------------------

    async def _wallet(self, joined: Joined) -> Wallet:
        """What may be spent now."""
        reply = await self._link.request(BalanceRequest(secrets.token_bytes(16)), Balance, broker=joined.broker)
        since = self._clock() - DAY_MS
        spent, today = await self._journal.run(lambda journal: (journal.spent(0), journal.spent(since)))
        return Wallet(
            balance=max(0, reply.balance - reply.held),
            spent=spent,
            spent_today=today,
            spent_this_visit=max(0, spent - self._spent_before),
            visit=self._visit,
        )

    async def _buy(self, joined: Joined, report: GainReport, amount: int) -> Deal | str:
        """One negotiation, a bid after the other as the strategy raises them; the Deal, or why there is none.

        :raises Refused: the broker took no decision; the bid may still bind, so there must be no other one
        :raises StrategyFault: the strategy does not say how to go on; the trade is declined
        """
        left = 0
        for revision in range(joined.terms.max_revisions + 1):
            bid = Bid(
                message_id=secrets.token_bytes(16),
                market=joined.terms.name,
                broker=joined.broker,
                trade=report.trade,
                delivery=report.delivery,
                amount=amount,
                expires_ms=min(report.expires_ms, self._clock() + BID_SECONDS * 1000),
                revision=revision,
            )
            data = sign(self._identity, bid)
            await self._journal.run(AgentJournal.keep_bid, data)
            outcome = await self._send_bid(joined, bid, data)
            if not isinstance(outcome, Unmatched):
                return outcome
            wallet = await self._wallet(joined)
            try:
                raised = amount_of(self._strategy.raise_bid, report, outcome, amount, wallet)
            except StrategyFault:
                await self._say_no(joined, (report.trade,))
                raise
            if raised is None or raised <= amount:
                left = outcome.revisions_left
                break
            amount = raised
        await self._say_no(joined, (report.trade,))
        return _below_the_ask(amount, left)

    async def _collect(self, joined: Joined, trade: bytes) -> Purchase:
        """What was just paid for."""
        row = await self._journal.run(AgentJournal.trade, joined.broker, trade)
        assert row is not None
        await self._fetch(joined, row)
        return await self._purchase(joined, row)

    async def _buy_upon(
        self, joined: Joined, bought: GainReport, reports: Sequence[GainReport]
    ) -> tuple[list[Purchase], str]:
        """What adds to the purchase just made, one upon the other, to be loaded in this order; and the problem, where
        the strategy ended it."""
        purchases: list[Purchase] = []
        try:
            while upon := next((report for report in reports if report.after == bought.trade), None):
                amount = amount_of(self._strategy.bid, upon, await self._wallet(joined))
                if amount is None or not isinstance(await self._buy(joined, upon, amount), Deal):
                    break
                purchases.append(await self._collect(joined, upon.trade))
                bought = upon
        except StrategyFault as error:
            return purchases, str(error)
        except (
            NetworkFault,
            Refused,
        ) as error:  # what was bought first is here; the rest is taken up at the next visit
            log.warning("the purchases after the first are taken up later: %s", error)
        return purchases, ""

    async def _send_bid(self, joined: Joined, bid: Bid, data: bytes) -> Deal | Unmatched | str:
        """Sends a bid that is written down until it is answered; the answer, or why there is none."""
        broker = joined.broker
        try:
            reply = await self._link.exchange(data, broker)
        except Refused as error:
            if error.code not in FINAL_CODES:
                raise
            await self._journal.run(AgentJournal.end, broker, bid.trade, error.code)
            await self._journal.run(AgentJournal.answered, bid.message_id, str(error).encode())
            if bid.revision > 0:  # the bid before it was unmatched: without a word the trade would wait for its time
                await self._say_no(joined, (bid.trade,))
            return str(error)
        if type_of(reply) == Unmatched.TYPE:
            unmatched = verify(reply, Unmatched, signer=broker)
            await self._journal.run(AgentJournal.end, broker, bid.trade, UNMATCHED)
            await self._journal.run(AgentJournal.answered, bid.message_id, reply)
            return unmatched
        if type_of(reply) == NoDeal.TYPE:
            refusal = verify(reply, NoDeal, signer=broker)
            await self._journal.run(AgentJournal.end, broker, bid.trade, refusal.reason)
            await self._journal.run(AgentJournal.answered, bid.message_id, reply)
            if refusal.reason == "no-overlap":
                return _below_the_ask(bid.amount)
            return f"no deal: {refusal.sentence}"
        deal = verify(reply, Deal, signer=broker)
        receipt = await self._journal.run(AgentJournal.keep_receipt, broker, deal.receipt)
        self._link.note_balance(broker, deal.balance, receipt.settled_ms)
        await self._journal.run(AgentJournal.answered, bid.message_id, reply)
        log.info("bought for %s", format_credits(deal.price))
        return deal

    async def _fetch(self, joined: Joined, row: AgentTrade) -> None:
        """Fetches a delivery that was paid for, checks it against its report, tells the broker that it is here."""
        assert row.report is not None
        report = verify(row.report, GainReport, signer=joined.broker)
        incoming = Incoming.open(self._deliveries / row.trade.hex())
        expectation = Expectation(
            market=joined.terms.name,
            broker=joined.broker,
            purpose="delivery",
            trade=row.trade,
            sender=joined.broker,
            receiver=self._identity.peer_id,
            manifest_digest=report.delivery,
            max_plain_bytes=min(joined.terms.max_parcel_bytes * 2, limits.MAX_PARCEL_BYTES),
        )

        async def fetch() -> None:
            stream = await self._link.parcel_stream(Fetch(secrets.token_bytes(16), row.trade), joined.broker)
            try:
                await receive_parcel(
                    stream,
                    incoming,
                    expectation,
                    self._keyring,
                    self._clock,
                    check=lambda path, _: _check_delivery(path, report, joined),
                )
            finally:
                await stream.close()

        try:
            if not incoming.plain_path.exists():
                await again(fetch)
        except Refused as error:
            if error.code in LOST_CODES:
                await self._journal.run(AgentJournal.give_up, joined.broker, row.trade, error.code)
            raise
        delivered = Delivered(secrets.token_bytes(16), row.trade, report.delivery)
        data = sign(self._identity, delivered)

        def keep(journal: AgentJournal) -> None:
            with journal.transaction():
                journal.fetched(joined.broker, row.trade)
                journal.intend(joined.broker, delivered.message_id, data)

        await self._journal.run(keep)
        await self._acknowledge(joined.broker, delivered.message_id, data)

    async def _acknowledge(self, broker: str, message_id: bytes, data: bytes) -> None:
        """Tells the broker that a delivery is here; it stays an intent until the broker knows."""
        try:
            reply = await self._link.exchange(data, broker, ACKNOWLEDGE_SECONDS)
        except NetworkFault as error:
            log.info("the broker does not know yet that its delivery is here: %s", error)
            return
        except Refused as error:
            log.warning("the broker did not take that its delivery is here: %s", error)
            if error.code not in FINAL_CODES:
                return
            reply = str(error).encode()
        await self._journal.run(AgentJournal.answered, message_id, reply)

    async def _purchase(self, joined: Joined, row: AgentTrade) -> Purchase:
        assert row.receipt is not None and row.report is not None
        path = Incoming(self._deliveries / row.trade.hex()).plain_path
        report = verify(row.report, GainReport, signer=joined.broker)
        tensors = await asyncio.to_thread(unpack, path, schema=joined.schema(report.task), partial=True)
        receipt = verify(row.receipt, Receipt, signer=joined.broker)
        return Purchase(row.trade, row.partner, row.price, report, receipt, tensors)

    async def _late_deliveries(self, joined: Joined, reports: Sequence[GainReport]) -> tuple[Purchase, ...]:
        """Deliveries of an interrupted visit, in the order in which they are loaded: one chain of them, where
        the broker measured what it ends with as better than this visit's snapshot. Chains are given up as a whole.
        """
        now = {report.task: report.loss_before for report in reports if report.after is None}
        late = [
            (verify(row.report, GainReport, signer=joined.broker), row)
            for row in await self._journal.run(AgentJournal.owed)
            if row.broker == joined.broker and row.stage == "fetched" and row.report is not None
            if (self._deliveries / row.trade.hex()).exists()
        ]
        best: tuple[Purchase, ...] = ()
        for chain in sorted(_chains(late), key=lambda chain: chain[-1][0].loss_after):
            first, last = chain[0][0], chain[-1][0]
            if last.task not in now:
                continue
            if not best and last.loss_after < now[last.task] and await self._holds(joined, first.after):
                best = tuple([await self._purchase(joined, row) for _, row in chain])
                continue
            for _, row in chain:
                log.warning("the late delivery of trade %s is no longer the best and is dropped", row.trade.hex()[:8])
                await self._journal.run(AgentJournal.give_up, joined.broker, row.trade, "too-late")
                await asyncio.to_thread(remove_tree, self._deliveries / row.trade.hex())
        return best

    async def _holds(self, joined: Joined, trade: bytes | None) -> bool:
        """Whether the model has the purchase that another is upon; None: it is upon none."""
        row = None if trade is None else await self._journal.run(AgentJournal.trade, joined.broker, trade)
        return trade is None or (row is not None and row.stage == "loaded")

    def _sweep(self, owed: Collection[str]) -> None:
        """Removes what earlier processes left of deliveries that are owed no longer."""
        for folder in self._deliveries.iterdir():
            if folder.name not in owed:
                remove_tree(folder)

    async def _decline(self, joined: Joined, reports: Sequence[GainReport]) -> None:
        """Says no to those of them that were not bid on; that saves the broker their deliveries, so failing at it
        matters little.
        """
        trades = await self._journal.run(AgentJournal.decline, joined.broker, [report.trade for report in reports])
        if trades:
            await self._say_no(joined, trades)

    async def _say_no(self, joined: Joined, trades: tuple[bytes, ...]) -> None:
        try:
            await self._link.request(Decline(secrets.token_bytes(16), trades), Done, broker=joined.broker)
        except (Refused, NetworkFault) as error:
            log.info("declining: %s", error)


def _check_delivery(path: Path, report: GainReport, joined: Joined) -> None:
    """:raises BadSnapshot: not the parameters that were measured, or not the market's model"""
    manifest = read_manifest(path)
    if digest_of(manifest) != report.delivery:
        raise BadSnapshot("the delivery is not what the broker measured; keep the receipt and complain to it")
    if any(not joined.terms.is_tradable(entry.name) for entry in manifest.tensors):
        raise BadSnapshot("the delivery has tensors that this market does not trade")
    unpack(path, schema=joined.schema(report.task), partial=True)


def _chains(late: Iterable[tuple[GainReport, AgentTrade]]) -> list[list[tuple[GainReport, AgentTrade]]]:
    """Purchases with those upon them, in order; a chain begins where what it is upon is not among them."""
    rows = list(late)
    upon = {report.after: (report, row) for report, row in rows if report.after is not None}
    here = {row.trade for _, row in rows}
    chains = [[one] for one in rows if one[0].after not in here]
    for chain in chains:
        while following := upon.get(chain[-1][1].trade):
            chain.append(following)
    return chains


def _below_the_ask(amount: int, left: int = 0) -> str:
    """That a bid was too low, in words; `left` are the revisions that were not used."""
    words = f"no deal: the seller asks more than this bid of {format_credits(amount)}"
    if left == 0:
        return words
    return f"{words}; it may be raised {left} more time{'' if left == 1 else 's'}, this strategy does not"


def _why_not(reports: Sequence[GainReport]) -> str:
    """Why nothing was worth a bid, in words."""
    if not reports:
        return "nothing was offered"
    best = reports[0]
    if best.weight == 0:
        return best.reason or "no merge would help"
    return f"the best gain was {best.gain:.4f} [{best.gain_low:.4f}, {best.gain_high:.4f}], not enough for a bid"
