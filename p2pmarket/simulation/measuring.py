"""An appraiser without a neural network: whoever can say what a purchase would bring gets a whole broker around it.

Knows: how to look like the broker's appraiser, so that real parcels are read, checked and packed. Refuses to know: how
a gain is found (`measure`, of a subclass), and the terms that say how a merge is found and what may be part of it:
whole snapshots are sold. Fails as the appraiser does on a snapshot that cannot be used.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from p2pmarket.appraisal.appraise import Appraisal
from p2pmarket.appraisal.plan import Progress
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.findings import Finding
from p2pmarket.broker_node.pairs import read_pair
from p2pmarket.broker_node.scouting import PathOf
from p2pmarket.market import MarketTerms
from p2pmarket.parameters.snapshot import schema_of

Tensors = Mapping[str, Tensor]


class MeasuringAppraiser(Appraiser, abc.ABC):
    """Everything but the measuring."""

    def __init__(self, terms: MarketTerms, tensors: Mapping[str, Tensors], *, seed: int) -> None:
        """:param tensors: for each task, names, shapes and types of its snapshots"""
        self._terms = terms
        self._seed = seed
        self.schemas = {task.name: schema_of(tensors[task.name]) for task in terms.tasks}
        self.data = {task.name: hashlib.sha256(f"{seed}/{task.name}".encode()).digest() for task in terms.tasks}
        self.workers = 1

    @abc.abstractmethod
    def measure(
        self, buyer: Submission, seller: Submission, ours: Tensors, theirs: Tensors, upon: Sequence[bytes]
    ) -> Appraisal:
        """What `theirs` would bring `ours`, which already holds the purchases `upon`. What is measured is what the
        buyer will decode: `_deliverable` gives it."""

    @property
    def alignment(self) -> dict[str, str]:
        """Nothing is aligned."""
        return dict.fromkeys(self.schemas, "nothing is aligned in this simulation")

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
        """As `Appraiser.appraise`; measured by `measure`."""
        ours, theirs = read_pair(self.schemas, buyer, seller, buyer_path, seller_path, [path for _, path in upon])
        result = self.measure(buyer, seller, ours, theirs, [trade for trade, _ in upon])
        return self._finding(trade, buyer, seller, upon, result, out)
