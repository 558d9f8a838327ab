"""What can be done to a ledger's file behind its back, and which kind of problem the audit must name for it.

Each tampering takes a `Case`, a copy of an honest ledger, and changes a random place of it. Some return what an
outsider holds, without which nobody could tell.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from audit_examples import SignedBench, rebuild
from ledger_examples import HOUR_MS, MARKET

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.ledger.audit import VerifyReport, audit_file
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.leaves import Ended, Granted, Leaf, Opened, Refunded, Settled, pack, unpack
from p2pmarket.ledger.log import leaf_hash, root_of
from p2pmarket.ledger.schema import SCHEMA
from p2pmarket.ledger.trade import ENDS, SETTLED, STATES
from p2pmarket.messages import Bid, Checkpoint, Deal, Done, GainReport, NoDeal, Receipt, Sold

Shown = list[tuple[str, bytes]]


@dataclasses.dataclass(frozen=True)
class Base:
    """An honest ledger with a trade in every state, older copies of it, and every receipt it ever gave."""

    bench: SignedBench
    older: list[Path]
    receipts: list[tuple[int, bytes]]
    """(leaves of the log that it names, signed bytes), the oldest first."""
    checkpoint: bytes


class Case:
    """One copy of a base that is about to be tampered with."""

    def __init__(self, base: Base, path: Path, seed: int) -> None:
        self.base, self.bench, self.path = base, base.bench, path
        self.chance = random.Random(seed)
        self.without: set[str] = set()
        self.open(base.bench.path)

    def open(self, source: Path) -> None:
        """Takes a copy of a file, and the triggers off it."""
        shutil.copy(source, self.path)
        self.connection = sqlite3.connect(self.path, isolation_level=None)
        for statement in ("PRAGMA synchronous = OFF", "PRAGMA journal_mode = MEMORY", "BEGIN"):
            self.connection.execute(statement)
        for trigger in ("leaves_stay", "leaves_rest"):
            self.connection.execute(f"DROP TRIGGER {trigger}")

    def close(self) -> None:
        """Puts the triggers back, as somebody would who hides what he did; not those in `without`."""
        for statement in SCHEMA:
            if statement.startswith("CREATE TRIGGER") and statement.split()[2] not in self.without:
                self.connection.execute(statement)
        self.connection.execute("COMMIT")
        self.connection.close()

    def audit(self, shown: Shown) -> VerifyReport:
        return audit_file(self.path, self.bench.broker.peer_id, shown)

    def run(self, statement: str, *values: object) -> None:
        """A statement that must change something."""
        assert self.connection.execute(statement, values).rowcount > 0

    def one(self, statement: str, *values: object) -> tuple[object, ...]:
        """A random row."""
        rows: list[tuple[object, ...]] = self.connection.execute(statement, values).fetchall()
        return self.chance.choice(rows)

    def trade(self, *states: str) -> bytes:
        marks = ", ".join("?" * len(states))
        (trade,) = self.one(f"SELECT trade FROM trades WHERE state IN ({marks})", *states)
        assert isinstance(trade, bytes)
        return trade

    def leaves(self) -> list[bytes]:
        return [data for (data,) in self.connection.execute("SELECT data FROM leaves ORDER BY number")]

    def put(self, leaves: list[bytes]) -> None:
        """Other leaves, and nothing else made to fit."""
        self.connection.execute("DELETE FROM leaves")
        self.connection.executemany("INSERT INTO leaves VALUES (?, ?)", enumerate(leaves))

    def rewrite(self, change: Callable[[Leaf], Leaf | None], signer: Identity | None = None) -> int:
        """Replaces a random leaf that `change` knows how to change, and all that follows from it; its number."""
        leaves = self.leaves()
        able = [number for number, data in enumerate(leaves) if change(unpack(data)) is not None]
        number = self.chance.choice(able)
        after = change(unpack(leaves[number]))
        assert after is not None
        leaves[number] = pack(after)
        rebuild(self.connection, self.bench, leaves, signer)
        return number

    def key_of(self, peer: object) -> Identity:
        bench = self.bench
        return next(one for one in (bench.buyer, bench.seller, bench.third) if one.peer_id == peer)


def make_base(path: Path, seed: int) -> Base:
    bench = SignedBench(path, seed)
    bench.fund(10_000)
    older = []
    for count in range(bench.chance.randrange(1, 4)):
        bench.grow(bench.chance.randrange(1, 12))
        older.append(path.with_suffix(f".{count}"))
        shutil.copy(path, older[-1])
    bench.every_state()
    held = [row.receipt for row in bench.ledger.trades() if row.receipt]
    receipts = [(verify(data, Receipt, signer=None).log_size, data) for data in held]
    checkpoint = bench.ledger.checkpoint()
    bench.ledger.close()
    return Base(bench, older, sorted(receipts), checkpoint)


# ---- what can be done to a file ----------------------------------------------------------------------------------


def raise_a_balance(case: Case) -> None:
    (peer,) = case.one("SELECT peer FROM accounts")
    case.run("UPDATE accounts SET balance = balance + ? WHERE peer = ?", case.chance.randrange(1, 10**6), peer)


def move_a_balance(case: Case) -> None:
    """One account's gain is another's loss: their sum stays."""
    giver, free = case.one("SELECT peer, balance - held FROM accounts WHERE balance > held")
    assert isinstance(free, int)
    amount = case.chance.randrange(1, free + 1)
    (taker,) = case.one("SELECT peer FROM accounts WHERE peer <> ?", giver)
    case.run("UPDATE accounts SET balance = balance - ? WHERE peer = ?", amount, giver)
    case.run("UPDATE accounts SET balance = balance + ? WHERE peer = ?", amount, taker)


def edit_a_hold(case: Case) -> None:
    peer, balance, held = case.one("SELECT peer, balance, held FROM accounts WHERE balance > 0")
    assert isinstance(balance, int)
    other = case.chance.choice([amount for amount in {0, 1, balance // 2, balance} if amount != held])
    case.run("UPDATE accounts SET held = ? WHERE peer = ?", other, peer)


def edit_a_leaf(case: Case) -> None:
    leaves = case.leaves()
    number = case.chance.randrange(len(leaves))
    bent = bytearray(leaves[number])
    bent[case.chance.randrange(len(bent))] ^= 1 << case.chance.randrange(8)
    case.run("UPDATE leaves SET data = ? WHERE number = ?", bytes(bent), number)


def remove_a_leaf(case: Case) -> None:
    leaves = case.leaves()
    del leaves[case.chance.randrange(len(leaves))]
    case.put(leaves)


def drop_a_leaf(case: Case) -> None:
    """And leave its number empty; the last ones without a trace."""
    size = len(case.leaves())
    case.run("DELETE FROM leaves WHERE number = ?", case.chance.randrange(size - 1))


def insert_a_leaf(case: Case) -> None:
    leaves = case.leaves()
    new = Granted(case.bench.third.peer_id, case.chance.randrange(1000), "", case.chance.randbytes(16), 1)
    leaves.insert(case.chance.randrange(len(leaves) + 1), case.chance.choice([pack(new), leaves[0], b"\0"]))
    case.put(leaves)


def swap_leaves(case: Case) -> None:
    leaves = case.leaves()
    one, other = case.chance.sample(range(len(leaves)), 2)
    leaves[one], leaves[other] = leaves[other], leaves[one]
    case.put(leaves)


def issue_without_the_key(case: Case) -> None:
    """A grant with everything that belongs to it, except the broker's key."""
    grant = Granted(case.bench.third.peer_id, case.chance.randrange(1, 1000), "", case.chance.randbytes(16), 1)
    receipts = case.connection.execute("SELECT trade, receipt FROM trades").fetchall()
    replies = case.connection.execute("SELECT sender, message_id, reply FROM replies").fetchall()
    mail = case.connection.execute("SELECT rowid, body FROM mail").fetchall()
    rebuild(case.connection, case.bench, [*case.leaves(), pack(grant)], Identity.generate())
    for trade, receipt in receipts:
        case.connection.execute("UPDATE trades SET receipt = ? WHERE trade = ?", (receipt, trade))
    for sender, message_id, reply in replies:
        case.connection.execute(
            "UPDATE replies SET reply = ? WHERE sender = ? AND message_id = ?", (reply, sender, message_id)
        )
    for rowid, body in mail:
        case.connection.execute("UPDATE mail SET body = ? WHERE rowid = ?", (body, rowid))


