"""How many trades can a broker settle in a second, against the least that a durable transaction costs on this disk?

`python -m benchmarks.settlement` (a table) or `--json`; `--rounds 5 --trades 400`.

One trade is all that the ledger does for a bid on a snapshot with a standing ask: check the signatures of buyer and
seller, hold the bid, record the ask, move the money, append the leaf, sign receipt, deal and the seller's mail, store
all of it. It goes through the broker's LedgerThread, in one call, and counts when its result is handed back, which is
after the commit that makes it durable (`synchronous=FULL`). 1, 10 and 50 trades are under way at a time, each begun
when the one before it in its place is done. Every trade has a report, a bid and an ask of its own: nothing is verified
once for many. Trades are prepared before the clock starts.

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
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.ledger.database import Database
from p2pmarket.ledger.journal import Ledger
from p2pmarket.messages import Bid, Submit
from p2pmarket.units import CREDIT, now_ms

MARKET = "benchmark"
AT_ONCE = (1, 10, 50)
PEERS = 16
ASK, BID, PRICE, FEE = 4 * CREDIT, 6 * CREDIT, 5 * CREDIT, 100_000
DAY_MS = 24 * 3600 * 1000


class Case(NamedTuple):
    """A trade that waits for its bid."""

    trade: bytes
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

    async def open(self) -> None:
        await self.thread.open()

        def fund(ledger: Ledger) -> None:
            for peer in self.peers:
                ledger.open_account(peer.peer_id, 10_000_000 * CREDIT)

        await self.thread.run(fund)

    async def prepare(self, count: int) -> list[Case]:
        """`count` appraised trades with signed bids and asks."""

        def make(ledger: Ledger) -> list[Case]:
            with ledger.transaction():
                return [self._case(ledger) for _ in range(count)]

        return await self.thread.run(make)

    def _case(self, ledger: Ledger) -> Case:
        chance, now = self.chance, now_ms()
        buyer, seller = chance.sample(self.peers, 2)
        trade, submission, delivery = chance.randbytes(16), chance.randbytes(16), chance.randbytes(32)
        snapshot = chance.randbytes(32)
        ledger.create_trade(
            trade, buyer.peer_id, seller.peer_id, chance.randbytes(32), snapshot, submission, task="digits"
        )
        ledger.record_report(trade, chance.randbytes(900), delivery, now + DAY_MS)
        submit = Submit(
            message_id=chance.randbytes(16), market=MARKET, submission=chance.randbytes(16), task="digits", step=1,
            snapshot=snapshot, plain_bytes=1000, buy=False, ask=ASK, sell=True, buy_groups=(), sell_groups=(),
            issued_ms=now,
        )  # fmt: skip
        bid = Bid(chance.randbytes(16), MARKET, self.broker.peer_id, trade, delivery, BID, now + DAY_MS)
        return Case(trade, sign(buyer, bid), sign(seller, submit))

    async def settle(self, cases: list[Case], at_once: int) -> Run:
        """Settles all of them, so many at a time."""
        latencies: list[float] = []
        waiting = iter(cases)

        async def work(cases: Iterator[Case]) -> None:
            for case in cases:
                began = time.perf_counter()
                await self.thread.run(clear, case)
                latencies.append(time.perf_counter() - began)

        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*[work(waiting) for _ in range(at_once)])
        return Run(time.perf_counter() - wall, time.process_time() - cpu, latencies)


def clear(ledger: Ledger, case: Case) -> bytes:
    """All that the ledger does for a bid with a standing ask; the signed Deal."""
    with ledger.transaction():
        ledger.place_bid(case.bid)
        ledger.record_ask(case.trade, case.ask)
        return ledger.settle(case.trade, PRICE, FEE, fetch_before_ms=now_ms() + DAY_MS).reply


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
    counts = {at_once: max(trades * at_once // AT_ONCE[-1], trades // 4) for at_once in AT_ONCE}
    bare_rates: list[float] = []
    runs: dict[int, list[Run]] = {at_once: [] for at_once in AT_ONCE}
    await bench.settle(await bench.prepare(20), 5)
    bare(plain.connection, 20)
    for _ in range(rounds):
        bare_rates.append(trades / bare(plain.connection, trades))
        for at_once in AT_ONCE:
            cases = await bench.prepare(counts[at_once])
            runs[at_once].append(await bench.settle(cases, at_once))
    problems = (await bench.thread.run(Ledger.verify, signatures=False)).problems
    await bench.thread.close()
    plain.close()
    if problems:
        raise SystemExit(f"the ledger does not verify: {problems[0]}")

    figures = {"bare_per_second": statistics.median(bare_rates), "trades": sum(counts.values()) * rounds}
    for at_once, found in runs.items():
        rate = statistics.median(len(run.latencies) / run.wall for run in found)
        latencies = sorted(itertools.chain.from_iterable(run.latencies for run in found))
        figures |= {
            f"per_second_at_{at_once}": rate,
            f"p50_ms_at_{at_once}": 1000 * statistics.median(latencies),
            f"p99_ms_at_{at_once}": 1000 * latencies[int(0.99 * len(latencies))],
            f"ratio_at_{at_once}": rate / figures["bare_per_second"],
            f"cpu_ms_at_{at_once}": 1000 * statistics.median(run.cpu / len(run.latencies) for run in found),
            f"cpu_share_at_{at_once}": statistics.median(run.cpu / run.wall for run in found),
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
    print("at once  trades/s  of bare   p50 ms   p99 ms   cpu ms  cpu share")
    for at_once in AT_ONCE:
        columns = ("per_second", "ratio", "p50_ms", "p99_ms", "cpu_ms", "cpu_share")
        rate, ratio, half, most, cpu, share = [figures[f"{name}_at_{at_once}"] for name in columns]
        print(f"{at_once:7d} {rate:9.0f} {ratio:8.2f} {half:8.2f} {most:8.2f} {cpu:8.3f} {share:10.2f}")


if __name__ == "__main__":
    main()
