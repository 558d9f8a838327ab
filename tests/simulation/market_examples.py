"""Two kinds of organisations with four blobs of points between them, and the terms of a market for their models."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from p2pmarket.datasets import Dataset
from p2pmarket.market import MarketTerms, parse_terms
from p2pmarket.models import build_model
from p2pmarket.simulation.market import MarketInMemory

ARGUMENTS = {"inputs": 8, "hidden": [16], "outputs": 4}
CREDIT = 1_000_000

OpenMarket = Callable[..., MarketInMemory]
"""The fixture `open_market`: `open_market(rounds="barrier", ...)` is a market of blobs, to use in an `async with`."""


def terms(**changes: Any) -> MarketTerms:
    """Terms for blobs; keyword arguments change keys of any section, by their names in the file."""
    document: dict[str, Any] = {
        "market": {"name": "blobs", "rounds": "barrier", "round_agents": 2, "round_timeout_seconds": 20},
        "model": {"name": "mlp", "arguments": ARGUMENTS},
        "trade": {"delivery_codec": "none"},
        "appraisal": {"coefficients": "model"},  # quick; learned coefficients have tests of their own
        "task": [{"name": "blobs", "loss": "cross_entropy", "metric": "accuracy"}],
        "pricing": {"opening_credit": "10", "fee_percent": "2"},
        "limits": {"max_parcel_mib": 1},
    }
    sections = {
        **dict.fromkeys(("name", "rounds", "round_agents", "round_timeout_seconds"), "market"),
        **dict.fromkeys(("tradable", "groups", "offer_codecs", "delivery_codec", "delivery_zstd"), "trade"),
        **dict.fromkeys(
            ("coefficients", "activations", "repair", "max_chain", "report_steps", "tell_classes", "tell_tasks"),
            "appraisal",
        ),
        **dict.fromkeys(
            ("opening_credit", "fee_percent", "rule", "k_percent", "max_revisions", "disclosure", "publish_prices"),
            "pricing",
        ),
        "spend_per_day": "pricing",
    }
    for key, value in changes.items():
        document[sections.get(key, "limits")][key] = value
    return parse_terms(document)


@functools.cache
def blobs(count: int, seed: int) -> Dataset:
    """`count` points (N, 8) around four centres, and which centre each belongs to (N,)."""
    centres = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 4, (count,), generator=random)
    return Dataset(centres[targets] + torch.randn(count, 8, generator=random), targets)


@functools.cache
def _trained(first_class: int, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    data = blobs(800, seed + 10)
    random = torch.Generator().manual_seed(seed)
    mine = (data.targets == first_class) | (data.targets == first_class + 1)
    data = data.take((mine | (torch.rand(len(data), generator=random) < 0.05)).nonzero()[:, 0])
    model = untrained(1)
    optimiser = optimiser_of(model)
    for _ in range(3):
        for batch in torch.randperm(len(data), generator=random).split(32):
            optimiser.zero_grad()
            functional.cross_entropy(model(data.inputs[batch]), data.targets[batch]).backward()
            optimiser.step()
    return model, optimiser.state_dict()


def trained(first_class: int = 0, seed: int = 1) -> nn.Module:
    """A model of an organisation that has two of the classes and little of the others; a fresh copy each time."""
    return copy.deepcopy(_trained(first_class, seed)[0])


@functools.cache
def _specialist(classes: tuple[int, ...], seed: int) -> nn.Module:
    data, random = blobs(1600, seed + 10), torch.Generator().manual_seed(seed)
    mine = torch.isin(data.targets, torch.tensor(classes)) | (torch.rand(len(data), generator=random) < 0.02)
    data, model = data.take(mine.nonzero()[:, 0]), untrained(1)
    optimiser = optimiser_of(model)
    for _ in range(3):
        for batch in torch.randperm(len(data), generator=random).split(32):
            optimiser.zero_grad()
            functional.cross_entropy(model(data.inputs[batch]), data.targets[batch]).backward()
            optimiser.step()
    return model


def specialist(*classes: int, seed: int) -> nn.Module:
    """A model that knows these classes well and the others hardly; a fresh copy each time."""
    return copy.deepcopy(_specialist(classes, seed))


def left() -> nn.Module:
    """Knows classes 0 and 1."""
    return trained(0, 1)


def right() -> nn.Module:
    """Knows classes 2 and 3."""
    return trained(2, 2)


def untrained(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_model("mlp", ARGUMENTS, False)


def optimiser_of(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def accuracy(model: nn.Module) -> float:
    """On points that nobody trained on."""
    data = blobs(1000, 7)
    with torch.no_grad():
        return float((model(data.inputs).argmax(1) == data.targets).float().mean())
