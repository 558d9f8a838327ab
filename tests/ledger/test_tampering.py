"""Whatever is changed in the file behind the ledger's back, `verify` says so; and it is silent about honest ledgers."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable

import pytest
from ledger_examples import HOUR_MS, Bench

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import JournalDamaged
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.leaves import Granted, pack
from p2pmarket.ledger.log import grow, leaf_hash, root_of
from p2pmarket.messages import Bid, Checkpoint


def history(bench: Bench) -> None:
    """A ledger with every kind of leaf and a trade in every state."""
    bench.fund(1000)
    bench.ledger.grant(bench.buyer.peer_id, 77, "prize", bench.id())
    bench.quoted(10, 20)
    bench.appraised()
    bench.settled(30, fee=3)
    delivered = bench.settled(40, fee=4)
    bench.ledger.acknowledge_delivery(delivered, bench.buyer.peer_id, bench.ledger.trade(delivered).delivery)
    bench.ledger.refund(bench.settled(50, fee=5), "delivery-lost")
    bench.ledger.decline([bench.appraised()], bench.buyer.peer_id)
    bench.ledger.fail(bench.appraised(), "bad-snapshot")
    bench.ledger.no_deal(bench.quoted(1, 2)[0], "no-overlap", "the bid is below the ask")


def edit(statement: str, *values: object) -> Callable[[Bench, sqlite3.Connection], None]:
    """A tampering that is one SQL statement."""
    return lambda bench, connection: connection.execute(statement, values) and None


def in_state(state: str) -> str:
    return f"trade = (SELECT trade FROM trades WHERE state = '{state}' LIMIT 1)"


def swap_leaves(bench: Bench, connection: sqlite3.Connection) -> None:
    (first,), (second,) = connection.execute("SELECT data FROM leaves WHERE number IN (3, 4)").fetchall()
    connection.execute("UPDATE leaves SET data = ? WHERE number = 3", (second,))
    connection.execute("UPDATE leaves SET data = ? WHERE number = 4", (first,))


def flip_a_bit(bench: Bench, connection: sqlite3.Connection) -> None:
    number, data = connection.execute("SELECT number, data FROM leaves ORDER BY random() LIMIT 1").fetchone()
    bent = bytearray(data)
    bent[bench.chance.randrange(len(bent))] ^= 1 << bench.chance.randrange(8)
    connection.execute("UPDATE leaves SET data = ? WHERE number = ?", (bytes(bent), number))


def append_a_grant(bench: Bench, connection: sqlite3.Connection, signer: Identity | None = None) -> None:
    """A grant with everything that belongs to it, except the broker's key."""
    peer = bench.third.peer_id
    (size,) = connection.execute("SELECT size FROM head").fetchone()
    leaf = Granted(peer, 500, "", bytes(16), 1)
    connection.execute("INSERT INTO leaves VALUES (?, ?)", (size, pack(leaf)))
    connection.execute("UPDATE accounts SET balance = balance + 500 WHERE peer = ?", (peer,))
    (balance,) = connection.execute("SELECT balance FROM accounts WHERE peer = ?", (peer,)).fetchone()
    connection.execute("INSERT INTO postings VALUES (?, ?, 500, ?)", (size, peer, balance))
    connection.execute("INSERT INTO grants VALUES (?, ?)", (bytes(16), size))
    forge_the_head(bench, connection, signer or Identity.generate())


def forge_the_head(bench: Bench, connection: sqlite3.Connection, signer: Identity) -> None:
    """Head and checkpoint made to fit the leaves that are there."""
    hashes = [leaf_hash(data) for (data,) in connection.execute("SELECT data FROM leaves ORDER BY number")]
    peaks: tuple[bytes, ...] = ()
    for number, hashed in enumerate(hashes):
        peaks = grow(peaks, number, hashed)
    checkpoint = sign(signer, Checkpoint("digits", bench.broker.peer_id, len(hashes), root_of(hashes), 1))
    connection.execute(
        "UPDATE head SET size = ?, peaks = ?, checkpoint_size = ?, checkpoint = ?, minted = minted + 500",
        (len(hashes), b"".join(peaks), len(hashes), checkpoint),
    )


