"""How fast are the coefficients of a pair chosen, in both directions, against the paper's grid?

`python -m benchmarks.appraisal` (a table) or `--json`; `--full`, `--device cuda`, `--models mlp,wrn`.

mlp   784-32-32-32-16-10 on MNIST, two agents trained apart from different starts, each with 10 % of half of the digits;
      5,000 training images that neither has. Needs mnist.npz (`--data`).
wrn   Wide-ResNet-22-6 with GroupNorm (9.66 M parameters), 1,000 images of 3 x 32 x 32. The images are made up: smooth
      patterns, one for each of ten classes, under noise; both agents leave one common start of a few steps, each for a
      few steps on half of the classes. So the losses are those of barely trained models, while time depends on shapes
      alone.

baseline  the published procedure: for each direction 10 coefficients (0.05, 0.15 ... 0.95); for each two deep copies of
          the models, the average written into one, and a full pass through a DataLoader in float32, batches of 512
          (mlp) or 128 (wrn).
ours      what a broker runs for one coefficient: `plan_merge(granularity="model")` for one direction and `reverse` for
          the other, with the evaluator's own choice of number format, checked for both agents' parameters inside the
          time. Where the format rounds, the plan confirms its choice against no purchase in exact float32 on the held
          quarter of SELECT: that is inside the time as well. There, the winner's exact float32 pass over all samples,
          which a broker does for what it delivers, counts too; `chosen` is the time without it. In float32 the search's
          own losses are exact already.

The seller is aligned once before either starts (and ours gets that alignment alone, without the identity as a second
candidate, as the baseline does); the alignment is in neither time, nor is the first probe of the formats (`probe_s`),
which a broker does once when it starts. The losses are float32 means over all samples at the coefficient that each
side chose. `loss_ratio` is ours over the baseline's: 1 or less is what we want. `engine_s` is the same plan as a broker
makes it, the identity in the race too.

Without --full the wrn baseline runs in one direction and its time counts twice: the grid is its own mirror image, so
the other direction passes through the very same ten models. JSON says so ("baseline_directions": 1).

`mlp_speedup` and `wrn_speedup` are by the wall clock with the confirmation, `speedup_cpu_time` the same in processor
seconds, which other programs on the machine disturb less: where the two are far apart, the machine was busy.

The table also shows where the speed comes from, one gain after the other: seconds of a pass (or of a part of the
samples, scaled up, wrn: 64 images) times the number of passes.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from p2pmarket.alignment import PermutationSpec, apply, match
from p2pmarket.appraisal import Evaluator, MergePlan, Validation, reverse
from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.losses import Measured
from p2pmarket.appraisal.merging import merge
from p2pmarket.appraisal.plan import choose
from p2pmarket.appraisal.precision import EXACT, Format
from p2pmarket.datasets import Dataset, load_dataset, split, subset_by_class
from p2pmarket.models import build_model, permutation_spec
from p2pmarket.parameters import take_snapshot

GRID = tuple(0.05 + 0.1 * step for step in range(10))
MLP = {"inputs": 784, "hidden": (32, 32, 32, 16), "outputs": 10}
WRN = {"depth": 22, "width": 6, "outputs": 10, "channels": 3}
PASSED_IMAGES = 64
"""Images that time a pass of the wide network in the table of gains."""

Tensors = Mapping[str, Tensor]


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: torch.device, call: Callable[[], Any]) -> tuple[Any, float]:
    synchronise(device)
    began = time.perf_counter()
    result = call()
    synchronise(device)
    return result, time.perf_counter() - began


# ---- the pairs ----------------------------------------------------------------------------------------------------


def steps(model: nn.Module, data: Dataset, *, rate: float, batch: int, count: int, seed: int) -> None:
    """`count` steps of SGD with momentum."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    model.train()
    for _ in range(count):
        chosen = torch.randint(len(data), (batch,), generator=generator)
        optimiser.zero_grad()
        functional.cross_entropy(model(data.inputs[chosen]), data.targets[chosen]).backward()
        optimiser.step()


def halves(data: Dataset, seed: int) -> list[Dataset]:
    """10 % of the classes 0-4 and all of the others, and the mirror."""
    return [subset_by_class(data, {label: 0.1 for label in range(first, first + 5)}, seed=seed) for first in (0, 5)]


