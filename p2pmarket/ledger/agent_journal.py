"""What an agent must not forget: the words it gave, the reports, bids, asks and receipts of its trades.

Knows: the agent's own side of each trade, with as many brokers as it likes. Refuses to know: balances (the broker's
ledger holds them), tensors, networks. A receipt that does not hold, or contradicts what this agent signed, raises a
PeerFault; the contradicting bytes are kept as evidence, and the broker is trusted no longer.

An intent is written before its message is sent, so an agent that was killed knows what it may have said. An
`AgentJournal` belongs to the thread that opened it.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pmarket.crypto.signing import type_of, verify
from p2pmarket.errors import RuleBroken
from p2pmarket.ledger import agent_rules, agent_trades
from p2pmarket.ledger.agent_book import AgentBook
from p2pmarket.ledger.agent_schema import AgentTrade, AskGiven, Evidence, Intent
from p2pmarket.ledger.heads import Head
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.ledger.trade import DELIVERED, LAPSED, REFUNDED
from p2pmarket.messages import Ask, Bid, GainReport, Receipt, Refund, Sold, Submit, TradeStatus

__all__ = ["UNMATCHED", "AgentJournal", "AgentTrade", "AskGiven", "Evidence", "Intent"]

UNMATCHED = "unmatched"
"""Reason of a trade whose last bid was below the ask: it binds no longer, and a higher one may follow."""


class AgentJournal(AgentBook):
    """An agent's open journal. Open it with `AgentJournal.open`, in the thread that uses it; a context manager."""

    # ---- before a trade is settled -------------------------------------------------------------------------------

    def keep_report(self, broker: str, data: bytes) -> GainReport:
        """Keeps a gain report that this agent may buy on.

        :raises BadSignature, MalformedMessage: not that broker's report
        :raises RuleBroken: code not-mine, when it is for another buyer
        """
        report = verify(data, GainReport, signer=broker)
        if report.buyer != self.peer:
            raise RuleBroken("this gain report is for another buyer", code="not-mine")
        with self.transaction("report") as connection:
            connection.execute(
                "INSERT INTO trades (broker, trade, role, partner, gain, report, noted_ms) "
                "VALUES (?, ?, 'buyer', ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (broker, report.trade, report.seller, report.gain, data, self._clock()),
            )
        return report

    def keep_bid(self, data: bytes) -> Bid:
        """Keeps a signed bid, as its trade's and as an intent, before it is sent.

        :raises RuleBroken: code unknown-trade without a report; wrong-state when this agent bid otherwise before, and
            this does not raise a bid that was unmatched
        """
        bid = verify(data, Bid, signer=self.peer)
        with self.transaction("bid") as connection:
            row = agent_trades.load(connection, bid.broker, bid.trade)
            if row is None or row.report is None:
                raise RuleBroken("there is no gain report for this trade to bid on", code="unknown-trade")
            if row.receipt is not None or not _may_bid(row, bid, data):
                raise RuleBroken(
                    f"this trade is {row.stage} already; a bid is made once, and again higher where it was unmatched",
                    code="wrong-state",
                )
            self.intend(bid.broker, bid.message_id, data)
            if row.bid != data:
                agent_trades.set_bid(connection, bid, data)
        return bid

    def keep_ask(self, broker: str, data: bytes, buyer: bytes | None = None) -> None:
        """Keeps what this agent asks for, before it is sent: its signed Ask, or its Submit; one without a standing ask
        says nothing and is passed over.

        :param buyer: of an Ask, the pseudonym in its request
        :raises BadSignature, MalformedMessage: neither of them, or not this agent's
        """
        trade, amount = b"", None
        if type_of(data) == Submit.TYPE:
            submit = verify(data, Submit, signer=self.peer)
            snapshot, amount = submit.snapshot, submit.ask if submit.sell else None
        else:
            ask = verify(data, Ask, signer=self.peer)
            snapshot, trade, amount = ask.snapshot, ask.trade, ask.amount
        if amount is None:
            return
        with self.transaction("ask") as connection:
            given = AskGiven(trade, buyer, amount, self._clock())
            agent_trades.keep_ask(connection, broker, snapshot, given, data)

    def end(self, broker: str, trade: bytes, reason: str) -> None:
        """A trade ended without a settlement: refused, or NoDeal with its code; for what is not wanted, `decline`."""
        with self.transaction("end") as connection:
            connection.execute(
                "UPDATE trades SET reason = ? WHERE broker = ? AND trade = ? AND receipt IS NULL",
                (reason, broker, trade),
            )

    def decline(self, broker: str, trades: Sequence[bytes]) -> tuple[bytes, ...]:
        """Ends those of these trades that this agent did not bid on, and says which: a bid binds until answered."""
        declined = []
        with self.transaction("decline") as connection:
            for trade in trades:
                done = connection.execute(
                    "UPDATE trades SET reason = 'declined' WHERE broker = ? AND trade = ? "
                    "AND bid IS NULL AND receipt IS NULL AND reason = ''",
                    (broker, trade),
                )
                if done.rowcount:
                    declined.append(trade)
        return tuple(declined)

    # ---- settled and paid back -----------------------------------------------------------------------------------

    def keep_receipt(self, broker: str, data: bytes, word: bytes | None = None) -> Receipt:
        """Keeps a receipt for something this agent bought or sold. The same one again changes nothing.

        :param word: what this agent signed for it, as the broker shows it where this journal may have lost it
        :raises BadSignature, MalformedMessage: not that broker's receipt, or its proof does not hold
        :raises RuleBroken: code not-mine, when it names neither side as this agent; contradiction, when it is not
            what this agent signed or was told before, or the log it names is not the one it was shown before (kept as
            evidence: this agent trades no more with that broker)
        """
        receipt = verify_receipt(data, broker)
        if self.peer not in (receipt.buyer, receipt.seller):
            raise RuleBroken("this receipt is for another buyer and seller", code="not-mine")
        with self._database.reading() as connection:
            row = agent_trades.load(connection, broker, receipt.trade)
        known, snapshot = (row.bid or row.ask, row.snapshot) if row is not None else (None, None)
        if receipt.buyer == self.peer:
            word, conflict = agent_rules.judge_purchase(receipt, (known, word))
        elif known is None and word is None:
            conflict = ""
        else:
            word, conflict = agent_rules.judge_sale(receipt, (known, word), snapshot)
        conflict = agent_rules.conflict_with_receipt(row, receipt, data) or conflict
        if conflict:
            shown = (row.bid, row.ask, row.receipt, row.refund) if row is not None else ()
            raise self.accuse(broker, conflict, data, *(body for body in shown if body is not None and body != data))
        if row is None or row.receipt is None or (row.role == "seller" and row.ask is None and word is not None):
            with self.transaction("receipt") as connection:
                agent_trades.set_receipt(connection, self.peer, receipt, data, word, self._clock())
        if row is None or row.receipt is None:
            self.keep_head(broker, receipt.market, Head(receipt.log_size, receipt.root, data))
        return receipt

    def keep_sale(self, broker: str, data: bytes) -> Receipt:
        """Keeps a signed Sold: a receipt, and for which snapshot. Where what this agent asked for that is not known
        here, or does not allow it, the sale is `unclear` until the broker has shown this agent's own word.

        :raises BadSignature, MalformedMessage, RuleBroken: as `keep_receipt`
        """
        sold = verify(data, Sold, signer=broker)
        receipt = verify_receipt(sold.receipt, broker)
        if (sold.trade, sold.price, sold.fee) != (receipt.trade, receipt.price, receipt.fee):
            raise self.accuse(broker, "it told of another sale than its receipt proves", data)
        asked = self.asked(broker, sold.snapshot, sold.trade)
        word, _ = agent_rules.judge_sale(receipt, (asked,), sold.snapshot)
        self.keep_receipt(broker, sold.receipt, word)
        with self.transaction("sale") as connection:
            agent_trades.set_sale(connection, broker, sold.trade, sold.snapshot)
        return receipt

    def keep_status(self, broker: str, status: TradeStatus) -> str:
        """Keeps what a broker's signed Status says of a trade that was settled once; says what of it was missing here:
        "purchase", "sale", "word" or nothing. What this agent bought or sold without its own signed word is a
        contradiction.

        :raises BadSignature, MalformedMessage, RuleBroken: as `keep_receipt`
        """
        if status.receipt is None:
            return ""
        with self._database.reading() as connection:
            before = agent_trades.load(connection, broker, status.trade)
        receipt = self.keep_receipt(broker, status.receipt, status.word)
        if status.state == REFUNDED:
            with self.transaction("refund") as connection:
                agent_trades.set_refund(connection, broker, status.trade, None, receipt.settled_ms)
        after = self.trade(broker, status.trade)
        assert after is not None
        if after.role == "buyer" and after.fetched_ms is None and status.state in (DELIVERED, LAPSED):
            self.give_up(broker, status.trade, agent_trades.RECOVERED)
        if after.role == "seller" and after.ask is None:
            _, conflict = agent_rules.judge_sale(receipt, (status.word,), after.snapshot)
            raise self.accuse(broker, conflict, status.receipt, *filter(None, (status.word,)))
        if before is None or (after.role == "buyer" and before.bid is None):
            return "purchase" if after.role == "buyer" else "sale"
        return "" if before.ask == after.ask else "word"

    def keep_open_bid(self, broker: str, word: bytes) -> bool:
        """Keeps a bid of this agent's own that the broker holds and this journal lost: it binds, and is sent again to
        hear what became of it. False where it is known.

        :raises BadSignature, MalformedMessage: not this agent's bid
        """
        bid = verify(word, Bid, signer=self.peer)
        with self.transaction("recover") as connection:
            row = agent_trades.load(connection, broker, bid.trade)
            if bid.broker != broker or (row is not None and (row.bid is not None or row.receipt is not None)):
                return False
            connection.execute(
                "INSERT INTO trades (broker, trade, role, partner, noted_ms) VALUES (?, ?, 'buyer', '', ?) "
                "ON CONFLICT DO NOTHING",
                (broker, bid.trade, self._clock()),
            )
            agent_trades.set_bid(connection, bid, word)
            self.intend(broker, bid.message_id, word)
            return True

    def keep_refund(self, broker: str, data: bytes) -> Refund:
        """Keeps a signed Refund of a trade of this agent's; its price counts as spent no longer. Again: no change.

        :raises BadSignature, MalformedMessage: not that broker's
        :raises RuleBroken: code not-mine; unknown-trade without its receipt, and then the broker is asked for what is
            missing here (`is_lost`); contradiction, when it is not what the receipt says (kept as evidence)
        """
        refund = verify(data, Refund, signer=broker)
        if self.peer not in (refund.buyer, refund.seller) or refund.broker != broker:
            raise RuleBroken("this refund is for another buyer and seller", code="not-mine")
        with self._database.reading() as connection:
            row = agent_trades.load(connection, broker, refund.trade)
        if row is None or row.receipt is None:
            # Believed, it would make room in a budget for a bid that may still be settled.
            self.miss(broker)
            raise RuleBroken("a refund of what this agent has no receipt for; it is asked for", code="unknown-trade")
        receipt = verify(row.receipt, Receipt, signer=broker)
        conflict = agent_rules.conflict_with_refund(receipt, refund)
        if conflict:
            raise self.accuse(broker, conflict, row.receipt, data)
        with self.transaction("refund") as connection:
            agent_trades.set_refund(connection, broker, refund.trade, data, refund.refunded_ms)
        return refund

    # ---- the delivery --------------------------------------------------------------------------------------------

    def fetched(self, broker: str, trade: bytes) -> None:
        """The delivery is on this machine and its digest is the report's."""
        with self.transaction("fetched") as connection:
            connection.execute(
                "UPDATE trades SET fetched_ms = coalesce(fetched_ms, ?) WHERE broker = ? AND trade = ?",
                (self._clock(), broker, trade),
            )

    def loaded(self, broker: str, trade: bytes) -> None:
        """The delivery is in the model."""
        with self.transaction("loaded") as connection:
            connection.execute(
                "UPDATE trades SET loaded_ms = coalesce(loaded_ms, ?) WHERE broker = ? AND trade = ?",
                (self._clock(), broker, trade),
            )

    def give_up(self, broker: str, trade: bytes, reason: str) -> None:
        """A purchase whose delivery is not used: it was refunded, or came too late to be of use."""
        with self.transaction("give-up") as connection:
            connection.execute(
                "UPDATE trades SET reason = ? WHERE broker = ? AND trade = ? AND receipt IS NOT NULL "
                "AND loaded_ms IS NULL",
                (reason, broker, trade),
            )

    # ---- reading -------------------------------------------------------------------------------------------------

    def owed(self) -> list[AgentTrade]:
        """Purchases that were paid for and are not in the model yet, the newest first."""
        with self._database.reading() as connection:
            return agent_trades.select(
                connection,
                "role = 'buyer' AND receipt IS NOT NULL AND loaded_ms IS NULL AND refunded_ms IS NULL AND reason = ''",
            )

    def unclear(self, broker: str) -> list[AgentTrade]:
        """Trades of which only the broker can say more, the newest first: a bid that may bind and for which no message
        is left to be sent again; a sale for which this agent's own word is not here."""
        with self._database.reading() as connection:
            return agent_trades.select(
                connection,
                "broker = ? AND ((role = 'seller' AND receipt IS NOT NULL AND ask IS NULL) OR (bid IS NOT NULL "
                "AND receipt IS NULL AND reason = '' "
                "AND NOT EXISTS (SELECT 1 FROM intents WHERE body = bid AND reply IS NULL)))",
                broker,
            )

    def last_settled(self, broker: str) -> bytes | None:
        """The trade with a broker that was settled last, as far as this agent knows; None before the first."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT trade FROM trades WHERE broker = ? AND settled_ms IS NOT NULL ORDER BY settled_ms DESC LIMIT 1",
                (broker,),
            ).fetchone()
            return bytes(row[0]) if row else None

    def asked(self, broker: str, snapshot: bytes, trade: bytes) -> bytes | None:
        """The lowest signed word of this agent's that covers a sale; None where it named no price."""
        with self._database.reading() as connection:
            return agent_trades.asked(connection, broker, snapshot, trade)

    def asks(self, broker: str, limit: int = -1) -> list[AskGiven]:
        """What this agent was asked to price, of each buyer the newest first; standing asks are not among them."""
        with self._database.reading() as connection:
            return agent_trades.asks(connection, broker, limit)

    def buyers(self, broker: str) -> dict[str, bytes]:
        """By peer id, the pseudonyms of buyers that a sale to them has shown."""
        with self._database.reading() as connection:
            return agent_trades.buyers(connection, broker)

    def trade(self, broker: str, trade: bytes) -> AgentTrade | None:
        """One trade; None when this agent never heard of it."""
        with self._database.reading() as connection:
            return agent_trades.load(connection, broker, trade)

    def trades(self, limit: int = -1) -> list[AgentTrade]:
        """This agent's trades, the newest first."""
        with self._database.reading() as connection:
            return agent_trades.select(connection, "1", limit=limit)

    def spent(self, since_ms: int) -> int:
        """Micro-credits paid since then and not paid back, plus every bid that bound since then and has no answer: it
        may be paid. Paid is when the receipt came here, whatever date the broker put on it."""
        with self._database.reading() as connection:
            (paid,) = connection.execute(
                "SELECT coalesce(sum(price), 0) FROM trades "
                "WHERE role = 'buyer' AND learnt_ms >= ? AND refunded_ms IS NULL",
                (since_ms,),
            ).fetchone()
            (bound,) = connection.execute(
                "SELECT coalesce(sum(bid_amount), 0) FROM trades WHERE bid IS NOT NULL "
                "AND receipt IS NULL AND refunded_ms IS NULL AND reason = '' AND bid_expires_ms >= ?",
                (since_ms,),
            ).fetchone()
            return int(paid + bound)


def _may_bid(row: AgentTrade, bid: Bid, data: bytes) -> bool:
    """Whether this bid is the trade's first, the same again, or the next one above what was below the ask."""
    if row.bid is None or row.bid == data:
        return not row.reason
    last = verify(row.bid, Bid, signer=None)
    return row.reason == UNMATCHED and bid.revision == last.revision + 1 and bid.amount > last.amount