def drop_the_last_leaf(bench: Bench, connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM leaves WHERE number = (SELECT max(number) FROM leaves)")


def settle_beyond_the_bid(bench: Bench, connection: sqlite3.Connection) -> None:
    """The bid of a settled trade replaced by one that the buyer signed for less."""
    trade, delivery = connection.execute("SELECT trade, delivery FROM trades WHERE state = 'settled'").fetchone()
    bid = Bid(bench.id(), "digits", bench.broker.peer_id, trade, delivery, 29, bench.clock() + HOUR_MS)
    connection.execute("UPDATE trades SET bid = ? WHERE trade = ?", (sign(bench.buyer, bid), trade))


def settle_below_the_ask(bench: Bench, connection: sqlite3.Connection) -> None:
    """The ask of a settled trade replaced by one that the seller signed for more."""
    (trade,) = connection.execute("SELECT trade FROM trades WHERE state = 'settled'").fetchone()
    make = bench.chance.choice([bench.ask, bench.submit])
    connection.execute("UPDATE trades SET ask = ? WHERE trade = ?", (make(trade, 31), trade))


def foreign_receipt(bench: Bench, connection: sqlite3.Connection) -> None:
    connection.execute(
        "UPDATE trades SET receipt = (SELECT receipt FROM trades WHERE state = 'delivered') WHERE state = 'settled'"
    )


def move_a_balance(bench: Bench, connection: sqlite3.Connection) -> None:
    """One account's gain is another's loss: their sum stays."""
    for change, peer in ((1, bench.seller), (-1, bench.buyer)):
        connection.execute("UPDATE accounts SET balance = balance + ? WHERE peer = ?", (change, peer.peer_id))


TAMPERINGS: dict[str, Callable[[Bench, sqlite3.Connection], None]] = {
    "a balance raised": edit("UPDATE accounts SET balance = balance + 1 WHERE balance > 0"),
    "a balance moved": move_a_balance,
    "an account opened again": edit("UPDATE accounts SET opened_ms = NULL"),
    "a new account": edit("INSERT INTO accounts (peer, balance) VALUES ('x', 5)"),
    "a leaf deleted": edit("DELETE FROM leaves WHERE number = 5"),
    "the last leaf deleted": drop_the_last_leaf,
    "all leaves deleted": edit("DELETE FROM leaves"),
    "a bit of a leaf": flip_a_bit,
    "two leaves swapped": swap_leaves,
    "a leaf repeated": edit("INSERT INTO leaves SELECT (SELECT size FROM head), data FROM leaves WHERE number = 3"),
    "a leaf of nonsense": edit("INSERT INTO leaves SELECT size, x'00' FROM head"),
    "a settled trade unsettled": edit(f"UPDATE trades SET state = 'no-deal' WHERE {in_state('settled')}"),
    "a delivered trade owed again": edit(f"UPDATE trades SET state = 'settled' WHERE {in_state('delivered')}"),
    "a refunded trade settled again": edit(f"UPDATE trades SET state = 'settled' WHERE {in_state('refunded')}"),
    "a declined trade reopened": edit(f"UPDATE trades SET state = 'appraised' WHERE {in_state('declined')}"),
    "a trade settled for free": edit(f"UPDATE trades SET state = 'settled' WHERE {in_state('quoted')}"),
    "a trade left priced": edit(f"UPDATE trades SET state = 'priced' WHERE {in_state('quoted')}"),
    "a quoted trade opened to another bid": edit(f"UPDATE trades SET state = 'appraised' WHERE {in_state('quoted')}"),
    "a bid forgotten": edit(f"UPDATE trades SET bid = NULL WHERE {in_state('quoted')}"),
    "a trade deleted": edit(f"DELETE FROM trades WHERE {in_state('settled')}"),
    "a price changed": edit(f"UPDATE trades SET price = price + 1 WHERE {in_state('settled')}"),
    "a delivery changed": edit(f"UPDATE trades SET delivery = randomblob(32) WHERE {in_state('settled')}"),
    "a receipt exchanged": foreign_receipt,
    "a receipt deleted": edit(f"UPDATE trades SET receipt = NULL WHERE {in_state('settled')}"),
    "a bid exchanged": settle_beyond_the_bid,
    "an ask exchanged": settle_below_the_ask,
    "a posting changed": edit("UPDATE postings SET change = change + 1 WHERE rowid = 4"),
    "a posting deleted": edit("DELETE FROM postings WHERE rowid = 4"),
    "a grant forgotten": edit("DELETE FROM grants"),
    "a forged grant": append_a_grant,
    "a head of another key": lambda bench, connection: forge_the_head(bench, connection, Identity.generate()),
    "an empty checkpoint": edit("UPDATE head SET checkpoint = x''"),
    "a head of fewer leaves": edit("UPDATE head SET size = size - 1"),
    "more issued": edit("UPDATE head SET minted = minted + 1"),
    "no head": edit("DELETE FROM head"),
}  # fmt: skip

SEEN_BY_SIGNATURES_ALONE = {"a receipt exchanged", "a bid exchanged", "an ask exchanged"}


@pytest.mark.parametrize("kind", list(TAMPERINGS))
def test_every_kind_of_tampering_is_found(bench: Bench, kind: str) -> None:
    history(bench)
    assert bench.ledger.verify().problems == ()
    connection = sqlite3.connect(bench.path, isolation_level=None)
    for trigger in ("leaves_stay", "leaves_rest"):
        connection.execute(f"DROP TRIGGER {trigger}")
    before = list(connection.iterdump())
    TAMPERINGS[kind](bench, connection)
    assert list(connection.iterdump()) != before, "the tampering must change something"
    connection.close()
    problems = bench.ledger.verify().problems
    assert problems and all(isinstance(problem, str) for problem in problems)
    assert bool(bench.ledger.verify(signatures=False).problems) == (kind not in SEEN_BY_SIGNATURES_ALONE)
    if kind not in SEEN_BY_SIGNATURES_ALONE | {"no head"}:
        with pytest.raises(JournalDamaged, match="does not verify"):
            Ledger.open(bench.path, bench.broker, "digits", bench.clock)
        Ledger.open(bench.path, bench.broker, "digits", bench.clock, check=False).close()


def test_every_state_is_in_the_history(bench: Bench) -> None:
    """The tampering above needs something to tamper with."""
    history(bench)
    states = {row.state for row in bench.ledger.trades()}
    assert {"quoted", "appraised", "settled", "delivered", "refunded", "declined", "void", "no-deal"} == states


def test_the_broker_itself_may_grant(bench: Bench) -> None:
    """Control: the forged grant, signed with the broker's key, is a grant (others' receipts catch a key holder)."""
    history(bench)
    with bench.ledger.transaction() as connection:
        append_a_grant(bench, connection, bench.broker)
    assert bench.ledger.verify().problems == ()


@pytest.mark.parametrize("seed", list(range(10)))
def test_honest_ledgers_raise_no_alarm(make_bench: Callable[[str, int], Bench], seed: int) -> None:
    bench = make_bench(f"honest-{seed}", seed)
    chance = random.Random(seed)
    history(bench)
    for _ in range(chance.randrange(20)):
        bench.settled(chance.randrange(20), 0)
    assert bench.ledger.verify().problems == ()
    assert bench.ledger.verify(signatures=False).problems == ()
    bench.reopen()
