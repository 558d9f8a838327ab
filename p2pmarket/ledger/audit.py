"""Refolding a ledger from its leaves, with arithmetic of its own, and naming everything that does not agree.

Knows: what the leaves imply for each balance, trade, receipt and the head. Refuses to trust: any other table.
Nothing raises for a ledger that is wrong: what is wrong is a list of sentences.

What it cannot see: an older copy of the whole file put in its place (a checkpoint that a peer kept shows that), and
what a broker that holds the key rewrites from the first leaf on (the receipts that agents hold show that).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import sqlite3
from collections import defaultdict
from typing import NamedTuple

from p2pmarket.crypto.signing import verify
from p2pmarket.errors import PeerFault
from p2pmarket.ledger.leaves import Checkpoint, Ended, Granted, Leaf, Opened, Refunded, Settled, unpack
from p2pmarket.ledger.trade import APPRAISED, DELIVERED, ENDS, PRICED, QUOTED, REFUNDED, SETTLED, SUBMITTED
from p2pmarket.messages import Bid, Receipt

MAX_PROBLEMS = 100


@dataclasses.dataclass(frozen=True)
class VerifyReport:
    """What a ledger was found to hold."""

    leaves: int
    accounts: int
    trades: int
    minted: int
    """Micro-credits issued: opening credits and grants."""
    root: bytes
    """Merkle tree head, computed from the leaves."""
    problems: tuple[str, ...]
    """One sentence each; empty for a ledger that verifies. At most MAX_PROBLEMS."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def audit(connection: sqlite3.Connection, broker: str, market: str, *, signatures: bool) -> VerifyReport:
    """Checks everything; with `signatures` also every bid's and receipt's, ten times as slow."""
    fold = _Fold(broker, market)
    for place, (number, data) in enumerate(connection.execute("SELECT number, data FROM leaves ORDER BY number")):
        if number != place:
            fold.problem(f"leaf {place} is missing")
            break
        fold.add(number, data)
    _check_head(connection, fold)
    _check_accounts(connection, fold)
    _check_postings(connection, fold)
    trades = _check_trades(connection, fold, signatures)
    problems = tuple(fold.problems[:MAX_PROBLEMS])
    return VerifyReport(fold.size, len(fold.balances), trades, fold.minted, fold.root, problems)


class _Place(NamedTuple):
    """Where a settlement stands in the tree: its leaf hash, audit path, and the head it made."""

    hashed: bytes
    path: tuple[bytes, ...]
    root: bytes


class _Fold:
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
        self.states: dict[bytes, str] = {}
        self.settled: dict[bytes, tuple[int, Settled, _Place]] = {}

    def problem(self, sentence: str) -> None:
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
            self.settled[leaf.trade] = (number, leaf, _Place(hashed, path, self.root))

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
        _, paid, _ = self.settled.get(leaf.trade, (0, None, None))
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


def _check_head(connection: sqlite3.Connection, fold: _Fold) -> None:
    """The stored head, and the checkpoint that the broker signed over it, against the leaves."""
    row = connection.execute("SELECT size, peaks, minted, checkpoint_size, checkpoint FROM head").fetchone()
    if row is None:
        fold.problem("the head of the log is missing")
        return
    size, peaks, minted, checkpoint_size, signed = row
    if size != fold.size or peaks != b"".join(hashed for _, hashed in fold.peaks):
        fold.problem(f"the stored head is of {size} leaves and does not fit the {fold.size} leaves that are there")
    if minted != fold.minted:
        fold.problem(f"the head counts {minted} micro-credits issued and the leaves {fold.minted}")
    try:
        checkpoint = verify(signed, Checkpoint, signer=fold.broker)
    except PeerFault as error:
        fold.problem(f"the broker's checkpoint does not verify ({error})")
        return
    if (checkpoint.market, checkpoint.broker) != (fold.market, fold.broker):
        fold.problem("the checkpoint is of another broker or market")
    if (checkpoint.size, checkpoint.root) != (fold.size, fold.root) or checkpoint_size != fold.size:
        fold.problem(f"the checkpoint signs {checkpoint.size} leaves and is not the head of the {fold.size} there are")


