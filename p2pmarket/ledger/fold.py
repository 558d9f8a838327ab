"""What a ledger's leaves imply, worked out from the first to the last with arithmetic of its own.

Knows: leaves and the tree over them. Refuses to know: the tables that the running ledger keeps (audit.py compares
them), and the functions that wrote them. A leaf that breaks a rule is a sentence in `problems`, never an exception.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import NamedTuple

from p2pmarket.errors import PeerFault
from p2pmarket.ledger.leaves import Ended, Granted, Leaf, Opened, Refunded, Settled, unpack
from p2pmarket.ledger.trade import DELIVERED, REFUNDED, SETTLED


class Place(NamedTuple):
    """Where a settlement stands in the log: its number, leaf hash, audit path, and the head it made."""

    number: int
    hashed: bytes
    path: tuple[bytes, ...]
    root: bytes


class Fold:
    """What the leaves read so far imply."""

    def __init__(self, broker: str, market: str) -> None:
        self.broker = broker
        self.market = market
        self.problems: list[str] = []
        self.size = 0
        self.minted = 0
        self.peaks: list[tuple[int, bytes]] = []
        self.balances: defaultdict[str, int] = defaultdict(int)
        self.opened: dict[str, int] = {}
        self.grants: dict[bytes, int] = {}
        self.moved: list[tuple[int, str, int, int]] = []
        """(leaf, peer, change, balance after), in order."""
        self.states: dict[bytes, str] = {}
        self.settled: dict[bytes, tuple[Settled, Place]] = {}

    def problem(self, sentence: str) -> None:
        """Notes what is wrong."""
        self.problems.append(sentence)

    @property
    def root(self) -> bytes:
        """Merkle tree head so far: the subtrees folded from the smallest to the largest (RFC 6962, section 2.1)."""
        if not self.peaks:
            return hashlib.sha256().digest()
        root = self.peaks[-1][1]
        for _, left in self.peaks[-2::-1]:
            root = hashlib.sha256(b"\x01" + left + root).digest()
        return root

    def add(self, number: int, data: bytes) -> None:
        """Hashes one leaf into the tree and applies what it says."""
        path = tuple(hashed for _, hashed in reversed(self.peaks))
        hashed = hashlib.sha256(b"\x00" + data).digest()
        width, node = 1, hashed
        while self.peaks and self.peaks[-1][0] == width:
            node = hashlib.sha256(b"\x01" + self.peaks.pop()[1] + node).digest()
            width *= 2
        self.peaks.append((width, node))
        self.size += 1
        try:
            leaf = unpack(data)
        except PeerFault as error:
            self.problem(f"leaf {number} cannot be read ({error})")
            return
        self._apply(number, leaf)
        if isinstance(leaf, Settled):
            self.settled[leaf.trade] = (leaf, Place(number, hashed, path, self.root))

    def _apply(self, number: int, leaf: Leaf) -> None:
        if isinstance(leaf, Opened):
            if leaf.peer in self.opened:
                self.problem(f"leaf {number} opens the account of {leaf.peer} a second time")
            self.opened[leaf.peer] = leaf.at_ms
            self.minted += leaf.amount
            self._post(number, leaf.peer, leaf.amount)
        elif isinstance(leaf, Granted):
            if leaf.message_id in self.grants:
                self.problem(f"leaf {number} repeats a grant to {leaf.peer}")
            self.grants[leaf.message_id] = number
            self.minted += leaf.amount
            self._post(number, leaf.peer, leaf.amount)
        elif isinstance(leaf, Settled):
            self._settle(number, leaf)
        elif isinstance(leaf, Refunded):
            self._refund(number, leaf)
        elif isinstance(leaf, Ended):
            before = self.states.get(leaf.trade)
            if before != (SETTLED if leaf.state == DELIVERED else None) or leaf.state == REFUNDED:
                self.problem(f"leaf {number} ends trade {leaf.trade.hex()} as {leaf.state} after it was {before}")
            self.states[leaf.trade] = leaf.state

    def _settle(self, number: int, leaf: Settled) -> None:
        if leaf.trade in self.states:
            self.problem(f"leaf {number} settles trade {leaf.trade.hex()} after it was {self.states[leaf.trade]}")
        if (leaf.broker, leaf.market) != (self.broker, self.market):
            self.problem(f"leaf {number} is a settlement of another broker or market")
        if leaf.fee > leaf.price:
            self.problem(f"leaf {number} takes a fee above the price")
        self.states[leaf.trade] = SETTLED
        self._post(number, leaf.buyer, -leaf.price)
        self._post(number, leaf.seller, leaf.price - leaf.fee)
        self._post(number, self.broker, leaf.fee)

    def _refund(self, number: int, leaf: Refunded) -> None:
        paid, _ = self.settled.get(leaf.trade, (None, None))
        if self.states.get(leaf.trade) != SETTLED or paid is None:
            self.problem(f"leaf {number} refunds trade {leaf.trade.hex()}, which was not settled and undelivered")
        elif (paid.buyer, paid.seller, paid.price) != (leaf.buyer, leaf.seller, leaf.from_seller + leaf.from_fees):
            self.problem(f"leaf {number} refunds another amount or another peer than trade {leaf.trade.hex()} moved")
        self.states[leaf.trade] = REFUNDED
        self._post(number, leaf.seller, -leaf.from_seller)
        self._post(number, self.broker, -leaf.from_fees)
        self._post(number, leaf.buyer, leaf.from_seller + leaf.from_fees)

    def _post(self, number: int, peer: str, change: int) -> None:
        self.balances[peer] += change
        if self.balances[peer] < 0:
            self.problem(f"leaf {number} takes the balance of {peer} below zero")
        self.moved.append((number, peer, change, self.balances[peer]))
