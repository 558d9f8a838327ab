"""The ledger's tables against what its leaves imply: each check yields a sentence for everything that differs.

Knows: the tables' columns, and a Fold that has read every leaf. Refuses to know: signatures (audit_words.py).
No check raises for a wrong table.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator

from p2pmarket.crypto.signing import verify
from p2pmarket.errors import PeerFault
from p2pmarket.ledger.fold import Fold
from p2pmarket.ledger.trade import APPRAISED, DELIVERED, LAPSED, QUOTED, REFUNDED, SUBMITTED, UNMATCHED
from p2pmarket.messages import Checkpoint
from p2pmarket.units import counted

OPEN_TRADE_HOLDS = {
    SUBMITTED: (False, False),
    APPRAISED: (True, False),
    QUOTED: (True, True),
    UNMATCHED: (True, True),
}
"""Whether a trade in each open state holds a report, and a bid."""

BROKEN_RULE = "CHECK constraint failed"
"""How SQLite says that a row breaks a rule; anything else that it finds is damage."""


def trade_rows(connection: sqlite3.Connection, trade: bytes | None = None) -> Iterator[sqlite3.Row]:
    """Every trade's row, or that of one, by the names of its columns."""
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    where, values = ("WHERE trade = ?", (trade,)) if trade is not None else ("", ())
    return cursor.execute(f"SELECT * FROM trades {where} ORDER BY rowid", values)


def check_rules(connection: sqlite3.Connection) -> Iterator[str]:
    """The rules that the tables themselves hold: a balance below zero, say, written by going around them."""
    for (problem,) in connection.execute("PRAGMA integrity_check"):
        if problem.startswith(BROKEN_RULE):
            yield f"a row breaks a rule of its table ({problem})"


