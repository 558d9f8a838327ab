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
from typing import NamedTuple

from torch import Tensor, nn

from p2pmarket import limits
from p2pmarket.alignment import Permutations, PermutationSpec, inverse, match_activations, verify_spec
from p2pmarket.appraisal.appraise import Appraisal, align_pair, appraise, gain_on
from p2pmarket.appraisal.evaluator import Evaluator
from p2pmarket.appraisal.gain import ClassGain
from p2pmarket.appraisal.groups import divide, gain_of_groups, marginal_gains
from p2pmarket.appraisal.plan import MergePlan, Progress, reverse
from p2pmarket.appraisal.ranking import Scout
from p2pmarket.appraisal.validation import Validation
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.scouting import PathOf, Scouting
from p2pmarket.errors import BadSnapshot
from p2pmarket.market import MarketTerms
from p2pmarket.messages import ClassChange, GainReport, GroupChange, TaskChange
from p2pmarket.parameters.codecs import round_trip
from p2pmarket.parameters.packing import digest_of, pack, read_manifest, unpack
from p2pmarket.parameters.snapshot import take_snapshot
from p2pmarket.parcel import Schema

MERGES_KEPT = 64
ACTIVATION_SAMPLES = 1024
"""Of SELECT, at most, that units are matched on."""
MOST_CLASSES, MOST_TASKS = 64, 16
"""Told in one report."""
SELF_TEST_SAMPLES = 4

NOTHING = bytes(32)
"""Digest of a delivery that does not exist: no merge helps the buyer."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One appraisal and the digest of what it would deliver."""

    trade: bytes
    market: str
    buyer: Submission
    seller: Submission
    delivery: bytes
    data: bytes
    """Digest of the validation data."""
    after: bytes | None
    """The trade that this one continues."""
    result: Appraisal
    """Without the delivered tensors, which are on disk."""
    classes: tuple[ClassChange, ...]
    groups: tuple[GroupChange, ...]
    tasks: tuple[TaskChange, ...]

    def report(self, expires_ms: int) -> GainReport:
        """What the buyer is told; bids are taken until `expires_ms` (UTC)."""
        result = self.result
        sold = self.delivery != NOTHING
        return GainReport(
            trade=self.trade,
            market=self.market,
            buyer=self.buyer.agent,
            seller=self.seller.agent,
            task=self.buyer.task,
            buyer_snapshot=self.buyer.snapshot,
            seller_snapshot=self.seller.snapshot,
            delivery=self.delivery,
            loss_before=result.loss_before,
            loss_after=result.loss_after,
            gain=result.gain,
            gain_low=result.low,
            gain_high=result.high,
            merit=result.merit,
            merit_low=result.merit_low,
            merit_high=result.merit_high,
            confidence=result.confidence,
            metric_before=result.metric_before,
            metric_after=result.metric_after,
            samples=result.samples,
            data=self.data,
            weight=result.alpha,
            granularity=result.plan.granularity if sold else "none",
            alignment=result.alignment if sold else "identity",
            after=self.after,
            left_out=result.left_out[:16],
            reason=result.reason[: limits.MAX_TEXT_CHARACTERS],
            classes=self.classes,
            groups=self.groups,
            tasks=self.tasks,
            expires_ms=expires_ms,
        )


@dataclasses.dataclass(frozen=True)
class TaskBench:
    """What one task is measured with. Tasks may have different models: what is equal in them is traded."""

    model: nn.Module
    spec: PermutationSpec | None
    symmetries: str
    """Where the spec comes from, in words."""
    evaluators: tuple[Evaluator, ...]
    """One for each worker, on a device of its own."""
    validation: Validation
    schema: Schema


class _Alignments(NamedTuple):
    """What brings a seller to a buyer, by weights and by activations."""

    weights: Permutations | None
    activations: Permutations | None

    def of(self, label: str) -> Permutations | None:
        """The one that a plan names."""
        return self.activations if label == "activations" else self.weights

    def inverted(self, spec: PermutationSpec | None) -> _Alignments:
        """What brings the buyer to the seller."""
        if spec is None:
            return self
        return _Alignments(*(None if one is None else inverse(spec, one) for one in self))


