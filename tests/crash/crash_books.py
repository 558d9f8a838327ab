"""The books of a market at rest, held against each other: what a crash must not have changed.

Knows: the broker's ledger, both agents' journals and the broker's folder of deliveries, read from the files alone.
Refuses to know: processes. Everything here is derived anew from rows and leaves, apart from `Ledger.verify`, which is
asked as well. A problem is a sentence in one of KINDS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from crash_market import OPENING, terms

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import verify
from p2pmarket.ledger import leaves
from p2pmarket.ledger.agent_journal import AgentJournal, AgentTrade
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import ENDS, PAID, PRICED, QUOTED, REFUNDED, SETTLED, SUBMITTED
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import Bid

KINDS = ("lost", "duplicate", "paid_not_delivered", "delivered_not_paid", "audit", "disagreement", "stuck")
"""lost: money or a payment that was acknowledged is gone. audit: the log does not verify. disagreement: the parties'
books differ otherwise. stuck: something open is not taken up."""
RESTLESS = (SUBMITTED, QUOTED, PRICED, SETTLED)
AGENTS = ("buyer", "seller")


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong."""

    kind: str
    sentence: str


def is_quiet(folder: Path) -> bool:
    """Whether nothing is open: no trade that is due, no mail that waits, no intent without an answer."""
    marks = ", ".join("?" * len(RESTLESS))
    with _reading(folder / "broker" / "ledger.sqlite") as ledger:
        if ledger.execute(f"SELECT count(*) FROM trades WHERE state IN ({marks})", RESTLESS).fetchone() != (0,):
            return False
        if ledger.execute("SELECT count(*) FROM mail").fetchone() != (0,):
            return False
    for name in AGENTS:
        with _reading(folder / name / "journal.sqlite") as journal:
            if journal.execute("SELECT count(*) FROM intents WHERE reply IS NULL").fetchone() != (0,):
                return False
    return True


def settled(folder: Path) -> int:
    """How many trades were ever settled."""
    with _reading(folder / "broker" / "ledger.sqlite") as ledger:
        return int(ledger.execute("SELECT count(*) FROM trades WHERE receipt IS NOT NULL").fetchone()[0])


def problems(folder: Path, size: str) -> list[Problem]:
    """Everything that is wrong with the books in this folder; empty when all is well."""
    people = {name: Identity.load_or_create(folder / name / "identity.key") for name in ("broker", *AGENTS)}
    broker = people["broker"].peer_id
    found: list[Problem] = []
    with Ledger.open(folder / "broker" / "ledger.sqlite", people["broker"], terms(size).name, check=False) as ledger:
        found += [Problem("audit", sentence) for sentence in ledger.verify().problems]
        rows = {row.trade: row for row in ledger.trades()}
    with _reading(folder / "broker" / "ledger.sqlite") as connection:
        found += _check_money(connection, rows.values(), broker)
        found += _check_leaves(connection, rows)
    found += _check_bids(rows.values())
    for row in rows.values():
        if row.state == SETTLED and not any((folder / "broker" / "deliveries" / row.trade.hex()).rglob("*")):
            found.append(Problem("paid_not_delivered", f"{_name(row)} is paid and its delivery is gone"))
    for name in AGENTS:
        peer = people[name].peer_id
        with AgentJournal.open(folder / name / "journal.sqlite", peer) as journal:
            known = {row.trade: row for row in journal.trades()}
        found += _check_journal(name, peer, known, rows)
        for mine in known.values():
            if mine.stage == "fetched" and not (folder / name / "deliveries" / mine.trade.hex() / "plain").exists():
                sentence = f"the {name} says that it fetched {mine.trade.hex()[:8]} and has no such file"
                found.append(Problem("paid_not_delivered", sentence))
        with _reading(folder / name / "journal.sqlite") as connection:
            if connection.execute("SELECT count(*) FROM evidence").fetchone() != (0,):
                found.append(Problem("disagreement", f"the {name} holds evidence against its broker"))
    return found


