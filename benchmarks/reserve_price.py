"""How much of the best revenue does a reserve earn that was learned from n past bids?

`python -m benchmarks.reserve_price` (a table) or `--json`; `--seeds 200`.

The expected revenue of a price P is P (1 - F(P)), with F the distribution that the bids came from; the oracle knows F
and takes the maximum, found on a fine grid and refined. Every row is a fraction of the oracle's revenue: the mean over
seeds and the mean of the worst tenth of the seeds. No learner is told the family. Learners, all on the same bids:

learned     `reserve_from` on the n bids, as the broker sees them, sold or not
published   `reserve_from_statistics` on the same bids as a broker tells them: 21 quantiles, two significant digits;
            every bid is another buyer's
own         `reserve_from` on what one seller sees: it asks what it has learned so far and knows the bid of a sale to a
            micro-credit (from price and ask, at the midpoint), of the others that they were below its ask
own+low     the same seller, that asks half of what it would in every fourth trade, to see bids below
plain       the observed bid with the highest observed revenue: no guard, no caution
warm-up     max(low, high / 2) on low ... high, the 5 % and 95 % quantiles of F: a bound's interval that holds nine
            times in ten, and that no bids have narrowed
mean        the mean of the bids

`own` and `own+low` take more time for each seed, so they run on one eighth of the seeds; buyers in them bid their
values. `worst_fraction_from_100` is the lowest mean of `learned` over the priors and n >= 100; the stress priors, hard
on purpose, are not in it but in `worst_stress_fraction_from_100`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import optimize, stats

from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.pricing.history import Observation, PastBid, reserve_from, reserve_from_statistics, statistics_from
from p2pmarket.units import CREDIT

COUNTS = (10, 30, 100, 300, 1000)
K_PPM = 500_000
OWN_PART = 8


class Mixture:
    """Distributions with shares."""

    def __init__(self, *parts: tuple[float, Any]) -> None:
        self.parts = parts

    def sf(self, value: Any) -> Any:
        return sum(share * part.sf(value) for share, part in self.parts)

    def rvs(self, size: int, random_state: np.random.Generator) -> Any:
        drawn = np.stack([part.rvs(size=size, random_state=random_state) for _, part in self.parts])
        which = random_state.choice(len(self.parts), size=size, p=[share for share, _ in self.parts])
        return drawn[which, np.arange(size)]

    def ppf(self, probability: float) -> float:
        ends = [float(part.ppf(probability)) for _, part in self.parts]
        if min(ends) == max(ends):
            return ends[0]
        return float(optimize.brentq(lambda value: 1 - self.sf(value) - probability, min(ends), max(ends)))


class Rounded:
    """A distribution whose values are rounded down to prices that people like."""

    LIKED = np.array([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0])

    def __init__(self, smooth: Any) -> None:
        self.smooth = smooth

    def sf(self, value: Any) -> Any:
        """P(V >= value): a price that somebody likes is paid by whoever rounds to it."""
        at = np.searchsorted(self.LIKED, value, side="left")
        return np.where(at < len(self.LIKED), self.smooth.sf(self.LIKED[np.minimum(at, len(self.LIKED) - 1)]), 0.0)

    def rvs(self, size: int, random_state: np.random.Generator) -> Any:
        drawn = self.smooth.rvs(size=size, random_state=random_state)
        return np.concatenate(([0.0], self.LIKED))[np.searchsorted(self.LIKED, drawn, side="right")]

    def ppf(self, probability: float) -> float:
        return float(self.smooth.ppf(probability))


PRIORS: dict[str, Any] = {
    "uniform 0..1": stats.uniform(0, 1),
    "exponential": stats.expon(),
    "truncated normal": stats.truncnorm(-1 / 0.3, 1 / 0.3, 1, 0.3),
    "lognormal 1": stats.lognorm(1),
    "lognormal 2": stats.lognorm(2),
    "Pareto 1.5": stats.pareto(1.5),
    "two groups": Mixture((0.7, stats.lognorm(0.25)), (0.3, stats.lognorm(0.25, scale=5))),
}
STRESS: dict[str, Any] = {
    "Pareto 1.1": stats.pareto(1.1),
    "few pay 20x": Mixture((0.92, stats.uniform(0.9, 0.2)), (0.08, stats.uniform(19, 2))),
    "most near zero": stats.beta(0.1, 2),
    "round prices": Rounded(stats.lognorm(1.2, scale=2)),
}


def best_revenue(prior: Any) -> float:
    """The oracle's expected revenue."""
    grid = np.geomspace(1e-4, 1e6, 200_001)
    grid = np.unique(np.concatenate((grid, [1.0, 19.0], Rounded.LIKED)))
    revenue = grid * prior.sf(grid)
    peak = int(revenue.argmax())
    around = (grid[max(0, peak - 1)], grid[min(len(grid) - 1, peak + 1)])
    found = optimize.minimize_scalar(lambda price: -price * float(prior.sf(price)), bounds=around, method="bounded")
    return max(float(revenue[peak]), -float(found.fun))


def in_micro(values: Any) -> list[int]:
    return [min(MAX_AMOUNT, int(value * CREDIT)) for value in values]


