"""Whether what a broker says of a trade can be true, given what this agent signed for it.

Knows: bids, asks, receipts and refunds. Refuses to know: where they are kept and what follows (agent_journal).
A signed word that is not this agent's, or not for this trade, raises the PeerFault that says so; a contradiction is a
sentence, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from p2pmarket.crypto.signing import type_of, verify
from p2pmarket.errors import PeerFault, RuleBroken
from p2pmarket.ledger.agent_schema import AgentTrade
from p2pmarket.messages import Ask, Bid, Receipt, Refund, Submit

T = TypeVar("T")


def bid_for(receipt: Receipt, word: bytes) -> Bid:
    """This agent's own bid on the trade of a receipt.

    :raises BadSignature, MalformedMessage: not the buyer's bid
    :raises RuleBroken: code wrong-trade, when it is for something else
    """
    bid = verify(word, Bid, signer=receipt.buyer)
    if (bid.market, bid.broker, bid.trade) != (receipt.market, receipt.broker, receipt.trade):
        raise RuleBroken("this bid is for another trade", code="wrong-trade")
    return bid


def ask_for(receipt: Receipt, word: bytes, snapshot: bytes | None = None) -> int:
    """What this agent itself asked for, in its signed Ask or in a Submit with a standing ask.

    :param snapshot: what was sold, where that is known
    :raises BadSignature, MalformedMessage: not the seller's
    :raises RuleBroken: code wrong-trade, when it is for something else or names no price
    """
    said: Ask | Submit
    if type_of(word) == Submit.TYPE:
        said = verify(word, Submit, signer=receipt.seller)
        amount = said.ask if said.sell and said.market == receipt.market else None
    else:
        said = verify(word, Ask, signer=receipt.seller)
        about = (said.market, said.broker, said.trade) == (receipt.market, receipt.broker, receipt.trade)
        amount = said.amount if about else None
    if amount is None or snapshot not in (None, said.snapshot):
        raise RuleBroken("this asks for nothing, or for something else", code="wrong-trade")
    return amount


def conflict_with_receipt(row: AgentTrade | None, receipt: Receipt, data: bytes) -> str:
    """How a genuine receipt contradicts what is kept of its trade; empty when it does not."""
    if row is None:
        return ""
    if row.receipt not in (None, data):
        return "it signed two receipts for one trade"
    if row.receipt is None and row.refund is not None:
        return "it refunded a trade before it settled it"
    return ""


def judge_purchase(receipt: Receipt, words: Sequence[bytes | None]) -> tuple[bytes | None, str]:
    """Which of the words that may be the buyer's own allows a purchase, and what contradicts where none does: a broker
    must be able to show one."""
    own = [(word, bid) for word in words if (bid := _own(bid_for, receipt, word)) is not None]
    for word, bid in own:
        if receipt.price <= bid.amount and receipt.delivery == bid.delivery:
            return word, ""
    if own:
        return None, "it settled a purchase beyond what this agent bid"
    return None, "it settled a purchase that this agent never bid for"


def judge_sale(
    receipt: Receipt, words: Sequence[bytes | None], snapshot: bytes | None = None
) -> tuple[bytes | None, str]:
    """Which of the words that may be the seller's own allows a sale, and what contradicts where none does."""
    own = [(word, ask) for word in words if (ask := _own(ask_for, receipt, word, snapshot)) is not None]
    for word, ask in own:
        if ask <= receipt.price:
            return word, ""
    if own:
        return None, "it sold below what this agent asked"
    return None, "it sold what this agent named no price for"


def _own(read: Callable[..., T], receipt: Receipt, word: bytes | None, *more: bytes | None) -> T | None:
    """What a word says, where it is this agent's and for this trade."""
    try:
        return read(receipt, word, *more) if word is not None else None
    except PeerFault:
        return None


def conflict_with_refund(receipt: Receipt, refund: Refund) -> str:
    """How a refund contradicts the receipt of its trade."""
    settled = (receipt.market, receipt.broker, receipt.trade, receipt.buyer, receipt.seller, receipt.price)
    returned = (refund.market, refund.broker, refund.trade, refund.buyer, refund.seller, refund.price)
    if settled != returned or refund.proceeds != receipt.price - receipt.fee:
        return "it refunded another amount or another trade than it settled"
    return ""
