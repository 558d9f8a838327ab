"""A whole trade without a network: a broker, a seller and a buyer in one process, each step told as it happens.

Run it:  python examples/one_trade_in_memory.py

The same broker and agents run here as over the internet; only the transport is another one, in memory.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import torch
from torch import nn

from p2pmarket import Strategy
from p2pmarket.datasets import Dataset
from p2pmarket.market import parse_terms
from p2pmarket.models import build_model
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.units import CREDIT, format_credits

MODEL = {"inputs": 2, "hidden": [16], "outputs": 3}
TERMS = parse_terms(
    {
        "market": {"name": "spirals"},
        "model": {"name": "mlp", "arguments": MODEL},
        "task": [{"name": "spirals", "loss": "cross_entropy", "metric": "accuracy"}],
        "pricing": {"opening_credit": "20", "fee_percent": "1"},
    }
)


def spirals(samples: int, seed: int) -> Dataset:
    """Three arms of a spiral: points in the plane (samples, 2), and which arm each is on."""
    generator = torch.Generator().manual_seed(seed)
    arm = torch.randint(3, (samples,), generator=generator)
    radius = torch.rand(samples, generator=generator)
    angle = 2 * radius + arm * (2 * torch.pi / 3) + 0.1 * torch.randn(samples, generator=generator)
    return Dataset(torch.stack((radius * angle.cos(), radius * angle.sin()), dim=1) * 3, arm)


def without_arm(arm: int, data: Dataset) -> Dataset:
    """The data of somebody who never saw this arm."""
    kept = data.targets != arm
    return Dataset(data.inputs[kept], data.targets[kept])


def train(model: nn.Module, data: Dataset, steps: int) -> None:
    """Ordinary training; the market has no part in it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.inputs), data.targets).backward()
        optimizer.step()


def accuracy(model: nn.Module, data: Dataset) -> float:
    """Percent of the samples that the model puts on the right arm."""
    return float((model(data.inputs).argmax(1) == data.targets).double().mean() * 100)


async def main(folder: Path) -> None:
    """One trade, from two trained models to money and parameters in other hands."""
    torch.manual_seed(0)
    rich, poor = build_model("mlp", MODEL, allow_import=False), build_model("mlp", MODEL, allow_import=False)
    train(rich, spirals(600, seed=1), steps=150)
    train(poor, without_arm(2, spirals(600, seed=2)), steps=15)
    test = spirals(1000, seed=3)
    print(f"1. Trained apart: the seller is right on {accuracy(rich, test):.1f} % of the test, "
          f"the buyer, which never saw the third arm, on {accuracy(poor, test):.1f} %.")  # fmt: skip

    async with MarketInMemory(TERMS, {"spirals": spirals(400, seed=4)}, folder) as market:
        print(f"2. A broker opens the market {TERMS.name!r}; its validation data never leave it.")
        seller = await market.start_agent("seller", Strategy(buy=False, reserve=1 * CREDIT))
        buyer = await market.start_agent("buyer", Strategy(sell=False, credits_per_gain=10 * CREDIT))
        terms = await buyer.ready()
        print(f"3. Both join through it. The terms, signed by the broker: {terms.model} {terms.model_arguments}, "
              f"{format_credits(terms.opening_credit)} credits to begin with.")  # fmt: skip

        await seller.trade(rich)
        print("4. The seller submits its parameters, sealed to the broker, and asks 1 credit or more.")

        result = await buyer.trade(poor)
        (report,), (purchase,) = result.reports, result.bought
        print(f"5. The buyer submits its own. The broker aligns and merges the two, and reports to the buyer alone:\n"
              f"   loss {report.loss_before:.3f} now, {report.loss_after:.3f} with the merge; "
              f"a gain of {report.gain:.3f}, with 95 % confidence between {report.gain_low:.3f} "
              f"and {report.gain_high:.3f}.")  # fmt: skip
        print(f"6. The buyer bids 10 credits per unit of gain; the price, halfway between bid and ask, is "
              f"{format_credits(purchase.price)}.")  # fmt: skip
        print(f"7. The broker settles, then delivers exactly what it measured. Loaded in place, the buyer is right "
              f"on {accuracy(poor, test):.1f} %.")  # fmt: skip

        names = {market.identity(name).peer_id: name for name in ("broker", "seller", "buyer")}
        balances = {names[peer]: format_credits(amount) for peer, amount in (await market.balances()).items()}
        verified = "verifies" if not await market.problems() else "DOES NOT VERIFY"
        print(f"8. Balances: {balances}; the ledger {verified}. Both sides keep a receipt that the broker signed.")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(main(Path(name)))
