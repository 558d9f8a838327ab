"""State folders of a real broker and of real agents, from a small market in memory."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import torch
from torch import nn

from p2pmarket import Strategy
from p2pmarket.datasets import Dataset
from p2pmarket.market import parse_terms
from p2pmarket.models import build_model
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.simulation.virtual import VirtualLoop, run

CREDIT = 1_000_000
_MODEL = {"inputs": 2, "hidden": [12], "outputs": 3}
_TERMS = parse_terms(
    {
        "market": {"name": "spirals"},
        "model": {"name": "mlp", "arguments": _MODEL},
        "appraisal": {"coefficients": "model"},
        "task": [{"name": "spirals", "loss": "cross_entropy", "metric": "accuracy"}],
        "pricing": {"opening_credit": "20", "fee_percent": "1"},
    }
)


def _spirals(samples: int, seed: int) -> Dataset:
    random = torch.Generator().manual_seed(seed)
    arm = torch.randint(3, (samples,), generator=random)
    radius = torch.rand(samples, generator=random)
    angle = 2 * radius + arm * (2 * math.pi / 3) + 0.1 * torch.randn(samples, generator=random)
    return Dataset(torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1) * 3, arm)


def _train(model: nn.Module, data: Dataset, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.inputs), data.targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def trade(folder: Path, visits: int = 4) -> Path:
    """A market in which two agents that lack an arm each train and visit in turn; `broker`, `left` and `right` are
    state folders beneath."""

    async def main(loop: VirtualLoop) -> None:
        torch.manual_seed(0)
        market = MarketInMemory(_TERMS, {"spirals": _spirals(300, 4)}, folder, clock=loop.now_ms)
        async with market:
            models, data = {}, {}
            for name, lacking in (("left", 2), ("right", 0)):
                whole = _spirals(300, 5 + lacking)
                data[name] = whole.take((whole.targets != lacking).nonzero()[:, 0])
                models[name] = build_model("mlp", _MODEL, allow_import=False)
                buys_dear = Strategy(reserve=CREDIT // 10, credits_per_gain=10 * CREDIT)
                await market.start_agent(name, buys_dear)
            for _ in range(visits):
                for name, model in models.items():
                    _train(model, data[name], 10)
                    await market.visit(name, model)
                    await asyncio.sleep(60)

    run(main)
    return folder


def untraded(folder: Path) -> Path:
    """A market that one agent joined, and no more."""

    async def main(loop: VirtualLoop) -> None:
        async with MarketInMemory(_TERMS, {"spirals": _spirals(50, 4)}, folder, clock=loop.now_ms) as market:
            await (await market.start_agent("left")).ready()

    run(main)
    return folder
