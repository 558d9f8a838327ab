"""Comparing a ledger's tables with what its leaves imply, and naming everything that does not agree.

Knows: the tables, and what fold.py makes of the leaves. Refuses to trust: any table but the leaves.
Nothing raises for a ledger that is wrong: what is wrong is a list of sentences.

What it cannot see: an older copy of the whole file put in its place (a checkpoint that a peer kept shows that), and
what a broker that holds the key rewrites from the first leaf on (the receipts that agents hold show that).
"""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
from collections.abc import Iterator, Sequence

from p2pmarket.crypto.signing import type_of, verify
from p2pmarket.errors import PeerFault
from p2pmarket.ledger.fold import Fold
from p2pmarket.ledger.trade import APPRAISED, ENDS, PRICED, QUOTED, SETTLED, SUBMITTED, UNMATCHED
from p2pmarket.messages import Ask, Bid, Checkpoint, Receipt, Submit

MAX_PROBLEMS = 100

OPEN_TRADE_HOLDS = {
    SUBMITTED: (False, False),
    APPRAISED: (True, False),
    QUOTED: (True, True),
    UNMATCHED: (True, True),
}
"""Whether a trade in each open state holds a report, and a bid."""


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


class Audit:
    """One audit, in two parts so that a running broker is not kept waiting by the slow one.

    `read` compares the tables with the leaves, at one moment; `check_signatures` then takes the settled trades, whose
    rows no longer change, a few at a time.
    """

    def __init__(self, broker: str, market: str) -> None:
        self._fold = Fold(broker, market)
        self._trades = 0

    def read(self, connection: sqlite3.Connection) -> None:
        """Refolds every leaf and compares every table."""
        fold = self._fold
        for place, (number, data) in enumerate(connection.execute("SELECT number, data FROM leaves ORDER BY number")):
            if number != place:
                fold.problem(f"leaf {place} is missing")
                break
            fold.add(number, data)
        _check_head(connection, fold)
        _check_accounts(connection, fold)
        _check_postings(connection, fold)
        self._trades = _check_trades(connection, fold)

    def settled(self, size: int) -> Iterator[list[bytes]]:
        """The settled trades in lists of `size`."""
        trades = iter(self._fold.settled)
        while batch := list(itertools.islice(trades, size)):
            yield batch

    def check_signatures(self, connection: sqlite3.Connection, trades: Sequence[bytes]) -> None:
        """Checks what broker, buyer and seller signed for these settled trades."""
        for trade in trades:
            row = connection.execute(
                "SELECT receipt, bid, ask, seller_snapshot FROM trades WHERE trade = ?", (trade,)
            ).fetchone()
            if row is None or None in row:
                continue
            receipt, bid, ask, snapshot = row
            try:
                _check_receipt(self._fold, trade, receipt)
                _check_bid(self._fold, trade, bid)
                _check_ask(self._fold, trade, ask, snapshot)
            except PeerFault as error:
                self._fold.problem(f"trade {trade.hex()}: {error}")

    def report(self) -> VerifyReport:
        """What was found."""
        fold = self._fold
        problems = tuple(fold.problems[:MAX_PROBLEMS])
        return VerifyReport(fold.size, len(fold.balances), self._trades, fold.minted, fold.root, problems)


def _check_head(connection: sqlite3.Connection, fold: Fold) -> None:
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


def _check_accounts(connection: sqlite3.Connection, fold: Fold) -> None:
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


def _check_postings(connection: sqlite3.Connection, fold: Fold) -> None:
    """Every line of the accounts' history against the leaves."""
    found = connection.execute("SELECT leaf, peer, change, balance FROM postings ORDER BY rowid")
    for there, implied in itertools.zip_longest(found, fold.moved):
        if there != implied:
            leaf = (implied or there)[0]
            fold.problem(f"the accounts' history departs from the log at leaf {leaf}")
            return


def _check_trades(connection: sqlite3.Connection, fold: Fold) -> int:
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
        words = (report is not None, bid is not None)
        if words != OPEN_TRADE_HOLDS.get(state, words):
            fold.problem(f"{name} is stored as {state} and the signed words it holds say otherwise")
        if trade not in fold.settled:
            if price or fee or receipt is not None:
                fold.problem(f"{name} has a price or a receipt and was never settled")
            continue
        leaf, place = fold.settled[trade]
        if (buyer, seller, delivery, price, fee) != (leaf.buyer, leaf.seller, leaf.delivery, leaf.price, leaf.fee):
            fold.problem(f"{name} differs from its settlement in leaf {place.number}")
        if bid is None or ask is None or receipt is None:
            fold.problem(f"{name} was settled without bid, ask or receipt")
    for trade in fold.states.keys() - seen:
        fold.problem(f"trade {trade.hex()} is in the log and its row is missing")
    return len(seen)


def _check_receipt(fold: Fold, trade: bytes, data: bytes) -> None:
    """A stored receipt must be the one that the log implies, to the last hash of its proof, and signed."""
    leaf, place = fold.settled[trade]
    expected = Receipt(
        market=fold.market, broker=fold.broker, trade=trade, buyer=leaf.buyer, seller=leaf.seller, price=leaf.price,
        fee=leaf.fee, delivery=leaf.delivery, settled_ms=leaf.at_ms, leaf=place.hashed, index=place.number,
        log_size=place.number + 1, root=place.root, proof=place.path,
    )  # fmt: skip
    if verify(data, Receipt, signer=fold.broker) != expected:
        fold.problem(f"the receipt of trade {trade.hex()} is not the one of leaf {place.number}")


def _check_bid(fold: Fold, trade: bytes, data: bytes) -> None:
    """The buyer must have signed for at least the price, for this delivery, towards this broker."""
    leaf, _ = fold.settled[trade]
    bid = verify(data, Bid, signer=leaf.buyer)
    if (bid.trade, bid.delivery, bid.broker) != (trade, leaf.delivery, fold.broker) or bid.amount < leaf.price:
        fold.problem(f"trade {trade.hex()} was settled beyond what its buyer signed for")


def _check_ask(fold: Fold, trade: bytes, data: bytes, snapshot: bytes) -> None:
    """The seller must have signed for at most the price, for this snapshot: in an Ask, or in its Submit."""
    leaf, _ = fold.settled[trade]
    if type_of(data) == Submit.TYPE:
        submit = verify(data, Submit, signer=leaf.seller)
        holds = submit.snapshot == snapshot and submit.sell and submit.ask is not None and submit.ask <= leaf.price
    else:
        ask = verify(data, Ask, signer=leaf.seller)
        holds = (ask.trade, ask.snapshot, ask.broker) == (trade, snapshot, fold.broker) and ask.amount <= leaf.price
    if not holds:
        fold.problem(f"trade {trade.hex()} was settled beyond what its seller signed for")