class Pair:
    """Two agents' parameters, the seller's aligned, and the broker's samples, on the device."""

    def __init__(
        self, model: nn.Module, spec: PermutationSpec, agents: Sequence[Tensors], data: Dataset, device: torch.device
    ) -> None:
        self.model = model.to(device).eval()
        began = time.perf_counter()
        aligned = apply(spec, match(spec, agents[0], agents[1], seed=0), agents[1])
        self.alignment_s = time.perf_counter() - began
        self.data = data
        self.device = device
        self.buyer = {name: tensor.to(device) for name, tensor in agents[0].items()}
        self.seller = {name: tensor.to(device) for name, tensor in aligned.items()}
        self.unaligned = {name: tensor.to(device) for name, tensor in agents[1].items()}
        self.inputs, self.targets = data.inputs.to(device), data.targets.to(device)

    def at(self, alpha: float) -> dict[str, Tensor]:
        return merge(self.buyer, self.seller, alpha, self.buyer.keys())


def mlp_pair(path: Path, device: torch.device) -> Pair:
    training, broker = split(load_dataset(f"{path}#train", allow_import=False), (0.25, 5000 / 60000), seed=0)
    agents = []
    for seed, own in enumerate(halves(training, 0)):
        torch.manual_seed(seed)
        model = build_model("mlp", MLP, False)
        steps(model, own, rate=0.05, batch=64, count=600, seed=seed)
        agents.append(take_snapshot(model))
    spec = permutation_spec("mlp", MLP, model)
    assert spec is not None
    return Pair(model, spec, agents, broker, device)


def patterns(count: int, seed: int) -> Dataset:
    """Images (count, 3, 32, 32): their class's smooth pattern under noise."""
    classes = torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = functional.interpolate(classes, size=(32, 32), mode="bilinear")
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(10, (count,), generator=generator)
    return Dataset(0.5 * smooth[targets] + torch.randn(count, 3, 32, 32, generator=generator), targets)


def wrn_pair(device: torch.device) -> Pair:
    training, broker = patterns(4000, 1), patterns(1000, 2)
    torch.manual_seed(0)
    start = build_model("wide_resnet", WRN, False).to(device)
    own = Dataset(training.inputs.to(device), training.targets.to(device))
    steps(start, own, rate=0.02, batch=32, count=10, seed=0)
    agents = []
    for seed, part in enumerate(halves(training, 0)):
        model = copy.deepcopy(start)
        steps(model, Dataset(part.inputs.to(device), part.targets.to(device)), rate=0.02, batch=32, count=6, seed=seed)
        agents.append({name: tensor.cpu() for name, tensor in take_snapshot(model).items()})
    spec = permutation_spec("wide_resnet", WRN, model)
    assert spec is not None
    return Pair(model, spec, agents, broker, device)


# ---- the published procedure --------------------------------------------------------------------------------------


def grid_pass(pair: Pair, loader: DataLoader[Any], buyer: nn.Module, seller: nn.Module, weight: float) -> float:
    """Mean loss at one weight: two deep copies, the average in one of them, all samples."""
    merged, other = copy.deepcopy(buyer), copy.deepcopy(seller)
    with torch.no_grad():
        for mine, theirs in zip(merged.parameters(), other.parameters(), strict=True):
            mine.mul_(1 - weight).add_(weight * theirs)
        total = 0.0
        for inputs, targets in loader:
            inputs, targets = inputs.to(pair.device), targets.to(pair.device)
            total += functional.cross_entropy(merged(inputs), targets, reduction="sum").item()
    return total / len(pair.data)


def loaded(pair: Pair) -> tuple[nn.Module, nn.Module]:
    models = copy.deepcopy(pair.model), copy.deepcopy(pair.model)
    for model, tensors in zip(models, (pair.buyer, pair.seller), strict=True):
        model.load_state_dict(dict(tensors))
    return models


