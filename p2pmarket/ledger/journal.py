"""The broker's ledger: accounts, trades, replies and mail in one SQLite file, every effect in one transaction.

Knows: what may happen to a trade's money, and writes it down: settling, delivering, lapsing, paying back. Refuses to
know: networks, tensors, how a price is found; what comes before settling is in bids.py. A request that breaks a rule
raises a PeerFault and changes nothing, except where `settle` says otherwise; a file that cannot be written or does not
verify raises a MachineFault.

No state is kept in memory, so a killed broker loses nothing and another process may open the file beside it.
A `Ledger` belongs to the thread that opened it.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator

from p2pmarket.crypto.signing import sign
from p2pmarket.errors import Expired, RuleBroken
from p2pmarket.ledger import mailbox, trades
from p2pmarket.ledger.balances import Change, append
from p2pmarket.ledger.bids import OpenTrades
from p2pmarket.ledger.evidence import check_buyer, check_terms, purchase_before
from p2pmarket.ledger.holds import release_proceeds
from p2pmarket.ledger.leaves import Ended, Refunded, Settled
from p2pmarket.ledger.trade import (
    APPRAISED,
    DELIVERED,
    EXPIRED,
    LAPSED,
    QUOTED,
    SETTLED,
    SUBMITTED,
    UNMATCHED,
    advance,
)  # fmt: skip
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.limits import MAX_CHAIN
from p2pmarket.messages import Deal, Receipt, Refund, Sold

NOT_FETCHED = "not-fetched"
"""Reason of a refund: nothing of the delivery was served within its term."""


@dataclasses.dataclass(frozen=True)
class Settlement:
    """What settling a trade brought, all of it durable: reply and mail are stored too."""

    receipt: bytes
    """Signed Receipt."""
    reply: bytes
    """Signed Deal: the answer to the bid, now and whenever the bid comes again."""
    mail_number: int
    """Number of the signed Sold in the seller's mail."""


