"""One member's mail: which of its findings it is told, in which order, within what one message can hold.

Knows: findings as they are told, the bounds of a message. Refuses to know: what may be told (telling), the ledger.
Where one mail cannot hold everything, details go first, then the worst reports; a purchase never loses the one it is
upon. Pure but for the signatures; fails with MalformedMessage where a number is none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from p2pmarket.broker_node.appraiser import Finding
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import TooLarge
from p2pmarket.messages import Appraisal

MOST_REPORTS = 64
"""In one mail; a Decline holds as many."""


@dataclasses.dataclass(frozen=True)
class Mail:
    """A signed Appraisal."""

    reports: tuple[tuple[Finding, bytes], ...]
    """What it holds: findings and their signed reports."""
    data: bytes


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Each seller alone, the greatest gain that is told first, then chains as they are.

    Equal gains go by their trades' ids, which are random: no order says more than the numbers do.
    """
    found = list(findings)
    alone = [finding for finding in found if finding.after is None]
    alone.sort(key=lambda finding: (-finding.result.gain, finding.trade))
    return alone + [finding for finding in found if finding.after is not None]


def mail_of(
    identity: Identity, submission: bytes, number: int, findings: Sequence[Finding], expires_ms: int, nothing: str
) -> Mail:
    """The mail that tells these findings, or as much of them as it can hold.

    :param number: of the round
    :param nothing: why there is none, in words, where it holds no report
    :raises MalformedMessage: a number that is not finite
    """
    kept = in_order(findings)
    while len(kept) > MOST_REPORTS:
        kept = _without_worst(kept)
    detailed = True
    while True:
        reports = tuple([(finding, sign(identity, finding.report(expires_ms))) for finding in kept])
        note = "" if reports else nothing
        try:
            mail = Appraisal(submission=submission, round=number, reports=tuple(r for _, r in reports), note=note)
            return Mail(reports, sign(identity, mail))
        except TooLarge:
            if not detailed:
                kept = _without_worst(kept)
            kept, detailed = [_bare(finding) for finding in kept], False


def _bare(finding: Finding) -> Finding:
    return dataclasses.replace(finding, classes=(), groups=(), tasks=())


def _without_worst(ordered: Sequence[Finding]) -> list[Finding]:
    """Without the last that nothing is upon; of those alone, while there is one."""
    before = {finding.after for finding in ordered}
    free = [finding for finding in ordered if finding.after is None and finding.trade not in before]
    worst = free[-1] if free else ordered[-1]
    return [finding for finding in ordered if finding is not worst]