def baseline(pair: Pair, batch: int, directions: int) -> tuple[float, float, float]:
    """(seconds for both directions, the best loss, its weight)."""
    loader: DataLoader[Any] = DataLoader(TensorDataset(pair.data.inputs, pair.data.targets), batch_size=batch)
    models = loaded(pair)

    def search(buyer: nn.Module, seller: nn.Module) -> tuple[float, float]:
        return min((grid_pass(pair, loader, buyer, seller, weight), weight) for weight in GRID)

    (loss, weight), seconds = timed(pair.device, lambda: search(*models))
    if directions == 1:
        return 2 * seconds, loss, weight
    _, more = timed(pair.device, lambda: search(models[1], models[0]))
    return seconds + more, loss, weight


# ---- ours ---------------------------------------------------------------------------------------------------------


class Counting(Evaluator):
    """Counts the samples measured, one for each set of parameters."""

    asked = 0

    def measure(self, tensors: Tensors, inputs: Tensor, targets: Tensor, *, exact: bool = True) -> Measured:
        self.asked += len(inputs)
        return super().measure(tensors, inputs, targets, exact=exact)

    def measure_many(
        self, parameter_sets: Sequence[Tensors], inputs: Tensor, targets: Tensor, *, exact: bool = True
    ) -> list[Measured]:
        before = self.asked
        measured = super().measure_many(parameter_sets, inputs, targets, exact=exact)
        self.asked = before + len(inputs) * len(parameter_sets)
        return measured


def compare(pair: Pair, *, batch: int, directions: int, repeats: int) -> dict[str, Any]:
    device = pair.device
    evaluator = Counting(copy.deepcopy(pair.model), loss="cross_entropy", metric="accuracy", device=str(device))
    _, probe_s = timed(device, lambda: evaluator.calibrate(pair.buyer, pair.inputs, pair.targets))
    few = pair.data.take(torch.arange(2))
    data = Validation.of(pair.data.inputs, pair.data.targets, few.inputs, few.targets)
    data = data.to(device)

    def plan(sellers: Sequence[str]) -> MergePlan:
        """Both directions, as `plan_merge` does with sellers that are aligned already."""
        bench = Bench(evaluator, data, pair.buyer, pair.seller, pair.buyer.keys(), seed=0)
        known = {"identity": pair.seller, "other": pair.unaligned}
        found = choose(bench, {label: bench.place(known[label]) for label in sellers}, granularity="model", seed=0)
        reverse(found, None, None)
        return found

    def confirm(found: MergePlan) -> float:
        return evaluator.measure(pair.at(found.alpha), pair.inputs, pair.targets).loss

    ours: dict[str, list[float]] = {"chosen": [], "confirmed": [], "chosen_cpu": [], "confirmed_cpu": [], "engine": []}
    theirs_s, theirs_cpu = [], []
    for _ in range(repeats):
        evaluator.asked = 0
        began = time.process_time()
        found, seconds = timed(device, functools.partial(plan, ["identity"]))
        ours["chosen"].append(seconds)
        counted = evaluator.asked
        ours["chosen_cpu"].append(time.process_time() - began)
        our_loss, more = timed(device, functools.partial(confirm, found))
        if evaluator.rounds:
            ours["confirmed"].append(seconds + more)
            ours["confirmed_cpu"].append(time.process_time() - began)
        else:
            ours["confirmed"].append(seconds)
            ours["confirmed_cpu"].append(ours["chosen_cpu"][-1])
        if repeats > 1:
            ours["engine"].append(timed(device, functools.partial(plan, ["identity", "other"]))[1])
        began = time.process_time()
        seconds, loss, weight = baseline(pair, batch, directions)
        theirs_cpu.append((time.process_time() - began) * 2 / directions)
        theirs_s.append(seconds)
    middle = {name: statistics.median(values) for name, values in ours.items() if values}
    theirs, their_cpu = statistics.median(theirs_s), statistics.median(theirs_cpu)
    return {
        "speedup": round(theirs / middle["confirmed"], 1),
        "speedup_cpu_time": round(their_cpu / middle["confirmed_cpu"], 1),
        "speedup_chosen": round(theirs / middle["chosen"], 1),
        "speedup_chosen_cpu_time": round(their_cpu / middle["chosen_cpu"], 1),
        "seconds": round(middle["confirmed"], 4),
        "chosen_s": round(middle["chosen"], 4),
        "engine_s": round(middle["engine"], 4) if "engine" in middle else None,
        "baseline_s": round(theirs, 3),
        "baseline_directions": directions,
        "loss": our_loss,
        "baseline_loss": loss,
        "loss_ratio": round(our_loss / loss, 6),
        "alpha": round(found.alpha, 4),
        "baseline_alpha": round(weight, 2),
        "evaluations": counted,
        "samples": len(pair.inputs),
        "precision": evaluator.precision,
        "probe_s": round(probe_s, 3),
        "alignment_s": round(pair.alignment_s, 3),
        "peak_mib": round(evaluator.peak_mib, 1),
        "gains": gains(pair, batch, counted, evaluator),
    }


