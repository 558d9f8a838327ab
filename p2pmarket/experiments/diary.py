"""What is noted of a run while it goes: each agent's rounds, and what the market leaves at the end.

Knows: rows and facts. Refuses to know: how they come about. A learner that has left the numbers (its rate was too
large) is noted as what it is, a problem of that agent, and the others go on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from p2pmarket.experiments.plan import RunPlan
from p2pmarket.experiments.recording import RoundRow, TradeRow
from p2pmarket.experiments.worlds.contract import AgentPlan, Learner

NOT_FINITE = "its parameters are not finite any more: it diverged, lower its learning rate"
NO_LEDGER: Mapping[str, Any] = {
    "trades": 0, "settled": 0, "moved": 0, "fees": 0, "verified": True, "problems": []
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run leaves besides its agents' rounds."""

    trades: tuple[TradeRow, ...] = ()
    peers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Peer ids by name, the broker's too; none without a market."""
    balances: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Of agents, in micro-credits, at rest."""
    ledger: Mapping[str, Any] = dataclasses.field(default_factory=lambda: NO_LEDGER)
    traffic_bytes: int | None = 0
    messages: int | None = 0
    """Both None where there is traffic, and nobody counts it."""
    crashes: int = 0
    visits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """By agent: visits to the market, and those that came to nothing."""
    virtual_seconds: float = 0.0


class Diary:
    """Collects the agents' rounds of one run."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self.rows: list[RoundRow] = []

    def take(
        self, agent: AgentPlan, learner: Learner, number: int, time_s: float, problem: str = "", **more: Any
    ) -> None:
        """Notes one agent's round; `more` is by the names of RoundRow."""
        plan, scores = self._plan, learner.scores()
        if not math.isfinite(scores.loss):
            problem = problem or NOT_FINITE
        self.rows.append(
            RoundRow(
                plan.name, plan.scenario.method, plan.seed, agent.name, agent.task, number, time_s, scores.loss,
                scores.metric, problem=problem, **more,
            )
        )  # fmt: skip

    def final(self, balances: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        """Each agent's last row, with its balance at rest."""
        return {
            row.agent: {"loss": row.loss, "metric": row.metric, "balance": balances.get(row.agent, row.balance)}
            for row in self.rows
        }


def is_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether every parameter is a finite number."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values())
