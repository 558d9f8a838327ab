"""How fast, and how well, are a seller's units brought into a buyer's order?

`python -m benchmarks.alignment` (a table) or `--json`; `--full` adds random pairs of the large modules, which keep the
plain matcher busy for many minutes; `--only WORD` takes the rows whose name contains it.

Each row has two models of the same shape. `random`: two fresh initialisations. `planted`: the seller is the buyer,
permuted; `recovered` is the fraction of units that find their place again. `noise`: half a standard deviation of every
weight tensor is added to that.

plain   the published procedure (Ainsworth, Hayase, Srinivasa 2022, "Git Re-Basin", Algorithm 1) as it is commonly run:
        classes in random orders from the identity; all similarity terms rebuilt in float32 at every visit; one scipy
        assignment; sweeps until no class's float32 sum rose by more than 1e-12 (at most 100). Sums are taken by index,
        not with identity matrices as the published code does, which is kinder to it.
ours    `p2pmarket.alignment.match` with its defaults, on the same spec.

Both run in this process with the same two threads, each once (nothing is warmed but one small match of each), in turns
the one or the other first. Specs are those that `find_symmetry` finds, which takes no part in the times; `coverage` is
the share of the parameters that its classes can move. The objective is the inner product of the buyer's and the aligned
seller's weights, summed in float64 over the tensors the spec names; `ratio` is ours / plain. The plain matcher has no
words for attention heads: there both are given the classes that permute whole axes (the stream and the MLPs), and the
row `with heads` is ours alone.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from benchmarks.modules import Gpt, ResNet50, Vit, simple
from p2pmarket.alignment import PermutationSpec, Symmetry, apply, find_symmetry, inverse, match
from p2pmarket.models import build_model

THREADS = 2
MOST_SWEEPS = 100
Tensors = dict[str, Tensor]
Permutations = dict[str, Tensor]
Found = TypeVar("Found")


class Case(NamedTuple):
    name: str
    kind: str
    full: bool = False
    heads: bool = False


class Module(NamedTuple):
    make: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]


def built_in(reference: str, **arguments: object) -> Callable[[], nn.Module]:
    return lambda: build_model(reference, arguments, False)


MODULES = {
    "small": Module(built_in("mlp", inputs=8, hidden=[16], outputs=4), lambda: torch.zeros(2, 8)),
    "MLP 784-2048x4-10": Module(
        built_in("mlp", inputs=784, hidden=[2048] * 4, outputs=10), lambda: torch.zeros(2, 784)
    ),
    "WRN-22-6": Module(built_in("wide_resnet", depth=22, width=6, outputs=10), lambda: torch.zeros(1, 3, 32, 32)),
    "ResNet50-like": Module(ResNet50, lambda: torch.zeros(1, 3, 64, 64)),
    "ViT-B-like": Module(Vit, lambda: torch.zeros(1, 3, 224, 224)),
    "GPT-2-small-like": Module(Gpt, lambda: torch.zeros(1, 8, dtype=torch.int64)),
}
CASES = (
    Case("MLP 784-2048x4-10", "random"),
    Case("MLP 784-2048x4-10", "noise"),
    Case("MLP 784-2048x4-10", "planted"),
    Case("WRN-22-6", "random"),
    Case("WRN-22-6", "noise"),
    Case("WRN-22-6", "planted"),
    Case("ResNet50-like", "planted"),
    Case("ResNet50-like", "noise"),
    Case("ViT-B-like", "planted"),
    Case("ViT-B-like", "planted", heads=True),
    Case("GPT-2-small-like", "planted"),
    Case("GPT-2-small-like", "planted", heads=True),
    Case("ResNet50-like", "random", full=True),
    Case("ViT-B-like", "random", full=True),
    Case("GPT-2-small-like", "random", full=True),
    Case("ViT-B-like", "random", full=True, heads=True),
    Case("GPT-2-small-like", "random", full=True, heads=True),
)


def plain_match(spec: PermutationSpec, buyer: Tensors, seller: Tensors, seed: int) -> tuple[Permutations, int]:
    """The published procedure; permutations and visits."""
    generator = np.random.default_rng(seed)
    on_tensor: dict[str, dict[int, str]] = {}
    for (name, axis), [(group, _)] in spec.members_on().items():
        on_tensor.setdefault(name, {})[axis] = group.name
    permutations = {group.name: torch.arange(group.size) for group in spec.classes}
    visits = 0
    for _ in range(MOST_SWEEPS):
        progress = False
        for place in generator.permutation(len(spec.classes)):
            group = spec.classes[place]
            visits += 1
            similarity = torch.zeros(group.size, group.size)
            for member in group.members:
                values = seller[member.tensor]
                for axis, other in on_tensor[member.tensor].items():
                    if axis != member.axis:
                        values = torch.index_select(values, axis, permutations[other])
                rows = buyer[member.tensor].movedim(member.axis, 0).reshape(group.size, -1)
                similarity += rows @ values.movedim(member.axis, 0).reshape(group.size, -1).T
            chosen = torch.from_numpy(linear_sum_assignment(similarity.numpy(), maximize=True)[1])
            units = torch.arange(group.size)
            before = similarity[units, permutations[group.name]].sum()
            after = similarity[units, chosen].sum()
            progress = progress or bool(after > before + 1e-12)
            permutations[group.name] = chosen
        if not progress:
            break
    return permutations, visits


def objective(spec: PermutationSpec, permutations: Permutations, buyer: Tensors, seller: Tensors) -> float:
    names = {member.tensor for group in spec.classes for member in group.members}
    aligned = apply(spec, permutations, {name: seller[name] for name in names})
    return sum(float((buyer[name].double() * aligned[name].double()).sum()) for name in sorted(names))


def random_permutations(spec: PermutationSpec, generator: torch.Generator) -> Permutations:
    found = {}
    for group in spec.classes:
        blocks = [torch.randperm(group.size, generator=generator) for _ in range(group.blocks)]
        found[group.name] = blocks[0] if group.blocks == 1 else torch.stack(blocks)
    return found


def weights(model: nn.Module) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def timed(work: Callable[[], Found]) -> tuple[Found, float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


@functools.cache
def symmetry(name: str) -> Symmetry:
    module = MODULES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return find_symmetry(module.make(), (module.inputs(),))


def pair(case: Case, seed: int) -> tuple[PermutationSpec, Tensors, Tensors, Permutations]:
    """The spec, both models, and what was planted."""
    make = MODULES[case.name].make
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        buyer = weights(make())
        other = weights(make()) if case.kind == "random" else {}
    spec = symmetry(case.name).spec
    spec = spec if case.heads else simple(spec)
    generator = torch.Generator().manual_seed(seed + 1)
    planted = random_permutations(spec, generator)
    seller = other or apply(spec, planted, buyer)
    if case.kind == "noise":
        seller = {
            name: tensor + 0.5 * tensor.std() * torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1
            else tensor
            for name, tensor in seller.items()
        }
    return spec, buyer, seller, planted


def run(case: Case, *, plain_first: bool = False, seed: int = 0) -> dict[str, object]:
    """One row."""
    spec, buyer, seller, planted = pair(case, seed)
    row: dict[str, object] = {
        "model": case.name + (" with heads" if case.heads else ""),
        "pair": case.kind,
        "parameters": symmetry(case.name).parameters,
        "coverage": symmetry(case.name).coverage,
    }

    def ours() -> None:
        found, seconds = timed(lambda: match(spec, buyer, seller, seed=seed, threads=THREADS))
        row.update({"seconds": seconds, "objective": objective(spec, found, buyer, seller)})
        if case.kind != "random":
            undo = inverse(spec, planted)
            right = sum(int((found[name] == undo[name]).sum()) for name in found)
            row["recovered"] = right / sum(indices.numel() for indices in found.values())

    def plain() -> None:
        (found, visits), seconds = timed(lambda: plain_match(spec, buyer, seller, seed))
        beside = objective(spec, found, buyer, seller)
        row.update({"seconds_plain": seconds, "objective_plain": beside, "visits_plain": visits})

    if case.heads:
        ours()
        return row
    for work in (plain, ours) if plain_first else (ours, plain):
        work()
    row["speedup"] = row["seconds_plain"] / row["seconds"]  # type: ignore[operator]
    row["objective_ratio"] = row["objective"] / row["objective_plain"]  # type: ignore[operator]
    return row


def show(row: Mapping[str, object]) -> None:
    def number(name: str, form: str) -> str:
        value = row.get(name)
        return format(value, form) if isinstance(value, float) else "-"

    print(
        f"{row['model']:30} {row['pair']:8} {number('seconds', '8.2f')} {number('seconds_plain', '8.2f'):>8} "
        f"{number('speedup', '6.1f'):>6} {number('objective', '12.2f')} {number('objective_ratio', '9.6f'):>9} "
        f"{number('recovered', '9.4f'):>9} {number('coverage', '8.3f')}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--full", action="store_true", help="random pairs of the large modules too")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    run(Case("small", "random"))
    print(
        f"{'model':30} {'pair':8} {'ours s':>8} {'plain s':>8} {'faster':>6} {'objective':>12} {'ratio':>9} "
        f"{'recovered':>9} {'coverage':>8}"
    )
    rows = []
    for case in CASES:
        if options.only in f"{case.name} {case.kind}" and (options.full or not case.full):
            rows.append(run(case, plain_first=len(rows) % 2 == 1))
            show(rows[-1])
    compared = [row for row in rows if "speedup" in row]
    result = {
        "rows": rows,
        "speedup_min": min((row["speedup"] for row in compared), default=None),
        "objective_ratio_min": min((row["objective_ratio"] for row in compared), default=None),
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(f"speedup_min {result['speedup_min']}, objective_ratio_min {result['objective_ratio_min']}")


if __name__ == "__main__":
    main()