def _check_money(connection: sqlite3.Connection, rows: Collection[TradeRow], broker: str) -> list[Problem]:
    """Every balance and hold against the trades, and their sum against what was issued."""
    found = []
    accounts = dict(connection.execute("SELECT peer, balance FROM accounts"))
    held = dict(connection.execute("SELECT peer, held FROM accounts"))
    (minted,) = connection.execute("SELECT minted FROM head").fetchone()
    if sum(accounts.values()) != minted:
        found.append(Problem("lost", f"{sum(accounts.values())} micro-credits are there and {minted} were issued"))
    expected = Counter({peer: OPENING for peer in accounts if peer != broker})
    holds: Counter[str] = Counter()
    for row in rows:
        if row.state == QUOTED:
            holds[row.buyer] += row.bid_amount
        if row.state == SETTLED:
            holds[row.seller] += row.price - row.fee
            holds[broker] += row.fee
        if row.state in PAID:
            expected[row.buyer] -= row.price
            expected[row.seller] += row.price - row.fee
            expected[broker] += row.fee
    buyers = {row.buyer for row in rows}
    for peer, balance in accounts.items():
        if balance != expected[peer]:
            kind = "duplicate" if peer in buyers and balance < expected[peer] else "lost"
            found.append(Problem(kind, f"{peer[-6:]} has {balance} and its trades leave it {expected[peer]}"))
        if held[peer] != holds[peer]:
            found.append(Problem("lost", f"{held[peer]} of {peer[-6:]} are held and {holds[peer]} are open"))
    return found


def _check_leaves(connection: sqlite3.Connection, rows: Mapping[bytes, TradeRow]) -> list[Problem]:
    """One settlement a trade at most, and exactly one end where there is one."""
    found = []
    settlements: Counter[bytes] = Counter()
    ends: Counter[bytes] = Counter()
    for (data,) in connection.execute("SELECT data FROM leaves"):
        leaf = leaves.unpack(data)
        trade = getattr(leaf, "trade", None)
        if trade is not None:
            (settlements if isinstance(leaf, leaves.Settled) else ends)[trade] += 1
    for trade, row in rows.items():
        if settlements[trade] != (row.state in PAID or row.state == REFUNDED):
            kind = "duplicate" if settlements[trade] > 1 else "lost"
            found.append(Problem(kind, f"{_name(row)} has {settlements[trade]} settlements in the log"))
        if ends[trade] != (row.state in ENDS):
            found.append(Problem("audit", f"{_name(row)} has {ends[trade]} ends in the log"))
    return found


def _check_bids(rows: Collection[TradeRow]) -> list[Problem]:
    """No bid is paid twice, and nobody pays more than it bid."""
    found = []
    paid: Counter[bytes] = Counter()
    for row in rows:
        if row.state not in PAID or row.bid is None:
            continue
        bid = verify(row.bid, Bid, signer=row.buyer)
        paid[bid.message_id] += 1
        if paid[bid.message_id] > 1 or bid.trade != row.trade or row.price > bid.amount:
            found.append(Problem("duplicate", f"{_name(row)} was paid by a bid for something else, or for less"))
    return found


def _check_journal(
    name: str, peer: str, known: Mapping[bytes, AgentTrade], rows: Mapping[bytes, TradeRow]
) -> list[Problem]:
    """One agent's own books against the ledger."""
    found = []
    for row in rows.values():
        if row.state not in PAID or peer not in (row.buyer, row.seller):
            continue
        mine = known.get(row.trade)
        if mine is None or mine.receipt is None:
            kind = "paid_not_delivered" if peer == row.buyer else "disagreement"
            found.append(Problem(kind, f"{_name(row)} is paid and the {name} does not know"))
        elif mine.receipt != row.receipt:
            found.append(Problem("disagreement", f"{_name(row)} has another receipt at the {name}"))
        elif peer == row.buyer and row.state not in (SETTLED, REFUNDED) and mine.fetched_ms is None:
            found.append(Problem("paid_not_delivered", f"{_name(row)} and the buyer never had it"))
    for trade, mine in known.items():
        there = rows.get(trade)
        if mine.receipt is None or (there is not None and there.receipt == mine.receipt):
            continue
        kind = "lost" if mine.fetched_ms is None else "delivered_not_paid"
        found.append(Problem(kind, f"the {name} has a receipt for {trade.hex()[:8]} that the ledger does not have"))
    for trade, mine in known.items():
        there = rows.get(trade)
        if mine.fetched_ms is not None and there is not None and there.state not in PAID:
            found.append(Problem("delivered_not_paid", f"{_name(there)} and the buyer has it"))
    return found


def _name(row: TradeRow) -> str:
    return f"trade {row.trade.hex()[:8]} is {row.state}"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads beside the process that owns the file."""
    connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
    try:
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def summary(found: Sequence[Problem]) -> Counter[str]:
    """How many problems there are of each kind."""
    return Counter(problem.kind for problem in found)
