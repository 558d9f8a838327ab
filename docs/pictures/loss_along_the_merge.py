"""Draws docs/pictures/loss_along_the_merge.png: the loss between two models, aligned and not.

Run it:  python docs/pictures/loss_along_the_merge.py

Two networks (64-128-64-10) that begin from different initialisations and know different digits: the buyer has 5 % of
the classes 0-4 and all of 5-9, the seller the mirror. The broker's data are split into SELECT and REPORT, and what is
learned is learned as the broker learns it. Seeds are fixed; the figures stand in the legend.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from p2pmarket.alignment import apply, match
from p2pmarket.appraisal import Evaluator, MergePlan, Validation, plan_merge
from p2pmarket.appraisal.bench import Bench
from p2pmarket.appraisal.control import merged_with_control
from p2pmarket.datasets import Dataset, split, subset_by_class
from p2pmarket.models import build_model, permutation_spec
from p2pmarket.parameters import take_snapshot

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

PICTURE = Path(__file__).with_suffix(".png")
ARGUMENTS = {"inputs": 64, "hidden": (128, 64), "outputs": 10}
ALPHAS = tuple(-0.5 + 0.05 * step for step in range(41))
COLOURS = {"identity": "#d55e00", "weights": "#0072b2"}
NAMES = {"identity": "as it is", "weights": "aligned"}
LABELS = {"identity": (0.62, 1.5), "weights": (1.14, 0.5)}
LINES = {"tensor": ("#009e73", "one number for each tensor"), "row": ("#000000", "one number for each output row")}


def trained(data: Dataset, scarce: range, seed: int) -> dict[str, Tensor]:
    """An agent with 5 % of the classes in `scarce` and all of the others."""
    own = subset_by_class(data, {label: 0.05 for label in scarce}, seed=seed)
    torch.manual_seed(seed)
    model = build_model("mlp", ARGUMENTS, False)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(20):
        for batch in torch.randperm(len(own)).split(32):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(own.inputs[batch]), own.targets[batch]).backward()
            optimiser.step()
    return take_snapshot(model)


def main() -> None:
    """Trains both, walks along the lines between them, draws."""
    digits = load_digits()
    whole = Dataset(torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target))
    agents, broker = split(whole, (0.5, 0.5), seed=0)
    buyer, seller = trained(agents, range(5), seed=1), trained(agents, range(5, 10), seed=2)
    model = build_model("mlp", ARGUMENTS, False)
    spec = permutation_spec("mlp", ARGUMENTS, model)
    assert spec is not None
    evaluator = Evaluator(model, loss="cross_entropy", metric="accuracy", device="cpu", precision="float32")
    data = Validation.split(broker.inputs, broker.targets, select_fraction=0.5, seed=0)
    bench = Bench(evaluator, data, buyer, seller, tuple(buyer), seed=0)
    sellers = {"identity": seller, "weights": apply(spec, match(spec, buyer, seller, seed=0), seller)}

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for label, other in sellers.items():
        select = [on_select(bench, other, alpha) for alpha in ALPHAS]
        report = [on_report(bench, other, alpha) for alpha in ALPHAS]
        axes.plot(ALPHAS, select, "--", color=COLOURS[label], lw=1.2, label=f"seller {NAMES[label]}, SELECT")
        axes.plot(ALPHAS, report, "-", color=COLOURS[label], lw=2, label=f"seller {NAMES[label]}, REPORT")
        best = planned(bench, other, "model").alpha
        there = on_report(bench, other, best)
        axes.plot(best, there, "o", color=COLOURS[label], ms=9, mec="white", zorder=5)
        axes.annotate(
            f"best on SELECT:\n{best:.2f}, loss {there:.2f}",
            (best, there),
            LABELS[label],
            color=COLOURS[label],
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": COLOURS[label], "lw": 0.8},
        )
    for fineness, (colour, name) in LINES.items():
        coefficients = planned(bench, sellers["weights"], fineness).coefficients
        loss = bench.on_report(bench.merged(sellers["weights"], coefficients)).loss
        axes.axhline(loss, color=colour, lw=1.4, ls="-.", label=f"{name}: {loss:.2f}")
    control = bench.on_report(merged_with_control(bench, sellers["weights"], "row", seed=0)).loss
    axes.axhline(control, color="#999999", lw=1.4, ls=":", label=f"a seller who knows nothing, by rows: {control:.2f}")

    own = on_report(bench, seller, 0.0)
    axes.plot(0, own, "s", color="#555555", ms=7, mec="white", zorder=5, label=f"the buyer alone, REPORT: {own:.2f}")
    axes.set_xlim(ALPHAS[0], ALPHAS[-1])
    axes.set_ylim(0, 3.6)
    axes.set_xlabel("the seller's portion alpha: 0 is the buyer, 1 the seller")
    axes.set_ylabel("cross entropy of the merge")
    axes.axvline(0, color="#cccccc", lw=0.8, zorder=0)
    axes.axvline(1, color="#cccccc", lw=0.8, zorder=0)
    axes.legend(loc="upper center", fontsize=9, ncols=2, framealpha=0.95)
    figure.savefig(PICTURE, dpi=110)


def planned(bench: Bench, seller: Mapping[str, Tensor], granularity: str) -> MergePlan:
    """The best merge on SELECT with a seller who is aligned already, or deliberately not."""
    return plan_merge(
        bench.evaluator, bench.data, None, bench.buyer, seller, tradable=bench.names, seed=0, granularity=granularity
    )


def on_select(bench: Bench, seller: Mapping[str, Tensor], alpha: float) -> float:
    """Mean loss of the merge on what it is chosen by."""
    return float(bench.on_select(bench.merged(seller, alpha)).mean())


def on_report(bench: Bench, seller: Mapping[str, Tensor], alpha: float) -> float:
    """Mean loss of the merge on what it is told by."""
    return bench.on_report(bench.merged(seller, alpha)).loss


if __name__ == "__main__":
    main()
