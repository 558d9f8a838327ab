"""The market of crash tests: terms, models, an appraiser that measures nothing, a strategy that does as it is told.

Knows: what a cycle trades. Refuses to know: processes. A real appraisal takes longer than all the rest of a trade
together and moves no money, so `SteadyAppraiser` halves the way between both snapshots and calls that a gain of 0.5;
it checks, packs and digests parcels as the real one does.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from p2pmarket.appraisal.appraise import Appraisal
from p2pmarket.appraisal.evaluator import evaluators_for
from p2pmarket.appraisal.plan import MergePlan, Progress
from p2pmarket.appraisal.validation import Validation
from p2pmarket.broker_node.appraiser import Appraiser, Finding, TaskBench
from p2pmarket.broker_node.book import Submission
from p2pmarket.market import MarketTerms, parse_terms
from p2pmarket.messages import AskRequest, GainReport, Unmatched
from p2pmarket.models import build_model
from p2pmarket.node.strategy import Strategy, Wallet
from p2pmarket.parameters.packing import unpack
from p2pmarket.parameters.snapshot import schema_of
from p2pmarket.units import CREDIT

OPENING = 1000 * CREDIT
FEE_PERCENT = 2
SIZES: Mapping[str, Sequence[int]] = {"small": (16,), "large": (256, 2048)}
"""Hidden units: a parcel of one chunk, and one of three."""


@dataclasses.dataclass(frozen=True)
class Deal:
    """What both sides are told to do in one visit, in micro-credits."""

    bid: int | None = CREDIT
    """None: the buyer declines."""
    raised: int | None = None
    """What the buyer bids when the first bid was below the ask; None: it leaves it."""
    ask: int | None = CREDIT // 2
    ask_after_s: float = 0.0
    """How long the seller thinks, where it is asked."""
    standing: bool = True
    """The ask goes with the snapshot; otherwise the seller is asked at every bid."""


LOST_ASK = CREDIT // 3
"""The delivery of a seller that asks this is lost at the broker once it was appraised: a purchase is refunded."""
DEALS: Mapping[str, Deal] = {
    "standing": Deal(),
    "asked": Deal(standing=False),
    "slow": Deal(standing=False, ask_after_s=1.5),
    "declined": Deal(bid=None),
    "below": Deal(ask=2 * CREDIT),
    "raised": Deal(ask=2 * CREDIT, raised=3 * CREDIT),
    "lost": Deal(ask=LOST_ASK),
}
"""The kinds of trade of which every named place is reached in at least one."""


@functools.cache
def terms(size: str) -> MarketTerms:
    """The terms of the market with models of this size."""
    return parse_terms(
        {
            "market": {"name": f"crash-{size}"},
            "model": {"name": "mlp", "arguments": {"inputs": 8, "hidden": list(SIZES[size]), "outputs": 4}},
            "task": [{"name": "points", "loss": "cross_entropy", "metric": "accuracy"}],
            "pricing": {"opening_credit": str(OPENING // CREDIT), "fee_percent": str(FEE_PERCENT), "max_revisions": 1},
            "limits": {"max_parcel_mib": 8, "submissions_per_hour": 100_000, "bid_seconds": 60, "ask_seconds": 10},
        }
    )


def model(size: str, seed: int) -> nn.Module:
    """A model that differs from seed to seed; nobody trained it."""
    torch.manual_seed(seed)
    return build_model("mlp", terms(size).arguments("points"), False)


@functools.cache
def appraiser(size: str) -> Appraiser:
    """The appraiser of this market, tried out."""
    random = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(64, 8, generator=random), torch.randint(0, 4, (64,), generator=random)
    ours = model(size, 0)
    bench = TaskBench(
        model=ours,
        spec=None,
        symmetries="units are not aligned: nothing is measured here",
        evaluators=evaluators_for(ours, device="cpu", loss="cross_entropy", metric="accuracy"),
        validation=Validation.split(inputs, targets, select_fraction=0.5, seed=0),
        schema=schema_of(ours),
    )
    made = SteadyAppraiser(terms(size), {"points": bench}, seed=0)
    made.self_test()
    return made


class SteadyAppraiser(Appraiser):
    """Everything of `Appraiser` but the measuring."""

    def appraise(
        self,
        trade: bytes,
        buyer: Submission,
        seller: Submission,
        buyer_path: Path,
        seller_path: Path,
        out: Path,
        *,
        worker: int = 0,
        upon: Sequence[tuple[bytes, Path]] = (),
        progress: Progress = lambda doing, done: None,
    ) -> Finding:
        bench = self._benches[buyer.task]
        ours, theirs = (unpack(path, schema=bench.schema) for path in (buyer_path, seller_path))
        halves = {name: (ours[name] + theirs[name]) / 2 for name in ours}
        half = torch.tensor(0.5)
        delivery = self._pack(halves, buyer, out)
        if seller.ask == LOST_ASK:
            out.unlink()
        result = Appraisal(
            alpha=0.5, alignment="identity", plan=MergePlan("identity", "model", 0.5, dict.fromkeys(halves, half)),
            loss_before=1.0, loss_after=0.5, select_gain=0.5, gain=0.5, low=0.4, high=0.6,
            merit=0.5, merit_low=0.4, merit_high=0.6, adds=True, confidence=0.95, metric_before=0.5, metric_after=0.75,
            per_class=(), samples=32, delivered={}, left_out=(), reason="",
        )  # fmt: skip
        return Finding(
            trade=trade, market=self._terms.name, buyer=buyer, seller=seller, delivery=delivery,
            data=bench.validation.digest, after=None, result=result, classes=(), groups=(), tasks=(),
        )  # fmt: skip


class Told:
    """What a strategy was told last; strategies are frozen."""

    deal = Deal()


@dataclasses.dataclass(frozen=True)
class Obedient(Strategy):
    """Bids and asks as `told` says."""

    told: Told = dataclasses.field(default_factory=Told)

    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        return self.told.deal.bid

    def raise_bid(self, report: GainReport, unmatched: Unmatched, last_bid: int, wallet: Wallet) -> int | None:
        return self.told.deal.raised

    def standing_ask(self) -> int | None:
        return self.told.deal.ask if self.told.deal.standing else None

    def ask(self, request: AskRequest) -> int | None:
        time.sleep(self.told.deal.ask_after_s)
        return self.told.deal.ask
