"""Merges are kept for the pair's other direction: the oldest make room, and none that nobody will ask for."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from p2pmarket.alignment import PermutationSpec
from p2pmarket.appraisal.plan import MergePlan
from p2pmarket.broker_node.book import Submission
from p2pmarket.broker_node.merges import BYTES_KEPT, MERGES_KEPT, Alignments, Merge, Merges
from p2pmarket.models import build_model, permutation_spec

ARGUMENTS = {"inputs": 4, "hidden": [5], "outputs": 3}


def member(number: int, **changes: object) -> Submission:
    whole = Submission(
        id=number.to_bytes(16, "big"),
        agent=f"agent {number}",
        snapshot=number.to_bytes(32, "big"),
        task="task",
        step=0,
        plain_bytes=1,
        buy=True,
        sell=True,
        ask=None,
        signed=b"",
        state="booked",
        submitted_ms=number,
        round=0,
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def merge(alpha: float = 0.25, order: tuple[int, ...] = (1, 2, 0, 3, 4)) -> Merge:
    spec_name = next(iter(spec().sizes))
    plan = MergePlan("weights", "model", alpha, {"layers.0.weight": torch.tensor(alpha)})
    return Merge(Alignments({spec_name: torch.tensor(order)}, None), plan)


def spec() -> PermutationSpec:
    found = permutation_spec("mlp", ARGUMENTS, build_model("mlp", ARGUMENTS, False))
    assert found is not None
    return found


def test_the_other_direction_is_the_reverse_and_is_given_once() -> None:
    merges, one, other = Merges(), member(1), member(2)
    merges.keep(one, other, merge())
    assert merges.take(one, other, spec()) is None, "the same direction is another merge"
    found = merges.take(other, one, spec())
    assert found is not None and found.plan.alpha == 0.75
    weights = found.alignments.weights
    assert weights is not None and next(iter(weights.values())).tolist() == [2, 0, 1, 3, 4]
    assert merges.take(other, one, spec()) is None


def test_the_oldest_make_room_one_by_one() -> None:
    merges = Merges(most=3)
    for number in range(2, 7):
        merges.keep(member(1), member(number), merge())
    held = [number for number in range(2, 7) if merges.take(member(number), member(1), spec()) is not None]
    assert held == [4, 5, 6]


def test_memory_is_bounded() -> None:
    each = merge().nbytes
    assert each == 5 * 8 + 4
    merges = Merges(most_bytes=2 * each)
    for number in range(2, 5):
        merges.keep(member(1), member(number), merge())
    assert [merges.take(member(n), member(1), spec()) is not None for n in (2, 3, 4)] == [False, True, True]
    merges.keep(member(1), member(2), merge())  # what was taken is no longer counted
    merges.keep(member(1), member(3), merge())
    merges.keep(member(1), member(3), merge())  # the same pair again takes no more room
    assert all(merges.take(member(n), member(1), spec()) is not None for n in (2, 3))
    small = Merges(most_bytes=each - 1)
    small.keep(member(1), member(2), merge())
    assert small.take(member(2), member(1), spec()) is None


@pytest.mark.parametrize(
    ("buyer", "seller"),
    [({}, {"buy": False}), ({"sell": False}, {}), ({}, {"task": "another"}), ({}, {"state": "appraised"})],
)
def test_what_nobody_will_ask_for_is_not_kept(buyer: dict[str, object], seller: dict[str, object]) -> None:
    merges, one, other = Merges(most=1), member(1, **buyer), member(2, **seller)
    merges.keep(member(3), member(4), merge())
    merges.keep(one, other, merge())
    assert merges.take(member(4), member(3), spec()) is not None, "it took nobody's room"
    assert merges.take(other, one, spec()) is None


def test_a_whole_rounds_pairs_fit_and_threads_may_share_them() -> None:
    merges, members = Merges(), [member(number) for number in range(80)]
    pairs = [(one, other) for place, one in enumerate(members) for other in members[:place]]
    assert len(pairs) <= MERGES_KEPT and len(pairs) * merge().nbytes < BYTES_KEPT
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda pair: merges.keep(*pair, merge()), pairs))
        found = list(pool.map(lambda pair: merges.take(pair[1], pair[0], spec()), pairs))
    assert None not in found
