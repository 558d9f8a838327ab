"""How pairs were merged, kept for their other direction: one matching and one search serve both.

Knows: alignments and plans by the two snapshots, and how much memory they may take. Refuses to know: how they are
found, what a merge is worth. What is not kept any more is found anew; nothing here fails.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from p2pmarket.alignment import Permutations, PermutationSpec, inverse
from p2pmarket.appraisal.plan import MergePlan, reverse
from p2pmarket.broker_node.book import Submission

MERGES_KEPT = 4096
"""Half of the ordered pairs of 90 agents, each with all others."""
BYTES_KEPT = 2**28
"""A network of 30,000 parameters has plans of 1 kB at most and alignments of 3 kB; one of 1,000 layers of 1,000
units, each with a coefficient of its own, 4 MB and 16 MB."""


class Alignments(NamedTuple):
    """What brings a seller to a buyer, by weights and by activations."""

    weights: Permutations | None
    activations: Permutations | None

    def of(self, label: str) -> Permutations | None:
        """The one that a plan names."""
        return self.activations if label == "activations" else self.weights

    def inverted(self, spec: PermutationSpec | None) -> Alignments:
        """What brings the buyer to the seller."""
        if spec is None:
            return self
        return Alignments(*(None if one is None else inverse(spec, one) for one in self))


class Merge(NamedTuple):
    """How one pair is merged."""

    alignments: Alignments
    plan: MergePlan

    def reversed(self, spec: PermutationSpec | None) -> Merge:
        """The same merge seen by the seller."""
        return Merge(self.alignments.inverted(spec), reverse(self.plan, spec, self.alignments.of(self.plan.alignment)))

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        parts = [self.plan.coefficients, *(one for one in self.alignments if one is not None)]
        return sum(tensor.nbytes for part in parts for tensor in part.values())


class Merges:
    """The merges of pairs whose other direction is to come; the oldest make room. For any thread."""

    def __init__(self, *, most: int = MERGES_KEPT, most_bytes: int = BYTES_KEPT) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: dict[tuple[bytes, bytes], Merge] = {}
        """(buyer's snapshot, seller's snapshot) -> its merge, the oldest first."""
        self._lock = threading.Lock()

    def keep(self, buyer: Submission, seller: Submission, merge: Merge) -> None:
        """Keeps the merge if the seller is still to be appraised as a buyer of this buyer's."""
        to_come = seller.buy and seller.state == "booked" and buyer.sell and buyer.task == seller.task
        if not to_come or merge.nbytes > self._most_bytes:
            return
        with self._lock:
            self._remove((buyer.snapshot, seller.snapshot))
            self._kept[buyer.snapshot, seller.snapshot] = merge
            self._bytes += merge.nbytes
            while len(self._kept) > self._most or self._bytes > self._most_bytes:
                self._remove(next(iter(self._kept)))

    def take(self, buyer: Submission, seller: Submission, spec: PermutationSpec | None) -> Merge | None:
        """What the pair's other direction found, seen from this side; once, then it is not kept any more."""
        with self._lock:
            found = self._remove((seller.snapshot, buyer.snapshot))
        return None if found is None or buyer.task != seller.task else found.reversed(spec)

    def _remove(self, pair: tuple[bytes, bytes]) -> Merge | None:
        found = self._kept.pop(pair, None)
        if found is not None:
            self._bytes -= found.nbytes
        return found
