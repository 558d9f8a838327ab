"""Money is neither made nor lost: random operations, rivals for one balance, kills, a full disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ledger_examples import HOUR_MS, Bench

from p2pmarket.errors import DiskFull, MarketError
from p2pmarket.ledger import trades
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import PAID
from p2pmarket.ledger.trades import TradeRow


class Wanderer:
    """Does random things to a ledger, allowed or not, and keeps accounts of its own in a plain dictionary."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.chance = random.Random(seed)
        self.peers = [bench.buyer, bench.seller, bench.third]
        self.expected = dict.fromkeys([bench.broker.peer_id, *(peer.peer_id for peer in self.peers)], 0)
        self.trades: list[bytes] = []
        self.people: dict[bytes, tuple[Any, Any]] = {}
        self.refusals: dict[str, int] = {}
        self.create()

    def step(self) -> None:
        action = self.chance.choice(
            [self.grant, self.create, self.bid, self.bid, self.ask, self.ask, self.ask, self.settle, self.settle,
             self.settle, self.settle, self.unmatched, self.serve, self.serve, self.acknowledge, self.refund,
             self.decline, self.wait, self.expire, self.undone]
        )  # fmt: skip
        try:
            action()
        except MarketError as error:
            self.refusals[error.code] = self.refusals.get(error.code, 0) + 1

    def pick(self) -> bytes:
        return self.chance.choice(self.trades[-5:])

    def grant(self) -> None:
        peer, amount = self.chance.choice(self.peers).peer_id, self.chance.randrange(40)
        self.bench.ledger.grant(peer, amount, "", self.bench.id())
        self.expected[peer] += amount

    def create(self) -> None:
        buyer, seller = self.chance.sample(self.peers, 2)
        trade = self.bench.appraised(buyer, seller)
        self.trades.append(trade)
        self.people[trade] = buyer, seller

    def bid(self) -> None:
        trade = self.pick()
        self.bench.ledger.place_bid(self.bench.bid(trade, self.chance.randrange(30, 100), self.people[trade][0]))

    def ask(self) -> None:
        trade = self.pick()
        amount, seller = self.chance.randrange(60), self.people[trade][1]
        make = self.chance.choice([self.bench.ask, self.bench.submit])
        self.bench.ledger.record_ask(trade, make(trade, amount, seller))

    def settle(self) -> None:
        trade, price = self.pick(), self.chance.randrange(30, 70)
        fee = self.chance.randrange(price + 1)
        self.bench.settle(trade, price, fee)
        buyer, seller = self.people[trade]
        self.expected[buyer.peer_id] -= price
        self.expected[seller.peer_id] += price - fee
        self.expected[self.bench.broker.peer_id] += fee

    def acknowledge(self) -> None:
        trade = self.pick()
        row = self.bench.ledger.trade(trade)
        self.bench.ledger.acknowledge_delivery(trade, row.buyer, row.delivery)

    def refund(self) -> None:
        self.paid_back(self.bench.ledger.refund(self.pick(), "test"))

    def paid_back(self, row: TradeRow) -> None:
        self.expected[row.seller] -= row.price - row.fee
        self.expected[self.bench.broker.peer_id] -= row.fee
        self.expected[row.buyer] += row.price

    def unmatched(self) -> None:
        self.bench.ledger.unmatched(self.pick(), 1)

    def serve(self) -> None:
        self.bench.ledger.mark_served(self.pick())
        if self.chance.random() < 0.3:
            self.bench.clock.ms += HOUR_MS
            self.expire()

    def decline(self) -> None:
        trade = self.trades[-1]
        self.bench.ledger.decline([trade, self.pick()], self.people[trade][0].peer_id)

    def wait(self) -> None:
        self.bench.clock.ms += self.chance.randrange(HOUR_MS // 8)

    def expire(self) -> None:
        for trade in self.bench.ledger.expire():
            row = self.bench.ledger.trade(trade)
            if row.state == "refunded":
                self.paid_back(row)

    def held(self) -> dict[str, int]:
        """What the trades that are there make each account hold."""
        found = dict.fromkeys(self.expected, 0)
        for row in self.bench.ledger.trades():
            if row.state == "quoted":
                found[row.buyer] += row.bid_amount
            elif row.state == "settled":
                found[row.seller] += row.price - row.fee
                found[self.bench.broker.peer_id] += row.fee
        return found

    def undone(self) -> None:
        """Everything in a transaction that fails is as if it had never been."""
        with pytest.raises(ZeroDivisionError), self.bench.ledger.transaction():
            self.bench.ledger.grant(self.peers[0].peer_id, 1000, "", self.bench.id())
            for trade in self.trades[-3:]:
                try:
                    self.bench.settle(trade, 1)
                except MarketError:
                    continue
            raise ZeroDivisionError


@pytest.mark.parametrize("seed", list(range(3)))
def test_random_operations_conserve_money(make_bench: Callable[[str, int], Bench], seed: int) -> None:
    bench = make_bench(f"random-{seed}", seed)
    wanderer = Wanderer(bench, seed)
    for count in range(4000):
        wanderer.step()
        if count % 50 == 0:
            rows = {row.peer: row for row in bench.ledger.accounts()}
            assert {peer: amount for peer, amount in wanderer.expected.items() if amount} == {
                peer: row.balance for peer, row in rows.items() if row.balance
            }
            held = wanderer.held()
            assert all(row.held == held[row.peer] for row in rows.values())
    assert bench.ledger.verify().problems == ()
    states = {row.state for row in bench.ledger.trades()}
    assert {"delivered", "refunded", "lapsed", "expired", "declined"} <= states, "the walk must reach the ends"
    assert {"insufficient-balance", "price-outside", "wrong-state", "lower-bid"} <= wanderer.refusals.keys()
    bench.reopen()


def test_rivals_for_one_balance_never_overspend(bench: Bench) -> None:
    """64 bids of which the balance covers two, placed and settled at once by 8 connections to one file."""
    bench.ledger.open_account(bench.buyer.peer_id, 100)
    todo = []
    for _ in range(64):
        trade = bench.appraised()
        todo.append((trade, bench.bid(trade, 40), bench.ask(trade, 40)))
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def settle_some(trades: list[tuple[bytes, bytes, bytes]]) -> None:
        with Ledger.open(bench.path, bench.broker, "digits", bench.clock) as own:
            start.wait()
            for trade, bid, ask in trades:
                try:
                    own.place_bid(bid)
                    own.record_ask(trade, ask)
                    own.settle(trade, 40, 1, fetch_before_ms=bench.clock() + HOUR_MS)
                    outcomes.append("settled")
                except MarketError as error:
                    outcomes.append(error.code)

    threads = [threading.Thread(target=settle_some, args=(todo[at::8],)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["insufficient-balance"] * 62 + ["settled"] * 2
    assert bench.ledger.balance(bench.buyer.peer_id) == 20
    assert bench.ledger.balance(bench.seller.peer_id) == 78
    assert bench.ledger.verify().problems == ()


def test_one_trade_settled_by_many_is_settled_once(bench: Bench) -> None:
    bench.fund()
    trade, _ = bench.quoted(10, 10)
    settled: list[bytes] = []
    refusals: list[str] = []

    def settle() -> None:
        with Ledger.open(bench.path, bench.broker, "digits", bench.clock) as own:
            try:
                settled.append(own.settle(trade, 10, 0, fetch_before_ms=bench.clock() + HOUR_MS).receipt)
            except MarketError as error:
                refusals.append(error.code)

    threads = [threading.Thread(target=settle) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(settled) == 1 and refusals == ["wrong-state"] * 7
    assert bench.ledger.verify().ok


CHILD = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from ledger_examples import Bench

    bench = Bench(Path(sys.argv[2]) / "ledger.sqlite", int(sys.argv[3]), keys=Path(sys.argv[2]))
    bench.ledger.grant(bench.buyer.peer_id, 10_000_000, "", bench.id())
    print("ready", flush=True)
    while True:
        trade, _ = bench.quoted(10, 4)
        bench.settle(trade, 7, 1)
        print(trade.hex(), flush=True)
        if bench.chance.random() < 0.3:
            bench.ledger.acknowledge_delivery(trade, bench.buyer.peer_id, bench.ledger.trade(trade).delivery)
    """
)


def test_a_broker_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """Whatever the child said was settled is settled after SIGKILL, and what it was in the middle of left no trace."""
    bench = Bench(tmp_path / "ledger.sqlite", keys=tmp_path)
    said: set[str] = set()
    chance = random.Random(7)
    for round_number in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, os.path.dirname(__file__), str(tmp_path), str(round_number)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        killer = threading.Timer(chance.uniform(0.02, 0.25), child.send_signal, [signal.SIGKILL])
        killer.start()
        said |= {line.decode() for line in child.stdout.read().split(b"\n")[:-1] if len(line) == 32}
        child.wait()
        child.stdout.close()
        killer.join()
        ledger = bench.reopen()
        assert ledger.verify().problems == ()
        rows = {row.trade.hex(): row for row in ledger.trades()}
        assert all(rows[trade].state in PAID for trade in said)
        paid = sum(row.state in PAID for row in rows.values())
        assert len(said) <= paid <= len(said) + round_number + 1
        assert ledger.balance(bench.seller.peer_id) == 6 * paid
        assert ledger.balance(bench.broker.peer_id) == paid
    assert said, "the child must get something done between the kills"
    bench.ledger.close()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_settlement_in_two_transactions_would_be_seen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    """Control: a ledger that commits in the middle of a settlement and then dies does not verify."""
    bench.fund()
    trade, _ = bench.quoted(10, 10)
    honest = trades.step

    def commit_and_die(connection: Any, row: Any, event: str, *rest: Any, **changes: Any) -> Any:
        if cut == "after":  # and the reply and the mail are missing
            honest(connection, row, event, *rest, **changes)
        connection.execute("COMMIT")
        raise KeyboardInterrupt

    monkeypatch.setattr(trades, "step", commit_and_die)
    with pytest.raises(KeyboardInterrupt):
        bench.settle(trade, 10)
    assert bench.ledger.verify().problems


def test_a_full_disk_is_said_and_undoes_the_whole_effect(bench: Bench) -> None:
    bench.fund()
    with bench.ledger.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 12}")
    done = 0
    with pytest.raises(DiskFull, match="no room"):
        for _ in range(500):
            bench.settled(1)
            done += 1
    assert 0 < done < 500
    report = bench.ledger.verify()
    assert report.problems == ()
    connection.execute("PRAGMA max_page_count = 1000000")
    bench.settled(1)
    assert bench.reopen().verify().problems == ()


def test_a_readonly_file_is_said(bench: Bench) -> None:
    with bench.ledger.transaction() as connection:
        pass
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(DiskFull, match="cannot be written"):
        bench.ledger.open_account(bench.buyer.peer_id, 5)
    connection.execute("PRAGMA query_only = OFF")
    assert bench.ledger.open_account(bench.buyer.peer_id, 5) == 5