def gains(pair: Pair, batch: int, evaluations: int, evaluator: Evaluator) -> list[dict[str, Any]]:
    """Seconds for the pair as one gain after the other is added: passes times the seconds of one."""
    few = len(pair.inputs) if len(pair.inputs) > 1000 else min(PASSED_IMAGES, len(pair.inputs))
    scale = len(pair.inputs) / few
    part = Pair.__new__(Pair)
    part.__dict__.update(pair.__dict__, data=pair.data.take(torch.arange(few)))
    loader: DataLoader[Any] = DataLoader(TensorDataset(part.data.inputs, part.data.targets), batch_size=batch)
    models = loaded(pair)

    def resident(form: Format) -> Callable[[], object]:
        def run() -> object:
            parts = []
            with torch.inference_mode():
                tensors = form.of_all(pair.at(0.5))
                for start in range(0, few, evaluator.batch_size):
                    rows = slice(start, min(few, start + evaluator.batch_size))
                    outputs = torch.func.functional_call(pair.model, tensors, (form.of(pair.inputs[rows]),))
                    parts.append(functional.cross_entropy(outputs.float(), pair.targets[rows], reduction="none"))
            return torch.cat(parts).cpu()

        return run

    def cost(call: Callable[[], object]) -> float:
        return min(timed(pair.device, call)[1] for _ in range(3)) * scale

    plain = cost(lambda: grid_pass(part, loader, *models, 0.5))
    passes = evaluations / len(pair.inputs)
    exact = cost(resident(EXACT))
    rows = [
        ("the published procedure", 20, plain),
        ("one search for both directions", 10, plain),
        ("no DataLoader, no copies", 10, exact),
        ("racing and refinement on a part", passes, exact),
    ]
    for form in (Format(channels_last=True), Format(torch.bfloat16), Format(torch.bfloat16, True)):
        try:
            rows.append((f"the same in {form}", passes, cost(resident(form))))
        except RuntimeError:
            continue
    return [{"what": what, "passes": round(count, 2), "seconds": round(count * each, 4)} for what, count, each in rows]


# ---- the parent ---------------------------------------------------------------------------------------------------


def show(name: str, figures: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "value", title=f"{name}: a pair, both directions, {figures['samples']} samples")
    for key, value in figures.items():
        if key != "gains":
            table.add_row(key, str(value))
    steps_table = Table("gains, one after the other", "passes", "seconds")
    for row in figures["gains"]:
        steps_table.add_row(row["what"], str(row["passes"]), f"{row['seconds']:.3f}")
    Console().print(table, steps_table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Choosing a pair's coefficient against the paper's grid.")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--full", action="store_true", help="the wrn baseline in both directions")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", default="mlp,wrn")
    parser.add_argument("--data", type=Path, default=Path("data/mnist.npz"), help="mnist.npz, for the mlp")
    options = parser.parse_args()
    device, wanted = torch.device(options.device), options.models.split(",")
    figures: dict[str, Any] = {"device": options.device, "threads": torch.get_num_threads()}
    if "mlp" in wanted:
        if not options.data.exists():
            sys.exit(f"{options.data} is missing: give MNIST as --data mnist.npz, or leave it out with --models wrn")
        figures["mlp"] = compare(mlp_pair(options.data, device), batch=512, directions=2, repeats=5)
    if "wrn" in wanted:
        directions = 2 if options.full or device.type == "cuda" else 1
        figures["wrn"] = compare(wrn_pair(device), batch=128, directions=directions, repeats=1)
    for name in ("mlp", "wrn"):
        if name in figures:
            figures[f"{name}_speedup"] = figures[name]["speedup"]
            show(name, figures[name])
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
