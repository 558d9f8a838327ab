"""Honest ledgers of every kind, for the auditor: random operations with everything signed that a broker would sign."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ledger_examples import HOUR_MS, MARKET, Bench

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import MarketError
from p2pmarket.ledger.audit_words import receipt_of
from p2pmarket.ledger.fold import Fold, Paid
from p2pmarket.ledger.trade import APPRAISED, QUOTED, SETTLED, UNMATCHED
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import AskRequest, Bid, Checkpoint, Deal, Done, Sold


class SignedBench(Bench):
    """A bench that works at random."""

    def grow(self, steps: int) -> None:
        """That many random operations: most of them such as the trade's state allows, some not."""
        self.fund(500)
        while steps > 0:
            with contextlib.suppress(MarketError):
                self._operation()
            steps -= 1

    def every_state(self) -> None:
        """One trade in each state, mail, replies, and an account of its own limit."""
        ledger, buyer = self.ledger, self.buyer.peer_id
        self.fund(10_000)
        ledger.grant(buyer, 77, "prize", self.id())
        late = [self.settled(60, 6), self.settled(70, 7)]
        ledger.mark_served(late[0])
        self.quoted(15, 15)
        self.clock.ms += HOUR_MS
        ledger.expire()
        ledger.create_trade(self.id(), buyer, self.seller.peer_id, self.digest(), self.digest(), self.id())
        self.appraised()
        self.quoted(10, 20)
        ledger.unmatched(self.quoted(11, 21)[0], 2)
        self.settled(30, 3)
        delivered, refunded = self.settled(40, 4), self.settled(50, 5)
        ledger.mark_served(delivered)
        ledger.acknowledge_delivery(delivered, buyer, self._row(delivered).delivery or b"")
        ledger.refund(refunded, "lost-delivery")
        ledger.decline([self.appraised()], buyer)
        ledger.fail(self.appraised(), "bad-snapshot")
        ledger.no_deal(self.quoted(1, 2)[0], "no-overlap", "the bid is below the ask")
        ledger.set_day_limit(buyer, 5_000)
        with ledger.transaction():
            ledger.remember(buyer, self.id(), sign(self.broker, Done()))
        ledger.queue_mail(
            self.third.peer_id, sign(self.broker, AskRequest(MARKET, self.id(), self.id(), self.digest(), 1))
        )

    def _row(self, trade: bytes) -> TradeRow:
        return self.ledger.trade(trade)

    def _operation(self) -> None:
        chance, ledger = self.chance, self.ledger
        open_trades = [row for row in ledger.trades(limit=12) if row.state in _NEXT]
        if not open_trades or chance.random() < 0.25:
            chance.choice([self._trade, self._trade, self._grant, self._wait, self._housekeeping])()
            return
        row = chance.choice(open_trades)
        names = _NEXT[row.state] if chance.random() < 0.9 else ANY
        getattr(self, f"_do_{chance.choice(names)}")(row)

    def _trade(self) -> None:
        buyer, seller = self.chance.sample([self.buyer, self.seller, self.third], 2)
        if self.chance.random() < 0.1:
            expires = self.clock() + HOUR_MS // 4
            self.ledger.create_trade(
                self.id(), buyer.peer_id, seller.peer_id, self.digest(), self.digest(), self.id(), expires_ms=expires
            )
        else:
            self.appraised(buyer, seller)

    def _grant(self) -> None:
        peer = self.chance.choice([self.broker, self.buyer, self.seller, self.third]).peer_id
        self.ledger.grant(peer, self.chance.randrange(100), "", self.id())

    def _wait(self) -> None:
        self.clock.ms += self.chance.randrange(HOUR_MS)
        self.ledger.expire()

    def _housekeeping(self) -> None:
        """What a broker does besides: forgets old replies, and mail that was kept."""
        if self.chance.random() < 0.3:
            self.ledger.forget_replies(self.clock() - HOUR_MS)
        peer = self.chance.choice([self.buyer, self.seller, self.third]).peer_id
        mail = self.ledger.mail_after(peer, 0)
        if mail:
            self.ledger.drop_mail(peer, self.chance.choice(mail)[0])
        with self.ledger.transaction():
            self.ledger.remember(peer, self.id(), sign(self.broker, Done()))

    def _key(self, peer: str) -> Identity:
        return next(one for one in (self.buyer, self.seller, self.third) if one.peer_id == peer)

    def _do_bid(self, row: TradeRow) -> None:
        amount = row.bid_amount + self.chance.randrange(1, 60)
        minutes = self.chance.randrange(5, 90) * 60_000
        expires = self.clock() + minutes
        bid = self.bid(row.trade, amount, self._key(row.buyer), revision=row.bids, expires_ms=expires)
        self.ledger.place_bid(bid)

    def _do_ask(self, row: TradeRow) -> None:
        amount, seller = self.chance.randrange(60), self._key(row.seller)
        make = self.chance.choice([self.ask, self.submit])
        self.ledger.record_ask(row.trade, make(row.trade, amount, seller))

    def _do_settle(self, row: TradeRow) -> None:
        price = self.chance.choice([row.bid_amount, row.bid_amount, self.chance.randrange(row.bid_amount + 1)])
        term = self.clock() + self.chance.randrange(1, 3) * HOUR_MS
        self.ledger.settle(row.trade, price, self.chance.randrange(price + 1), fetch_before_ms=term)

    def _do_unmatched(self, row: TradeRow) -> None:
        self.ledger.unmatched(row.trade, 3)

    def _do_no_deal(self, row: TradeRow) -> None:
        self.ledger.no_deal(row.trade, "no-ask", "the seller named no price in time")

    def _do_decline(self, row: TradeRow) -> None:
        self.ledger.decline([row.trade], row.buyer)

    def _do_fail(self, row: TradeRow) -> None:
        self.ledger.fail(row.trade, "bad-snapshot")

    def _do_serve(self, row: TradeRow) -> None:
        self.ledger.mark_served(row.trade)

    def _do_acknowledge(self, row: TradeRow) -> None:
        self.ledger.acknowledge_delivery(row.trade, row.buyer, row.delivery or b"")

    def _do_refund(self, row: TradeRow) -> None:
        self.ledger.refund(row.trade, "lost-delivery")


