"""The small rules: the split, the merge, the interval."""

from __future__ import annotations

import pytest
import torch

from p2pmarket.appraisal import Validation, paired_gain
from p2pmarket.appraisal.merging import merge, mergeable
from p2pmarket.errors import DataError


def test_the_split_is_seeded_disjoint_and_named() -> None:
    inputs, targets = torch.arange(100.0)[:, None], torch.arange(100)
    one = Validation.split(inputs, targets, select_fraction=0.3, seed=1)
    same = Validation.split(inputs, targets, select_fraction=0.3, seed=1)
    other = Validation.split(inputs, targets, select_fraction=0.3, seed=2)
    assert (len(one.select_inputs), len(one.report_inputs)) == (30, 70)
    assert sorted([*one.select_targets.tolist(), *one.report_targets.tolist()]) == list(range(100))
    assert torch.equal(one.select_inputs[:, 0].long(), one.select_targets)
    assert one.digest == same.digest != other.digest


def test_the_split_refuses() -> None:
    with pytest.raises(DataError, match="fewer than 2"):
        Validation.split(torch.zeros(10, 1), torch.zeros(10), select_fraction=0.95, seed=1)
    with pytest.raises(DataError, match="as many"):
        Validation.split(torch.zeros(10, 1), torch.zeros(9), select_fraction=0.5, seed=1)


def test_a_merge_is_exact_at_both_ends_and_touches_only_what_is_bought() -> None:
    generator = torch.Generator().manual_seed(0)
    buyer, seller = (
        {"a": torch.randn(50, generator=generator), "b": torch.randn(3, generator=generator)} for _ in range(2)
    )
    assert torch.equal(merge(buyer, seller, 0.0, ["a"])["a"], buyer["a"])
    assert torch.equal(merge(buyer, seller, 1.0, ["a"])["a"], seller["a"])
    torch.testing.assert_close(merge(buyer, seller, 0.25, ["a"])["a"], 0.75 * buyer["a"] + 0.25 * seller["a"])
    assert merge(buyer, seller, 0.5, ["a"])["b"] is buyer["b"]


def test_what_can_be_bought() -> None:
    buyer = {
        "a": torch.zeros(2),
        "head": torch.zeros(3),
        "count": torch.tensor(1),
        "own": torch.zeros(1),
        "c": torch.zeros(1),
    }
    seller = {"a": torch.zeros(2), "head": torch.zeros(4), "count": torch.tensor(1), "c": torch.zeros(1).double()}
    assert mergeable(buyer, seller, ["own", "head", "count", "c", "a", "unknown"]) == ("a",)
    assert mergeable(buyer, seller, []) == ()


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("samples", [100, 400])
def test_the_interval_covers_skewed_differences(confidence: float, samples: int) -> None:
    """Differences of cross entropies: mostly near zero, some large. True mean known, 4,000 repetitions."""
    generator = torch.Generator().manual_seed(samples)
    before = -torch.log(torch.rand(4000, samples, generator=generator, dtype=torch.float64))
    after = 0.8 * before + 0.1 * torch.randn(4000, samples, generator=generator, dtype=torch.float64)
    gains = [paired_gain(*pair, confidence) for pair in zip(before, after, strict=True)]
    covered = sum(gain.low <= 0.2 <= gain.high for gain in gains) / len(gains)
    assert covered == pytest.approx(confidence, abs=0.02)


def test_without_a_gain_the_interval_seldom_says_there_is_one() -> None:
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(4000, 2, 200, generator=generator, dtype=torch.float64)
    false = sum(paired_gain(first, second, 0.95).low > 0 for first, second in noise) / 4000
    assert false == pytest.approx(0.025, abs=0.01)


def test_equal_losses_have_an_interval_of_nothing() -> None:
    gain = paired_gain(torch.ones(5), torch.zeros(5), 0.95)
    assert (gain.mean, gain.low, gain.high) == (1.0, 1.0, 1.0)
