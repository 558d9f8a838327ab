"""What one bid and one ask do to a trade: three steps, each one transaction on the ledger.

Knows: the order of a negotiation, decision 12: bids rise, asks fall, the first overlap settles, and what is said when
there is none. Refuses to know: how long anybody is waited for (clearing), and what money does (ledger/). All that
decides is in the trade's row, so a broker that is started anew between any two messages goes on with the next. A step
that breaks a rule raises a PeerFault and changes nothing.
"""

from __future__ import annotations

import dataclasses

from p2pmarket.broker_node.appraiser import NOTHING
from p2pmarket.broker_node.book import Book
from p2pmarket.crypto.signing import type_of
from p2pmarket.errors import Expired, RuleBroken
from p2pmarket.ledger.evidence import purchase_before, verified
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import PAID, QUOTED, SETTLED
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.market import MarketTerms
from p2pmarket.messages import Ask, Bid, GainReport, Submit
from p2pmarket.pricing.bargaining import strike
from p2pmarket.units import format_credits

OUT_OF_ORDER = "this gain is upon another purchase of the same appraisal, which must be bought first and not paid back"


@dataclasses.dataclass(frozen=True)
class AskMade:
    """What a seller asked last."""

    amount: int
    revision: int | None
    """Of the bid it answered; None for the ask that came with the snapshot."""
    expires_ms: int | None
    """None: as long as the trade."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The signed reply to a bid, durable."""

    reply: bytes
    seller: str
    price: int | None
    """Micro-credits, where this settled the trade."""


def place_bid(
    ledger: Ledger, book: Book, terms: MarketTerms, buyer: str, bid: Bid, data: bytes, now_ms: int
) -> Outcome | None:
    """Takes a verified bid, and the ask that came with the snapshot; its outcome, where that ask decides or the bid was
    answered before, and None where the seller must be heard.

    :raises RuleBroken: the trade is not this buyer's, or the bid is not the next one it may make
    :raises Expired: past its time
    """
    with ledger.transaction() as db:
        stored = ledger.seen_reply(buyer, bid.message_id)
        if stored is not None:
            return Outcome(stored, "", None)
        trade = ledger.trade(bid.trade)
        if trade.buyer != buyer:
            raise RuleBroken("this trade is another buyer's", code="not-yours")
        if trade.bid != data and not _in_order(ledger, trade, now_ms):  # one that binds already is heard to its end
            raise RuleBroken(OUT_OF_ORDER, code="out-of-order")
        if bid.delivery == NOTHING:
            raise RuleBroken("no merge helped on this trade, there is nothing to buy", code="nothing-to-buy")
        trade = ledger.place_bid(data, spend_per_day=terms.spend_per_day, ask_ms=terms.ask_ms)
        if trade.ask is None:
            submission = book.by_snapshot(db, trade.seller, trade.seller_snapshot)
            if submission is not None and submission.sell and submission.ask is not None:
                trade = ledger.record_ask(trade.trade, submission.signed)
    ask = standing_ask(trade, now_ms)
    return conclude(ledger, terms, bid, now_ms) if ask is not None and decides(bid, ask) else None


def take_ask(ledger: Ledger, seller: str, ask: Ask, data: bytes) -> None:
    """Takes a verified ask for the bid that waits. The same bytes again change nothing.

    :raises RuleBroken: nobody waits for it (any more), it is for another bid or snapshot, or above the one before it
    """
    with ledger.transaction():
        trade = _awaiting(ledger, seller, ask)
        if trade.ask == data:
            return
        if ask.snapshot != trade.seller_snapshot:
            raise RuleBroken("this ask is for another snapshot than the one that is bid for", code="wrong-snapshot")
        if ask.revision != trade.bids - 1:
            raise RuleBroken(
                f"this ask answers bid {ask.revision} of the trade, and bid {trade.bids - 1} is the one that waits",
                code="wrong-revision",
            )
        earlier = ask_made(trade)
        if earlier is not None and earlier.revision == ask.revision:
            raise RuleBroken("this bid has its ask; a request is answered once", code="no-bid")
        if earlier is not None and ask.amount > earlier.amount:
            raise RuleBroken(
                f"an ask may fall and not rise; the {format_credits(earlier.amount)} asked before stand",
                code="higher-ask",
            )
        ledger.record_ask(trade.trade, data)