_NEXT = {
    APPRAISED: ["bid"] * 8 + ["decline", "fail"],
    QUOTED: ["ask", "ask", "ask", "settle", "settle", "settle", "unmatched", "no_deal"],
    UNMATCHED: ["bid", "bid", "decline"],
    SETTLED: ["serve", "serve", "acknowledge", "acknowledge", "refund"],
}
ANY = sorted({name for names in _NEXT.values() for name in names})


def rebuild(
    connection: sqlite3.Connection, bench: Bench, leaves: Sequence[bytes], signer: Identity | None = None
) -> None:
    """A file made to fit other leaves in everything that follows from them, signed with the broker's key or another."""
    signer = signer or bench.broker
    fold = Fold(bench.broker.peer_id, MARKET)
    for table in ("leaves", "nodes", "postings", "grants"):
        connection.execute(f"DELETE FROM {table}")
    for number, data in enumerate(leaves):
        fold.add(number, data)
        connection.execute("INSERT INTO leaves VALUES (?, ?)", (number, data))
        connection.executemany("INSERT INTO nodes VALUES (?, ?, ?)", fold.made)
    connection.executemany("INSERT INTO postings VALUES (?, ?, ?, ?)", fold.moved)
    connection.executemany("INSERT INTO grants VALUES (?, ?)", fold.grants.items())
    held = Counter(fold.escrow)
    for buyer, amount in connection.execute("SELECT buyer, bid_amount FROM trades WHERE state = 'quoted'"):
        held[buyer] += amount
    for peer in fold.balances.keys() | fold.opened.keys():
        connection.execute(
            "INSERT INTO accounts (peer, balance, held, opened_ms) VALUES (?1, ?2, ?3, ?4) "
            "ON CONFLICT DO UPDATE SET balance = ?2, held = ?3, opened_ms = ?4",
            (peer, fold.balances[peer], held[peer], fold.opened.get(peer)),
        )
    checkpoint = sign(signer, Checkpoint(MARKET, bench.broker.peer_id, fold.size, fold.root, 1))
    peaks = b"".join(hashed for _, hashed in fold.peaks)
    connection.execute(
        "UPDATE head SET size = ?1, peaks = ?2, minted = ?3, checkpoint_size = ?1, checkpoint = ?4",
        (fold.size, peaks, fold.minted, checkpoint),
    )
    for trade, paid in fold.settled.items():
        _retell(connection, signer, trade, paid, sign(signer, receipt_of(fold, trade, paid)))


def _retell(connection: sqlite3.Connection, signer: Identity, trade: bytes, paid: Paid, receipt: bytes) -> None:
    """The receipt where the row, the buyer's reply and the seller's mail have it."""
    connection.execute(
        "UPDATE trades SET receipt = ?, settled_ms = ?, price = ?, fee = ? WHERE trade = ?",
        (receipt, paid.at_ms, paid.price, paid.fee, trade),
    )
    bid, until = connection.execute("SELECT bid, fetch_before_ms FROM trades WHERE trade = ?", (trade,)).fetchone()
    deal = sign(signer, Deal(trade, paid.price, receipt, paid.buyer_balance, until))
    message_id = verify(bid, Bid, signer=None).message_id
    connection.execute("UPDATE replies SET reply = ? WHERE message_id = ?", (deal, message_id))
    for rowid, body in connection.execute("SELECT rowid, body FROM mail").fetchall():
        if type_of(body) == Sold.TYPE and (sold := verify(body, Sold, signer=None)).trade == trade:
            told = Sold(trade, sold.snapshot, paid.price, paid.fee, paid.seller_balance, receipt)
            connection.execute("UPDATE mail SET body = ? WHERE rowid = ?", (sign(signer, told), rowid))


def honest(path: Path, seed: int, steps: int | None = None) -> SignedBench:
    """An honest ledger by random operations; closed, so that its file can be copied."""
    bench = SignedBench(path, seed)
    bench.grow(random.Random(seed).randrange(5, 60) if steps is None else steps)
    bench.ledger.close()
    return bench
