"""One trade as a row: reading it, and moving it along the table of trade.py.

Knows: the table `trades`, inside a transaction that someone else opened. Refuses to know: money, clocks, signatures.
An unknown trade raises RuleBroken `unknown-trade`; a step that the table does not allow, `wrong-state`.
"""

from __future__ import annotations

import dataclasses
import functools
import sqlite3

from p2pmarket.errors import RuleBroken
from p2pmarket.ledger.trade import APPRAISED, ENDS, PAID, QUOTED, SETTLED, SUBMITTED, UNMATCHED, advance


@dataclasses.dataclass(frozen=True)
class TradeRow:
    """One trade as the ledger has it; the field names are the table's columns."""

    trade: bytes
    submission: bytes
    task: str
    buyer: str
    seller: str
    buyer_snapshot: bytes
    seller_snapshot: bytes
    state: str
    created_ms: int
    changed_ms: int
    expires_ms: int | None
    """When it ends by itself if nothing happens; None once it is over."""
    delivery: bytes | None
    """Digest of what is delivered."""
    report: bytes | None
    """Signed GainReport."""
    bid: bytes | None
    """Signed Bid: the last one."""
    bid_amount: int
    """Its micro-credits; held on the buyer's account while the trade is quoted."""
    bids: int
    """How many there were."""
    bids_until_ms: int | None
    """The first and every other bid is taken until then: the report's time."""
    ask: bytes | None
    """Signed Ask, or the signed Submit with the standing ask."""
    price: int
    fee: int
    receipt: bytes | None
    """Signed Receipt."""
    settled_ms: int | None
    fetch_before_ms: int | None
    served_ms: int | None
    """When the first byte of the delivery was about to be sent; None: the buyer can have nothing of it."""
    reason: str
    """Why it ended, as a code, where it did not end well."""


_COLUMNS = tuple(field.name for field in dataclasses.fields(TradeRow))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM trades"


def load(connection: sqlite3.Connection, trade: bytes) -> TradeRow:
    """The trade with this id.

    :raises RuleBroken: code unknown-trade
    """
    row = connection.execute(f"{_SELECT} WHERE trade = ?", (trade,)).fetchone()
    if row is None:
        raise RuleBroken(
            f"this ledger has no trade {trade.hex()}; ask for the status of open trades", code="unknown-trade"
        )
    return TradeRow(*row)


def find(
    connection: sqlite3.Connection,
    *,
    peer: str | None = None,
    buyer: str | None = None,
    states: tuple[str, ...] = (),
    due_ms: int | None = None,
    limit: int = -1,
) -> list[TradeRow]:
    """Trades that fit every condition given, newest first; `due_ms`: those whose time is up by then."""
    conditions: list[str] = []
    values: list[str | int] = []
    if peer is not None:
        conditions.append("(buyer = ? OR seller = ?)")
        values += [peer, peer]
    if buyer is not None:
        conditions.append("buyer = ?")
        values.append(buyer)
    if states:
        conditions.append(f"state IN ({', '.join('?' * len(states))})")
        values += states
    if due_ms is not None:
        conditions.append("expires_ms <= ?")
        values.append(due_ms)
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = connection.execute(f"{_SELECT}{where} ORDER BY created_ms DESC, rowid DESC LIMIT ?", (*values, limit))
    return [TradeRow(*row) for row in rows]


_OPEN = (QUOTED, SETTLED, UNMATCHED, APPRAISED, SUBMITTED)
"""States that may still change, those that bind money first."""


def open_trades(connection: sqlite3.Connection, peer: str, limit: int) -> list[TradeRow]:
    """A peer's trades that have not ended: first those with a bid, of them its purchases, of them the quoted ones."""
    cases = " ".join(f"WHEN '{state}' THEN {place}" for place, state in enumerate(_OPEN))
    rows = connection.execute(
        f"{_SELECT} WHERE (buyer = ?1 OR seller = ?1) AND state IN ({', '.join(repr(state) for state in _OPEN)}) "
        f"ORDER BY bids = 0, buyer <> ?1, CASE state {cases} END, created_ms DESC, rowid DESC LIMIT ?2",
        (peer, limit),
    )
    return [TradeRow(*row) for row in rows]


