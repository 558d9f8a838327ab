"""Heads of a broker's log: what each side keeps of it, so that a past which changes is found out.

Knows: which signed bytes name a head, and when two heads or a proof contradict each other. Refuses to know: where heads
are kept and what follows (agent_book, node/witness, broker_node/witness). Bytes that name no head of this log raise the
PeerFault that says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from p2pmarket.crypto.signing import type_of, verify
from p2pmarket.errors import RuleBroken
from p2pmarket.ledger import log
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.messages import Checkpoint, Receipt


@dataclasses.dataclass(frozen=True)
class Head:
    """The Merkle tree head over the first `size` leaves of one broker's log for one market, as the broker signed it."""

    size: int
    root: bytes
    body: bytes
    """The signed Checkpoint or Receipt."""

    @property
    def shareable(self) -> bool:
        """Whether it says nothing of anybody's trades."""
        return type_of(self.body) == Checkpoint.TYPE


def head_of(body: bytes, broker: str, market: str) -> Head:
    """The head that signed bytes name.

    :raises BadSignature, MalformedMessage: not this broker's Checkpoint or Receipt
    :raises RuleBroken: code wrong-broker, when it is about another broker's log or another market's
    """
    if type_of(body) == Receipt.TYPE:
        receipt = verify_receipt(body, broker)
        head, about = Head(receipt.log_size, receipt.root, body), (receipt.broker, receipt.market)
    else:
        checkpoint = verify(body, Checkpoint, signer=broker)
        head, about = Head(checkpoint.size, checkpoint.root, body), (checkpoint.broker, checkpoint.market)
    if about != (broker, market):
        raise RuleBroken(
            f"this head is of broker {about[0]} and market {about[1]}; show one of broker {broker} and market {market}",
            code="wrong-broker",
        )
    return head


def contradict(one: Head, other: Head) -> bool:
    """Whether two heads cannot both be of one log that only grows: one size, two roots. For anybody's eyes a proof."""
    return one.size == other.size and one.root != other.root


def continues(one: Head, other: Head, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the larger head is a continuation of the smaller (RFC 6962, section 2.1.2)."""
    first, second = sorted((one, other), key=lambda head: head.size)
    if first.size == second.size:
        return first.root == second.root
    return first.size > 0 and log.is_consistent(first.size, first.root, second.size, second.root, proof)
