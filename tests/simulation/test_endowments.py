"""Who has which data in a demonstration: the paper's shares, no sample in two hands, terms that load."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from p2pmarket.datasets import load_dataset
from p2pmarket.errors import DataError
from p2pmarket.market import load_terms
from p2pmarket.models import build_model
from p2pmarket.simulation.endowments import prepare


def samples(*paths) -> list[bytes]:
    """Every sample of these files."""
    return [row.numpy().tobytes() for path in paths for row in load_dataset(str(path), allow_import=False).inputs]


def counts(path) -> list[int]:
    """Samples of each of ten classes."""
    return torch.bincount(load_dataset(str(path), allow_import=False).targets, minlength=10).tolist()


def images(path, train: int = 600, test: int = 50):
    """An .npz like MNIST's, each picture another."""
    pixels = np.random.default_rng(0).integers(0, 256, (train + test, 28, 28), dtype=np.uint8)
    labels = np.arange(train + test) % 10
    np.savez(path, x_train=pixels[:train], y_train=labels[:train], x_test=pixels[train:], y_test=labels[train:])
    return path


def test_digits_are_shared_as_in_the_paper(tmp_path):
    made = prepare(tmp_path, None, agents=2, seed=0)
    one, other = (counts(path) for path in made.agents)
    assert all(few * 5 < many for few, many in zip(one[:5], other[:5], strict=True))
    assert all(few * 5 < many for few, many in zip(other[5:], one[5:], strict=True))
    assert made.epochs > 0
    assert "scikit-learn's digits" in made.about


def test_nobody_trains_on_what_the_broker_or_the_test_has(tmp_path):
    made = prepare(tmp_path, str(images(tmp_path / "i.npz")), agents=2, seed=0)
    trained, held_out, tested = set(samples(*made.agents)), samples(made.validation), samples(made.test)
    assert not trained & set(held_out)
    assert not trained & set(tested)
    assert not set(held_out) & set(tested)
    assert (len(held_out), len(tested)) == (100, 50)


def test_more_agents_share_the_same_data(tmp_path):
    made = prepare(tmp_path, str(images(tmp_path / "i.npz")), agents=5, seed=0)
    assert len(made.agents) == len(set(made.agents)) == 5
    assert all(sum(counts(path)) < 300 for path in made.agents)


def test_the_same_seed_gives_the_same_data_and_another_gives_other(tmp_path):
    source = str(images(tmp_path / "i.npz"))
    first, again, other = (
        samples(prepare(tmp_path / name, source, agents=2, seed=seed).agents[0])
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("rounds", ["barrier", "continuous"])
def test_the_terms_load_and_their_model_takes_the_data(tmp_path, rounds):
    made = prepare(tmp_path, str(images(tmp_path / "i.npz")), agents=2, seed=0, rounds=rounds)
    terms = load_terms(made.terms)
    assert terms.rounds == rounds
    model = build_model(terms.model, terms.arguments(terms.tasks[0].name), allow_import=False)
    assert model(load_dataset(str(made.test), allow_import=False).inputs).shape == (50, 10)


def test_a_file_of_another_form_is_said(tmp_path):
    np.savez(tmp_path / "other.npz", pictures=np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"other\.npz"):
        prepare(tmp_path / "data", str(tmp_path / "other.npz"), agents=2, seed=0)
