"""An appraiser that measures nothing: what a purchase would bring is drawn from a seed, for markets of many trades.

Knows: how to look like the broker's appraiser, so that real parcels are packed, sealed and checked. Refuses to know:
models and data: a delivery holds the seller's own tensors. The same pair of snapshots has the same gain, whoever asks
and in whichever order. Fails as the appraiser does on a snapshot that cannot be used.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from p2pmarket.appraisal.appraise import Appraisal
from p2pmarket.appraisal.plan import MergePlan, Progress
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.findings import NOTHING, Finding
from p2pmarket.broker_node.scouting import PathOf
from p2pmarket.market import MarketTerms
from p2pmarket.parameters.packing import digest_of, pack, unpack
from p2pmarket.parameters.snapshot import schema_of


class SyntheticAppraiser(Appraiser):
    """Draws gains; everything else is as the broker expects it."""

    def __init__(
        self, terms: MarketTerms, tensors: Mapping[str, Tensor], *, seed: int, helps: float = 0.8, gain: float = 0.3
    ) -> None:
        """
        :param tensors: names, shapes and types of every task's snapshots
        :param helps: part of the pairs in which the seller helps the buyer
        :param gain: the mean gain of those, of a loss of 1
        """
        schema = schema_of(tensors)
        self._terms = terms
        self._seed = seed
        self._helps = helps
        self._gain = gain
        self.schemas = {task.name: schema for task in terms.tasks}
        self.data = {task.name: hashlib.sha256(f"{seed}/{task.name}".encode()).digest() for task in terms.tasks}
        self.workers = 1

    @property
    def alignment(self) -> dict[str, str]:
        """Nothing is aligned."""
        return dict.fromkeys(self.schemas, "gains are drawn, nothing is aligned")

    @property
    def devices(self) -> dict[str, object]:
        """None is used."""
        return {}

    def self_test(self) -> None:
        """There is nothing to try out."""

    def shortlist(
        self,
        wanted: Mapping[Submission, Sequence[Submission]],
        path_of: PathOf,
        *,
        progress: Progress = lambda doing, done: None,
    ) -> dict[Submission, tuple[Submission, ...]]:
        """The latest sellers."""
        return {buyer: tuple(sellers)[: self._terms.max_sellers] for buyer, sellers in wanted.items()}

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
        """A finding with a gain of the pair and of how many purchases it is upon, and a delivery at `out`."""
        pair = buyer.snapshot + seller.snapshot + bytes([len(upon)])
        chance = random.Random(hashlib.sha256(f"{self._seed}/".encode() + pair).digest())
        gain = chance.uniform(0.0, 2 * self._gain) / (1 + len(upon)) if chance.random() < self._helps else 0.0
        delivery = NOTHING
        delivered = unpack(seller_path, schema=self.schemas[seller.task]) if gain else {}
        if delivered:
            salt = secrets.token_bytes(16)
            manifest = pack(
                delivered, out, market=self._terms.name, task=buyer.task, step=buyer.step,
                codec=self._terms.delivery_codec, zstd=self._terms.delivery_zstd, salt=salt,
            )  # fmt: skip
            delivery = digest_of(manifest)
        return Finding(
            trade=trade,
            market=self._terms.name,
            buyer=buyer,
            seller=seller,
            delivery=delivery,
            data=self.data[buyer.task],
            after=upon[-1][0] if upon else None,
            result=_appraisal(gain, chance, self._terms.confidence),
            classes=(),
            groups=(),
            tasks=(),
        )


def _appraisal(gain: float, chance: random.Random, confidence: float) -> Appraisal:
    """A result with this gain of a loss of 1, as far as a report shows it."""
    merit = gain * chance.uniform(0.5, 1.0)
    return Appraisal(
        alpha=0.5 if gain else 0.0,
        alignment="identity",
        plan=MergePlan("identity", "model" if gain else "none", 0.5 if gain else 0.0, {}),
        loss_before=1.0,
        loss_after=1.0 - gain,
        select_gain=gain,
        gain=gain,
        low=0.8 * gain,
        high=1.2 * gain,
        merit=merit,
        merit_low=0.8 * merit,
        merit_high=1.2 * merit,
        adds=gain > 0,
        confidence=confidence,
        metric_before=0.5,
        metric_after=0.5 + gain / 2,
        per_class=(),
        samples=1000,
        delivered={},
        left_out=(),
        reason="" if gain else "no merge would help",
    )
