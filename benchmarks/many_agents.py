"""How much of the gain of all n(n - 1) appraisals do a few of them find?

`python -m benchmarks.many_agents` (a table) or `--json`; `--full` appraises with learned coefficients (hours).

64 agents train small networks (64-32-16-10, each from its own initialisation) on digits: four classes of ten whole, a
twentieth of the others, every agent its own four. The first 4, 8, 16, 32 and all of them form the markets. The broker
splits its half of the data into SELECT and REPORT.

exhaustive  every ordered pair is appraised in full; a buyer takes the best gain on REPORT whose lower limit is above
            zero, else nothing. Summed over the buyers, this is the denominator of `gain_fraction`.
scout       the pairs that `Scout.pairs` names for a budget of 15 % of the ordered pairs are appraised in full, with the
            same appraisal and the same composed alignments; buyers take the best of these by the same rule.
            `appraised_fraction` counts them; `probe_passes`: the samples its probes evaluated, in passes over SELECT.
best_loss   as scout, but each buyer's sellers are those with the lowest losses on SELECT (no probes): a plain way to
            spend the same budget. `random` draws them.
soup        for eight buyers of the largest market: the REPORT gain of a greedy chain over their five best appraised
            sellers, summed, over that of the best single seller.
aligned_in_pairs   eight buyers' best exhaustive gains with a matching for every pair over those with composed
            alignments, on the market of 16: what composing loses.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from p2pmarket.appraisal import Appraisal, Evaluator, Validation, appraise
from p2pmarket.appraisal.ranking import STAGES, Scout
from p2pmarket.appraisal.soup import Candidate, greedy_soup
from p2pmarket.datasets import Dataset, split, subset_by_class
from p2pmarket.models import build_model, permutation_spec
from p2pmarket.parameters import take_snapshot

ARGUMENTS = {"inputs": 64, "hidden": (32, 16), "outputs": 10}
MARKETS = (4, 8, 16, 32, 64)
BUDGET = 0.15
CONFIDENCE = 0.95
SOUP_BUYERS = 8
SOUP_CANDIDATES = 5

Pair = tuple[int, int]


def digits() -> tuple[Dataset, Dataset]:
    from sklearn.datasets import load_digits

    data = load_digits()
    whole = Dataset(torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target))
    training, validation = split(whole, (0.5, 0.5), seed=0)
    return training, validation


def agent(number: int, training: Dataset, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(10_000 * seed + number)
    rich = set(torch.randperm(10, generator=generator)[:4].tolist())
    data = subset_by_class(training, {label: 0.8 if label in rich else 0.05 for label in range(10)}, seed=number)
    torch.manual_seed(10_000 * seed + number)
    model = build_model("mlp", ARGUMENTS, False)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(6):
        for batch in torch.randperm(len(data), generator=generator).split(16):
            optimiser.zero_grad()
            functional.cross_entropy(model(data.inputs[batch]), data.targets[batch]).backward()
            optimiser.step()
    return take_snapshot(model)


class Bench:
    """One set of agents, and every appraisal done among them."""

    def __init__(self, count: int, granularity: str, seed: int) -> None:
        training, data = digits()
        self.agents = [agent(number, training, seed) for number in range(count)]
        model = build_model("mlp", ARGUMENTS, False)
        self.spec = permutation_spec("mlp", ARGUMENTS, model)
        self.evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu")
        self.validation = Validation.split(data.inputs, data.targets, select_fraction=0.5, seed=1)
        self.options: dict[str, Any] = {
            "tradable": tuple(model.state_dict()), "encode_decode": dict, "confidence": CONFIDENCE, "seed": 1,
        }  # fmt: skip
        self.appraise = functools.partial(appraise, granularity=granularity)
        self.scout = self.new_scout(range(count))
        self.gains: dict[Pair, float] = {}
        """What a buyer would buy: the gain on REPORT, 0 where its lower limit is not above zero."""

    def new_scout(self, numbers: Iterable[int]) -> Scout:
        scout = Scout(self.evaluator, self.validation, self.spec, tradable=self.options["tradable"], seed=1)
        for number in numbers:
            scout.add(key(number), self.agents[number])
        return scout

    def load(self, digest: bytes) -> Mapping[str, Tensor]:
        return self.agents[int.from_bytes(digest, "big")]

    def pair(self, buyer: int, seller: int, *, composed: bool = True) -> Appraisal:
        alignment = self.scout.alignment(key(buyer), key(seller)) if composed else None
        return self.appraise(
            self.evaluator, self.validation, self.spec, self.agents[buyer], self.agents[seller],
            alignment=alignment, **self.options,
        )  # fmt: skip

    def exhaust(self, count: int) -> None:
        for buyer, seller in pairs(count):
            if (buyer, seller) not in self.gains:
                self.gains[buyer, seller] = bought(self.pair(buyer, seller))

    def total(self, chosen: Iterable[Pair]) -> float:
        """Every buyer's best gain among the chosen pairs, summed."""
        best: dict[int, float] = {}
        for buyer, seller in chosen:
            best[buyer] = max(best.get(buyer, 0.0), self.gains[buyer, seller])
        return sum(best.values())


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def pairs(count: int) -> list[Pair]:
    return [(buyer, seller) for buyer in range(count) for seller in range(count) if buyer != seller]


