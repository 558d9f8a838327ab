"""Whether what a broker says of a trade can be true, given what this agent signed for it.

Knows: bids, asks, receipts and refunds. Refuses to know: where they are kept and what follows (agent_journal).
A signed word that is not this agent's, or not for this trade, raises the PeerFault that says so; a contradiction is a
sentence, never an exception.
"""

from __future__ import annotations

from p2pmarket.crypto.signing import type_of, verify
from p2pmarket.errors import RuleBroken
from p2pmarket.ledger.agent_schema import AgentTrade
from p2pmarket.messages import Ask, Bid, Receipt, Refund, Submit


def bid_for(receipt: Receipt, word: bytes) -> Bid:
    """This agent's own bid on the trade of a receipt.

    :raises BadSignature, MalformedMessage: not the buyer's bid
    :raises RuleBroken: code wrong-trade, when it is for something else
    """
    bid = verify(word, Bid, signer=receipt.buyer)
    if (bid.market, bid.broker, bid.trade) != (receipt.market, receipt.broker, receipt.trade):
        raise RuleBroken("this bid is for another trade", code="wrong-trade")
    return bid


def ask_for(receipt: Receipt, word: bytes) -> int:
    """What this agent itself asked for, in its signed Ask or in a Submit with a standing ask.

    :raises BadSignature, MalformedMessage: not the seller's
    :raises RuleBroken: code wrong-trade, when it is for something else or names no price
    """
    if type_of(word) == Submit.TYPE:
        submit = verify(word, Submit, signer=receipt.seller)
        if submit.market != receipt.market or not submit.sell or submit.ask is None:
            raise RuleBroken("this submission has no standing ask for this market", code="wrong-trade")
        return submit.ask
    ask = verify(word, Ask, signer=receipt.seller)
    if (ask.market, ask.broker, ask.trade) != (receipt.market, receipt.broker, receipt.trade):
        raise RuleBroken("this ask is for another trade", code="wrong-trade")
    return ask.amount


def conflict_with_receipt(row: AgentTrade | None, receipt: Receipt, data: bytes) -> str:
    """How a genuine receipt contradicts what is kept of its trade; empty when it does not."""
    if row is None:
        return ""
    if row.receipt not in (None, data):
        return "it signed two receipts for one trade"
    if row.refund is not None:
        return conflict_with_refund(receipt, verify(row.refund, Refund, signer=row.broker))
    return ""


def conflict_with_bid(receipt: Receipt, word: bytes | None) -> str:
    """How a purchase contradicts the buyer's own word, which the broker must be able to show."""
    if word is None:
        return "it settled a purchase that this agent never bid for"
    bid = bid_for(receipt, word)
    if receipt.price > bid.amount or receipt.delivery != bid.delivery:
        return "it settled a purchase beyond what this agent bid"
    return ""


def conflict_with_ask(receipt: Receipt, word: bytes) -> str:
    """How a sale contradicts the seller's own word."""
    return "it sold below what this agent asked" if receipt.price < ask_for(receipt, word) else ""


def conflict_with_refund(receipt: Receipt, refund: Refund) -> str:
    """How a refund contradicts the receipt of its trade."""
    settled = (receipt.market, receipt.broker, receipt.trade, receipt.buyer, receipt.seller, receipt.price)
    returned = (refund.market, refund.broker, refund.trade, refund.buyer, refund.seller, refund.price)
    if settled != returned or refund.proceeds != receipt.price - receipt.fee:
        return "it refunded another amount or another trade than it settled"
    return ""
