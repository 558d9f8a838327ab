"""What an agent's journal does not know of its own trades, learnt from the broker and checked.

Knows: which questions to ask after a start, after a journal was lost or put back from an old copy, and where an answer
is missing. Refuses to know: what an answer must say to be believed (ledger/agent_journal): every settled trade comes
with its receipt and with what this agent itself signed for it. Fails as the link does, and with a RuleBroken
`contradiction` where the broker claims what this agent never signed.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Sequence

from p2pmarket.errors import Refused
from p2pmarket.ledger.agent_journal import UNMATCHED, AgentJournal, AgentTrade
from p2pmarket.ledger.trade import ENDS, PAID, QUOTED, REFUNDED
from p2pmarket.messages import Status, StatusRequest, TradeStatus
from p2pmarket.node.link import BrokerLink
from p2pmarket.node.welcome import Joined
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock

log = logging.getLogger(__name__)

FIRST = bytes(16)
"""Names no trade: what was settled is asked for from the beginning."""
MAX_ASKED = 64
"""Trades in one question."""
MONEYLESS_ENDS = ENDS - PAID - {REFUNDED}


class Recovery:
    """Learns what one agent's journal lacks."""

    def __init__(self, link: BrokerLink, journal: OwnThread[AgentJournal], clock: Clock) -> None:
        self._link = link
        self._journal = journal
        self._clock = clock
        self._asked: set[str] = set()

    async def learn(self, joined: Joined) -> None:
        """Asks for what was settled since the last trade that is known here: once a process and broker, and from the
        beginning where the journal is an old copy or a new one.

        :raises NetworkFault, Refused: the broker cannot be reached, or will not say
        """
        broker = joined.broker
        lost, known = await self._journal.run(lambda journal: (journal.is_lost(broker), journal.last_settled(broker)))
        if broker in self._asked and not lost:
            return
        found = await self._settled(broker, FIRST if lost or known is None else known)
        if lost:
            found["bid"] = await self._open_bids(broker)
            await self._journal.run(AgentJournal.rebuilt, broker)
        if lost or found["purchase"]:
            log.warning(
                "this journal did not know all that this agent did; learnt from the broker: %d purchases, %d sales, "
                "%d bids. If it was put back from an old copy, or runs in two places, let that be the last time",
                found["purchase"],
                found["sale"],
                found["bid"],
            )
        self._asked.add(broker)

    async def clear_up(self, joined: Joined) -> None:
        """Asks what became of trades on which an answer is missing and no message is left to be sent again.

        :raises NetworkFault: the broker cannot be reached
        """
        broker = joined.broker
        unclear = await self._journal.run(AgentJournal.unclear, broker)
        if not unclear:
            return
        for row in unclear:
            if row.role == "seller":
                log.warning(
                    "this agent did not ask so little in trade %s; the broker is asked why", row.trade.hex()[:8]
                )
        asked = unclear[:MAX_ASKED]
        try:
            await self._hear_of(broker, asked)
        except Refused as error:  # of one trade; which one, it does not say
            log.warning("the broker does not say what became of %d trades, each is asked for: %s", len(asked), error)
            for row in asked:
                try:
                    await self._hear_of(broker, [row])
                except Refused as refused:
                    await self._end_unknown(row, refused)

    async def _hear_of(self, broker: str, rows: Sequence[AgentTrade]) -> None:
        """:raises Refused: the broker does not know one of them"""
        status = await self._ask(broker, StatusRequest(_id(), tuple(row.trade for row in rows)))
        for trade in status.trades:
            if trade.receipt is not None:
                await self._journal.run(AgentJournal.keep_status, broker, trade)
            elif trade.state in {*MONEYLESS_ENDS, UNMATCHED}:
                await self._journal.run(AgentJournal.end, broker, trade.trade, trade.state)

    async def _end_unknown(self, row: AgentTrade, refused: Refused) -> None:
        """A bid that the broker knows nothing of binds until its time is over, and no longer; should a receipt come all
        the same, it counts."""
        if refused.code == "unknown-trade" and row.receipt is None and row.bid_expires_ms <= self._clock():
            await self._journal.run(AgentJournal.end, row.broker, row.trade, refused.code)

    async def _settled(self, broker: str, after: bytes) -> Counter[str]:
        """What of all that was settled after a trade was missing here, by kind."""
        found: Counter[str] = Counter()
        seen = {after}
        while True:
            status = await self._ask(broker, StatusRequest(_id(), (), after))
            new = [trade for trade in status.trades if trade.trade not in seen]
            for trade in new:
                found[await self._journal.run(AgentJournal.keep_status, broker, trade)] += 1
            if len(status.trades) < MAX_ASKED or not new:
                return found
            seen |= {trade.trade for trade in new}
            after = status.trades[-1].trade

    async def _open_bids(self, broker: str) -> int:
        """Keeps the bids of this agent that bind now; how many were missing."""
        status = await self._ask(broker, StatusRequest(_id(), ()))
        return sum([await self._keep_open(broker, trade) for trade in status.trades])

    async def _keep_open(self, broker: str, trade: TradeStatus) -> bool:
        if trade.state != QUOTED or trade.word is None:
            return False
        return await self._journal.run(AgentJournal.keep_open_bid, broker, trade.word)

    async def _ask(self, broker: str, request: StatusRequest) -> Status:
        return await self._link.request(request, Status, broker=broker)


def _id() -> bytes:
    return secrets.token_bytes(16)