def bought(appraisal: Appraisal) -> float:
    return appraisal.gain if appraisal.low > 0 else 0.0


def market(bench: Bench, count: int) -> dict[str, Any]:
    """One market's row."""
    start = time.perf_counter()
    bench.exhaust(count)
    exhaustive_s = time.perf_counter() - start
    everything = pairs(count)
    best = bench.total(everything)
    budget = int(BUDGET * len(everything))
    start = time.perf_counter()
    scout = bench.new_scout(range(count))
    wanted = {key(buyer): [key(seller) for seller in range(count) if seller != buyer] for buyer in range(count)}
    found = [
        (int.from_bytes(buyer, "big"), int.from_bytes(seller, "big"))
        for buyer, seller in scout.pairs(wanted, bench.load, budget=budget)
    ]
    scout_s = time.perf_counter() - start
    losses = {number: float(scout.add(key(number), {}).losses.mean()) for number in range(count)}
    each = max(1, budget // count)
    by_loss = [
        (buyer, seller)
        for buyer in range(count)
        for seller in sorted((other for other in range(count) if other != buyer), key=losses.__getitem__)[:each]
    ]
    generator = random.Random(1)
    drawn = [bench.total(generator.sample(everything, len(found))) for _ in range(20)]
    samples = sum(
        min(len(everything), stage.pairs * budget) * 2 * len(stage.alphas) * stage.samples for stage in STAGES
    )
    return {
        "agents": count,
        "pairs": len(everything),
        "full_appraisals": len(found),
        "appraised_fraction": round(len(found) / len(everything), 4),
        "gain_fraction": round(bench.total(found) / best, 4),
        "best_loss_fraction": round(bench.total(by_loss) / best, 4),
        "random_fraction": round(sum(drawn) / len(drawn) / best, 4),
        "exhaustive_gain": round(best, 4),
        "helpful_pairs": round(sum(bench.gains[pair] > 0 for pair in everything) / len(everything), 4),
        "probe_passes": round(samples / len(bench.validation.select_targets)),
        "scout_s": round(scout_s, 2),
        "exhaustive_s": round(exhaustive_s, 2),
    }


def soups(bench: Bench, count: int) -> dict[str, float]:
    """A chain of purchases against the best single one, on REPORT, over a few buyers."""
    single, chained, steps = 0.0, 0.0, 0
    for buyer in range(min(SOUP_BUYERS, count)):
        ranked = sorted((s for s in range(count) if s != buyer), key=lambda s: -bench.gains[buyer, s])
        candidates = [
            Candidate(seller, bench.agents[seller], bench.scout.alignment(key(buyer), key(seller)))
            for seller in ranked[:SOUP_CANDIDATES]
        ]
        chain = greedy_soup(
            bench.evaluator, bench.validation, bench.spec, bench.agents[buyer], candidates,
            appraise_step=bench.appraise, **bench.options,
        )  # fmt: skip
        single += bench.gains[buyer, ranked[0]]
        chained += sum(step.appraisal.gain for step in chain)
        steps += len(chain)
    return {"soup_over_single": round(chained / single, 4), "soup_steps_mean": steps / min(SOUP_BUYERS, count)}


def composed_against_pairs(bench: Bench, count: int) -> float:
    buyers = range(min(8, count))
    matched = sum(max(bought(bench.pair(b, s, composed=False)) for s in range(count) if s != b) for b in buyers)
    composed = sum(max(bench.gains[b, s] for s in range(count) if s != b) for b in buyers)
    return round(matched / composed, 4)


def measure(granularity: str, markets: tuple[int, ...], seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    bench = Bench(max(markets), granularity, seed)
    rows = [market(bench, count) for count in markets]
    return {
        "rows": rows,
        "gain_fraction": rows[-1]["gain_fraction"],
        "appraised_fraction": rows[-1]["appraised_fraction"],
        **soups(bench, max(markets)),
        "aligned_in_pairs": composed_against_pairs(bench, min(16, max(markets))),
        "granularity": granularity,
        "seed": seed,
    }


def show(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", *(str(row["agents"]) for row in figures["rows"]), title="By agents in the market")
    for name in list(figures["rows"][0])[1:]:
        table.add_row(name, *(str(row[name]) for row in figures["rows"]))
    Console().print(table)
    print({name: value for name, value in figures.items() if name != "rows"})


def main() -> None:
    parser = argparse.ArgumentParser(description="Shortlisted pairs against all of them.")
    parser.add_argument("--agents", type=int, default=max(MARKETS), help="agents in the largest market")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="learned coefficients instead of one for each pair")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    markets = (*(count for count in MARKETS if count < options.agents), options.agents)
    figures = measure("auto" if options.full else "model", markets, options.seed)
    if options.json:
        print(json.dumps(figures))
    else:
        show(figures)


if __name__ == "__main__":
    main()
