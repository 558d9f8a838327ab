"""What broker, buyer and seller signed, against what the ledger did with it.

Knows: the signed records that a ledger keeps: of each trade its report, bid, ask, receipt and the reply to its bid; and
the mail. Refuses to know: the other tables (audit_tables.py). No check raises: a record that does not verify is a
sentence.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from p2pmarket.crypto.signing import type_of, verify
from p2pmarket.errors import PeerFault
from p2pmarket.ledger.fold import Fold, Paid, Problem
from p2pmarket.ledger.trade import EXPIRED, QUOTED, REFUNDED, UNMATCHED
from p2pmarket.messages import (
    MESSAGE_TYPES,
    Ask,
    Bid,
    Deal,
    GainReport,
    NoDeal,
    Receipt,
    Refund,
    Sold,
    Submit,
    Unmatched,
)


class Words(NamedTuple):
    """One trade's row beside the log."""

    connection: sqlite3.Connection
    fold: Fold
    row: sqlite3.Row

    @property
    def trade(self) -> bytes:
        trade: bytes = self.row["trade"]
        return trade

    @property
    def name(self) -> str:
        return f"trade {self.trade.hex()}"

    @property
    def paid(self) -> Paid | None:
        return self.fold.settled.get(self.trade)


def findings(kind: str, sentences: Iterator[str]) -> list[Problem]:
    """What a check says, as problems of its kind; a record in it that does not verify is one of them."""
    found = []
    try:
        for sentence in sentences:
            found.append(Problem(kind, sentence))
    except PeerFault as error:
        found.append(Problem(kind, f"a stored {kind} does not verify: {error}"))
    return found


def _named(words: Words, sentences: Iterator[str]) -> Iterator[str]:
    try:
        yield from sentences
    except PeerFault as error:
        yield f"{words.name}: {error}"


def _check_report(words: Words) -> Iterator[str]:
    """The broker's own measurement must be of this trade, and of what was delivered."""
    row, fold = words.row, words.fold
    if row["report"] is None:
        return
    report = verify(row["report"], GainReport, signer=fold.broker)
    there = tuple(row[name] for name in ("trade", "buyer", "seller", "buyer_snapshot", "seller_snapshot", "delivery"))
    said = (
        report.trade, report.buyer, report.seller, report.buyer_snapshot, report.seller_snapshot, report.delivery,
    )  # fmt: skip
    if said != there or report.market != fold.market:
        yield f"{words.name} keeps a report of another trade, snapshot or delivery"
    if row["bids_until_ms"] != report.expires_ms:
        yield f"{words.name} takes bids for another time than its report says"


def _check_bid(words: Words) -> Iterator[str]:
    """The buyer must have signed for at least the price, in time, for this delivery, towards this broker."""
    row, fold, paid = words.row, words.fold, words.paid
    if row["bid"] is None:
        if row["bid_amount"] or row["bids"]:
            yield f"{words.name} counts a bid that is not there"
        return
    bid = verify(row["bid"], Bid, signer=row["buyer"])
    if (bid.trade, bid.delivery, bid.broker, bid.market) != (words.trade, row["delivery"], fold.broker, fold.market):
        yield f"{words.name} keeps a bid for another trade or delivery, or towards another broker"
    if (bid.amount, bid.revision + 1) != (row["bid_amount"], row["bids"]):
        yield f"{words.name} counts its bid as {row['bid_amount']} micro-credits and its buyer signed {bid.amount}"
    if paid is not None and bid.amount < paid.price:
        yield f"{words.name} was settled at {paid.price} micro-credits and its buyer signed for {bid.amount}"
    if paid is not None and bid.expires_ms <= paid.at_ms:
        yield f"{words.name} was settled after its bid had run out"
    waits = row["expires_ms"] or 0  # until the bid runs out, or soon after the report's time
    if row["state"] == QUOTED and not min(bid.expires_ms, row["bids_until_ms"] or 0) <= waits <= bid.expires_ms:
        yield f"{words.name} waits longer or shorter than its bid says"
    end = fold.ended.get(words.trade)
    if end is not None and end.state == EXPIRED and end.at_ms < min(bid.expires_ms, row["bids_until_ms"] or 0):
        yield f"{words.name} expired before its time"


