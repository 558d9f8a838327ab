"""Everything the broker does with tensors: check a snapshot, appraise a pair, pack what would be delivered.

Knows: the market's model, its validation data and device. Refuses to know: agents' money, streams, when to appraise.
Runs in the appraiser's thread. A snapshot that cannot be used raises `BadSnapshot`; the broker's own files are checked
when it starts.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from p2pmarket.appraisal.appraise import Appraisal, appraise
from p2pmarket.appraisal.plan import MergePlan, Progress
from p2pmarket.appraisal.ranking import Scout
from p2pmarket.broker_node.benches import TaskBench, check_groups, tradable_names, try_out
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.changes import by_class, by_group, by_task
from p2pmarket.broker_node.findings import NOTHING, Finding
from p2pmarket.broker_node.merges import Alignments, Merge, Merges
from p2pmarket.broker_node.pairs import MATCHING_SECONDS, Pair, align_whole, read_pair
from p2pmarket.broker_node.scouting import PathOf, Scouting
from p2pmarket.errors import BadSnapshot
from p2pmarket.market import MarketTerms
from p2pmarket.parameters.codecs import round_trip
from p2pmarket.parameters.packing import digest_of, pack, read_manifest, unpack

__all__ = ["NOTHING", "Appraiser", "Finding", "TaskBench"]


class Appraiser:
    """Appraises pairs of snapshots of one market."""

    _controlled = True
    """Whether a gain is compared with what a seller who knows nothing would bring."""

    def __init__(
        self,
        terms: MarketTerms,
        benches: Mapping[str, TaskBench],
        *,
        seed: int,
        matching_seconds: float = MATCHING_SECONDS,
    ) -> None:
        """
        :param benches: one for every task in the terms
        :param matching_seconds: for one matching of two snapshots; infinite: equal inputs always give equal results
        """
        self._terms = terms
        self._benches = benches
        self._seed = seed
        self._matching_seconds = matching_seconds
        self._merges = Merges()
        self.schemas = {task: bench.schema for task, bench in benches.items()}
        self.data = {task: bench.validation.digest for task, bench in benches.items()}
        """For each task the digest of its validation data and their split."""
        self.workers = min(len(bench.evaluators) for bench in benches.values())
        """Appraisals that can run at a time."""
        self._scouting = {
            task: Scouting(
                Scout(
                    bench.evaluators[0],
                    bench.validation,
                    bench.spec,
                    tradable=tradable_names(terms, bench.schema),
                    seed=seed,
                    time_budget_seconds=matching_seconds,
                ),
                bench.schema,
            )
            for task, bench in benches.items()
        }

    @property
    def alignment(self) -> dict[str, str]:
        """For each task, which of the model's units can be aligned, in words."""
        return {task: bench.symmetries for task, bench in self._benches.items()}

    @property
    def devices(self) -> dict[str, object]:
        """For a status line: number formats in use, and the most memory that was needed, in MiB."""
        evaluators = [evaluator for bench in self._benches.values() for evaluator in bench.evaluators]
        return {
            "precision": "; ".join(sorted({evaluator.precision for evaluator in evaluators})),
            "peak_mib": round(max(evaluator.peak_mib for evaluator in evaluators)),
        }

    def self_test(self) -> None:
        """Divides what is for sale into groups and tries every task's bench out.

        :raises TermsError: the terms' groups do not divide what is for sale
        :raises ModelError: model, data and spec do not fit each other
        """
        check_groups(self._terms, self.schemas)
        for bench in self._benches.values():
            try_out(bench, seed=self._seed)

    def check(self, path: Path, submission: Submission) -> None:
        """Reads a snapshot's parcel through: its digest, the market's names, shapes and types, every value finite.

        :raises BadSnapshot, MalformedMessage, TooLarge: says which tensor and why
        """
        manifest = read_manifest(path)
        if digest_of(manifest) != submission.snapshot:
            raise BadSnapshot("the parcel holds another snapshot than the one that was submitted")
        if (manifest.market, manifest.task, manifest.step) != (self._terms.name, submission.task, submission.step):
            raise BadSnapshot("the snapshot's manifest names another market, task or step than its submission")
        codecs = {entry.codec for entry in manifest.tensors} - {"none", *self._terms.offer_codecs}
        if codecs:
            raise BadSnapshot(f"this market does not take the codec {sorted(codecs)[0]!r}")
        unpack(path, schema=self.schemas[submission.task])

    def shortlist(
        self,
        wanted: Mapping[Submission, Sequence[Submission]],
        path_of: PathOf,
        *,
        progress: Progress = lambda doing, done: None,
    ) -> dict[Submission, tuple[Submission, ...]]:
        """For every buyer the sellers it is appraised with: all, or where they are more than the terms allow, the most
        promising.

        :param progress: told what is being done and the finished part of it, 0 ... 1; may raise to stop
        :raises MachineFault: this machine cannot read what it wrote
        """
        limit = self._terms.max_sellers
        chosen: dict[Submission, tuple[Submission, ...]] = {}
        for task, scouting in self._scouting.items():
            of_task = {buyer: sellers for buyer, sellers in wanted.items() if buyer.task == task}
            if all(len(sellers) <= limit for sellers in of_task.values()):
                chosen.update({buyer: tuple(sellers) for buyer, sellers in of_task.items()})
            else:
                chosen.update(scouting.shortlist(of_task, path_of, limit, progress))
        return chosen

    def digest(self, path: Path) -> bytes:
        """Digest of a packed delivery."""
        return digest_of(read_manifest(path))

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
        """What `seller` would bring `buyer`, and the parcel that would be delivered, packed at `out`.

        :param upon: trades and their packed deliveries: the buyer is taken as it would be after these purchases
        :param progress: told what is being done and the finished part, 0 ... 1; may raise to stop
        :raises MarketError: a snapshot that cannot be read, or a full disk
        """
        bench = self._benches[buyer.task]
        ours, theirs = read_pair(self.schemas, buyer, seller, buyer_path, seller_path, [path for _, path in upon])
        tradable = tradable_names(self._terms, bench.schema, buyer.request.buy_groups, seller.request.sell_groups)
        pair = Pair(bench, ours, theirs, tradable, worker)
        whole = not upon and len(tradable) == len(bench.schema.tensors)
        known = self._merges.take(buyer, seller, bench.spec) if whole else None
        if known is None:
            aligned = self._align(pair, progress)
            plan = self._plan(pair, aligned)
        else:
            aligned, plan = known
        result = appraise(
            bench.evaluators[worker],
            bench.validation,
            bench.spec,
            ours,
            theirs,
            tradable=tradable,
            encode_decode=self._deliverable,
            confidence=self._terms.confidence,
            seed=self._seed,
            alignment=aligned.weights,
            activations=aligned.activations,
            plan=plan,
            granularity=self._terms.coefficients,
            repair=self._terms.repair,
            controlled=self._controlled,
            progress=progress,
        )
        if whole and known is None:
            self._merges.keep(buyer, seller, Merge(aligned, result.plan))
        return dataclasses.replace(
            self._finding(trade, buyer, seller, upon, result, out),
            classes=by_class(result.per_class) if self._terms.tell_classes else (),
            groups=by_group(self._terms.groups, bench, ours, result, worker),
            tasks=by_task(buyer.task, self._benches, ours, result, worker) if self._terms.tell_tasks else (),
        )

    def _align(self, pair: Pair, progress: Progress) -> Alignments:
        """What brings the seller's units to the buyer's."""
        return align_whole(
            pair,
            activations=self._terms.activations,
            seed=self._seed,
            matching_seconds=self._matching_seconds,
            progress=progress,
        )

    def _plan(self, pair: Pair, aligned: Alignments) -> MergePlan | None:
        """How to merge the pair; None: as `appraise` finds best. For brokers of another method (experiments)."""
        return None

    def _finding(
        self,
        trade: bytes,
        buyer: Submission,
        seller: Submission,
        upon: Sequence[tuple[bytes, Path]],
        result: Appraisal,
        out: Path,
    ) -> Finding:
        """A result as a finding without parts, and its delivery packed at `out`."""
        return Finding(
            trade=trade,
            market=self._terms.name,
            buyer=buyer,
            seller=seller,
            delivery=self._pack(result.delivered, buyer, out) if result.delivered else NOTHING,
            data=self.data[buyer.task],
            after=upon[-1][0] if upon else None,
            # The tensors are on disk now; a round's findings must not hold them all in memory.
            result=dataclasses.replace(result, delivered={}),
            classes=(),
            groups=(),
            tasks=(),
        )

    def _pack(self, tensors: Mapping[str, Tensor], buyer: Submission, out: Path) -> bytes:
        manifest = pack(
            tensors,
            out,
            market=self._terms.name,
            task=buyer.task,
            step=buyer.step,
            codec=self._terms.delivery_codec,
            zstd=self._terms.delivery_zstd,
            salt=secrets.token_bytes(16),
        )
        return digest_of(manifest)

    def _deliverable(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as the buyer will decode them: those are measured."""
        return round_trip(tensors, self._terms.delivery_codec)
