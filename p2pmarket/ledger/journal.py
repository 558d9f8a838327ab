"""The broker's ledger: accounts, trades, replies and mail in one SQLite file, every effect in one transaction.

Knows: what may happen to a trade and its money, and writes it down. Refuses to know: networks, tensors, how a price is
found. A request that breaks a rule raises a PeerFault and changes nothing, except where `settle` says otherwise; a
file that cannot be written or does not verify raises a MachineFault.

Nothing of it is kept in memory, so a killed broker loses nothing and another process may open the file beside it.
A `Ledger` belongs to the thread that opened it.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence

from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import Expired, MarketError, RuleBroken
from p2pmarket.ledger import mailbox, trades
from p2pmarket.ledger.accounts import AccountBook
from p2pmarket.ledger.balances import append, balance_of
from p2pmarket.ledger.evidence import check_address, check_buyer, check_running, check_terms, read_ask
from p2pmarket.ledger.leaves import Ended, Refunded, settlement_of
from p2pmarket.ledger.trade import (
    APPRAISED,
    DECLINED,
    DELIVERED,
    ENDS,
    EXPIRED,
    QUOTED,
    SETTLED,
    SUBMITTED,
    advance,
)  # fmt: skip
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import Bid, Deal, NoDeal, Receipt, Sold
from p2pmarket.units import format_credits


@dataclasses.dataclass(frozen=True)
class Settlement:
    """What settling a trade brought, all of it durable: reply and mail are stored too."""

    receipt: bytes
    """Signed Receipt."""
    reply: bytes
    """Signed Deal: the answer to the bid, now and whenever the bid comes again."""
    mail_number: int
    """Number of the signed Sold in the seller's mail."""