def older_checkpoint(case: Case) -> None:
    """One that the broker did sign, over fewer leaves."""
    hashes = [leaf_hash(data) for data in case.leaves()]
    size = case.chance.randrange(len(hashes))
    words = Checkpoint(MARKET, case.bench.broker.peer_id, size, root_of(hashes[:size]), 1)
    case.run("UPDATE head SET checkpoint = ?, checkpoint_size = ?", sign(case.bench.broker, words), size)


def edit_the_head(case: Case) -> None:
    changes = ["minted = minted + 1", "peaks = randomblob(length(peaks))", "peaks = x''"]
    case.run(f"UPDATE head SET {case.chance.choice(changes)}")


def rename_the_market(case: Case) -> None:
    case.run("UPDATE head SET market = market || 'x'")


def claim_another_broker(case: Case) -> None:
    case.run("UPDATE head SET broker = ?", Identity.generate().peer_id)


def edit_a_node(case: Case) -> None:
    level, place = case.one("SELECT level, place FROM nodes")
    match case.chance.randrange(3):
        case 0:
            case.run("UPDATE nodes SET hash = randomblob(32) WHERE level = ? AND place = ?", level, place)
        case 1:
            case.run("DELETE FROM nodes WHERE level = ? AND place = ?", level, place)
        case 2:
            case.run("INSERT INTO nodes VALUES (40, ?, randomblob(32))", case.chance.randrange(9))


