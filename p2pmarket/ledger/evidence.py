"""Whether a signed bid and a signed ask allow what is about to be done with them.

Knows: what each of them must say to bind its signer. Refuses to know: balances, states, where they are kept.
Each check that fails raises the PeerFault that names it.
"""

from __future__ import annotations

import functools
from typing import TypeVar

from p2pmarket.crypto.signing import Signable, signer_of, type_of, unverified, verify
from p2pmarket.errors import BadSignature, Expired, RuleBroken
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import Ask, Bid, GainReport, Submit
from p2pmarket.units import format_credits

M = TypeVar("M", bound=Signable)


def verified(data: bytes, kind: type[M], signer: str | None = None) -> M:
    """The record in signed bytes. What was looked at last is remembered, and that it verified: a settlement asks three
    times for the same bid, and the bytes say the same each time.

    :param signer: who must have signed it; None: whoever did
    :raises BadSignature, MalformedMessage: it does not verify, is another's, or of another kind
    """
    record, signed_by = _verified(data, kind)
    if signer is not None and signer != signed_by:
        raise BadSignature(f"this {kind.TYPE} is signed by {signed_by}, not by {signer}")
    assert isinstance(record, kind)
    return record


@functools.lru_cache(maxsize=256)
def _verified(data: bytes, kind: type[Signable]) -> tuple[Signable, str]:
    return verify(data, kind, signer=None), signer_of(data)


def check_address(message: Bid | Ask, market: str, broker: str) -> None:
    """A bid or an ask binds towards one broker of one market.

    :raises RuleBroken: code wrong-broker
    """
    if (message.market, message.broker) != (market, broker):
        raise RuleBroken(
            f"this {message.TYPE} is for broker {message.broker} of market {message.market}; send it there",
            code="wrong-broker",
        )


def check_buyer(row: TradeRow, by: str) -> None:
    """:raises RuleBroken: code not-yours, when `by` is not the trade's buyer"""
    if row.buyer != by:
        raise RuleBroken("this trade is another buyer's", code="not-yours")


def purchase_before(row: TradeRow) -> bytes | None:
    """The trade upon which this one's gain was measured, as its report says; None: upon the buyer's own snapshot.

    The report is this ledger's own word; the audit verifies it.
    """
    return None if row.report is None else unverified(row.report, GainReport).after


def check_running(what: str, expires_ms: int | None, now_ms: int) -> None:
    """:raises Expired: it has run out; None never does"""
    if expires_ms is not None and expires_ms <= now_ms:
        raise Expired(f"the {what} ran out {(now_ms - expires_ms) / 1000:.1f} s ago; send a new one")


def read_ask(row: TradeRow, data: bytes, market: str, broker: str) -> tuple[int, int | None]:
    """What the seller asks for in its signed Ask or Submit, and until when (None: while its snapshot stands).

    :raises BadSignature, MalformedMessage: neither of the two, or not the seller's
    :raises RuleBroken: code wrong-broker, wrong-snapshot, or no-ask
    """
    if type_of(data) == Submit.TYPE:
        submit = verified(data, Submit, row.seller)
        if (submit.market, submit.snapshot) != (market, row.seller_snapshot):
            raise RuleBroken("the standing ask is for another snapshot", code="wrong-snapshot")
        if not submit.sell or submit.ask is None:
            raise RuleBroken("this snapshot has no standing ask; ask its seller", code="no-ask")
        return submit.ask, None
    ask = verified(data, Ask, row.seller)
    check_address(ask, market, broker)
    if (ask.trade, ask.snapshot) != (row.trade, row.seller_snapshot):
        raise RuleBroken("the ask is for another trade or snapshot; answer the request again", code="wrong-snapshot")
    return ask.amount, ask.expires_ms


def check_terms(row: TradeRow, price: int, fee: int, market: str, broker: str, now_ms: int) -> Bid:
    """The trade's bid, when bid and ask together allow this price and the ask still holds.

    :raises RuleBroken: code no-ask, price-outside
    :raises Expired: the ask has run out
    """
    if row.bid is None or row.ask is None:
        raise RuleBroken("a trade is settled by a bid and an ask; one of them is missing", code="no-ask")
    bid = verified(row.bid, Bid, row.buyer)
    ask, ask_expires_ms = read_ask(row, row.ask, market, broker)
    if not (ask <= price <= bid.amount and 0 <= fee <= price):
        raise RuleBroken(
            f"a price of {format_credits(price)} with a fee of {format_credits(fee)} is outside what bid and ask allow",
            code="price-outside",
        )
    check_running("ask", ask_expires_ms, now_ms)
    return bid