class Appraiser:
    """Appraises pairs of snapshots of one market."""

    def __init__(self, terms: MarketTerms, benches: Mapping[str, TaskBench], *, seed: int) -> None:
        """:param benches: one for every task in the terms"""
        self._terms = terms
        self._benches = benches
        self._seed = seed
        self._merges: dict[tuple[bytes, bytes], tuple[_Alignments, MergePlan]] = {}
        """(buyer's snapshot, seller's snapshot) -> how the pair is merged: it serves the pair's other direction."""
        self.schemas = {task: bench.schema for task, bench in benches.items()}
        self.data = {task: bench.validation.digest for task, bench in benches.items()}
        """For each task the digest of its validation data and their split."""
        self.workers = min(len(bench.evaluators) for bench in benches.values())
        """Appraisals that can run at a time."""
        self._scouting = {
            task: Scouting(
                Scout(bench.evaluators[0], bench.validation, bench.spec, tradable=self._tradable(bench), seed=seed),
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
        """Evaluates the fresh models on their tasks' data and proves the permutation specs on a few samples.

        :raises ModelError: model, data and spec do not fit each other
        """
        for bench in self._benches.values():
            for evaluator in bench.evaluators:
                data = bench.validation.to(evaluator.device)
                tensors = evaluator.place(take_snapshot(bench.model))
                evaluator.measure(tensors, data.select_inputs, data.select_targets)
                evaluator.measure(tensors, data.report_inputs, data.report_targets)
            if bench.spec is not None:
                inputs = bench.validation.select_inputs[:SELF_TEST_SAMPLES]
                verify_spec(bench.model, bench.spec, (inputs,), seed=self._seed)

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
        self, wanted: Mapping[Submission, Sequence[Submission]], path_of: PathOf
    ) -> dict[Submission, tuple[Submission, ...]]:
        """For every buyer the sellers it is appraised with: all, or where they are more than the terms allow, the most
        promising.

        :raises MachineFault: this machine cannot read what it wrote
        """
        limit = self._terms.max_sellers
        chosen: dict[Submission, tuple[Submission, ...]] = {}
        for task, scouting in self._scouting.items():
            of_task = {buyer: sellers for buyer, sellers in wanted.items() if buyer.task == task}
            if all(len(sellers) <= limit for sellers in of_task.values()):
                chosen.update({buyer: tuple(sellers) for buyer, sellers in of_task.items()})
            else:
                chosen.update(scouting.shortlist(of_task, path_of, limit))
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
        upon: tuple[bytes, Path] | None = None,
        progress: Progress = lambda doing, done: None,
    ) -> Finding:
        """What `seller` would bring `buyer`, and the parcel that would be delivered, packed at `out`.

        :param upon: a trade and its packed delivery: the buyer is taken as it would be after that purchase

        :param progress: told what is being done and the finished part, 0 ... 1; may raise to stop
        :raises MarketError: a snapshot that cannot be read, or a full disk
        """
        bench = self._benches[buyer.task]
        ours = unpack(buyer_path, schema=bench.schema)
        if upon is not None:
            ours.update(unpack(upon[1], schema=bench.schema, partial=True))
        theirs = unpack(seller_path, schema=self.schemas[seller.task])
        tradable = self._tradable(bench, buyer.request.buy_groups, seller.request.sell_groups)
        whole = upon is None and len(tradable) == len(bench.schema.tensors)
        aligned, plan = self._known_merge(bench, buyer, seller) if whole else (None, None)
        if aligned is None:
            aligned = self._align(bench, buyer, seller, ours, theirs, worker)
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
            progress=progress,
        )
        if whole:
            self._keep_merge(buyer, seller, aligned, result.plan)
        delivery = self._pack(result.delivered, buyer, out) if result.delivered else NOTHING
        return Finding(
            trade=trade,
            market=self._terms.name,
            buyer=buyer,
            seller=seller,
            delivery=delivery,
            data=bench.validation.digest,
            after=None if upon is None else upon[0],
            # The tensors are on disk now; a round's findings must not hold them all in memory.
            result=dataclasses.replace(result, delivered={}),
            classes=_most_changed(result.per_class) if self._terms.tell_classes else (),
            groups=self._by_groups(bench, ours, result, worker),
            tasks=self._on_other_tasks(buyer.task, ours, result, worker) if self._terms.tell_tasks else (),
        )

    def _align(
        self,
        bench: TaskBench,
        buyer: Submission,
        seller: Submission,
        ours: Mapping[str, Tensor],
        theirs: Mapping[str, Tensor],
        worker: int,
    ) -> _Alignments:
        # A chain's buyer is no longer its snapshot, but a merge stays in its buyer's frame: the alignment holds.
        weights = self._scouting[buyer.task].alignment(buyer, seller)
        if weights is None:
            weights = align_pair(bench.spec, ours, theirs, seed=self._seed)
        if bench.spec is None or not self._terms.activations:
            return _Alignments(weights, None)
        evaluator = bench.evaluators[worker]
        inputs = bench.validation.select_inputs[:ACTIVATION_SAMPLES].to(evaluator.device)
        own, other = evaluator.place(ours), evaluator.place(theirs)
        found = match_activations(evaluator.module, bench.spec, own, other, (inputs,), start=weights)
        return _Alignments(weights, found)

    def _known_merge(
        self, bench: TaskBench, buyer: Submission, seller: Submission
    ) -> tuple[_Alignments | None, MergePlan | None]:
        """The merge that the pair's other direction found, seen from this side; used once."""
        aligned, plan = self._merges.pop((seller.snapshot, buyer.snapshot), (None, None))
        if aligned is None or plan is None or buyer.task != seller.task:
            return None, None
        return aligned.inverted(bench.spec), reverse(plan, bench.spec, aligned.of(plan.alignment))

    def _keep_merge(self, buyer: Submission, seller: Submission, aligned: _Alignments, plan: MergePlan) -> None:
        if len(self._merges) >= MERGES_KEPT:
            self._merges.clear()
        self._merges[buyer.snapshot, seller.snapshot] = (aligned, plan)

    def _tradable(self, bench: TaskBench, *restrictions: Sequence[str]) -> list[str]:
        """Names of what a purchase may change; each restriction names groups, or none for all."""
        return [
            spec.name
            for spec in bench.schema.tensors
            if all(self._terms.is_tradable(spec.name, groups) for groups in restrictions or ((),))
        ]

    def _by_groups(
        self, bench: TaskBench, buyer: Mapping[str, Tensor], result: Appraisal, worker: int
    ) -> tuple[GroupChange, ...]:
        """What each group adds, of those that have a tensor in the delivery."""
        patterns = {group.name: group.patterns for group in self._terms.groups}
        present = {
            name: patterns[name]
            for name in patterns
            if any(self._terms.is_tradable(one, (name,)) for one in result.delivered)
        }
        if not present:
            return ()
        divided = divide(present, result.delivered)
        gain_of = gain_of_groups(bench.evaluators[worker], bench.validation, buyer, result.delivered, divided)
        return tuple(GroupChange(name, gain) for name, gain in marginal_gains(divided, gain_of).items())

    def _on_other_tasks(
        self, own: str, buyer: Mapping[str, Tensor], result: Appraisal, worker: int
    ) -> tuple[TaskChange, ...]:
        """What the delivery changes on the tasks that have the same model."""
        changes = []
        for name, bench in self._benches.items():
            if name != own and bench.schema == self.schemas[own] and result.delivered:
                found = gain_on(
                    bench.evaluators[worker], bench.validation, buyer, result.delivered, self._terms.confidence
                )
                changes.append(TaskChange(name, found.gain.mean, found.gain.low, found.gain.high))
        return tuple(changes[:MOST_TASKS])

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


def _most_changed(classes: Sequence[ClassGain]) -> tuple[ClassChange, ...]:
    most = sorted(classes, key=lambda one: -abs(one.gain) * one.samples)[:MOST_CLASSES]
    return tuple(
        ClassChange(one.label, one.samples, one.gain, one.metric_before, one.metric_after)
        for one in sorted(most, key=lambda one: one.label)
    )