def edit_a_price(case: Case) -> None:
    case.run(
        "UPDATE trades SET price = price + ? WHERE trade = ?", case.chance.randrange(1, 1000), case.trade(*PAID_STATES)
    )


def edit_a_fee(case: Case) -> None:
    trade, price, fee = case.one("SELECT trade, price, fee FROM trades WHERE price > 0")
    assert isinstance(price, int)
    other = case.chance.choice([amount for amount in range(price + 1) if amount != fee])
    case.run("UPDATE trades SET fee = ? WHERE trade = ?", other, trade)


def exchange_a_delivery(case: Case) -> None:
    column = case.chance.choice(["delivery = randomblob(32)", "settled_ms = settled_ms + 1"])
    case.run(f"UPDATE trades SET {column} WHERE trade = ?", case.trade(*PAID_STATES))


def set_a_state_back(case: Case) -> None:
    trade, state = case.one(f"SELECT trade, state FROM trades WHERE state IN ({_list(OVER)})")
    other = case.chance.choice([name for name in STATES if name not in (state, "priced")])
    case.run("UPDATE trades SET state = ? WHERE trade = ?", other, trade)


def reopen_to_another_bid(case: Case) -> None:
    case.run("UPDATE trades SET state = 'appraised' WHERE trade = ?", case.trade("quoted", "unmatched"))


def revive_a_bid(case: Case) -> None:
    """One that binds no longer; or frees one that does."""
    trade, state = case.one("SELECT trade, state FROM trades WHERE state IN ('quoted', 'unmatched') AND bid_amount > 0")
    case.run("UPDATE trades SET state = ? WHERE trade = ?", "unmatched" if state == "quoted" else "quoted", trade)


def change_an_end(case: Case) -> None:
    change = case.chance.choice(["reason = reason || 'x'", "changed_ms = changed_ms + 1", "expires_ms = 1"])
    case.run(f"UPDATE trades SET {change} WHERE trade = ?", case.trade(*ENDS))


def remove_a_trade(case: Case) -> None:
    case.run("DELETE FROM trades WHERE trade = ?", case.trade(*OVER))


def add_a_trade(case: Case, *states: str) -> None:
    case.connection.execute(
        "CREATE TEMP TABLE copy AS SELECT * FROM trades WHERE trade = ?", (case.trade(*(states or OVER)),)
    )
    case.run("UPDATE copy SET trade = randomblob(16)")
    case.run("INSERT INTO trades SELECT * FROM copy")


def add_an_open_trade(case: Case) -> None:
    add_a_trade(case, "appraised", "unmatched")


def exchange_a_receipt(case: Case) -> None:
    trade, receipt = case.one("SELECT trade, receipt FROM trades WHERE receipt IS NOT NULL")
    (other,) = case.one("SELECT receipt FROM trades WHERE receipt <> ?", receipt)
    assert isinstance(receipt, bytes)
    bent = receipt[:-1] + bytes([receipt[-1] ^ 1])
    case.run("UPDATE trades SET receipt = ? WHERE trade = ?", case.chance.choice([other, bent]), trade)