def _check_accounts(connection: sqlite3.Connection, fold: _Fold) -> None:
    """Every balance against the leaves, and all of them together against the credit that was issued."""
    found: dict[str, int] = {}
    for peer, balance, opened_ms in connection.execute("SELECT peer, balance, opened_ms FROM accounts"):
        found[peer] = balance
        if opened_ms != fold.opened.get(peer):
            fold.problem(f"the account of {peer} was not opened when the log says")
    for peer in sorted(found.keys() | fold.balances.keys()):
        if found.get(peer, 0) != fold.balances.get(peer, 0):
            fold.problem(
                f"the balance of {peer} is {found.get(peer, 0)} micro-credits "
                f"and the leaves make it {fold.balances.get(peer, 0)}"
            )
    if sum(found.values()) != fold.minted:
        fold.problem(f"all balances together are {sum(found.values())} micro-credits and {fold.minted} were issued")
    if dict(connection.execute("SELECT message_id, leaf FROM grants")) != fold.grants:
        fold.problem("the list of grants is not that of the leaves, so a grant could be repeated")


def _check_postings(connection: sqlite3.Connection, fold: _Fold) -> None:
    """Every line of the accounts' history against the leaves."""
    found = connection.execute("SELECT leaf, peer, change, balance FROM postings ORDER BY rowid")
    for there, implied in itertools.zip_longest(found, fold.moved):
        if there != implied:
            leaf = (implied or there)[0]
            fold.problem(f"the accounts' history departs from the log at leaf {leaf}")
            return


def _check_trades(connection: sqlite3.Connection, fold: _Fold, signatures: bool) -> int:
    """Every trade's row against its leaf; the number of rows."""
    rows = connection.execute(
        "SELECT trade, state, buyer, seller, delivery, price, fee, report, bid, ask, receipt FROM trades"
    )
    seen: set[bytes] = set()
    for trade, state, buyer, seller, delivery, price, fee, report, bid, ask, receipt in rows:
        seen.add(trade)
        name = f"trade {trade.hex()}"
        implied = fold.states.get(trade)
        if state == PRICED or (implied or state) != state or (implied is None and state in ENDS | {SETTLED}):
            fold.problem(f"{name} is stored as {state} and the log makes it {implied or 'still open'}")
        needed = {SUBMITTED: (), APPRAISED: (report,), QUOTED: (report, bid)}.get(state, ())
        if any(part is None for part in needed):
            fold.problem(f"{name} is {state} without the signed words that lead there")
        if trade not in fold.settled:
            if price or fee or receipt is not None:
                fold.problem(f"{name} has a price or a receipt and was never settled")
            continue
        number, leaf, _ = fold.settled[trade]
        if (buyer, seller, delivery, price, fee) != (leaf.buyer, leaf.seller, leaf.delivery, leaf.price, leaf.fee):
            fold.problem(f"{name} differs from its settlement in leaf {number}")
        if bid is None or ask is None or receipt is None:
            fold.problem(f"{name} was settled without bid, ask or receipt")
            continue
        if signatures:
            try:
                _check_receipt(fold, trade, receipt)
                _check_bid(fold, leaf, bid)
            except PeerFault as error:
                fold.problem(f"{name}: {error}")
    for trade in fold.states.keys() - seen:
        fold.problem(f"trade {trade.hex()} is in the log and its row is missing")
    return len(seen)


def _check_receipt(fold: _Fold, trade: bytes, data: bytes) -> None:
    """A stored receipt must be the one that the log implies, to the last hash of its proof, and signed."""
    number, leaf, place = fold.settled[trade]
    expected = Receipt(
        market=fold.market, broker=fold.broker, trade=trade, buyer=leaf.buyer, seller=leaf.seller, price=leaf.price,
        fee=leaf.fee, delivery=leaf.delivery, settled_ms=leaf.at_ms, leaf=place.hashed, index=number,
        log_size=number + 1, root=place.root, proof=place.path,
    )  # fmt: skip
    if verify(data, Receipt, signer=fold.broker) != expected:
        fold.problem(f"the receipt of trade {trade.hex()} is not the one of leaf {number}")


def _check_bid(fold: _Fold, leaf: Settled, data: bytes) -> None:
    """The buyer must have signed for at least the price, for this delivery, towards this broker."""
    bid = verify(data, Bid, signer=leaf.buyer)
    if (bid.trade, bid.delivery, bid.broker) != (leaf.trade, leaf.delivery, fold.broker) or bid.amount < leaf.price:
        fold.problem(f"trade {leaf.trade.hex()} was settled beyond what its buyer signed for")
