"""What the log says: one frozen record for each kind of leaf.

Knows: how a leaf becomes bytes and back. Refuses to know: where it is kept and whether it is allowed.
Bytes that are no leaf raise MalformedMessage.

Every leaf holds 128 random bits (a trade's id, a grant's message id, a salt), so that its hash, which strangers meet
in audit paths, tells them nothing of peers and prices.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from p2pmarket.errors import MalformedMessage
from p2pmarket.ledger.trade import ENDS
from p2pmarket.messages import Receipt
from p2pmarket.records import Amount, Digest, Id, Millis, Name, OneOf, PeerId, Record, Text, decode, encode


class Leaf(Record):
    """A record with a name for the log."""

    KIND: ClassVar[str]
    at_ms: int


@dataclasses.dataclass(frozen=True)
class Opened(Leaf):
    """An account was opened with the market's opening credit, once."""

    KIND: ClassVar[str] = "opened"
    peer: PeerId
    amount: Amount
    salt: Id
    at_ms: Millis


@dataclasses.dataclass(frozen=True)
class Granted(Leaf):
    """The operator issued credit."""

    KIND: ClassVar[str] = "granted"
    peer: PeerId
    amount: Amount
    memo: Text
    message_id: Id
    at_ms: Millis


@dataclasses.dataclass(frozen=True)
class Settled(Leaf):
    """The buyer paid `price`: the broker got `fee` of it, the seller the rest."""

    KIND: ClassVar[str] = "settled"
    market: Name
    broker: PeerId
    trade: Id
    buyer: PeerId
    seller: PeerId
    price: Amount
    fee: Amount
    delivery: Digest
    at_ms: Millis


@dataclasses.dataclass(frozen=True)
class Refunded(Leaf):
    """The buyer got the price back: `from_seller` of it from the seller, `from_fees` from the broker."""

    KIND: ClassVar[str] = "refunded"
    trade: Id
    buyer: PeerId
    seller: PeerId
    from_seller: Amount
    from_fees: Amount
    reason: Name
    at_ms: Millis


@dataclasses.dataclass(frozen=True)
class Ended(Leaf):
    """A trade reached an end at which no money moves."""

    KIND: ClassVar[str] = "ended"
    trade: Id
    state: Annotated[str, OneOf(tuple(sorted(ENDS)))]
    reason: Text
    at_ms: Millis


_KINDS: dict[str, type[Leaf]] = {kind.KIND: kind for kind in (Opened, Granted, Settled, Refunded, Ended)}


def pack(leaf: Leaf) -> bytes:
    """A leaf as the log hashes it: its kind, a zero byte, the record."""
    return leaf.KIND.encode() + b"\0" + encode(leaf)


def unpack(data: bytes) -> Leaf:
    """The leaf in `data`.

    :raises MalformedMessage: it is none
    """
    name, _, body = data.partition(b"\0")
    kind = _KINDS.get(name.decode("ascii", "replace"))
    if kind is None:
        raise MalformedMessage("a leaf of a kind that this version does not know; upgrade p2pmarket to read it")
    return decode(kind, body)


def settlement_of(receipt: Receipt) -> Settled:
    """The leaf that a receipt speaks of."""
    return Settled(
        market=receipt.market,
        broker=receipt.broker,
        trade=receipt.trade,
        buyer=receipt.buyer,
        seller=receipt.seller,
        price=receipt.price,
        fee=receipt.fee,
        delivery=receipt.delivery,
        at_ms=receipt.settled_ms,
    )