def exchange_a_bid(case: Case) -> None:
    """By one for less that the buyer signed, one that somebody else signed, or another trade's."""
    trade, buyer, data, price, delivery = case.one(
        "SELECT trade, buyer, bid, price, delivery FROM trades WHERE price > 0"
    )
    assert isinstance(data, bytes) and isinstance(price, int)
    bid, key = verify(data, Bid, signer=None), case.key_of(buyer)
    other = case.chance.choice(
        [
            sign(key, dataclasses.replace(bid, amount=case.chance.randrange(price))),
            sign(key, dataclasses.replace(bid, delivery=case.chance.randbytes(32))),
            sign(key, dataclasses.replace(bid, broker=key.peer_id)),
            sign(key, dataclasses.replace(bid, expires_ms=1)),
            sign(Identity.generate(), bid),
            case.one("SELECT bid FROM trades WHERE bid <> ?", data)[0],
        ]
    )
    case.run("UPDATE trades SET bid = ? WHERE trade = ?", other, trade)


def raise_an_open_bid(case: Case) -> None:
    """A bid that waits counts for more than its buyer signed, and as much more is held."""
    trade, buyer, free = case.one(
        "SELECT trade, buyer, balance - held FROM trades JOIN accounts ON peer = buyer "
        "WHERE state = 'quoted' AND balance > held"
    )
    assert isinstance(free, int)
    more = case.chance.randrange(1, free + 1)
    case.run("UPDATE trades SET bid_amount = bid_amount + ? WHERE trade = ?", more, trade)
    case.run("UPDATE accounts SET held = held + ? WHERE peer = ?", more, buyer)


def exchange_an_ask(case: Case) -> None:
    """By one for more that the seller signed, one for another snapshot, or one that somebody else signed."""
    trade, seller, snapshot, price = case.one(
        "SELECT trade, seller, seller_snapshot, price FROM trades WHERE receipt IS NOT NULL"
    )
    assert isinstance(trade, bytes) and isinstance(price, int)
    key, bench, higher = case.key_of(seller), case.bench, price + case.chance.randrange(1, 1000)
    until = bench.clock() + 100 * HOUR_MS
    make: list[Callable[[], bytes]] = [
        lambda: bench.ask(trade, higher, key, expires_ms=until),
        lambda: bench.submit(trade, higher, key),
        lambda: bench.submit(trade, None, key),
        lambda: bench.submit(trade, 0, key, snapshot=case.chance.randbytes(32)),
        lambda: bench.ask(trade, 0, key, expires_ms=1),
        lambda: bench.ask(trade, 0, Identity.generate(), expires_ms=until),
    ]
    bench.ledger = Ledger.open(bench.path, bench.broker, MARKET, bench.clock, check=False)
    try:
        other = case.chance.choice(make)()
    finally:
        bench.ledger.close()
    case.run("UPDATE trades SET ask = ? WHERE trade = ?", other, trade)


def exchange_a_report(case: Case) -> None:
    trade, data = case.one("SELECT trade, report FROM trades WHERE report IS NOT NULL")
    (other,) = case.one("SELECT report FROM trades WHERE report <> ?", data)
    if case.chance.random() < 0.5:
        assert isinstance(data, bytes)
        other = sign(Identity.generate(), verify(data, GainReport, signer=None))
    case.run("UPDATE trades SET report = ? WHERE trade = ?", other, trade)


def edit_a_posting(case: Case) -> None:
    (row,) = case.one("SELECT rowid FROM postings")
    change = case.chance.choice(["change = change + 1", "balance = balance + 1", "leaf = leaf + 1", "peer = 'x'"])
    statement = case.chance.choice([f"UPDATE postings SET {change}", "DELETE FROM postings"])
    case.run(f"{statement} WHERE rowid = ?", row)


def forget_a_grant(case: Case) -> None:
    (message_id,) = case.one("SELECT message_id FROM grants")
    case.run("DELETE FROM grants WHERE message_id = ?", message_id)


def reopen_an_account(case: Case) -> None:
    (peer,) = case.one("SELECT peer FROM accounts WHERE opened_ms IS NOT NULL")
    case.run("UPDATE accounts SET opened_ms = NULL WHERE peer = ?", peer)


def change_a_term(case: Case) -> None:
    """A delivery never was, or was served in time: what decides between the price and its refund."""
    trade = case.trade("lapsed")
    column = case.chance.choice(["served_ms = NULL", "fetch_before_ms = fetch_before_ms + 86400000"])
    case.run(f"UPDATE trades SET {column} WHERE trade = ?", trade)


