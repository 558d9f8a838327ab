"""When the broker appraises whom: a pure rule over the submissions that wait.

`continuous`: a buyer is appraised against the book as soon as its snapshot is in. `barrier`: everybody of a round is
appraised on the snapshots from before any trade, as in the paper (section 3.2), once enough agents have submitted or
the round's time is over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from p2pmarket.broker_node.book import Submission
from p2pmarket.market import MarketTerms


@dataclasses.dataclass(frozen=True)
class Round:
    """Appraise every buyer among `members` against its sellers; then all members are done."""

    members: tuple[Submission, ...]
    sellers: tuple[Submission, ...]

    def sellers_for(self, buyer: Submission) -> tuple[Submission, ...]:
        """Whose parameters `buyer` may buy: the latest first, never its own."""
        others = [s for s in self.sellers if s.agent != buyer.agent and s.sell]
        return tuple(sorted(others, key=lambda s: (-s.submitted_ms, s.id)))


def next_round(
    terms: MarketTerms, waiting: Sequence[Submission], book: Sequence[Submission], since_ms: float, now_ms: int
) -> Round | None:
    """The round that is due now, or None.

    :param waiting: complete submissions that were not appraised yet, oldest first, at most one an agent
    :param book: the latest complete submission of every agent
    :param since_ms: when the first of those who wait began to, also if it submitted again since
    """
    if not waiting:
        return None
    if terms.rounds == "continuous":
        return Round(members=(waiting[0],), sellers=tuple(book))
    if len(waiting) >= terms.round_agents or now_ms - since_ms >= terms.round_timeout_ms:
        return Round(members=tuple(waiting), sellers=tuple(waiting))
    return None
