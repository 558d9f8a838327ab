"""Trades that are not settled: from an appraisal to a bid, an ask, and every end at which no money moves.

Knows: which word of buyer, seller and broker a trade takes in which state, and that a bid is held from the moment it is
taken until its answer is stored. Refuses to know: settling and what comes after it (journal.py), how a price is found.
A request that breaks a rule raises a PeerFault and changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from p2pmarket.crypto.signing import sign
from p2pmarket.errors import Expired, RuleBroken
from p2pmarket.ledger import mailbox, trades
from p2pmarket.ledger.accounts import AccountBook
from p2pmarket.ledger.balances import append
from p2pmarket.ledger.evidence import check_address, check_buyer, check_running, read_ask, verified
from p2pmarket.ledger.holds import check_spending, hold, release
from p2pmarket.ledger.leaves import Ended
from p2pmarket.ledger.trade import DECLINED, ENDS, PRICED, QUOTED, SETTLED, SUBMITTED, advance
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import Bid, NoDeal, Unmatched
from p2pmarket.units import format_credits


class OpenTrades(AccountBook):
    """The part of a `Ledger` (journal.py) that lies before settling."""

    def create_trade(
        self,
        trade_id: bytes,
        buyer: str,
        seller: str,
        buyer_snapshot: bytes,
        seller_snapshot: bytes,
        submission: bytes,
        *,
        task: str = "",
        expires_ms: int | None = None,
    ) -> TradeRow:
        """A new trade in SUBMITTED; it expires unappraised at `expires_ms`.

        :raises RuleBroken: code duplicate-trade, or self-trade
        """
        if buyer == seller:
            raise RuleBroken("a peer cannot buy from itself", code="self-trade")
        with self.transaction("create") as connection:
            now = self._clock()
            row = TradeRow(
                trade=trade_id, submission=submission, task=task, buyer=buyer, seller=seller,
                buyer_snapshot=buyer_snapshot, seller_snapshot=seller_snapshot, state=SUBMITTED, created_ms=now,
                changed_ms=now, expires_ms=expires_ms, delivery=None, report=None, bid=None, bid_amount=0, bids=0,
                bids_until_ms=None, ask=None, price=0, fee=0, receipt=None, settled_ms=None, fetch_before_ms=None,
                served_ms=None, reason="",
            )  # fmt: skip
            trades.insert(connection, row)
            return row

    def record_report(self, trade_id: bytes, report: bytes, delivery: bytes, expires_ms: int) -> TradeRow:
        """Keeps the signed GainReport and the digest of what it measured; bids are taken until `expires_ms`.

        :raises RuleBroken: code unknown-trade, wrong-state
        """
        with self.transaction("report") as connection:
            row = trades.load(connection, trade_id)
            return trades.step(
                connection, row, "report", self._clock(), report=report, delivery=delivery, expires_ms=expires_ms,
                bids_until_ms=expires_ms,
            )  # fmt: skip

    def fail(self, trade_id: bytes, reason: str) -> TradeRow:
        """Ends a trade that the broker cannot go on with: VOID. A bid that waits is answered NoDeal.

        :raises RuleBroken: code unknown-trade, wrong-state
        """
        with self.transaction("fail") as connection:
            row = trades.load(connection, trade_id)
            return self._end(connection, row, "fail", reason, "the broker could not complete this trade; nothing moved")

    def place_bid(self, data: bytes, *, spend_per_day: int = 0, ask_ms: int = 0) -> TradeRow:
        """Takes a signed Bid and holds its amount. The same bytes again change nothing.

        The trade expires with the bid, or `ask_ms` after the report's time, if that is sooner.

        :param spend_per_day: what the terms let an account spend in 24 hours, in micro-credits; 0: no limit
        :param ask_ms: how long a seller is waited for
        :raises BadSignature, MalformedMessage: not a bid that verifies
        :raises Expired: the bid or the report is past its time
        :raises RuleBroken: code unknown-trade, wrong-state, wrong-broker, wrong-delivery, wrong-revision, lower-bid,
            insufficient-balance, spending-limit
        """
        bid = verified(data, Bid)
        with self.transaction("bid") as connection:
            row = trades.load(connection, bid.trade)
            verified(data, Bid, row.buyer)
            if row.bid == data:
                return row
            advance(row.state, "bid")
            check_address(bid, self.market, self._identity.peer_id)
            now = self._clock()
            self._check_bid(row, bid, now)
            latest_ms = bid.expires_ms if row.bids_until_ms is None else row.bids_until_ms + ask_ms
            check_spending(connection, row.buyer, bid.amount, spend_per_day, now)
            hold(connection, row.buyer, bid.amount)
            return trades.step(
                connection, row, "bid", now, bid=data, bid_amount=bid.amount, bids=row.bids + 1,
                expires_ms=min(bid.expires_ms, latest_ms),
            )  # fmt: skip

    def unmatched(self, trade_id: bytes, revisions_left: int) -> bytes:
        """The bid is below the ask: frees what it held; the signed Unmatched, which is also the stored reply to it.

        The trade takes a higher bid until the report's time is up, and expires then.

        :raises RuleBroken: code unknown-trade, wrong-state
        """
        with self.transaction("unmatched") as connection:
            row = trades.load(connection, trade_id)
            now = self._clock()
            after = trades.step(connection, row, "no-overlap", now, expires_ms=row.bids_until_ms)
            release(connection, row.buyer, row.bid_amount)
            until_ms = now if row.bids_until_ms is None else row.bids_until_ms
            reply = sign(self._identity, Unmatched(trade_id, row.bids - 1, revisions_left, until_ms))
            self._answer(connection, after, reply, now)
            return reply

    def record_ask(self, trade_id: bytes, data: bytes) -> TradeRow:
        """Takes the seller's signed word: an Ask for this trade, or the Submit whose standing ask covers it.

        :raises BadSignature, MalformedMessage: neither of them, or not the seller's
        :raises Expired: the ask is past its time
        :raises RuleBroken: code unknown-trade, wrong-state, wrong-broker, wrong-snapshot, no-ask
        """
        with self.transaction("ask") as connection:
            row = trades.load(connection, trade_id)
            if row.ask == data:
                return row
            _, expires_ms = read_ask(row, data, self.market, self._identity.peer_id)
            now = self._clock()
            check_running("ask", expires_ms, now)
            return trades.step(connection, row, "ask", now, ask=data)

    def no_deal(self, trade_id: bytes, reason: str, sentence: str) -> bytes:
        """Ends a quoted trade without a price; the signed NoDeal, which is also the stored reply to the bid.

        :raises RuleBroken: code unknown-trade, wrong-state
        """
        with self.transaction("no-deal") as connection:
            row = trades.load(connection, trade_id)
            self._end(connection, row, "no-deal", reason, sentence)
            return sign(self._identity, NoDeal(trade_id, reason, sentence))

    def decline(self, trade_ids: Sequence[bytes], by: str) -> list[bytes]:
        """The buyer wants none of these; the ids that this ended. Those that ended before are passed over.

        :raises RuleBroken: code unknown-trade, not-yours, or wrong-state where a bid binds already
        """
        declined = []
        with self.transaction("decline") as connection:
            for trade_id in trade_ids:
                row = trades.load(connection, trade_id)
                check_buyer(row, by)
                if row.state in ENDS:
                    continue
                self._end(connection, row, "decline", DECLINED, "")
                declined.append(trade_id)
        return declined

    def trade(self, trade_id: bytes) -> TradeRow:
        """One trade.

        :raises RuleBroken: code unknown-trade
        """
        with self._database.reading() as connection:
            return trades.load(connection, trade_id)

    def trades(self, peer: str | None = None, state: str | None = None, limit: int = -1) -> list[TradeRow]:
        """Trades of a peer (as buyer or seller), in a state, newest first."""
        with self._database.reading() as connection:
            return trades.find(connection, peer=peer, states=(state,) if state else (), limit=limit)

    def open_trades(self, peer: str, limit: int) -> list[TradeRow]:
        """A peer's trades that have not ended: those that bind money first, of them its purchases, the newest first."""
        with self._database.reading() as connection:
            return trades.open_trades(connection, peer, limit)

    def settled_after(self, peer: str, after: bytes, limit: int) -> list[TradeRow]:
        """A peer's trades that were ever settled, the oldest settlement first, from the one that follows the trade
        `after`; from the first where there is no such trade."""
        with self._database.reading() as connection:
            return trades.settled_after(connection, peer, after, limit)

    def deliveries_owed(self, peer: str | None = None) -> list[TradeRow]:
        """Trades that were paid and whose buyer (this peer, or any) has not acknowledged the delivery."""
        with self._database.reading() as connection:
            return trades.find(connection, buyer=peer, states=(SETTLED,))

    def reverse_report(self, row: TradeRow) -> bytes | None:
        """The signed GainReport of the seller's own purchase from this buyer, of the same two snapshots."""
        with self._database.reading() as connection:
            return trades.reverse_report(connection, row)

    def bids_since(self, since_ms: int, task: str) -> list[tuple[str, int, int | None, int]]:
        """Buyer, last bid, price (None where none is paid) and time of the last change, in micro-credits and UTC
        milliseconds, of each trade of a task whose bidding is over and that changed since; the latest first."""
        with self._database.reading() as connection:
            return trades.bids_since(connection, since_ms, task)

    def _check_bid(self, row: TradeRow, bid: Bid, now: int) -> None:
        """Whether this is the next bid that the trade takes."""
        if bid.delivery != row.delivery:
            raise RuleBroken("the bid names another delivery than the report; bid on the report", code="wrong-delivery")
        if row.bids_until_ms is not None and row.bids_until_ms <= now:
            raise Expired("the report's time is up; submit a snapshot again for a new one")
        if bid.revision != row.bids:
            raise RuleBroken(
                f"this bid says it is revision {bid.revision} and the next one is {row.bids}; number it so",
                code="wrong-revision",
            )
        if row.bids and bid.amount <= row.bid_amount:
            raise RuleBroken(
                f"a revised bid is above the one before it, of {format_credits(row.bid_amount)} credits; "
                "bid more, or decline",
                code="lower-bid",
            )
        check_running("bid", bid.expires_ms, now)

    def _end(self, connection: sqlite3.Connection, row: TradeRow, event: str, reason: str, sentence: str) -> TradeRow:
        """Ends a trade for which no money moved: its row, its leaf; of a bid that waits, the hold and the answer."""
        now = self._clock()
        after = trades.step(connection, row, event, now, expires_ms=None, reason=reason)
        append(connection, Ended(row.trade, after.state, reason, now))
        if row.state in (QUOTED, PRICED):
            release(connection, row.buyer, row.bid_amount)
            self._answer(connection, after, sign(self._identity, NoDeal(row.trade, reason, sentence)), now)
        return after

    def _answer(self, connection: sqlite3.Connection, row: TradeRow, reply: bytes, now: int) -> None:
        """Stores the answer to a trade's bid. A buyer that used the bid's id for another message keeps that one's
        reply: its carelessness must not stop the trade."""
        assert row.bid is not None
        message_id = verified(row.bid, Bid).message_id
        mailbox.remember_first(connection, row.buyer, message_id, reply, now)
