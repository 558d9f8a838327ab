"""How good do two agents become in a market, against the paper's method and one model trained on all the data?

`python -m benchmarks.market_quality` (a table) or `--json`; `--seeds 3 --data mnist.npz`.

The paper's MNIST market (section 5): a 784-32-32-32-16-10 network with ReLU, SGD with rate 0.01, batches of 512, 50
epochs, a trade in both directions after each epoch from the fifth on. Agent A has 10 % of the digits 0-4 and all of the
others, agent B the mirror. Two things are unlike the paper: the broker's data are 5,000 *training* images that no agent
has, split once into SELECT (2,500, for every choice) and REPORT (2,500, for the gain that decides the purchase), while
the accuracy is measured on the test set, which nobody sees before; and the bought parameters are loaded in place (SGD
without momentum has no state to lose). A seed changes the models, the agents' subsets, their batches and the split.

alone         no market
paper         one coefficient from 0.05, 0.15 ... 0.95, weight matching (and the identity), chosen by SELECT's loss,
              bought where the loss falls: the published procedure with an honest split. The gate on REPORT is left out,
              which can only help it
tensor        `appraise` with one coefficient for each tensor, bought where REPORT's lower limit is above 0
learned       `appraise` as it is by default: one for each output row where the data bear it
all data      one model, trained alone with the same budget on everything both agents have

Figures are the test accuracy (%) after the last epoch, the mean of both agents; the interval is Student's over seeds,
95 %. Needs mnist.npz (x_train, y_train, x_test, y_test) and about a minute a seed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.nn import functional

from p2pmarket.alignment import PermutationSpec, apply, inverse
from p2pmarket.appraisal import Evaluator, Validation, align_pair, appraise, reverse
from p2pmarket.datasets import Dataset, load_dataset, split, subset_by_class
from p2pmarket.models import build_model, permutation_spec
from p2pmarket.parameters import load_in_place, take_snapshot

MODEL = {"inputs": 784, "hidden": (32, 32, 32, 16), "outputs": 10}
EPOCHS, FIRST_TRADE, BATCH, RATE = 50, 5, 512, 0.01
BROKER_SAMPLES = 5000
PIXEL_MEAN, PIXEL_DEVIATION = 0.1307, 0.3081
_PARTS = ("train", "test")
CONFIDENCE = 0.95
GRID = tuple(0.05 + 0.1 * step for step in range(10))
METHODS = ("alone", "paper", "tensor", "learned", "all_data")

Tensors = dict[str, Tensor]
Buy = Callable[[Tensors, Tensors, bool], Tensors | None]
"""(buyer, seller, whether the pair's second direction) -> what the buyer loads, None for no purchase."""


class Trainer:
    """One agent: its model, its data and its own order of batches."""

    def __init__(self, data: Dataset, model: nn.Module, seed: int) -> None:
        self.model = model
        self._data = data
        self._optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
        self._generator = torch.Generator().manual_seed(seed)

    def epoch(self) -> None:
        self.model.train()
        for batch in torch.randperm(len(self._data), generator=self._generator).split(BATCH):
            self._optimiser.zero_grad()
            functional.cross_entropy(self.model(self._data.inputs[batch]), self._data.targets[batch]).backward()
            self._optimiser.step()

    def accuracy(self, test: Dataset) -> float:
        with torch.inference_mode():
            return 100 * float((self.model.eval()(test.inputs).argmax(1) == test.targets).float().mean())


class World:
    """Everything that one seed decides."""

    def __init__(self, training: Dataset, test: Dataset, seed: int) -> None:
        self.seed = seed
        self.test = test
        share = BROKER_SAMPLES / len(training)
        broker, self.all_data = split(training, (share, 1 - share), seed=seed)
        self.validation = Validation.split(broker.inputs, broker.targets, select_fraction=0.5, seed=seed)
        self.agents = tuple(
            subset_by_class(self.all_data, {label: 0.1 for label in range(first, first + 5)}, seed=seed)
            for first in (0, 5)
        )
        model = build_model("mlp", MODEL, False)
        spec = permutation_spec("mlp", MODEL, model)
        assert spec is not None
        self.spec: PermutationSpec = spec
        self.evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu", batch_size=5000)

    def trainer(self, data: Dataset, number: int) -> Trainer:
        with torch.random.fork_rng():
            torch.manual_seed(1000 * self.seed + number)
            return Trainer(data, build_model("mlp", MODEL, False), 1000 * self.seed + number)


def paper_method(world: World) -> Buy:
    """Grid on SELECT, aligned or not; see above."""

    def loss(tensors: Tensors) -> float:
        data = world.validation
        return world.evaluator.measure(tensors, data.select_inputs, data.select_targets).loss

    def buy(buyer: Tensors, seller: Tensors, second: bool) -> Tensors | None:
        alignment = align_pair(world.spec, buyer, seller, seed=world.seed)
        assert alignment is not None
        merges = [
            {name: torch.lerp(buyer[name], one[name], alpha) for name in buyer}
            for one in (seller, apply(world.spec, alignment, seller))
            for alpha in GRID
        ]
        best = min(merges, key=loss)
        return best if loss(best) < loss(buyer) else None

    return buy


def our_method(world: World, granularity: str, told: list[str]) -> Buy:
    """One call of `appraise` a direction, as a broker does; alignment and merge are found once for both."""
    kept: list[Any] = []

    def buy(buyer: Tensors, seller: Tensors, second: bool) -> Tensors | None:
        if second:
            alignment, plan = inverse(world.spec, kept[0]), reverse(kept[1], world.spec, kept[0])
        else:
            alignment, plan = align_pair(world.spec, buyer, seller, seed=world.seed), None
        result = appraise(
            world.evaluator, world.validation, world.spec, buyer, seller,
            tradable=buyer.keys(), encode_decode=dict, confidence=CONFIDENCE, seed=world.seed, alignment=alignment,
            plan=plan, granularity=granularity,
        )  # fmt: skip
        kept[:] = [alignment, result.plan]
        bought = bool(result.delivered) and result.low > 0
        told.append(result.granularity if bought else result.reason or "REPORT")
        return dict(result.delivered) if bought else None

    return buy


def market(world: World, buy: Buy) -> list[float]:
    """Both agents' test accuracy after the last epoch."""
    pair = [world.trainer(data, number) for number, data in enumerate(world.agents)]
    for epoch in range(1, EPOCHS + 1):
        for trainer in pair:
            trainer.epoch()
        if epoch >= FIRST_TRADE:
            shown = [take_snapshot(trainer.model) for trainer in pair]
            for number, trainer in enumerate(pair):
                bought = buy(shown[number], shown[1 - number], number == 1)
                if bought is not None:
                    load_in_place(trainer.model, bought)
    return [trainer.accuracy(world.test) for trainer in pair]


def all_data(world: World) -> list[float]:
    trainer = world.trainer(world.all_data, 0)
    for _ in range(EPOCHS):
        trainer.epoch()
    return [trainer.accuracy(world.test)]


def measure(training: Dataset, test: Dataset, seeds: int, first_seed: int, methods: tuple[str, ...]) -> dict[str, Any]:
    rows = []
    for seed in range(first_seed, first_seed + seeds):
        world = World(training, test, seed)
        row: dict[str, Any] = {"seed": seed}
        for method in methods:
            told: list[str] = []
            start = time.perf_counter()
            if method == "all_data":
                row[method] = all_data(world)
            else:
                buy: Buy = lambda buyer, seller, second: None  # noqa: E731
                if method == "paper":
                    buy = paper_method(world)
                elif method != "alone":
                    buy = our_method(world, "auto" if method == "learned" else method, told)
                row[method] = market(world, buy)
            row[f"{method}_seconds"] = round(time.perf_counter() - start, 1)
            if told:
                row[f"{method}_outcomes"] = {what: told.count(what) for what in sorted(set(told))}
            print(f"seed {seed}, {method}: {row[method]}", file=sys.stderr)
        rows.append(row)
    figures: dict[str, Any] = {"seeds": seeds, "rows": rows}
    for method in methods:
        mean, reach = interval([statistics.mean(row[method]) for row in rows])
        key = "paper_method" if method == "paper" else f"per_{method}" if method == "tensor" else method
        figures[f"{key}_mean"], figures[f"{key}_interval"] = round(mean, 2), round(reach, 2)
    return figures


def normalised(data: Dataset) -> Dataset:
    """The usual scaling of MNIST: with pixels as they are, the network has learnt nothing by the first trade."""
    return Dataset((data.inputs - PIXEL_MEAN) / PIXEL_DEVIATION, data.targets)


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of Student's 95 % interval."""
    if len(values) < 2:
        return values[0], math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), float(stdtrit(len(values) - 1, 0.975)) * error


def show(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("method", "test accuracy %", "95 % interval", title=f"MNIST, two agents, {figures['seeds']} seeds")
    for key in ("alone", "paper_method", "per_tensor", "learned", "all_data"):
        if f"{key}_mean" in figures:
            table.add_row(key.replace("_", " "), str(figures[f"{key}_mean"]), f"± {figures[f'{key}_interval']}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Two agents' accuracy with and without a market.")
    parser.add_argument("--data", type=Path, default=Path("data/mnist.npz"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="ten seeds")
    parser.add_argument("--methods", default=",".join(METHODS), help="a part of them")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.data.is_file():
        sys.exit(f"{options.data} is missing: give MNIST as an .npz file (x_train, y_train, x_test, y_test) by --data")
    training, test = (normalised(load_dataset(f"{options.data}#{part}", allow_import=False)) for part in _PARTS)
    seeds = 10 if options.full else options.seeds
    figures = measure(training, test, seeds, options.first_seed, tuple(options.methods.split(",")))
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
