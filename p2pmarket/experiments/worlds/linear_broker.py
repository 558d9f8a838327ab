"""A broker of linear models: the best weight and the gain in closed form, from the truth or from samples.

Knows: theta* of each task, and noiseless samples where the broker has only those. Losses are mean squared errors; with
the truth they are |theta - theta*|^2, and loss_before / loss_after is the gain-from-trade of equation 3. Samples are
two halves, one for the weight and one for the gain that is told. Refuses to know: who learns how.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from p2pmarket.appraisal.appraise import Appraisal
from p2pmarket.appraisal.gain import Gain, paired_gain
from p2pmarket.appraisal.plan import MergePlan, Progress
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.scouting import PathOf
from p2pmarket.market import MarketTerms
from p2pmarket.parameters.packing import unpack
from p2pmarket.simulation.measuring import MeasuringAppraiser, Tensors

PARAMETERS = "theta"
"""The snapshot's one tensor: (dimension,) float64, for late gains are a hundred-millionth of the loss."""
_LEAST_WEIGHT = 0.001
"""What a report can say of a weight above 0."""


@dataclasses.dataclass(frozen=True)
class BrokerSamples:
    """Inputs (n, dimension) float32 without noise in their targets."""

    select: Tensor
    report: Tensor


class LinearAppraiser(MeasuringAppraiser):
    """Measures linear models."""

    def __init__(
        self, terms: MarketTerms, truths: Mapping[str, Tensor], samples: Mapping[str, BrokerSamples], *, seed: int
    ) -> None:
        """:param truths: for each task, (dimension,) float64
        :param samples: for each task; none: the broker knows the truth
        """
        shapes = {task: {PARAMETERS: truth} for task, truth in truths.items()}
        super().__init__(terms, shapes, seed=seed)
        self._truths = truths
        self._samples = samples

    def shortlist(
        self,
        wanted: Mapping[Submission, Sequence[Submission]],
        path_of: PathOf,
        *,
        progress: Progress = lambda doing, done: None,
    ) -> dict[Submission, tuple[Submission, ...]]:
        """The sellers that lower the buyer's loss most, where they are more than the terms allow; ties in the book's
        order."""
        limit = self._terms.max_sellers
        if all(len(sellers) <= limit for sellers in wanted.values()):
            return {buyer: tuple(sellers) for buyer, sellers in wanted.items()}
        involved = dict.fromkeys([*wanted, *(seller for sellers in wanted.values() for seller in sellers)])
        thetas = {one: self._theta(unpack(path_of(one.id), schema=self.schemas[one.task])) for one in involved}
        chosen = {}
        for buyer, sellers in wanted.items():
            others = torch.stack([thetas[seller] for seller in sellers]) if sellers else torch.empty(0)
            left = self._losses_at_best(buyer.task, thetas[buyer], others) if sellers else []
            order = sorted(range(len(sellers)), key=lambda number: left[number])
            chosen[buyer] = tuple(sellers[number] for number in order[:limit])
        return chosen

    def measure(
        self, buyer: Submission, seller: Submission, ours: Tensors, theirs: Tensors, upon: Sequence[bytes]
    ) -> Appraisal:
        """The best weight, what it leaves of the loss, and what a seller who knows nothing would have left."""
        own, other = self._theta(ours), self._theta(theirs)
        task = buyer.task
        weight = self._best_weight(task, own, other)
        delivered = self._deliverable({PARAMETERS: _merged(own, other, weight)})
        merged = self._theta(delivered)
        digest = hashlib.sha256(buyer.snapshot + seller.snapshot + bytes([len(upon)])).digest()
        nobody = torch.randn(len(own), generator=torch.Generator().manual_seed(int.from_bytes(digest[:7], "big")))
        nobody = nobody.to(torch.float64) * (other.norm() / nobody.norm())
        control = _merged(own, nobody, self._best_weight(task, own, nobody))
        chosen_by = [self._select_losses(task, theta) for theta in (own, merged, control)]
        helps = weight > 0 and float(chosen_by[1].mean()) < float(chosen_by[0].mean())
        before, after, without = (self._losses(task, theta) for theta in (own, merged, control))
        select_gain, select_merit = (self._gain(one, chosen_by[1]) for one in (chosen_by[0], chosen_by[2]))
        gain, merit = (self._gain(one, after) for one in (before, without))
        loss_before, loss_after = float(before.mean()), float(after.mean())
        if not helps:
            select_gain = select_merit = gain = merit = Gain(0.0, 0.0, 0.0)
            loss_after = loss_before
        return Appraisal(
            alpha=max(_LEAST_WEIGHT, weight) if helps else 0.0,
            alignment="identity",
            plan=MergePlan("identity", "model" if helps else "none", weight, {}),
            loss_before=loss_before,
            loss_after=loss_after,
            select_gain=select_gain.mean,
            gain=gain.mean,
            low=gain.low,
            high=gain.high,
            merit=merit.mean,
            merit_low=merit.low,
            merit_high=merit.high,
            adds=select_merit.low > 0,
            confidence=self._terms.confidence,
            metric_before=loss_before,
            metric_after=loss_after,
            per_class=(),
            samples=max(2, len(before)),
            delivered=delivered if helps else {},
            left_out=(),
            reason="" if helps else "no merge on the way to the seller's parameters lowers the loss",
        )

    def _theta(self, tensors: Tensors) -> Tensor:
        return tensors[PARAMETERS].to(torch.float64)

    def _best_weight(self, task: str, own: Tensor, other: Tensor) -> float:
        """The nu in 0 ... 1 with the least loss of (1 - nu) own + nu other on the data that choose."""
        way, error = self._seen(task, other - own), self._seen(task, own - self._truths[task])
        length = float(way @ way)
        return min(1.0, max(0.0, -float(error @ way) / length)) if length > 0 else 0.0

    def _losses_at_best(self, task: str, own: Tensor, others: Tensor) -> list[float]:
        """For each row of `others`, the loss of its best merge on the data that choose."""
        ways = self._seen(task, (others - own).T).T
        error = self._seen(task, own - self._truths[task])
        lengths = ways.square().sum(1).clamp_min(1e-30)
        weights = (-(ways @ error) / lengths).clamp(0.0, 1.0)
        left: list[float] = (error + weights[:, None] * ways).square().sum(1).tolist()
        return left

    def _seen(self, task: str, vectors: Tensor) -> Tensor:
        """Vectors as the data that choose see them: their squared length is the loss, but for a factor."""
        if task not in self._samples:
            return vectors
        return self._samples[task].select.to(torch.float64) @ vectors

    def _select_losses(self, task: str, theta: Tensor) -> Tensor:
        """(samples,) squared errors on the data that choose; one number where the truth is known."""
        squares = self._seen(task, theta - self._truths[task]).square()
        return squares if task in self._samples else squares.sum().reshape(1)

    def _losses(self, task: str, theta: Tensor) -> Tensor:
        """(samples,) squared errors on the data that are told of; one number where the truth is known."""
        error = theta - self._truths[task]
        if task not in self._samples:
            return error.square().sum().reshape(1)
        return (self._samples[task].report @ error.to(torch.float32)).to(torch.float64).square()

    def _gain(self, before: Tensor, after: Tensor) -> Gain:
        if len(before) == 1:
            gain = float(before - after)
            return Gain(gain, gain, gain)
        return paired_gain(before, after, self._terms.confidence)


def _merged(own: Tensor, other: Tensor, weight: float) -> Tensor:
    return (1 - weight) * own + weight * other