def check_nodes(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """The stored subtrees that the last leaf completed."""
    for level, place, hashed in fold.made:
        row = connection.execute("SELECT hash FROM nodes WHERE level = ? AND place = ?", (level, place)).fetchone()
        if row != (hashed,):
            yield f"the stored hash of subtree {place} on level {level} is missing or not that of its leaves"


def _check_node_count(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """A log of n leaves has n full subtrees of two or more, less the binary ones in n."""
    (count,) = connection.execute("SELECT count(*) FROM nodes").fetchone()
    if count > fold.size - len(fold.peaks):
        yield "hashes of subtrees are stored that the log does not have"


def _check_head(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    row = connection.execute("SELECT size, peaks, minted FROM head").fetchone()
    if row is None:
        yield "the head of the log is missing"
        return
    size, peaks, minted = row
    if size != fold.size or peaks != b"".join(hashed for _, hashed in fold.peaks):
        yield f"the stored head is of {counted(size, 'leaf', 'leaves')} and does not fit the {fold.size} that are there"
    if minted != fold.minted:
        yield f"the head counts {minted} micro-credits issued and the leaves {fold.minted}"


def _check_checkpoint(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """The broker's signature over the whole log."""
    row = connection.execute("SELECT checkpoint_size, checkpoint FROM head").fetchone()
    if row is None or (row[0] == -1 and fold.size == 0):
        return
    try:
        checkpoint = verify(row[1], Checkpoint, signer=fold.broker)
    except PeerFault as error:
        yield f"the broker's checkpoint does not verify ({error})"
        return
    if (checkpoint.market, checkpoint.broker) != (fold.market, fold.broker):
        yield "the checkpoint is of another broker or market"
    if (checkpoint.size, checkpoint.root) != (fold.size, fold.root) or row[0] != fold.size:
        signed = counted(checkpoint.size, "leaf", "leaves")
        yield f"the checkpoint signs {signed} and is not the head of the {fold.size} there are"


def _check_balances(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """Every balance, and all of them together against the credit that was issued."""
    found: dict[str, int] = dict(connection.execute("SELECT peer, balance FROM accounts"))
    for peer in sorted(found.keys() | fold.balances.keys()):
        there, implied = found.get(peer, 0), fold.balances.get(peer, 0)
        if there != implied:
            yield f"the balance of {peer} is {there} micro-credits and the leaves make it {implied}"
    if sum(found.values()) != fold.minted:
        yield f"all balances together are {sum(found.values())} micro-credits and {fold.minted} were issued"


def _check_holds(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """What is held: escrow by the leaves, and the bids of trades that wait for an answer."""
    implied: defaultdict[str, int] = defaultdict(int, fold.escrow)
    for buyer, amount in connection.execute("SELECT buyer, bid_amount FROM trades WHERE state = ?", (QUOTED,)):
        implied[buyer] += amount
    found: dict[str, int] = dict(connection.execute("SELECT peer, held FROM accounts"))
    for peer in sorted(found.keys() | implied.keys()):
        there, held = found.get(peer, 0), implied.get(peer, 0)
        if there != held:
            yield f"of the balance of {peer} {there} micro-credits are held and its trades make it {held}"


def _check_openings(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    found = dict(connection.execute("SELECT peer, opened_ms FROM accounts WHERE opened_ms IS NOT NULL"))
    for peer in sorted(found.keys() | fold.opened.keys()):
        if found.get(peer) != fold.opened.get(peer):
            yield f"the account of {peer} was not opened when the log says, so it could be opened again"


def _check_grants(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    if dict(connection.execute("SELECT message_id, leaf FROM grants")) != fold.grants:
        yield "the list of grants is not that of the leaves, so a grant could be repeated"


def _check_history(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """Every line of the accounts' history."""
    found = connection.execute("SELECT leaf, peer, change, balance FROM postings ORDER BY rowid")
    for there, implied in itertools.zip_longest(found, fold.moved):
        if there != implied:
            yield f"the accounts' history departs from the log at leaf {(implied or there)[0]}"
            return


def _check_trades(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """Parties, delivery, price and fee of every trade."""
    seen: set[bytes] = set()
    for row in trade_rows(connection):
        seen.add(row["trade"])
        name = f"trade {row['trade'].hex()}"
        paid = fold.settled.get(row["trade"])
        if paid is None:
            if row["price"] or row["fee"] or row["receipt"] is not None or row["settled_ms"] is not None:
                yield f"{name} has a price or a receipt and was never settled"
            continue
        there = tuple(row[column] for column in ("buyer", "seller", "delivery", "price", "fee", "settled_ms"))
        if there != (paid.buyer, paid.seller, paid.delivery, paid.price, paid.fee, paid.at_ms):
            yield f"{name} differs from its settlement in leaf {paid.number}"
        if row["bid"] is None or row["ask"] is None or row["receipt"] is None:
            yield f"{name} was settled without bid, ask or receipt"
    for trade in (fold.settled.keys() | fold.ended.keys()) - seen:
        yield f"trade {trade.hex()} is in the log and its row is missing"


def _check_states(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """State, reason and time of every trade's end; what an open trade must hold."""
    for row in trade_rows(connection):
        trade, state = row["trade"], row["state"]
        name = f"trade {trade.hex()}"
        implied = fold.state(trade)
        if implied is None and state in OPEN_TRADE_HOLDS:
            words = (row["report"] is not None, row["bid"] is not None)
            if words != OPEN_TRADE_HOLDS[state]:
                yield f"{name} is stored as {state} and the signed words it holds say otherwise"
        elif state != implied:
            yield f"{name} is stored as {state} and the log makes it {implied or 'still open'}"
        end = fold.ended.get(trade)
        if end is not None and (row["changed_ms"], row["reason"], row["expires_ms"]) != (end.at_ms, end.reason, None):
            yield f"{name} did not end when or why leaf {end.number} says"


def _check_deadlines(connection: sqlite3.Connection, fold: Fold) -> Iterator[str]:
    """A delivery's fate: lapsed only when served and late, refunded unfetched only when late and never served."""
    for row in trade_rows(connection):
        paid, end = fold.settled.get(row["trade"]), fold.ended.get(row["trade"])
        if paid is None:
            if row["served_ms"] is not None or row["fetch_before_ms"] is not None:
                yield f"trade {row['trade'].hex()} was never settled and its delivery was served or had a term"
            continue
        name, term, served = f"trade {row['trade'].hex()}", row["fetch_before_ms"], row["served_ms"]
        if term is None or (end is None and row["expires_ms"] != term):
            yield f"{name} has no term for its delivery"
        elif end is None or end.state == DELIVERED:
            continue
        elif end.state == LAPSED and (served is None or end.at_ms < term):
            yield f"{name} lapsed in leaf {end.number} before its term was over, or without having been served"
        elif end.state == REFUNDED and end.reason == "not-fetched" and (served is not None or end.at_ms < term):
            yield f"{name} was refunded in leaf {end.number} as not fetched, and it was served or had time"


Check = Callable[[sqlite3.Connection, Fold], Iterator[str]]

TABLE_CHECKS: dict[str, Check] = {
    "head": _check_head,
    "checkpoint": _check_checkpoint,
    "node": _check_node_count,
    "balance": _check_balances,
    "hold": _check_holds,
    "opening": _check_openings,
    "grant": _check_grants,
    "history": _check_history,
    "trade": _check_trades,
    "state": _check_states,
    "deadline": _check_deadlines,
}
"""Each kind of problem and the check that finds it."""