def edit_a_reply(case: Case) -> None:
    """The answer to a bid exchanged for another that the broker did sign."""
    trade, buyer, data = case.one("SELECT trade, buyer, bid FROM trades WHERE bid IS NOT NULL AND state <> 'quoted'")
    assert isinstance(trade, bytes) and isinstance(data, bytes)
    key = (buyer, verify(data, Bid, signer=None).message_id)
    found = case.connection.execute("SELECT reply FROM replies WHERE sender = ? AND message_id = ?", key).fetchone()
    (receipt,) = case.one("SELECT receipt FROM trades WHERE receipt IS NOT NULL")
    assert isinstance(receipt, bytes)
    told = Deal(trade, 1, receipt, 1, 1) if case.chance.random() < 0.5 else NoDeal(case.chance.randbytes(16), "x", "")
    if found is None:
        case.run("INSERT INTO replies VALUES (?, ?, ?, 1)", *key, sign(case.bench.broker, told))
    else:
        other = sign(case.bench.broker, told)
        case.run("UPDATE replies SET reply = ? WHERE sender = ? AND message_id = ?", other, *key)


def forge_a_reply(case: Case) -> None:
    """An answer that is no answer to a bid, by another key or cut short."""
    rows = case.connection.execute("SELECT message_id, reply FROM replies").fetchall()
    message_id, reply = case.chance.choice([row for row in rows if type_of(row[1]) == Done.TYPE])
    other = case.chance.choice([sign(Identity.generate(), Done()), reply[:20], b""])
    case.run("UPDATE replies SET reply = ? WHERE message_id = ?", other, message_id)


def edit_the_mail(case: Case) -> None:
    rowid, peer, body = case.one("SELECT rowid, peer, body FROM mail")
    assert isinstance(body, bytes)
    sold = [row for row in case.connection.execute("SELECT rowid, body FROM mail") if type_of(row[1]) == Sold.TYPE]
    match case.chance.randrange(4):
        case 0:
            bent = bytearray(body)
            bent[case.chance.randrange(len(bent))] ^= 1 << case.chance.randrange(8)
            case.run("UPDATE mail SET body = ? WHERE rowid = ?", bytes(bent), rowid)
        case 1:
            case.run("UPDATE mailboxes SET last = 0, acknowledged = 0 WHERE peer = ?", peer)
        case 2:
            rowid, body = case.chance.choice(sold)
            words = verify(body, Sold, signer=None)
            told = dataclasses.replace(words, price=words.price + 1)
            case.run("UPDATE mail SET body = ? WHERE rowid = ?", sign(case.bench.broker, told), rowid)
        case 3:
            rowid, _ = case.chance.choice(sold)
            (other,) = case.one(
                "SELECT peer FROM mailboxes WHERE peer <> (SELECT peer FROM mail WHERE rowid = ?)", rowid
            )
            case.run("UPDATE mail SET peer = ?, number = 1000 WHERE rowid = ?", other, rowid)


def loosen_the_rules(case: Case) -> None:
    case.connection.execute("PRAGMA writable_schema = ON")
    case.run(
        "UPDATE sqlite_schema SET sql = replace(sql, ?, '') WHERE name = ?",
        *case.chance.choice(
            [("CHECK (held BETWEEN 0 AND balance)", "accounts"), ("CHECK (seller <> buyer)", "trades")]
        ),
    )


def plant_a_trigger(case: Case) -> None:
    """It does nothing yet: what it will do is done by the broker itself."""
    table = case.chance.choice(["leaves", "postings", "accounts", "trades", "replies", "head"])
    what = case.chance.choice(["AFTER INSERT", "AFTER UPDATE", "BEFORE DELETE"])
    does = case.chance.choice(["UPDATE accounts SET balance = balance + 1", "DELETE FROM trades", "SELECT 1"])
    case.connection.execute(f"CREATE TRIGGER evil {what} ON {table} BEGIN {does}; END")


def drop_a_trigger(case: Case) -> None:
    case.without = {case.chance.choice(["leaves_stay", "leaves_rest"])}


def edit_a_leaf_without_a_trigger(case: Case) -> None:
    """And leave the trigger away that would have refused it."""
    edit_a_leaf(case)
    case.without = {"leaves_rest"}