class Ledger(OpenTrades):
    """An open ledger: `with Ledger.open(path, identity, market, clock) as ledger`."""

    def settle(self, trade_id: bytes, price: int, fee: int, *, fetch_before_ms: int) -> Settlement:
        """Moves the money and gives the right of delivery, by the bid and the ask that were recorded.

        The term of the delivery is `fetch_before_ms`, and no longer than that of a purchase which it is upon and of
        which nothing was served: no purchase of a chain is refunded as unfetched while a later one can be fetched.

        One transaction: the buyer's debit, out of what its bid held; the seller's credit and the fee, both held until
        the delivery's fate is known; leaf, receipt, the reply to the bid, the seller's mail. When the bid has run out
        the trade ends as EXPIRED, durable, with its NoDeal as the stored reply, before the error is raised. (Inside a
        `transaction()` of the caller's, catch the error inside it, or that end is undone too.)

        :raises RuleBroken: code unknown-trade, wrong-state, no-ask, price-outside (nothing changed)
        :raises Expired: the bid has run out (the trade has ended), or only the ask (nothing changed)
        """
        with self.transaction("settle") as connection:
            row = trades.load(connection, trade_id)
            advance(row.state, "price")
            now = self._clock()
            bid = check_terms(row, price, fee, self.market, self._identity.peer_id, now)
            if bid.expires_ms > now and (row.expires_ms is None or row.expires_ms > now):
                return self._pay(connection, row, price, fee, fetch_before_ms, now)
            problem = Expired("the bid ran out before it could be settled; nothing moved")
            self._end(connection, row, "expire", problem.code, str(problem))
        raise problem

    def mark_served(self, trade_id: bytes) -> TradeRow:
        """The first byte of the delivery is about to be sent: from here on the buyer may have it. Again: no change.

        The delivery of a purchase upon others may hold what they brought, so those are served with it.

        :raises Expired: the time to fetch it is over
        :raises RuleBroken: code unknown-trade, wrong-state
        """
        with self.transaction("serve") as connection:
            row = trades.load(connection, trade_id)
            advance(row.state, "serve")
            if row.served_ms is not None:
                return row
            now = self._clock()
            if row.fetch_before_ms is not None and row.fetch_before_ms <= now:
                raise Expired("the time to fetch this delivery is over; it was kept as long as the market's terms say")
            for before in self._unserved_before(connection, row):
                trades.step(connection, before, "serve", now, served_ms=now)
            return trades.step(connection, row, "serve", now, served_ms=now)

    def acknowledge_delivery(self, trade_id: bytes, by: str, digest: bytes) -> TradeRow:
        """The buyer has what it paid for, and the proceeds are free. A second time changes nothing.

        :raises RuleBroken: code unknown-trade, not-yours, wrong-delivery, wrong-state
        """
        with self.transaction("acknowledge") as connection:
            row = trades.load(connection, trade_id)
            check_buyer(row, by)
            if row.state != DELIVERED:
                advance(row.state, "acknowledge")
            if digest != row.delivery:
                raise RuleBroken("this is not the digest of the delivery; fetch it again", code="wrong-delivery")
            if row.state == DELIVERED:
                return row
            return self._keep(connection, row, "acknowledge", "")

    def refund(self, trade_id: bytes, reason: str) -> TradeRow:
        """Gives the buyer the whole price back, out of what was held of it; both sides get a signed Refund by mail.

        :raises RuleBroken: code unknown-trade, wrong-state
        """
        with self.transaction("refund") as connection:
            return self._pay_back(connection, trades.load(connection, trade_id), reason)

    def expire(self) -> list[bytes]:
        """Ends every trade whose time is up; their ids.

        A bid among them is answered NoDeal `expired`. A delivery that was served and not acknowledged lapses, and one
        of which nothing was served is refunded.
        """
        with self.transaction("expire") as connection:
            due = trades.find(
                connection, states=(SUBMITTED, APPRAISED, QUOTED, UNMATCHED, SETTLED), due_ms=self._clock()
            )
            for row in due:
                if row.state != SETTLED:
                    self._end(connection, row, "expire", EXPIRED, "the time of this trade is up; nothing moved")
                elif row.served_ms is None:
                    self._pay_back(connection, row, NOT_FETCHED)
                else:
                    self._keep(connection, row, "lapse", LAPSED)
            return [row.trade for row in due]

    def _unserved_before(self, connection: sqlite3.Connection, row: TradeRow) -> Iterator[TradeRow]:
        """The purchases that this one is upon, of which nothing was served; the chain is what the reports say."""
        for _ in range(MAX_CHAIN):
            trade_id = purchase_before(row)
            if trade_id is None:
                return
            row = trades.load(connection, trade_id)
            if row.state == SETTLED and row.served_ms is None:
                yield row

    def _pay(
        self, connection: sqlite3.Connection, row: TradeRow, price: int, fee: int, fetch_before_ms: int, now: int
    ) -> Settlement:
        broker, proceeds = self._identity.peer_id, price - fee
        assert row.delivery is not None
        for before in self._unserved_before(connection, row):
            fetch_before_ms = min(fetch_before_ms, before.fetch_before_ms or fetch_before_ms)
        leaf = Settled(
            market=self.market, broker=broker, trade=row.trade, buyer=row.buyer, seller=row.seller, price=price,
            fee=fee, delivery=row.delivery, at_ms=now,
        )  # fmt: skip
        changes = (
            Change(row.buyer, -price, -row.bid_amount),
            Change(row.seller, proceeds, proceeds),
            Change(broker, fee, fee),
        )
        entry = append(connection, leaf, changes)
        word = Receipt(
            market=leaf.market, broker=broker, trade=row.trade, buyer=row.buyer, seller=row.seller, price=price,
            fee=fee, delivery=leaf.delivery, settled_ms=now, leaf=entry.leaf, index=entry.index, log_size=entry.size,
            root=entry.root, proof=entry.proof,
        )  # fmt: skip
        receipt = sign(self._identity, word)
        after = trades.step(
            connection, row, "price,settle", now, price=price, fee=fee, receipt=receipt, settled_ms=now,
            expires_ms=fetch_before_ms, fetch_before_ms=fetch_before_ms,
        )  # fmt: skip
        of_buyer, of_seller, _ = entry.balances
        reply = sign(self._identity, Deal(row.trade, price, receipt, of_buyer, fetch_before_ms))
        self._answer(connection, after, reply, now)
        sold = Sold(row.trade, row.seller_snapshot, price, fee, of_seller, receipt)
        return Settlement(receipt, reply, mailbox.queue(connection, row.seller, sign(self._identity, sold)))

    def _keep(self, connection: sqlite3.Connection, row: TradeRow, event: str, reason: str) -> TradeRow:
        """Ends a settled trade whose price stays paid."""
        now = self._clock()
        after = trades.step(connection, row, event, now, expires_ms=None, reason=reason)
        append(connection, Ended(row.trade, after.state, reason, now))
        release_proceeds(connection, row, self._identity.peer_id)
        return after

    def _pay_back(self, connection: sqlite3.Connection, row: TradeRow, reason: str) -> TradeRow:
        """Ends a settled trade whose price goes back, with the word of it to both."""
        broker, proceeds, now = self._identity.peer_id, row.price - row.fee, self._clock()
        after = trades.step(connection, row, "refund", now, expires_ms=None, reason=reason)
        changes = (
            Change(row.seller, -proceeds, -proceeds),
            Change(broker, -row.fee, -row.fee),
            Change(row.buyer, row.price),
        )
        append(connection, Refunded(row.trade, row.buyer, row.seller, proceeds, row.fee, reason, now), changes)
        word = Refund(
            market=self.market, broker=broker, trade=row.trade, buyer=row.buyer, seller=row.seller, price=row.price,
            proceeds=proceeds, reason=reason, refunded_ms=now,
        )  # fmt: skip
        mail = sign(self._identity, word)
        for peer in (row.buyer, row.seller):
            mailbox.queue(connection, peer, mail)
        return after