def _check_ask(words: Words) -> Iterator[str]:
    """The seller must have signed for at most the price, for this snapshot: in an Ask in time, or in its Submit."""
    row, fold, paid, data = words.row, words.fold, words.paid, words.row["ask"]
    if data is None:
        return
    amount: int | None
    if type_of(data) == Submit.TYPE:
        submit = verify(data, Submit, signer=row["seller"])
        fits = (submit.snapshot, submit.market, submit.sell) == (row["seller_snapshot"], fold.market, True)
        amount, in_time = submit.ask, True
    else:
        ask = verify(data, Ask, signer=row["seller"])
        there = (words.trade, row["seller_snapshot"], fold.broker, fold.market)
        fits = (ask.trade, ask.snapshot, ask.broker, ask.market) == there
        amount, in_time = ask.amount, paid is None or ask.expires_ms > paid.at_ms
    if not fits or amount is None:
        yield f"{words.name} keeps an ask for another trade or snapshot, or towards another broker"
    elif paid is not None and amount > paid.price:
        yield f"{words.name} was settled at {paid.price} micro-credits and its seller asked for {amount}"
    if not in_time:
        yield f"{words.name} was settled after its ask had run out"


def _check_receipt(words: Words) -> Iterator[str]:
    """The stored receipt must be the one that the log implies, to the last hash of its proof, and signed."""
    data, paid = words.row["receipt"], words.paid
    if data is None or paid is None:
        return
    if verify(data, Receipt, signer=words.fold.broker) != receipt_of(words.fold, words.trade, paid):
        yield f"the receipt of {words.name} is not the one of leaf {paid.number}"


def receipt_of(fold: Fold, trade: bytes, paid: Paid) -> Receipt:
    """The receipt that a settlement implies."""
    return Receipt(
        market=fold.market, broker=fold.broker, trade=trade, buyer=paid.buyer, seller=paid.seller, price=paid.price,
        fee=paid.fee, delivery=paid.delivery, settled_ms=paid.at_ms, leaf=paid.hashed, index=paid.number,
        log_size=paid.number + 1, root=paid.root, proof=paid.path,
    )  # fmt: skip


def _check_reply(words: Words) -> Iterator[str]:
    """The answer that the bid gets whenever it comes again: what the log says became of the trade.

    Old answers are forgotten, so a missing one says nothing. An answer of another type was given to another message
    whose sender used the same id.
    """
    row, fold, paid = words.row, words.fold, words.paid
    if row["bid"] is None:
        return
    data = _reply_to(words, verify(row["bid"], Bid, signer=row["buyer"]))
    if data is None:
        return
    kind = type_of(data)
    end = fold.ended.get(words.trade)
    if kind == Deal.TYPE:
        deal = verify(data, Deal, signer=fold.broker)
        if paid is None or deal != Deal(
            words.trade, paid.price, deal.receipt, paid.buyer_balance, row["fetch_before_ms"] or 0
        ):
            yield f"the buyer of {words.name} was told of another deal than the log has"
        elif verify(deal.receipt, Receipt, signer=fold.broker) != receipt_of(fold, words.trade, paid):
            yield f"the buyer of {words.name} was given another receipt than the log implies"
    elif kind == NoDeal.TYPE:
        no_deal = verify(data, NoDeal, signer=fold.broker)
        if no_deal.trade != words.trade or paid is not None or end is None or no_deal.reason not in ("", end.reason):
            yield f"the buyer of {words.name} was told of another end than the log has"
    elif kind == Unmatched.TYPE:
        unmatched = verify(data, Unmatched, signer=fold.broker)
        fits = (unmatched.trade, unmatched.revision + 1) == (words.trade, row["bids"])
        if not fits or paid is not None or (end is None and row["state"] != UNMATCHED):
            yield f"the buyer of {words.name} was told that its bid is below the ask, and the ledger has it otherwise"


