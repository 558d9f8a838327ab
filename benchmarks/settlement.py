"""How many trades can a broker settle in a second, against the least that a durable transaction costs on this disk?

`python -m benchmarks.settlement` (a table) or `--json`; `--rounds 5 --trades 400`.

One trade is all that the ledger does for a bid on a snapshot with a standing ask: check the signatures of buyer and
seller, hold the bid, record the ask, move the money, append the leaf, sign receipt, deal and the seller's mail, store
all of it. It goes through the broker's LedgerThread, in one call, and counts when its result is handed back, which is
after the commit that makes it durable (`synchronous=FULL`). 1, 10 and 50 trades are under way at a time, each begun
when the one before it in its place is done. Every trade has a report, a bid and an ask of its own: nothing is verified
once for many. Trades are prepared before the clock starts.

cleared the same with 50 under way, through the broker's Clearing: what comes after a bid's signature was checked at the
        desk and before the reply is sent. It looks up the report, the submission and what was replied before, and uses
        the ledger three times.
bare    one INSERT of 100 bytes in a transaction of its own, in another SQLite file on the same file system, with the
        same pragmas, one after the other.

Every round measures each of these, interleaved; figures are medians over the rounds, p99 is over all trades of all
rounds. `ratio_at_50` is trades per second with 50 under way over bare transactions per second. `cpu_ms` is processor
time of the whole process for one trade: where it fills the wall time (`cpu_share` near 1), the processor is the limit
and not the disk; Python runs one thread at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from p2pmarket.broker_node.book import Book
from p2pmarket.broker_node.clearing import Clearing
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.ledger.database import Database
from p2pmarket.ledger.journal import Ledger
from p2pmarket.market import parse_terms
from p2pmarket.messages import Bid, Deal, GainReport, Submit
from p2pmarket.units import CREDIT, now_ms

MARKET = "benchmark"
AT_ONCE = (1, 10, 50)
PEERS = 16
ASK, BID, PRICE, FEE = 4 * CREDIT, 6 * CREDIT, 5 * CREDIT, 100_000
DAY_MS = 24 * 3600 * 1000


TERMS = parse_terms(
    {
        "market": {"name": MARKET},
        "model": {"name": "mlp"},
        "task": [{"name": "digits", "loss": "cross_entropy", "metric": "accuracy"}],
        "pricing": {"fee_percent": "2"},
        "limits": {"submissions_per_hour": 1_000_000},
    }
)


class Case(NamedTuple):
    """A trade that waits for its bid."""

    trade: bytes
    buyer: str
    bid: bytes
    ask: bytes


class Run(NamedTuple):
    """What one run of trades took, in seconds."""

    wall: float
    cpu: float
    latencies: list[float]


class Bench:
    """A ledger with accounts, and trades to settle in it."""

    def __init__(self, folder: Path) -> None:
        self.broker = Identity.generate()
        self.peers = [Identity.generate() for _ in range(PEERS)]
        self.chance = random.Random(1)
        self.thread = LedgerThread(lambda: Ledger.open(folder / "ledger.sqlite", self.broker, MARKET))
        self.book = Book(folder / "snapshots")
        self.clearing = Clearing(
            identity=self.broker, terms=TERMS, ledger=self.thread, book=self.book, deliveries=folder / "deliveries",
            clock=now_ms, mail_waits=lambda _: None, online=lambda _: False,
        )  # fmt: skip

    async def open(self) -> None:
        await self.thread.open()

        def fund(ledger: Ledger) -> None:
            with ledger.transaction() as connection:
                self.book.create_tables(connection)
                for peer in self.peers:
                    ledger.open_account(peer.peer_id, 10_000_000 * CREDIT)

        await self.thread.run(fund)

    async def prepare(self, count: int) -> list[Case]:
        """`count` appraised trades with signed bids and asks."""

        def make(ledger: Ledger) -> list[Case]:
            with ledger.transaction() as connection:
                return [self._case(ledger, connection) for _ in range(count)]

        return await self.thread.run(make)

    def _case(self, ledger: Ledger, connection: sqlite3.Connection) -> Case:
        chance, now = self.chance, now_ms()
        buyer, seller = chance.sample(self.peers, 2)
        trade, submission, delivery = chance.randbytes(16), chance.randbytes(16), chance.randbytes(32)
        snapshot = chance.randbytes(32)
        ledger.create_trade(
            trade, buyer.peer_id, seller.peer_id, chance.randbytes(32), snapshot, submission, task="digits"
        )
        report = GainReport(
            trade=trade, market=MARKET, buyer=buyer.peer_id, seller=seller.peer_id, task="digits",
            buyer_snapshot=chance.randbytes(32), seller_snapshot=snapshot, delivery=delivery, loss_before=1.0,
            loss_after=0.5, gain=0.5, gain_low=0.4, gain_high=0.6, merit=0.5, merit_low=0.4, merit_high=0.6,
            confidence=0.95, metric_before=0.5, metric_after=0.7, samples=1000, data=chance.randbytes(32), weight=0.5,
            granularity="model", alignment="weights", after=None, left_out=(), reason="", classes=(), groups=(),
            tasks=(), expires_ms=now + DAY_MS,
        )  # fmt: skip
        ledger.record_report(trade, sign(self.broker, report), delivery, now + DAY_MS)
        submit = Submit(
            message_id=chance.randbytes(16), market=MARKET, submission=chance.randbytes(16), task="digits", step=1,
            snapshot=snapshot, plain_bytes=1000, buy=False, ask=ASK, sell=True, buy_groups=(), sell_groups=(),
            issued_ms=now,
        )  # fmt: skip
        bid = Bid(chance.randbytes(16), MARKET, self.broker.peer_id, trade, delivery, BID, now + DAY_MS)
        ask = sign(seller, submit)
        self.book.accept(connection, submit, ask, seller.peer_id, TERMS, now)
        return Case(trade, buyer.peer_id, sign(buyer, bid), ask)

    async def settle(self, case: Case) -> bytes:
        """All that the ledger does, in one call."""
        return await self.thread.run(settle, case)

    async def clear(self, case: Case) -> bytes:
        """All that the broker does."""
        return await self.clearing.bid(case.buyer, verify(case.bid, Bid, signer=case.buyer), case.bid)


def settle(ledger: Ledger, case: Case) -> bytes:
    """All that the ledger does for a bid with a standing ask; the signed Deal."""
    with ledger.transaction():
        ledger.place_bid(case.bid)
        ledger.record_ask(case.trade, case.ask)
        return ledger.settle(case.trade, PRICE, FEE, fetch_before_ms=now_ms() + DAY_MS).reply


async def run(way: Callable[[Case], Awaitable[bytes]], cases: list[Case], at_once: int) -> Run:
    """Does all of them in one way, so many at a time."""
    latencies: list[float] = []
    waiting = iter(cases)

    async def work(cases: Iterator[Case]) -> None:
        for case in cases:
            began = time.perf_counter()
            reply = await way(case)
            latencies.append(time.perf_counter() - began)
            assert type_of(reply) == Deal.TYPE

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*[work(waiting) for _ in range(at_once)])
    return Run(time.perf_counter() - wall, time.process_time() - cpu, latencies)


def bare(connection: sqlite3.Connection, count: int) -> float:
    """Seconds for so many transactions of one INSERT each."""
    data = bytes(100)
    began = time.perf_counter()
    for _ in range(count):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO rows (data) VALUES (?)", (data,))
        connection.execute("COMMIT")
    return time.perf_counter() - began


async def measure(folder: Path, rounds: int, trades: int) -> dict[str, float]:
    plain = Database(
        folder / "bare.sqlite", application_id=1, version=1,
        schema=("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",),
    )  # fmt: skip
    bench = Bench(folder)
    await bench.open()
    ways = {f"at_{at_once}": (bench.settle, at_once) for at_once in AT_ONCE} | {"cleared": (bench.clear, AT_ONCE[-1])}
    counts = {name: max(trades * at_once // AT_ONCE[-1], trades // 4) for name, (_, at_once) in ways.items()}
    bare_rates: list[float] = []
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for way in (bench.settle, bench.clear):
        await run(way, await bench.prepare(20), 5)
    bare(plain.connection, 20)
    for _ in range(rounds):
        bare_rates.append(trades / bare(plain.connection, trades))
        for name, (way, at_once) in ways.items():
            runs[name].append(await run(way, await bench.prepare(counts[name]), at_once))
    problems = (await bench.thread.run(Ledger.verify, signatures=False)).problems
    await bench.thread.close()
    plain.close()
    if problems:
        raise SystemExit(f"the ledger does not verify: {problems[0]}")

    figures = {"bare_per_second": statistics.median(bare_rates), "trades": sum(counts.values()) * rounds}
    for name, found in runs.items():
        rate = statistics.median(len(taken.latencies) / taken.wall for taken in found)
        latencies = sorted(itertools.chain.from_iterable(taken.latencies for taken in found))
        figures |= {
            f"per_second_{name}": rate,
            f"ratio_{name}": rate / figures["bare_per_second"],
            f"p50_ms_{name}": 1000 * statistics.median(latencies),
            f"p99_ms_{name}": 1000 * latencies[int(0.99 * len(latencies))],
            f"cpu_ms_{name}": 1000 * statistics.median(taken.cpu / len(taken.latencies) for taken in found),
            f"cpu_share_{name}": statistics.median(taken.cpu / taken.wall for taken in found),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trades", type=int, default=400, help="with 50 under way, in each round; fewer with fewer")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure; the working folder")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=".settlement-", dir=arguments.folder) as folder:
        figures = asyncio.run(measure(Path(folder), arguments.rounds, arguments.trades))
    if arguments.json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
        return
    print(f"bare transactions: {figures['bare_per_second']:.0f} a second\n")
    print("          trades/s  of bare   p50 ms   p99 ms   cpu ms  cpu share")
    for name in [key.removeprefix("ratio_") for key in figures if key.startswith("ratio_")]:
        columns = ("per_second", "ratio", "p50_ms", "p99_ms", "cpu_ms", "cpu_share")
        rate, ratio, half, most, cpu, share = [figures[f"{column}_{name}"] for column in columns]
        print(f"{name:8} {rate:9.0f} {ratio:8.2f} {half:8.2f} {most:8.2f} {cpu:8.3f} {share:10.2f}")


if __name__ == "__main__":
    main()
