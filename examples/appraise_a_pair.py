"""What would one model gain from another's parameters? The appraisal engine as a library, without a network.

Run it:  python examples/appraise_a_pair.py

Two agents train the same architecture apart, each on its own half of scikit-learn's digits. The model is an ordinary
`nn.Module` that p2pmarket has never seen; docs/appraisal.md explains the steps.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from p2pmarket.alignment import find_symmetry
from p2pmarket.appraisal import Appraisal, Evaluator, Validation, appraise
from p2pmarket.datasets import Dataset, split, subset_by_class
from p2pmarket.parameters import load_in_place, take_snapshot


def worth(buyer: nn.Module, seller: nn.Module, inputs: Tensor, targets: Tensor) -> Appraisal:
    """What `buyer` would gain, told by data (N, ...) and classes (N,) that neither model was trained on."""
    symmetry = find_symmetry(buyer, (inputs[:4],))
    print(f"alignment can move {symmetry.coverage:.1%} of {symmetry.parameters:,} parameters")
    ours, theirs = take_snapshot(buyer), take_snapshot(seller)
    return appraise(
        Evaluator(copy.deepcopy(buyer), loss="cross_entropy", metric="accuracy"),
        Validation.split(inputs, targets, select_fraction=0.5, seed=0),
        symmetry.spec,
        ours,
        theirs,
        tradable=ours.keys(),
        encode_decode=dict,
        confidence=0.95,
        seed=0,
    )


def make(seed: int) -> nn.Sequential:
    """A fresh network."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def digits() -> tuple[Dataset, Dataset, Dataset]:
    """Data for the agents, for whoever appraises, and a test set that nobody sees before the end."""
    from sklearn.datasets import load_digits

    data = load_digits()
    whole = Dataset(torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target))
    agents, appraiser, test = split(whole, (0.5, 0.3, 0.2), seed=0)
    return agents, appraiser, test


def train(model: nn.Module, data: Dataset, epochs: int) -> None:
    """Ordinary training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(epochs):
        for batch in torch.randperm(len(data)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.inputs[batch]), data.targets[batch]).backward()
            optimizer.step()


def accuracy(model: nn.Module, data: Dataset) -> float:
    """Percent of the samples that the model puts in the right class."""
    with torch.no_grad():
        return float((model(data.inputs).argmax(1) == data.targets).double().mean() * 100)


def main() -> None:
    """Two agents trained, one purchase appraised and loaded."""
    data, appraiser, test = digits()
    buyer, seller = make(seed=1), make(seed=2)
    train(buyer, subset_by_class(data, {label: 0.1 for label in range(5)}, seed=1), epochs=10)
    train(seller, subset_by_class(data, {label: 0.1 for label in range(5, 10)}, seed=2), epochs=10)
    print(f"right on the test set: buyer {accuracy(buyer, test):.1f} %, seller {accuracy(seller, test):.1f} %")
    appraisal = worth(buyer, seller, appraiser.inputs, appraiser.targets)
    print(f"alignment by {appraisal.alignment}, one coefficient for each {appraisal.granularity}")
    print(appraisal.verdict)
    if appraisal.delivered:
        load_in_place(buyer, appraisal.delivered)
        print(f"after the purchase the buyer is right on {accuracy(buyer, test):.1f} % of the test set")


if __name__ == "__main__":
    main()