class Ledger(AccountBook):
    """An open ledger: `with Ledger.open(path, identity, market, clock) as ledger`."""

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
        with self.transaction() as connection:
            now = self._clock()
            row = TradeRow(
                trade=trade_id, submission=submission, task=task, buyer=buyer, seller=seller,
                buyer_snapshot=buyer_snapshot, seller_snapshot=seller_snapshot, state=SUBMITTED, created_ms=now,
                changed_ms=now, expires_ms=expires_ms, delivery=None, report=None, bid=None, bid_amount=0, bids=0,
                ask=None, price=0, fee=0, receipt=None, fetch_before_ms=None, served_ms=None, reason="",
            )  # fmt: skip
            trades.insert(connection, row)
            return row

    def record_report(self, trade_id: bytes, report: bytes, delivery: bytes, expires_ms: int) -> TradeRow:
        """Keeps the signed GainReport and the digest of what it measured; bids are taken until `expires_ms`.

        :raises RuleBroken: code unknown-trade, wrong-state
        """
        with self.transaction() as connection:
            row = trades.load(connection, trade_id)
            return trades.step(
                connection, row, "report", self._clock(), report=report, delivery=delivery, expires_ms=expires_ms
            )

    def fail(self, trade_id: bytes, reason: str) -> TradeRow:
        """Ends a trade that the broker cannot go on with: VOID. A bid it had is answered NoDeal.

        :raises RuleBroken: code unknown-trade, wrong-state
        """
        with self.transaction() as connection:
            row = trades.load(connection, trade_id)
            return self._end(connection, row, "fail", reason, "the broker could not complete this trade; nothing moved")

    def place_bid(self, data: bytes) -> TradeRow:
        """Takes a signed Bid. The same bytes again change nothing.

        :raises BadSignature, MalformedMessage: not a bid that verifies
        :raises Expired: the bid or the report is past its time
        :raises RuleBroken: code unknown-trade, wrong-state, not-yours, wrong-broker, wrong-delivery
        """
        bid = verify(data, Bid, signer=None)
        with self.transaction() as connection:
            row = trades.load(connection, bid.trade)
            verify(data, Bid, signer=row.buyer)
            if row.bid == data:
                return row
            check_address(bid, self.market, self._identity.peer_id)
            now = self._clock()
            if row.state == APPRAISED and bid.delivery != row.delivery:
                raise RuleBroken(
                    "the bid names another delivery than the report; bid on the report", code="wrong-delivery"
                )
            if row.state == APPRAISED and row.expires_ms is not None and row.expires_ms <= now:
                raise Expired("the report's time is up; submit a snapshot again for a new one")
            check_running("bid", bid.expires_ms, now)
            return trades.step(
                connection,
                row,
                "bid",
                now,
                bid=data,
                bid_amount=bid.amount,
                bids=row.bids + 1,
                expires_ms=bid.expires_ms,
            )

    def record_ask(self, trade_id: bytes, data: bytes) -> TradeRow:
        """Takes the seller's signed word: an Ask for this trade, or the Submit whose standing ask covers it.

        :raises BadSignature, MalformedMessage: neither of them, or not the seller's
        :raises Expired: the ask is past its time
        :raises RuleBroken: code unknown-trade, wrong-state, wrong-broker, wrong-snapshot, no-ask
        """
        with self.transaction() as connection:
            row = trades.load(connection, trade_id)
            if row.ask == data:
                return row
            _, expires_ms = read_ask(row, data, self.market, self._identity.peer_id)
            now = self._clock()
            check_running("ask", expires_ms, now)
            return trades.step(connection, row, "ask", now, ask=data)

    def settle(self, trade_id: bytes, price: int, fee: int, *, fetch_before_ms: int) -> Settlement:
        """Moves the money and gives the right of delivery, by the bid and the ask that were recorded.

        One transaction: buyer's debit, seller's credit, fee, leaf, receipt, the reply to the bid, the seller's mail.
        When the buyer lacks the price the trade ends as NO_DEAL, and when the bid has run out as EXPIRED; both are
        durable, with their NoDeal as the stored reply, before the error is raised. (Inside a `transaction()` of the
        caller's, catch the error inside it, or that end is undone too.)

        :raises RuleBroken: code insufficient-balance (the trade has ended); unknown-trade, wrong-state, no-ask,
            price-outside (nothing changed)
        :raises Expired: the bid has run out (the trade has ended), or only the ask (nothing changed)
        """
        with self.transaction() as connection:
            row = trades.load(connection, trade_id)
            advance(row.state, "price")
            now = self._clock()
            bid = check_terms(row, price, fee, self.market, self._identity.peer_id, now)
            problem: MarketError
            if bid.expires_ms <= now:
                problem = Expired("the bid ran out before it could be settled; nothing moved")
                self._end(connection, row, "expire", problem.code, str(problem))
            else:
                row = trades.step(connection, row, "price", now)
                if balance_of(connection, row.buyer) >= price:
                    return self._pay(connection, row, bid, price, fee, fetch_before_ms, now)
                problem = RuleBroken(
                    f"the buyer has not the {format_credits(price)} credits of the price; nothing moved",
                    code="insufficient-balance",
                )
                self._end(connection, row, "no-deal", problem.code, str(problem))
        raise problem

    def no_deal(self, trade_id: bytes, reason: str, sentence: str) -> bytes:
        """Ends a quoted trade without a price; the signed NoDeal, which is also the stored reply to the bid.

        :raises RuleBroken: code unknown-trade, wrong-state
        """
        with self.transaction() as connection:
            row = trades.load(connection, trade_id)
            self._end(connection, row, "no-deal", reason, sentence)
            return sign(self._identity, NoDeal(trade_id, reason, sentence))

    def decline(self, trade_ids: Sequence[bytes], by: str) -> list[bytes]:
        """The buyer wants none of these; the ids that this ended. Those that ended before are passed over.

        :raises RuleBroken: code unknown-trade, not-yours, or wrong-state where a bid binds already
        """
        declined = []
        with self.transaction() as connection:
            for trade_id in trade_ids:
                row = trades.load(connection, trade_id)
                check_buyer(row, by)
                if row.state in ENDS:
                    continue
                self._end(connection, row, "decline", DECLINED, "")
                declined.append(trade_id)
        return declined

    def acknowledge_delivery(self, trade_id: bytes, by: str, digest: bytes) -> TradeRow:
        """The buyer has what it paid for. A second time changes nothing.

        :raises RuleBroken: code unknown-trade, not-yours, wrong-delivery, wrong-state
        """
        with self.transaction() as connection:
            row = trades.load(connection, trade_id)
            check_buyer(row, by)
            if digest != row.delivery:
                raise RuleBroken("this is not the digest of the delivery; fetch it again", code="wrong-delivery")
            if row.state == DELIVERED:
                return row
            now = self._clock()
            after = trades.step(connection, row, "acknowledge", now)
            append(connection, Ended(trade_id, DELIVERED, "", now))
            return after

    def refund(self, trade_id: bytes, reason: str) -> TradeRow:
        """Gives the buyer the whole price back: the seller's part, or what is left of it, and the rest from the fees.

        :raises RuleBroken: code unknown-trade, wrong-state, or insufficient-balance where seller and fees together
            no longer hold the price (nothing changed; grant the broker's account credit first)
        """
        with self.transaction() as connection:
            row = trades.load(connection, trade_id)
            now = self._clock()
            after = trades.step(connection, row, "refund", now, reason=reason)
            from_seller = min(row.price - row.fee, balance_of(connection, row.seller))
            from_fees = row.price - from_seller
            changes = [(row.seller, -from_seller), (self._identity.peer_id, -from_fees), (row.buyer, row.price)]
            leaf = Refunded(trade_id, row.buyer, row.seller, from_seller, from_fees, reason, now)
            append(connection, leaf, changes)
            return after

    def expire(self) -> list[bytes]:
        """Ends every trade whose time is up; their ids. A bid among them is answered NoDeal `expired`."""
        with self.transaction() as connection:
            due = trades.find(connection, states=(SUBMITTED, APPRAISED, QUOTED), due_ms=self._clock())
            for row in due:
                self._end(connection, row, "expire", EXPIRED, "the time of this trade is up; nothing moved")
            return [row.trade for row in due]

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

    def deliveries_owed(self, peer: str | None = None) -> list[TradeRow]:
        """Trades that were paid and whose buyer (this peer, or any) has not acknowledged the delivery."""
        with self._database.reading() as connection:
            return trades.find(connection, buyer=peer, states=(SETTLED,))

    def _pay(
        self,
        connection: sqlite3.Connection,
        row: TradeRow,
        bid: Bid,
        price: int,
        fee: int,
        fetch_before_ms: int,
        now: int,
    ) -> Settlement:
        broker = self._identity.peer_id
        draft = Receipt(
            market=self.market, broker=broker, trade=row.trade, buyer=row.buyer, seller=row.seller, price=price,
            fee=fee, delivery=bid.delivery, settled_ms=now, leaf=bytes(32), index=0, log_size=0, root=bytes(32),
            proof=(),
        )  # fmt: skip
        settled = settlement_of(draft)
        entry = append(connection, settled, [(row.buyer, -price), (row.seller, price - fee), (broker, fee)])
        placed = dataclasses.replace(
            draft, leaf=entry.leaf, index=entry.index, log_size=entry.size, root=entry.root, proof=entry.proof
        )
        receipt = sign(self._identity, placed)
        trades.step(
            connection,
            row,
            "settle",
            now,
            price=price,
            fee=fee,
            receipt=receipt,
            expires_ms=None,
            fetch_before_ms=fetch_before_ms,
        )
        deal = Deal(row.trade, price, receipt, balance_of(connection, row.buyer), fetch_before_ms)
        reply = sign(self._identity, deal)
        self._answer(connection, row.buyer, bid, reply, now)
        balance = balance_of(connection, row.seller)
        sold = Sold(row.trade, row.seller_snapshot, price, fee, balance, receipt)
        return Settlement(receipt, reply, mailbox.queue(connection, row.seller, sign(self._identity, sold)))

    def _end(self, connection: sqlite3.Connection, row: TradeRow, event: str, reason: str, sentence: str) -> TradeRow:
        """Ends a trade for which no money moved: its row, its leaf, the answer to its bid."""
        now = self._clock()
        after = trades.step(connection, row, event, now, expires_ms=None, reason=reason)
        append(connection, Ended(row.trade, after.state, reason, now))
        if row.bid is not None:
            bid = verify(row.bid, Bid, signer=row.buyer)
            self._answer(connection, row.buyer, bid, sign(self._identity, NoDeal(row.trade, reason, sentence)), now)
        return after

    def _answer(self, connection: sqlite3.Connection, buyer: str, bid: Bid, reply: bytes, now: int) -> None:
        """Stores the answer to a bid. A buyer that used the bid's id for another message keeps that one's reply:
        its carelessness must not stop the trade."""
        if mailbox.seen_reply(connection, buyer, bid.message_id) is None:
            mailbox.remember(connection, buyer, bid.message_id, reply, now)
