"""An appraiser that measures nothing: what a purchase would bring is drawn from a seed, for markets of many trades.

Knows: how to look like the broker's appraiser, so that real parcels are packed, sealed and checked. Refuses to know:
models and data: a delivery holds the seller's own tensors. The same pair of snapshots has the same gain, whoever asks
and in whichever order. Fails as the appraiser does on a snapshot that cannot be used.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

from torch import Tensor

from p2pmarket.appraisal.appraise import Appraisal
from p2pmarket.appraisal.plan import MergePlan
from p2pmarket.broker_node.book import Submission
from p2pmarket.market import MarketTerms
from p2pmarket.simulation.measuring import MeasuringAppraiser, Tensors


class SyntheticAppraiser(MeasuringAppraiser):
    """Draws gains; everything else is as the broker expects it."""

    def __init__(
        self, terms: MarketTerms, tensors: Mapping[str, Tensor], *, seed: int, helps: float = 0.8, gain: float = 0.3
    ) -> None:
        """
        :param tensors: names, shapes and types of every task's snapshots
        :param helps: part of the pairs in which the seller helps the buyer
        :param gain: the mean gain of those, of a loss of 1
        """
        super().__init__(terms, {task.name: tensors for task in terms.tasks}, seed=seed)
        self._helps = helps
        self._gain = gain

    def measure(
        self, buyer: Submission, seller: Submission, ours: Tensors, theirs: Tensors, upon: Sequence[bytes]
    ) -> Appraisal:
        """A gain of the pair and of how many purchases it is upon; the seller's own tensors would be delivered."""
        pair = buyer.snapshot + seller.snapshot + bytes([len(upon)])
        chance = random.Random(hashlib.sha256(f"{self._seed}/".encode() + pair).digest())
        gain = chance.uniform(0.0, 2 * self._gain) / (1 + len(upon)) if chance.random() < self._helps else 0.0
        return _appraisal(gain, theirs if gain else {}, chance, self._terms.confidence)


def _appraisal(gain: float, delivered: Tensors, chance: random.Random, confidence: float) -> Appraisal:
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
        delivered=delivered,
        left_out=(),
        reason="" if gain else "no merge would help",
    )