def add_an_object(case: Case) -> None:
    """A table, view or index that is not the ledger's."""
    (table,) = case.one("SELECT name FROM sqlite_schema WHERE type = 'table'")
    made = case.chance.choice(
        [
            "CREATE TABLE more (x)",
            f"CREATE TABLE more AS SELECT * FROM {table}",
            f"CREATE VIEW more AS SELECT * FROM {table}",
            f"CREATE INDEX more ON {table} (1)",
        ]
    )
    case.connection.execute(made)


# ---- with the broker's key ---------------------------------------------------------------------------------------


def repeat_a_grant(case: Case) -> None:
    leaves = case.leaves()
    again = [data for data in leaves if isinstance(unpack(data), Granted)]
    rebuild(case.connection, case.bench, [*leaves, case.chance.choice(again)])


def open_an_account_twice(case: Case) -> None:
    leaves = case.leaves()
    again = [data for data in leaves if isinstance(unpack(data), Opened)]
    rebuild(case.connection, case.bench, [*leaves, case.chance.choice(again)])


def end_a_trade_twice(case: Case) -> None:
    leaves = case.leaves()
    again = [data for data in leaves if isinstance(unpack(data), Ended)]
    rebuild(case.connection, case.bench, [*leaves, case.chance.choice(again)])


def refund_another_amount(case: Case) -> None:
    """The fee comes out of the seller's part, or a part of it."""

    def change(leaf: Leaf) -> Leaf | None:
        if not isinstance(leaf, Refunded) or not leaf.from_fees:
            return None
        return dataclasses.replace(leaf, from_seller=leaf.from_seller + 1, from_fees=leaf.from_fees - 1)

    case.rewrite(change)


def spend_before_it_is_there(case: Case) -> None:
    """The seller's own credit comes after its purchase, which is then paid from proceeds that could go back.

    The balances at the end are the same.
    """
    case.connection.close()
    case.path.unlink()
    bench = case.bench = SignedBench(case.path.with_name(f"own-{case.chance.random()}"), case.chance.randrange(10**6))
    price = case.chance.randrange(20, 1000)
    bench.fund(price)
    bench.settled(price, 0)
    cost = case.chance.randrange(1, price + 1)
    trade, _ = bench.quoted(cost, 0, buyer=bench.seller, seller=bench.third)
    bench.settle(trade, cost)
    bench.ledger.close()
    case.open(bench.path)
    leaves = case.leaves()
    opening = next(data for data in leaves if unpack(data).peer == bench.seller.peer_id)  # type: ignore[attr-defined]
    leaves.remove(opening)
    rebuild(case.connection, bench, [*leaves, opening])


def settle_for_another(case: Case) -> None:
    """A settlement of another market in this log."""
    case.rewrite(lambda leaf: dataclasses.replace(leaf, market="other") if isinstance(leaf, Settled) else None)


def settle_beyond_the_bid(case: Case) -> None:
    (trade, extra) = case.one("SELECT trade, bid_amount - price + 1 FROM trades WHERE price > 0")
    assert isinstance(extra, int)

    def change(leaf: Leaf) -> Leaf | None:
        if not isinstance(leaf, Settled) or leaf.trade != trade:
            return None
        return dataclasses.replace(leaf, price=leaf.price + extra)

    case.rewrite(change)


def settle_too_late(case: Case) -> None:
    def change(leaf: Leaf) -> Leaf | None:
        return dataclasses.replace(leaf, at_ms=leaf.at_ms + 48 * HOUR_MS) if isinstance(leaf, Settled) else None

    case.rewrite(change)


def lapse_too_soon(case: Case) -> None:
    """A delivery that its buyer could still have refused or waited for."""
    early = case.bench.clock() - 1000 * HOUR_MS

    def change(leaf: Leaf) -> Leaf | None:
        return dataclasses.replace(leaf, at_ms=early) if isinstance(leaf, Ended) and leaf.state == "lapsed" else None

    number = case.rewrite(change)
    leaf = unpack(case.leaves()[number])
    assert isinstance(leaf, Ended)
    case.run("UPDATE trades SET changed_ms = ? WHERE trade = ?", early, leaf.trade)


def sign_nonsense(case: Case) -> None:
    rebuild(case.connection, case.bench, [*case.leaves(), b"\0" + case.chance.randbytes(4)])


