"""A small market around a ledger: peers with keys, a clock that is set by hand, trades at any stage."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.ledger.journal import Ledger, Settlement
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.messages import Ask, Bid, GainReport, Submit
from p2pmarket.units import CREDIT

MARKET = "digits"
START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


@dataclasses.dataclass
class HandClock:
    """A clock that stands still until it is moved."""

    ms: int = START_MS

    def __call__(self) -> int:
        return self.ms


class Bench:
    """A ledger with a broker, peers and shortcuts to bring a trade to a state."""

    def __init__(self, path: Path, seed: int = 0, keys: Path | None = None) -> None:
        """With `keys`, a folder, the identities are those of earlier benches that used it, and commits are synced.

        Without, they are not: nothing but a power cut tells the difference, and tests are quick on a busy disk.
        """
        self.path = path
        self.clock = HandClock()
        self.chance = random.Random(seed)
        self.broker, self.buyer, self.seller, self.third = (
            Identity.load_or_create(keys / name) if keys else Identity.generate()
            for name in ("broker", "buyer", "seller", "third")
        )
        self.synchronous = "FULL" if keys else "OFF"
        self.ledger = self._open()

    def _open(self) -> Ledger:
        ledger = Ledger.open(self.path, self.broker, MARKET, self.clock)
        with ledger.transaction() as connection:
            pass
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        return ledger

    def reopen(self) -> Ledger:
        """Closes the ledger and opens it again, with its checks."""
        self.ledger.close()
        self.ledger = self._open()
        return self.ledger

    def id(self) -> bytes:
        return self.chance.randbytes(16)

    def digest(self) -> bytes:
        return self.chance.randbytes(32)

    def fund(self, amount: int = 100 * CREDIT) -> None:
        for peer in (self.buyer, self.seller, self.third):
            self.ledger.open_account(peer.peer_id, amount)

    def appraised(
        self,
        buyer: Identity | None = None,
        seller: Identity | None = None,
        *,
        after: bytes | None = None,
        task: str = "",
    ) -> bytes:
        """A new trade in APPRAISED, upon the purchase `after`; its id."""
        trade = self.id()
        buyer, seller = buyer or self.buyer, seller or self.seller
        row = self.ledger.create_trade(
            trade, buyer.peer_id, seller.peer_id, self.digest(), self.digest(), self.id(), task=task
        )
        delivery, until = self.digest(), self.clock() + HOUR_MS
        self.ledger.record_report(trade, sign(self.broker, report_of(row, delivery, until, after)), delivery, until)
        return trade

    def bid(self, of: bytes, amount: int, buyer: Identity | None = None, **changes: object) -> bytes:
        """A signed bid for a trade, the next one it takes."""
        row = self.ledger.trade(of)
        assert row.delivery is not None
        bid = Bid(self.id(), MARKET, self.broker.peer_id, of, row.delivery, amount, self.clock() + HOUR_MS, row.bids)
        return sign(buyer or self.buyer, dataclasses.replace(bid, **changes))  # type: ignore[arg-type]

    def ask(self, of: bytes, amount: int, seller: Identity | None = None, **changes: object) -> bytes:
        """A signed ask for a trade."""
        snapshot = self.ledger.trade(of).seller_snapshot
        ask = Ask(self.id(), MARKET, self.broker.peer_id, of, snapshot, amount, self.clock() + HOUR_MS)
        return sign(seller or self.seller, dataclasses.replace(ask, **changes))  # type: ignore[arg-type]

    def submit(self, of: bytes, ask: int | None, seller: Identity | None = None, **changes: object) -> bytes:
        """The seller's signed submission with a standing ask."""
        snapshot = self.ledger.trade(of).seller_snapshot
        submit = Submit(
            self.id(), MARKET, self.id(), "digits", 1, snapshot, 100, False, ask, True, (), (), self.clock()
        )
        return sign(seller or self.seller, dataclasses.replace(submit, **changes))  # type: ignore[arg-type]

    def quoted(
        self, bid: int, ask: int, buyer: Identity | None = None, seller: Identity | None = None
    ) -> tuple[bytes, bytes]:
        """A new trade in QUOTED with its ask recorded; its id and the bid's bytes."""
        trade = self.appraised(buyer, seller)
        data = self.bid(trade, bid, buyer)
        self.ledger.place_bid(data)
        self.ledger.record_ask(trade, self.ask(trade, ask, seller))
        return trade, data

    def settle(self, trade: bytes, price: int, fee: int = 0) -> Settlement:
        return self.ledger.settle(trade, price, fee, fetch_before_ms=self.clock() + HOUR_MS)

    def settled(self, price: int, fee: int = 0) -> bytes:
        """A new trade in SETTLED between buyer and seller; its id."""
        trade, _ = self.quoted(price, price)
        self.settle(trade, price, fee)
        return trade


def report_of(row: TradeRow, delivery: bytes, expires_ms: int, after: bytes | None = None) -> GainReport:
    """A gain report on a trade, upon the purchase `after`."""
    return GainReport(
        row.trade, MARKET, row.buyer, row.seller, "all", row.buyer_snapshot, row.seller_snapshot, delivery,
        loss_before=1.0, loss_after=0.75, gain=0.25, gain_low=0.2, gain_high=0.3,
        merit=0.125, merit_low=0.1, merit_high=0.15, confidence=0.95,
        metric_before=50.0, metric_after=60.0, samples=100, data=b"v" * 32,
        weight=0.5, granularity="model", alignment="identity",
        after=after, left_out=(), reason="", classes=(), groups=(), tasks=(), expires_ms=expires_ms,
    )  # fmt: skip