def learned(bids: list[int], interval: tuple[int, int]) -> int:
    seen = [Observation(bid, f"buyer {index}", 0) for index, bid in enumerate(bids)]
    return reserve_from(seen, 0, low=interval[0], high=interval[1])


def published(bids: list[int], interval: tuple[int, int]) -> int:
    told = statistics_from(PastBid(f"buyer {index}", bid, None, 0) for index, bid in enumerate(bids))
    return reserve_from_statistics(told) if told else warm_up(bids, interval)


def plain(bids: list[int], interval: tuple[int, int]) -> int:
    rising = np.sort(np.asarray(bids, dtype=np.float64))
    return int(rising[np.argmax(rising * np.arange(len(rising), 0, -1))])


def warm_up(bids: list[int], interval: tuple[int, int]) -> int:
    return max(interval[0], interval[1] // 2)


def mean(bids: list[int], interval: tuple[int, int]) -> int:
    return sum(bids) // len(bids)


LEARNERS: dict[str, Callable[[list[int], tuple[int, int]], int]] = {
    "learned": learned, "published": published, "plain": plain, "warm-up": warm_up, "mean": mean,
}  # fmt: skip


def own_asks(bids: list[int], interval: tuple[int, int], *, looks_low: bool) -> dict[int, int]:
    """What a seller has learned after each of COUNTS trades from its own asks and how they ended.

    It learns anew whenever its trades have grown by a quarter.
    """
    seen: list[Observation] = []
    asks, ask, learn_at = {}, 0, 0.0
    for index, bid in enumerate(bids):
        if index >= learn_at:
            ask = reserve_from(seen, 0, low=interval[0], high=interval[1])
            learn_at = max(index * 1.25, index + 1)
        offered = ask // 2 if looks_low and index % 4 == 3 else ask
        buyer = f"buyer {index}"
        if bid >= offered:
            price = offered + (bid - offered) * K_PPM // 1_000_000
            seen.append(Observation.sold(price, offered, K_PPM, buyer, 0))
        else:
            seen.append(Observation.unsold(offered, buyer, 0))
        if len(seen) in COUNTS:
            asks[len(seen)] = reserve_from(seen, 0, low=interval[0], high=interval[1])
    return asks


def measure(name: str, prior: Any, seeds: int) -> list[dict[str, Any]]:
    """The rows of one prior: a fraction of the oracle's revenue for each learner and number of bids."""
    best = best_revenue(prior)
    low, high = in_micro([prior.ppf(0.05), prior.ppf(0.95)])
    interval = (low, high)
    fractions: dict[tuple[str, int], list[float]] = {}
    for seed in range(seeds):
        drawn = in_micro(prior.rvs(size=max(COUNTS), random_state=np.random.default_rng(seed)))
        prices = {(learner, n): price(drawn[:n], interval) for learner, price in LEARNERS.items() for n in COUNTS}
        if seed % OWN_PART == 0:
            for learner, looks_low in (("own", False), ("own+low", True)):
                prices |= {(learner, n): ask for n, ask in own_asks(drawn, interval, looks_low=looks_low).items()}
        for key, price in prices.items():
            amount = price / CREDIT
            fractions.setdefault(key, []).append(amount * float(prior.sf(amount)) / best)
    rows = []
    for (learner, n), earned in fractions.items():
        worst = sorted(earned)[: math.ceil(len(earned) / 10)]
        row = {"prior": name, "bids": n, "learner": learner, "seeds": len(earned)}
        rows.append(row | {"mean": sum(earned) / len(earned), "worst_decile": sum(worst) / len(worst)})
    return rows


def worst(rows: list[dict[str, Any]]) -> float:
    return min(float(row["mean"]) for row in rows if row["learner"] == "learned" and row["bids"] >= 100)


def show(rows: list[dict[str, Any]]) -> None:
    learners = ["learned", "published", "own", "own+low", "plain", "warm-up", "mean"]
    print(f"{'prior':17} {'bids':>5}  " + "  ".join(f"{learner:>13}" for learner in learners))
    cells = {(row["prior"], row["bids"], row["learner"]): row for row in rows}
    for prior in dict.fromkeys(row["prior"] for row in rows):
        for n in COUNTS:
            found = [cells[prior, n, learner] for learner in learners]
            print(
                f"{prior:17} {n:5d}  " + "  ".join(f"{row['mean']:6.3f} ({row['worst_decile']:.2f})" for row in found)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="A learned reserve's revenue as a fraction of the oracle's.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    began = time.perf_counter()
    rows = [row for name, prior in PRIORS.items() for row in measure(name, prior, options.seeds)]
    stress = [row for name, prior in STRESS.items() for row in measure(name, prior, options.seeds)]
    show(rows + stress)
    figures = {
        "rows": rows,
        "stress_rows": stress,
        "seeds": options.seeds,
        "worst_fraction_from_100": worst(rows),
        "worst_stress_fraction_from_100": worst(stress),
        "seconds": time.perf_counter() - began,
    }
    print({key: round(value, 3) for key, value in figures.items() if isinstance(value, float)})
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
