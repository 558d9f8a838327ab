"""What one appraisal found, and how the buyer is told.

Knows: which field of a report comes from where. Refuses to know: how anything was measured, who signs. Nothing here
fails: what a report cannot hold is cut to its bounds, numbers are the appraiser's to check.
"""

from __future__ import annotations

import dataclasses

from p2pmarket import limits
from p2pmarket.appraisal.appraise import Appraisal
from p2pmarket.broker_node.book import Submission
from p2pmarket.messages import ClassChange, GainReport, GroupChange, TaskChange

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
