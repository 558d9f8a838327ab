"""What agents did between two looks at them: purchases, sales, problems of every visit, and the bytes they wrote.

Knows: sums. Refuses to know: when anybody looks, what rows are for. Nothing is lost between two looks, however many
rounds lie between them. Nothing here fails.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from typing import Any

from p2pmarket.node.results import TradeResult


@dataclasses.dataclass
class _Sums:
    """One agent's since it was looked at last; the names are those of RoundRow."""

    offered: int = 0
    bought: int = 0
    sold: int = 0
    gain: float = 0.0
    paid: int = 0
    earned: int = 0
    problems: dict[str, None] = dataclasses.field(default_factory=dict)


class Visits:
    """Sums of visits, by agent."""

    def __init__(self) -> None:
        self._since: defaultdict[str, _Sums] = defaultdict(_Sums)
        self.visits: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        """Of the visits, those that came to nothing; both of the whole run."""

    def note(self, agent: str, result: TradeResult) -> None:
        """One visit."""
        sums = self._since[agent]
        self.visits[agent] += 1
        self.failed[agent] += bool(result.problem)
        sums.offered += sum(report.weight > 0 for report in result.reports)
        sums.bought += len(result.bought)
        sums.sold += len(result.sold)
        sums.gain += sum((one.report.gain for one in result.bought if one.report is not None), 0.0)
        sums.paid += sum(one.price for one in result.bought)
        sums.earned += sum(sale.price - sale.fee for sale in result.sold)
        if result.problem:
            sums.problems[result.problem] = None

    def take(self, agent: str) -> dict[str, Any]:
        """An agent's sums since this was asked last, by the names of RoundRow; each problem once."""
        sums = self._since.pop(agent, _Sums())
        found = {
            field.name: getattr(sums, field.name) for field in dataclasses.fields(sums) if field.name != "problems"
        }
        return {**found, "problem": "; ".join(sums.problems)}


class Traffic:
    """Bytes that parties write to one another."""

    def __init__(self) -> None:
        self.counting = True
        self.messages = 0
        self._sent: Counter[str] = Counter()
        self._received: Counter[str] = Counter()
        self._told: Counter[tuple[str, str]] = Counter()

    def hear(self, sender: str, receiver: str, data: bytes) -> None:
        """One write."""
        if self.counting:
            self._sent[sender] += len(data)
            self._received[receiver] += len(data)
            self.messages += 1

    @property
    def bytes(self) -> int:
        """In all."""
        return sum(self._sent.values())

    def take(self, peer: str) -> dict[str, Any]:
        """What a peer sent and received since this was asked last, by the names of RoundRow."""
        found = {}
        for name, counts in (("sent_bytes", self._sent), ("received_bytes", self._received)):
            found[name] = counts[peer] - self._told[name, peer]
            self._told[name, peer] = counts[peer]
        return found