def conclude(ledger: Ledger, terms: MarketTerms, bid: Bid, now_ms: int) -> Outcome:
    """Answers a bid by the ask in its trade's row: Deal, Unmatched or NoDeal.

    Where the trade waits with it no longer (its time ran out) the answer is what was said then. Where it waits, a reply
    under the bid's id is to another message for which its buyer used that id, and answers no bid.
    """
    trade = ledger.trade(bid.trade)
    stored = ledger.seen_reply(trade.buyer, bid.message_id)
    if stored is not None and not _waits(trade, bid):
        return Outcome(stored, trade.seller, None)
    if not _in_order(ledger, trade, now_ms):
        return _no_deal("out-of-order", OUT_OF_ORDER, ledger, trade)
    ask = standing_ask(trade, now_ms)
    if ask is None:
        return _no_deal("no-ask", "the seller named no price in time", ledger, trade)
    price = strike(bid.amount, ask.amount, terms.fee_ppm, k_ppm=terms.k_ppm)
    if price is None and (left := terms.max_revisions - bid.revision) > 0:
        return Outcome(ledger.unmatched(trade.trade, left), trade.seller, None)
    if price is None:
        return _no_deal("no-overlap", "the seller asks more than this bid", ledger, trade)
    try:
        settlement = ledger.settle(trade.trade, price.price, price.fee, fetch_before_ms=now_ms + terms.delivery_ms)
    except (RuleBroken, Expired) as error:  # it ended the trade and stored its reply, or changed nothing
        if _waits(ledger.trade(trade.trade), bid):
            return _no_deal(error.code, str(error), ledger, trade)
        stored = ledger.seen_reply(trade.buyer, bid.message_id)
        if stored is None:
            raise
        return Outcome(stored, trade.seller, None)
    return Outcome(settlement.reply, trade.seller, price.price)


def ask_made(trade: TradeRow) -> AskMade | None:
    """What the seller asked last for this trade, whether or not it still holds."""
    if trade.ask is None:
        return None
    if type_of(trade.ask) == Submit.TYPE:
        amount = verified(trade.ask, Submit, trade.seller).ask
        return None if amount is None else AskMade(amount, None, None)
    ask = verified(trade.ask, Ask, trade.seller)
    return AskMade(ask.amount, ask.revision, ask.expires_ms)


def decides(bid: Bid, ask: AskMade) -> bool:
    """Whether the seller need not be asked again: its ask is reached, or it is its answer to this very bid.

    The ask that came with a snapshot is its answer to the first bid.
    """
    return bid.amount >= ask.amount or bid.revision == 0 or ask.revision == bid.revision


def standing_ask(trade: TradeRow, now_ms: int) -> AskMade | None:
    """What the seller asks for this trade, where that has not run out."""
    ask = ask_made(trade)
    return None if ask is None or (ask.expires_ms is not None and ask.expires_ms <= now_ms) else ask


@dataclasses.dataclass(frozen=True)
class Disclosed:
    """What a seller that is asked is told of the gain, as an AskRequest's fields."""

    weight: float | None = None
    own_weight: float | None = None
    own_ratio: float | None = None


def disclosed(ledger: Ledger, terms: MarketTerms, trade: TradeRow) -> Disclosed:
    """Nothing, or what the paper's broker tells (section 4): both purchased weights and the seller's own ratio.

    Its own it is told only of a purchase of the very snapshots that are traded here, and where that one would help.
    """
    if terms.disclosure != "paper" or trade.report is None:
        return Disclosed()
    weight = verified(trade.report, GainReport).weight
    found = ledger.reverse_report(trade)
    own = None if found is None else verified(found, GainReport)
    if own is None or not own.weight or own.loss_after <= 0:
        return Disclosed(weight)
    return Disclosed(weight, own.weight, own.loss_before / own.loss_after)


def _awaiting(ledger: Ledger, seller: str, ask: Ask) -> TradeRow:
    """The trade whose bid waits for this seller. Strangers are not told whether there is such a trade."""
    try:
        trade = ledger.trade(ask.trade)
    except RuleBroken:
        trade = None
    if trade is None or trade.seller != seller or trade.state != QUOTED:
        raise RuleBroken("no bid waits for this ask; it came too late or was not asked for", code="no-bid")
    return trade


def _no_deal(reason: str, sentence: str, ledger: Ledger, trade: TradeRow) -> Outcome:
    return Outcome(ledger.no_deal(trade.trade, reason, sentence), trade.seller, None)


def _waits(trade: TradeRow, bid: Bid) -> bool:
    """Whether this is the bid that a quoted trade waits with."""
    return trade.state == QUOTED and trade.bid is not None and verified(trade.bid, Bid) == bid


def _in_order(ledger: Ledger, trade: TradeRow, now_ms: int) -> bool:
    """Whether the purchase that this one's gain is upon is paid, and served or still to be had."""
    before = purchase_before(trade)
    if before is None:
        return True
    row = ledger.trade(before)
    unfetched = row.state == SETTLED and row.served_ms is None
    return row.state in PAID and not (unfetched and row.fetch_before_ms is not None and row.fetch_before_ms <= now_ms)
