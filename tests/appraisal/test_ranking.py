"""Few full appraisals for most of the gain: composed alignments, cheap scores, and a shortlist that is fair."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from appraisal_examples import Tensors, bench, trained, untrained
from hypothesis import given
from hypothesis import strategies as st

from p2pmarket.alignment import PermutationSpec, apply, is_identity
from p2pmarket.appraisal import Evaluator, appraise
from p2pmarket.appraisal.ranking import Scout, Stage, between
from p2pmarket.appraisal.scores import complementarity, shortlist
from p2pmarket.errors import BadSnapshot, ModelError

pytest.importorskip("sklearn")


def _shuffled(spec: PermutationSpec, tensors: Tensors, seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return apply(spec, {n: torch.randperm(s, generator=generator) for n, s in spec.sizes.items()}, tensors)


def _scout(evaluator: Evaluator | None = None, **changes: object) -> Scout:
    known, validation, spec = bench()
    return Scout(evaluator or known, validation, spec, tradable=trained(0, 1).keys(), seed=1, **changes)  # type: ignore[arg-type]


@functools.cache
def _agents() -> dict[bytes, Tensors]:
    _, _, spec = bench()
    agents = [trained(0, 1), _shuffled(spec, trained(5, 2), 1), trained(3, 4), untrained(3), trained(6, 5)]
    return {bytes([number]): tensors for number, tensors in enumerate(agents)}


@functools.cache
def _known() -> Scout:
    scout = _scout()
    for digest, tensors in _agents().items():
        scout.add(digest, tensors)
    return scout


def _all() -> dict[bytes, list[bytes]]:
    return {buyer: [seller for seller in _agents() if seller != buyer] for buyer in _agents()}


def test_alignments_are_composed_over_the_reference() -> None:
    _, _, spec = bench()
    base = trained(0, 1)
    first, second = _shuffled(spec, base, 1), _shuffled(spec, base, 2)
    scout = _scout()
    for digest, tensors in ((b"base", base), (b"first", first), (b"second", second)):
        scout.add(digest, tensors)
    composed = scout.alignment(b"first", b"second")
    assert composed is not None and not is_identity(composed)
    moved = apply(spec, composed, second)
    assert all(torch.equal(moved[name], first[name]) for name in first)
    back = scout.alignment(b"second", b"first")
    assert back is not None
    assert all(torch.equal(tensor, apply(spec, back, first)[name]) for name, tensor in second.items())


@given(st.integers(0, 2**31))
def test_composed_alignments_agree_round_a_circle(seed: int) -> None:
    _, _, spec = bench()
    generator = torch.Generator().manual_seed(seed)
    a, b, c = ({n: torch.randperm(s, generator=generator) for n, s in spec.sizes.items()} for _ in range(3))
    assert is_identity(between(spec, a, a))
    direct, first, second = between(spec, a, c), between(spec, a, b), between(spec, b, c)
    assert all(torch.equal(direct[name], second[name][first[name]]) for name in direct)


def test_complementarity_is_the_gain_of_the_mean_of_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    buyer, seller = torch.rand(50, 2, generator=generator, dtype=torch.float64).T
    together = -((buyer + seller) / 2).log()
    expected = float((-buyer.log() - together).mean())
    assert complementarity(-buyer.log(), -seller.log()) == pytest.approx(expected)
    assert complementarity(buyer, buyer) == pytest.approx(0.0, abs=1e-12)
    assert math.isfinite(complementarity(buyer + 1e4, seller + 1e5))


def test_the_shortlist_serves_every_buyer_before_any_twice() -> None:
    scores = {("a", "x"): 9.0, ("a", "y"): 8.0, ("b", "x"): 0.1, ("b", "y"): 0.2, ("c", "x"): -1.0, ("c", "y"): 0.0}
    assert shortlist(scores, 2) == (("a", "x"), ("b", "y"))
    assert shortlist(scores, 3) == (("a", "x"), ("b", "y"), ("a", "y"))
    assert shortlist(scores, 99) == (("a", "x"), ("b", "y"), ("a", "y"), ("b", "x"))
    assert shortlist(scores, 0) == shortlist({}, 5) == ()
    assert shortlist({("a", "x"): math.nan}, 5) == ()


@given(
    st.dictionaries(st.tuples(st.integers(0, 6), st.integers(0, 6)), st.floats(-1, 1), max_size=40), st.integers(0, 40)
)
def test_a_shortlist_keeps_its_rules(scores: dict[tuple[int, int], float], budget: int) -> None:
    chosen = shortlist(scores, budget)
    promising = {pair for pair, score in scores.items() if score > 0}
    assert len(chosen) == len(set(chosen)) == min(budget, len(promising)) and set(chosen) <= promising
    if budget >= len({buyer for buyer, _ in promising}):
        assert {buyer for buyer, _ in chosen} == {buyer for buyer, _ in promising}
    for buyer, seller in promising - set(chosen):
        assert all(scores[other] >= scores[buyer, seller] for other in chosen if other[0] == buyer)


def test_few_appraisals_find_what_all_find() -> None:
    evaluator, validation, spec = bench()
    scout, agents = _known(), _agents()
    gains = {}
    for buyer, sellers in _all().items():
        for seller in sellers:
            found = appraise(
                evaluator, validation, spec, agents[buyer], agents[seller],
                tradable=agents[buyer].keys(), encode_decode=dict, confidence=0.95, seed=1,
                alignment=scout.alignment(buyer, seller), granularity="model",
            )  # fmt: skip
            gains[buyer, seller] = found.gain if found.low > 0 else 0.0
    best = {buyer: max(gains[buyer, seller] for seller in sellers) for buyer, sellers in _all().items()}
    chosen = scout.pairs(_all(), agents.__getitem__, budget=10)
    assert len(chosen) == 10 and {buyer for buyer, _ in chosen} == set(agents)
    reached = {buyer: max(gains[pair] for pair in chosen if pair[0] == buyer) for buyer in agents}
    assert sum(best.values()) > 0.5 and sum(reached.values()) > 0.9 * sum(best.values())
    # Nobody's best bet is the one that never trained, and the one that never trained has a seller.
    first = {buyer: seller for buyer, seller in reversed(chosen)}
    assert bytes([3]) not in first.values() and bytes([3]) in first


def test_pairs_are_the_same_each_time_and_keep_to_the_budget() -> None:
    scout, agents = _known(), _agents()
    chosen = scout.pairs(_all(), agents.__getitem__, budget=6)
    assert chosen == scout.pairs(_all(), agents.__getitem__, budget=6) and len(chosen) == 6
    assert scout.pairs(_all(), agents.__getitem__, budget=0) == ()
    assert scout.pairs({}, agents.__getitem__, budget=6) == ()
    only = scout.pairs({bytes([3]): [bytes([0]), bytes([3])]}, agents.__getitem__, budget=6)
    assert only == ((bytes([3]), bytes([0])),)  # never from itself


class Counting(Evaluator):
    """Counts what is measured."""

    samples = 0

    def measure(self, tensors, inputs, targets):  # type: ignore[no-untyped-def]
        self.samples += len(inputs)
        return super().measure(tensors, inputs, targets)


def test_a_snapshot_is_measured_once_and_probes_are_small() -> None:
    from p2pmarket.models import build_model

    model = build_model("mlp", {"inputs": 64, "hidden": (64, 32), "outputs": 10}, False)
    evaluator = Counting(model, loss="cross_entropy", metric="accuracy", device="cpu")
    size = len(bench()[1].select_targets)
    scout = _scout(evaluator, stages=(Stage(16, (0.5,), 2.0),))
    for _ in range(3):
        for digest, tensors in _agents().items():
            scout.add(digest, tensors)
    assert evaluator.samples == len(_agents()) * size
    evaluator.samples = 0
    scout.pairs(_all(), _agents().__getitem__, budget=5)
    assert 0 < evaluator.samples <= 2 * 5 * 2 * 16  # pairs entering, two alignments, samples
    scout.keep([bytes([0])])
    evaluator.samples = 0
    scout.add(bytes([0]), _agents()[bytes([0])])
    assert evaluator.samples == 0
    scout.add(bytes([1]), _agents()[bytes([1])])
    assert evaluator.samples == size


def test_bad_snapshots_are_refused_and_leave_nothing() -> None:
    scout = _scout()
    with pytest.raises(BadSnapshot, match="not a number"):
        scout.add(b"bad", {name: torch.full_like(tensor, math.nan) for name, tensor in trained(0, 1).items()})
    with pytest.raises(ModelError):
        scout.add(b"other", {name: torch.ones(3, 3) for name in trained(0, 1)})
    scout.add(b"good", trained(0, 1))
    with pytest.raises(KeyError):
        scout.alignment(b"good", b"bad")
    aligned = scout.alignment(b"good", b"good")
    assert aligned is not None and is_identity(aligned)  # the good one is the reference


def _settled(agents: dict[bytes, Tensors], scout: Scout | None = None) -> Scout:
    scout = scout or _scout()
    for digest, tensors in agents.items():
        scout.measure(digest, tensors)
    assert scout.settle(agents.__getitem__) == {}
    return scout


def _zeros() -> Tensors:
    return {name: torch.zeros_like(tensor) for name, tensor in trained(0, 1).items()}


@pytest.mark.parametrize("bad", [_zeros(), untrained(3)], ids=["zeros", "noise"])
def test_a_model_that_never_trained_is_not_the_reference(bad: Tensors) -> None:
    _, _, spec = bench()
    first, second = (_shuffled(spec, trained(0, 1), seed) for seed in (1, 2))
    agents = {b"bad": bad, b"first": first, b"second": second}
    found = _settled(agents).alignment(b"first", b"second")
    assert found is not None
    moved = apply(spec, found, second)
    assert all(torch.equal(moved[name], first[name]) for name in first)
    assert _settled(agents).reference != b"bad"
    before = _scout()  # the control: the first one added stays the reference, and the pair does not find together
    for digest, tensors in agents.items():
        before.add(digest, tensors)
    assert before.reference == b"bad"
    poor = before.alignment(b"first", b"second")
    assert poor is not None and (bad["layers.0.weight"].any() or is_identity(poor))


def test_the_reference_stays_while_it_is_kept_and_then_all_are_aligned_anew() -> None:
    agents = _agents()
    scout = _settled({digest: agents[digest] for digest in list(agents)[1:]})
    chosen = scout.reference
    assert chosen is not None and chosen != bytes([3])
    losses = {digest: scout.measure(digest, {}).losses.mean() for digest in list(agents)[1:]}
    assert chosen == min(losses, key=lambda digest: float(losses[digest]))
    assert _settled(agents, scout).reference == chosen
    rest = {digest: tensors for digest, tensors in agents.items() if digest != chosen}
    scout.keep(rest)
    old = scout.measure(bytes([3]), {}).to_reference
    assert _settled(rest, scout).reference in rest
    new, own = scout.measure(bytes([3]), {}).to_reference, scout.reference
    assert old is not None and new is not None and not all(torch.equal(old[name], new[name]) for name in old)
    assert own is not None and is_identity(scout.measure(own, {}).to_reference or {})
    with pytest.raises(KeyError):
        scout.alignment(chosen, bytes([3]))


def test_what_cannot_be_aligned_is_named_and_forgotten() -> None:
    agents = {b"huge": dict(trained(0, 1)), b"good": trained(5, 2)}
    # The same function, of lower loss than the other's or not: squares of its weights are no float32 numbers.
    for name, factor in (("layers.0.weight", 1e25), ("layers.0.bias", 1e25), ("layers.1.weight", 1e-25)):
        agents[b"huge"][name] = agents[b"huge"][name] * factor
    scout = _scout()
    for digest, tensors in agents.items():
        scout.measure(digest, tensors)
    assert list(scout.settle(agents.__getitem__)) == [b"huge"] and scout.reference == b"good"
    alone = _scout()
    alone.measure(b"huge", agents[b"huge"])
    assert list(alone.settle(agents.__getitem__)) == [b"huge"] and alone.reference is None
    with pytest.raises(BadSnapshot):
        alone.add(b"huge", agents[b"huge"])
    assert alone.reference is None
    assert alone.settle(agents.__getitem__) == {}


def test_alignments_and_probes_can_be_stopped() -> None:
    def stop(doing: str, done: float) -> None:
        assert 0 <= done <= 1
        raise InterruptedError(doing)

    scout, agents = _scout(), _agents()
    for digest, tensors in agents.items():
        scout.measure(digest, tensors)
    with pytest.raises(InterruptedError, match="aligning"):
        scout.settle(agents.__getitem__, stop)
    with pytest.raises(InterruptedError, match="ranking"):
        _known().pairs(_all(), agents.__getitem__, budget=3, progress=stop)
    assert scout.settle(agents.__getitem__) == {} and scout.pairs(_all(), agents.__getitem__, budget=3)