def _reply_to(words: Words, bid: Bid) -> bytes | None:
    row = words.connection.execute(
        "SELECT reply FROM replies WHERE sender = ? AND message_id = ?", (words.row["buyer"], bid.message_id)
    ).fetchone()
    return row[0] if row else None


def _check_signers(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """Every stored reply must be the broker's word."""
    for sender, data in connection.execute("SELECT sender, reply FROM replies"):
        try:
            _own_word(data, fold)
        except PeerFault as error:
            yield f"a reply that {sender} would be given again: {error}"


def _check_mail(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """Mail that waits: the broker's word, to whom it concerns, as the log has it."""
    last: dict[str, int] = dict(connection.execute("SELECT peer, last FROM mailboxes"))
    for peer, number, data in connection.execute("SELECT peer, number, body FROM mail"):
        name = f"mail {number} to {peer}"
        if number > last.get(peer, 0):
            yield f"{name} is newer than its mailbox"
        try:
            mail = _own_word(data, fold)
        except PeerFault as error:
            yield f"{name}: {error}"
            continue
        if isinstance(mail, Sold):
            yield from _check_sold(connection, fold, name, peer, mail)
        elif isinstance(mail, Refund):
            yield from _check_refund(fold, name, peer, mail)


def _own_word(data: bytes, fold: Fold) -> Any:
    """:raises PeerFault: it is no message that the broker signed"""
    kind = MESSAGE_TYPES.get(type_of(data), NoDeal)
    return verify(data, kind, signer=fold.broker)


def _check_sold(connection: sqlite3.Connection, fold: Fold, name: str, peer: str, sold: Sold) -> Iterator[str]:
    paid = fold.settled.get(sold.trade)
    row = connection.execute("SELECT seller_snapshot FROM trades WHERE trade = ?", (sold.trade,)).fetchone()
    if paid is None or row is None:
        yield f"{name} tells of a sale that is not in the log"
        return
    said = (peer, sold.price, sold.fee, sold.balance, sold.snapshot)
    if said != (paid.seller, paid.price, paid.fee, paid.seller_balance, *row):
        yield f"{name} tells of another sale than the log has"
    elif verify(sold.receipt, Receipt, signer=fold.broker) != receipt_of(fold, sold.trade, paid):
        yield f"{name} holds another receipt than the log implies"


def _check_refund(fold: Fold, name: str, peer: str, refund: Refund) -> Iterator[str]:
    paid, end = fold.settled.get(refund.trade), fold.ended.get(refund.trade)
    if paid is None or end is None or end.state != REFUNDED:
        yield f"{name} tells of a refund that is not in the log"
        return
    said = (refund.market, refund.broker, refund.buyer, refund.seller, refund.price, refund.proceeds, refund.reason)
    there = (fold.market, fold.broker, paid.buyer, paid.seller, paid.price, paid.price - paid.fee, end.reason)
    if said != there or refund.refunded_ms != end.at_ms or peer not in (paid.buyer, paid.seller):
        yield f"{name} tells of another refund than the log has"


WordCheck = Callable[[Words], Iterator[str]]

_RAW: dict[str, WordCheck] = {
    "report": _check_report,
    "bid": _check_bid,
    "ask": _check_ask,
    "receipt": _check_receipt,
    "reply": _check_reply,
}


def _naming(check: WordCheck) -> WordCheck:
    return lambda words: _named(words, check(words))


WORD_CHECKS: dict[str, WordCheck] = {kind: _naming(check) for kind, check in _RAW.items()}
"""Each kind of problem with what was signed on one trade, and the check that finds it."""
SETTLED_CHECKS = ("receipt", "bid", "ask")
FILE_CHECKS: dict[str, Callable[[sqlite3.Connection, Fold], Iterator[str]]] = {
    "signer": _check_signers,
    "mail": _check_mail,
}
"""The same of the whole file."""