def rewrite_history(case: Case) -> Shown:
    """Credit that was issued is another amount, and everything after it is made to fit and signed."""

    def change(leaf: Leaf) -> Leaf | None:
        if not isinstance(leaf, (Opened, Granted)):
            return None
        return dataclasses.replace(leaf, amount=leaf.amount + case.chance.randrange(1, 1000))

    number = case.rewrite(change)
    after = [data for size, data in case.base.receipts if size > number] or [case.base.checkpoint]
    return [("held", case.chance.choice([*after, case.base.checkpoint]))]


def another_history(case: Case) -> Shown:
    """All trades as they were, all leaves' salts and ids other: only who held a receipt can tell."""
    leaves = case.leaves()
    first = unpack(leaves[0])
    assert isinstance(first, Opened)
    leaves[0] = pack(dataclasses.replace(first, salt=case.chance.randbytes(16)))
    rebuild(case.connection, case.bench, leaves)
    return [("held", case.chance.choice([data for _, data in case.base.receipts]))]


def restore_an_older_copy(case: Case) -> Shown:
    case.connection.close()
    case.open(case.chance.choice(case.base.older))
    (size,) = case.connection.execute("SELECT size FROM head").fetchone()
    later = [data for lately, data in case.base.receipts if lately > size]
    return [("held", case.chance.choice([*later, case.base.checkpoint]))]


def show_two_logs(case: Case) -> Shown:
    size = verify(case.base.checkpoint, Checkpoint, signer=None).size
    words = Checkpoint(MARKET, case.bench.broker.peer_id, size, case.chance.randbytes(32), 1)
    return [("one", case.base.checkpoint), ("other", sign(case.bench.broker, words))]


PAID_STATES = ("settled", "delivered", "lapsed", "refunded")
OVER = (SETTLED, *sorted(ENDS))


def _list(states: tuple[str, ...]) -> str:
    return ", ".join(f"'{state}'" for state in states)


Tampering = Callable[[Case], Shown | None]

TAMPERINGS: dict[Tampering, tuple[str, bool]] = {
    # what is done -> the kind of problem that names it, and whether no other check would see it
    raise_a_balance: ("balance", True),
    move_a_balance: ("balance", True),
    edit_a_hold: ("hold", True),
    edit_a_leaf: ("checkpoint", False),
    remove_a_leaf: ("checkpoint", False),
    drop_a_leaf: ("leaf", False),
    insert_a_leaf: ("checkpoint", False),
    swap_leaves: ("checkpoint", False),
    issue_without_the_key: ("checkpoint", True),
    older_checkpoint: ("checkpoint", True),
    edit_the_head: ("head", True),
    rename_the_market: ("checkpoint", False),
    claim_another_broker: ("owner", True),
    edit_a_node: ("node", True),
    edit_a_price: ("trade", True),
    edit_a_fee: ("trade", True),
    exchange_a_delivery: ("trade", False),
    set_a_state_back: ("state", False),
    reopen_to_another_bid: ("state", False),
    revive_a_bid: ("hold", False),
    change_an_end: ("state", True),
    remove_a_trade: ("trade", False),
    add_a_trade: ("state", False),
    add_an_open_trade: ("report", False),
    exchange_a_receipt: ("receipt", True),
    exchange_a_bid: ("bid", False),
    raise_an_open_bid: ("bid", True),
    exchange_an_ask: ("ask", True),
    exchange_a_report: ("report", True),
    edit_a_posting: ("history", True),
    forget_a_grant: ("grant", True),
    reopen_an_account: ("opening", True),
    change_a_term: ("deadline", False),
    edit_a_reply: ("reply", True),
    forge_a_reply: ("signer", True),
    edit_the_mail: ("mail", True),
    loosen_the_rules: ("schema", True),
    plant_a_trigger: ("schema", True),
    drop_a_trigger: ("schema", True),
    edit_a_leaf_without_a_trigger: ("schema", False),
    add_an_object: ("schema", True),
    repeat_a_grant: ("issue", True),
    open_an_account_twice: ("issue", True),
    end_a_trade_twice: ("end", True),
    refund_another_amount: ("refund", True),
    spend_before_it_is_there: ("overdrawn", True),
    settle_for_another: ("settlement", True),
    settle_beyond_the_bid: ("bid", False),
    settle_too_late: ("bid", False),
    lapse_too_soon: ("deadline", True),
    sign_nonsense: ("leaf", True),
    rewrite_history: ("rewritten", True),
    another_history: ("rewritten", True),
    restore_an_older_copy: ("cut", True),
    show_two_logs: ("two-logs", False),
}