def settled_after(connection: sqlite3.Connection, peer: str, after: bytes, limit: int) -> list[TradeRow]:
    """A peer's trades that were ever settled, the oldest settlement first: those after the trade `after`, or all where
    there is no such one."""
    place = connection.execute("SELECT settled_ms, rowid FROM trades WHERE trade = ?", (after,)).fetchone()
    since = place if place is not None and place[0] is not None else (-1, -1)
    rows = connection.execute(
        f"{_SELECT} WHERE settled_ms IS NOT NULL AND (buyer = ? OR seller = ?) AND (settled_ms, rowid) > (?, ?) "
        "ORDER BY settled_ms, rowid LIMIT ?",
        (peer, peer, *since, limit),
    )
    return [TradeRow(*row) for row in rows]


def bids_since(connection: sqlite3.Connection, since_ms: int, task: str) -> list[tuple[str, int, int | None, int]]:
    """Buyer, last bid, price (None where it is not paid) and time of the last change of each trade of a task that had
    a bid and changed since, the latest first. A bid that waits or may be raised is nobody's to know: its seller could
    set the ask by it."""
    paid, over = sorted(PAID), sorted(PAID | ENDS)
    return connection.execute(
        f"SELECT buyer, bid_amount, CASE WHEN state IN ({', '.join('?' * len(paid))}) THEN price END, changed_ms "
        f"FROM trades WHERE bids > 0 AND task = ? AND changed_ms >= ? AND state IN ({', '.join('?' * len(over))}) "
        "ORDER BY changed_ms DESC, rowid DESC",
        (*paid, task, since_ms, *over),
    ).fetchall()


def reverse_report(connection: sqlite3.Connection, row: TradeRow) -> bytes | None:
    """The report on the same two snapshots with buyer and seller changed places; none where it was not appraised."""
    found = connection.execute(
        "SELECT report FROM trades WHERE buyer = ? AND seller = ? AND buyer_snapshot = ? AND seller_snapshot = ? "
        "AND report IS NOT NULL ORDER BY created_ms LIMIT 1",
        (row.seller, row.buyer, row.seller_snapshot, row.buyer_snapshot),
    ).fetchone()
    return found[0] if found else None


def insert(connection: sqlite3.Connection, row: TradeRow) -> None:
    """Adds a trade.

    :raises RuleBroken: code duplicate-trade
    """
    try:
        connection.execute(
            f"INSERT INTO trades ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})",
            [getattr(row, column) for column in _COLUMNS],
        )
    except sqlite3.IntegrityError as error:
        raise RuleBroken(f"trade {row.trade.hex()} cannot be added ({error})", code="duplicate-trade") from None


def step(
    connection: sqlite3.Connection, row: TradeRow, event: str, now_ms: int, **changes: int | str | bytes | None
) -> TradeRow:
    """Moves a trade along the table and sets the columns in `changes`; the row after.

    :param event: or several, with commas between them, where the trade does not rest in the states between
    :raises RuleBroken: code wrong-state, when the table does not allow it or the trade has moved since `row` was read
    """
    state = functools.reduce(advance, event.split(","), row.state)
    after = dataclasses.replace(row, state=state, changed_ms=now_ms, **changes)  # type: ignore[arg-type]
    settings = ", ".join(f"{column} = ?" for column in ("state", "changed_ms", *changes))
    done = connection.execute(
        f"UPDATE trades SET {settings} WHERE trade = ? AND state = ?",
        (after.state, now_ms, *changes.values(), row.trade, row.state),
    )
    if done.rowcount != 1:
        raise RuleBroken(f"trade {row.trade.hex()} is no longer {row.state}; read it again", code="wrong-state")
    return after
