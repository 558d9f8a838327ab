"""Chaotic markets of tests: what their plans draw, how they are run in memory, how one is replayed."""

from __future__ import annotations

import dataclasses
import os
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from market_examples import CREDIT, blobs, left, right, terms
from torch import Tensor

from p2pmarket import limits, records
from p2pmarket.broker_node import broker, desk
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.service import build_appraiser
from p2pmarket.crypto.keys import Identity
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import STATES
from p2pmarket.market import MarketTerms
from p2pmarket.network import transfer
from p2pmarket.node import link
from p2pmarket.parcel import ParcelContext
from p2pmarket.simulation.chaos import MakeAppraiser, Outcome, Plan, Snapshot, one_row, run_chaos
from p2pmarket.simulation.invariants import problems_at_rest
from p2pmarket.simulation.synthetic import SyntheticAppraiser
from p2pmarket.simulation.weather import Climate

CONSTANTS = {
    (link, "RETRY_SECONDS"): (0.1, 0.3, 1.0, 3.0, 10.0),
    (desk, "GOODBYE_SECONDS"): 5.0,
    (transfer, "_GOODBYE_SECONDS"): 10.0,
    # Looking at deadlines is most of what an idle broker does, and virtual hours are many.
    (broker, "TICK_SECONDS"): 2.0,
    # A parcel's buffers are as large as its chunks might be.
    (limits, "CHUNK_BYTES"): 4096,
}
"""What this room's other tests make short, as it is in service; and two that only cost time."""


def as_in_service(monkeypatch: pytest.MonkeyPatch) -> None:
    records._fields(ParcelContext)  # read its bounds before they change: they are read once in a process
    for (module, name), value in CONSTANTS.items():
        monkeypatch.setattr(module, name, value)


def plan_of(seed: int, **changes: Any) -> Plan:
    """The market of a seed: rounds, revisions, standing asks, how bad it gets."""
    draw = random.Random(f"plan {seed}")
    agents = draw.randint(4, 7)
    rounds = "barrier" if seed % 3 == 0 else "continuous"
    its_terms = terms(
        rounds=rounds, round_agents=agents, round_timeout_seconds=8, max_sellers=3, max_chain=draw.choice((1, 2)),
        bid_seconds=120, ask_seconds=5, delivery_hours=0.05,
    )  # fmt: skip
    its_terms = dataclasses.replace(its_terms, max_revisions=draw.choice((0, 1, 3)))
    climate = Climate(
        lost=draw.choice((0.0, 0.002, 0.01)),
        slow=draw.choice((0.0, 0.01)),
        crash=draw.choice((0.0003, 0.001)),
        partings=draw.choice((0, 3)),
        skew_ms=draw.choice((0, 1000)),
    )
    settings: dict[str, Any] = {"agents": agents, "visits": 160 // agents, **changes}
    return Plan(seed, its_terms, climate, **settings)


def synthetic(its_terms: MarketTerms, seed: int) -> SyntheticAppraiser:
    return SyntheticAppraiser(its_terms, one_row(random.Random(0)), seed=seed)


def real(its_terms: MarketTerms, seed: int) -> Appraiser:
    return build_appraiser(its_terms, {"blobs": blobs(200, 99)}, device="cpu", seed=seed)


def trained_somewhere(generator: random.Random) -> Mapping[str, Tensor]:
    """A model of the market's, of one of a few organisations."""
    model = generator.choice((left, right))()
    noise = torch.Generator().manual_seed(generator.getrandbits(31))
    return {name: t + 0.01 * torch.randn(t.shape, generator=noise) for name, t in model.state_dict().items()}


def in_memory() -> Path | None:
    """A folder that no disk waits for, where there is one."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else None


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run came to."""

    outcome: Outcome
    problems: list[str]
    states: dict[str, int]
    with_bid: int
    raised: int
    balances: dict[str, int]
    root: bytes


def run_seed(plan: Plan, make_appraiser: MakeAppraiser = synthetic, snapshot: Snapshot = one_row) -> Report:
    """Runs a market in a folder of its own and looks at what it left."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as place:
        folder = Path(place)
        outcome = run_chaos(plan, folder, make_appraiser, snapshot)
        agents = [name for name in outcome.names.values() if name != "broker"]
        problems = problems_at_rest(folder, agents, 10 * CREDIT) + outcome.mail_problems
        if not outcome.quiet:
            problems.append("something was still open at the end")
        identity = Identity.load(folder / "broker" / "identity.key")
        with Ledger.open(folder / "broker" / "ledger.sqlite", identity, None, check=False) as ledger:
            rows = ledger.trades()
            balances = {outcome.names[account.peer]: account.balance for account in ledger.accounts()}
            root = ledger.verify(signatures=False).root
        states = {state: sum(row.state == state for row in rows) for state in STATES}
        with_bid, raised = sum(row.bids > 0 for row in rows), sum(row.bids > 1 for row in rows)
        return Report(outcome, problems, states, with_bid, raised, balances, root)
