"""Who has which data in a demonstration: the paper's endowments on images with ten classes (section 6.1).

Agent A has a tenth of the first half of the classes and all of the rest, agent B the mirror image; more agents share
the training data the same way. The broker's data are held-out training images, and accuracy is shown on a test split
that nobody trains, chooses or reports on.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from p2pmarket.datasets import Dataset, load_dataset, split, subset_by_class
from p2pmarket.errors import DataError
from p2pmarket.files import private_folder, replacing

SCARCE = 0.1
"""Part of its scarce classes that an agent has."""


@dataclasses.dataclass(frozen=True)
class Endowments:
    """Files with everybody's data, and the market's terms."""

    terms: Path
    validation: Path
    test: Path
    agents: tuple[Path, ...]
    flags: tuple[str, ...]
    """Trainer settings for the agents."""
    epochs: int
    about: str
    """The data in words."""


@dataclasses.dataclass(frozen=True)
class _Recipe:
    hidden: tuple[int, ...]
    epochs: int
    flags: tuple[str, ...]


_DIGITS = _Recipe(
    (64, 32),
    30,
    (
        *("--optimizer", "sgd", "--learning_rate", "0.01", "--momentum", "0.9"),
        *("--batch_size", "32", "--trade_from", "3"),
    ),
)
_LARGE = _Recipe(
    (32, 32, 32, 16), 50, ("--optimizer", "sgd", "--learning_rate", "0.01", "--batch_size", "512", "--trade_from", "5")
)
"""The paper's MNIST settings: 784-32-32-32-16-10, SGD 0.01, batch 512, trading from the fifth epoch on."""


def prepare(folder: Path, source: str | None, *, agents: int, seed: int, rounds: str = "barrier") -> Endowments:
    """Writes everybody's data and the terms to `folder`.

    :param rounds: the terms': barrier as in the paper, or continuous where agents come and go
    :param source: an .npz with x_train, y_train, x_test, y_test; None for scikit-learn's digits
    :raises DataError: the file is not of that form, or scikit-learn is missing
    """
    private_folder(folder)
    if source is None:
        train, validation, test = split(_digits(), (0.5625, 0.1875, 0.25), seed)
        recipe, about = _DIGITS, "scikit-learn's digits"
    else:
        whole, test = (load_dataset(f"{source}#{part}", allow_import=False) for part in ("train", "test"))
        held_out = min(5000, len(whole) // 6) / len(whole)
        train, validation = split(whole, (1 - held_out, held_out), seed)
        recipe, about = _LARGE, Path(source).name
    parts = [_part(train, agent, agents, seed) for agent in range(agents)]
    paths = tuple(_save(folder / f"agent-{chr(ord('a') + index)}.npz", part) for index, part in enumerate(parts))
    return Endowments(
        terms=_write_terms(folder / "market.toml", train, recipe, agents, rounds),
        validation=_save(folder / "validation.npz", validation),
        test=_save(folder / "test.npz", test),
        agents=paths,
        flags=recipe.flags,
        epochs=recipe.epochs,
        about=f"{about}: {len(validation)} images for the broker, {len(test)} to test on, "
        f"{', '.join(str(len(part)) for part in parts)} for the agents",
    )


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("the digits come with scikit-learn: pip install 'p2pmarket[demo]', or give --data") from None
    digits = load_digits()
    return Dataset(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target, dtype=torch.int64))


def _part(train: Dataset, agent: int, agents: int, seed: int) -> Dataset:
    """An agent's data: even agents are short of the first half of the classes, odd ones of the second."""
    classes = int(train.targets.max()) + 1
    half = range(classes // 2) if agent % 2 == 0 else range(classes // 2, classes)
    share = train if agents <= 2 else split(train, (2 / agents,), seed + agent // 2)[0]
    return subset_by_class(share, dict.fromkeys(half, SCARCE), seed + agent)


def _save(path: Path, data: Dataset) -> Path:
    with replacing(path, "data") as temporary, temporary.open("wb") as file:
        np.savez(file, inputs=data.inputs.numpy(), targets=data.targets.numpy())
    return path


def _write_terms(path: Path, train: Dataset, recipe: _Recipe, agents: int, rounds: str) -> Path:
    classes = int(train.targets.max()) + 1
    text = f"""# The terms of this demonstration; broker_node/market.example.toml explains every key.
[market]
name = "digits"
description = "organisations that are each short of half of the classes"
rounds = "{rounds}"
round_agents = {max(2, agents)}
round_timeout_seconds = 20

[model]
name = "mlp"
arguments = {{ inputs = {train.inputs[0].numel()}, hidden = {list(recipe.hidden)}, outputs = {classes} }}

[[task]]
name = "digits"
loss = "cross_entropy"
metric = "accuracy"

[pricing]
rule = "midpoint"
opening_credit = "100"
fee_percent = "1"

[limits]
submissions_per_hour = 100000
"""
    path.write_text(text, encoding="utf-8")
    return path
