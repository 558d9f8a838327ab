"""Weight matching finds planted permutations, is deterministic, and leaves torch's generators alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from p2pmarket.alignment import Axis, PermutationClass, PermutationSpec, apply, identity, inverse, match
from p2pmarket.alignment.assignment import Assigner
from p2pmarket.errors import BadSnapshot, ModelError
from p2pmarket.models import build_model, permutation_spec

Tensors = dict[str, torch.Tensor]

MLP = ("mlp", {"inputs": 20, "hidden": [16, 24, 12], "outputs": 4})


def _pair(
    reference: str, arguments: dict[str, object], noise: float
) -> tuple[PermutationSpec, Tensors, Tensors, Tensors]:
    """Spec, buyer, a seller that is the buyer permuted plus noise, and the permutations planted."""
    torch.manual_seed(0)
    model = build_model(reference, arguments, False)
    spec = permutation_spec(reference, arguments, model)
    assert spec is not None
    buyer = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    planted = {name: torch.randperm(size) for name, size in spec.sizes.items()}
    seller = {
        name: tensor + noise * tensor.std() * torch.randn(tensor.shape) if tensor.ndim > 1 else tensor
        for name, tensor in apply(spec, planted, buyer).items()
    }
    return spec, buyer, seller, planted


def _objective(first: Tensors, second: Tensors) -> float:
    return sum(float((first[name].double() * second[name].double()).sum()) for name in first)


@pytest.mark.parametrize(
    ("reference", "arguments"),
    [MLP, ("resnet20", {"outputs": 4}), ("wide_resnet", {"depth": 10, "width": 2, "outputs": 4})],
)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_planted_permutation_is_found(reference: str, arguments: dict[str, object], noise: float) -> None:
    spec, buyer, seller, planted = _pair(reference, arguments, noise)
    found = match(spec, buyer, seller, seed=1)
    undo = inverse(spec, planted)
    assert all(torch.equal(found[name], undo[name]) for name in spec.sizes)


def test_the_inverse_serves_the_other_direction() -> None:
    spec, buyer, seller, _ = _pair(*MLP, noise=2.0)
    there = match(spec, buyer, seller, seed=1)
    assert _objective(buyer, apply(spec, there, seller)) == pytest.approx(
        _objective(seller, apply(spec, inverse(spec, there), buyer)), rel=1e-12
    )


def test_never_worse_than_the_identity_and_no_worse_with_restarts() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        first, second = (build_model(*MLP, False).state_dict() for _ in range(2))
        spec = permutation_spec(*MLP, build_model(*MLP, False))
        assert spec is not None
        once = _objective(first, apply(spec, match(spec, first, second, seed=1), second))
        more = _objective(first, apply(spec, match(spec, first, second, seed=1, restarts=4), second))
        assert more >= once > _objective(first, second)


def test_equal_inputs_give_equal_permutations_and_no_generator_moves() -> None:
    spec, buyer, seller, _ = _pair(*MLP, noise=3.0)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = match(spec, buyer, seller, seed=9), match(spec, buyer, seller, seed=9)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@pytest.mark.parametrize("limit", ["max_visits", "time_budget_seconds"])
def test_limits_hold_wherever_they_fall(limit: str) -> None:
    """A pair with a shared past that a first sweep loses: whenever it is stopped the identity is still the measure."""
    spec, buyer, _, _ = _pair(*MLP, noise=0.0)
    generator = torch.Generator().manual_seed(2)
    seller = {
        name: tensor + 2.0 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in buyer.items()
    }
    reached = []
    for bound in range(30):
        ticks, seen = itertools.count(), [(0, 0)]
        limits = {"max_visits": bound} if limit == "max_visits" else {"time_budget_seconds": float(bound)}
        found = match(
            spec,
            buyer,
            seller,
            seed=1,
            restarts=1,
            clock=lambda ticks=ticks: float(next(ticks)),
            progress=lambda visits, still_open, seen=seen: seen.append((visits, still_open)),
            **limits,
        )
        reached.append(_objective(buyer, apply(spec, found, seller)))
        assert max(visits for visits, _ in seen) <= (bound if limit == "max_visits" else 3 * bound)
    assert reached[0] == pytest.approx(_objective(buyer, seller)) == pytest.approx(min(reached))
    assert len({round(value, 6) for value in reached}) > 1 and reached[-1] > reached[0]


def test_unlike_models_get_a_second_ascent_unasked() -> None:
    """On some seeds it is the better one; models with a shared past need none."""
    better = 0
    for seed in range(6):
        torch.manual_seed(seed)
        first, second = (build_model(*MLP, False).state_dict() for _ in range(2))
        spec = permutation_spec(*MLP, build_model(*MLP, False))
        assert spec is not None
        values = [
            _objective(first, apply(spec, match(spec, first, second, seed=1, restarts=restarts), second))
            for restarts in (1, 2, None)
        ]
        assert values[0] <= values[1] == values[2]
        better += values[2] > values[0]
    assert better > 0
    spec, buyer, seller, _ = _pair(*MLP, noise=0.3)
    counts = []
    for restarts in (1, 2, None):
        seen: list[int] = []
        match(spec, buyer, seller, seed=1, restarts=restarts, progress=lambda *_, seen=seen: seen.append(1))
        counts.append(len(seen))
    assert counts[0] == counts[2] < counts[1]


def test_one_class_is_solved_exactly() -> None:
    """With one class the problem is one assignment: compared with all orders of five units."""
    generator = torch.Generator().manual_seed(3)
    first, second = ({"w": torch.randn(5, 4, generator=generator)} for _ in range(2))
    spec = PermutationSpec((PermutationClass("a", 5, (Axis("w", 0),)),))
    best = max(float((first["w"] * second["w"][list(order)]).sum()) for order in itertools.permutations(range(5)))
    assert _objective(first, apply(spec, match(spec, first, second, seed=0), second)) == pytest.approx(best, rel=1e-6)


def test_a_class_on_both_axes_only_ever_rises() -> None:
    """A square weight from a residual stream to itself: the assignment is a linearisation, the objective decides."""
    spec = PermutationSpec((PermutationClass("a", 8, (Axis("w", 0), Axis("w", 1))),))
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        first, second = ({"w": torch.randn(8, 8, generator=generator)} for _ in range(2))
        found = match(spec, first, second, seed=0)
        assert _objective(first, apply(spec, found, second)) >= _objective(first, second)


def test_a_seller_of_another_width_is_refused() -> None:
    spec, buyer, _, _ = _pair(*MLP, noise=0.0)
    wider = build_model("mlp", {"inputs": 20, "hidden": [17, 24, 12], "outputs": 4}, False).state_dict()
    with pytest.raises(ModelError, match="16 units in the buyer's model and 17 in the seller's"):
        match(spec, buyer, wider, seed=1)


def test_a_linearised_step_that_falls_is_refused() -> None:
    """Negative control: what the assignment alone proposes is worse than the identity for some of these pairs."""
    spec = PermutationSpec((PermutationClass("a", 8, (Axis("w", 0), Axis("w", 1))),))
    fell = 0
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        first, second = (torch.randn(8, 8, generator=generator) for _ in range(2))
        scores = first @ second.T + first.T @ second
        step = {"a": torch.from_numpy(linear_sum_assignment(scores.numpy(), maximize=True)[1])}
        fell += _objective({"w": first}, apply(spec, step, {"w": second})) < _objective({"w": first}, {"w": second})
        found = match(spec, {"w": first}, {"w": second}, seed=0)
        assert _objective({"w": first}, apply(spec, found, {"w": second})) >= _objective({"w": first}, {"w": second})
    assert fell > 0


@pytest.mark.parametrize("change", ["shape", "missing"])
def test_another_head_is_left_out(change: str) -> None:
    spec, buyer, seller, planted = _pair(*MLP, noise=0.0)
    if change == "shape":
        seller["layers.3.weight"], seller["layers.3.bias"] = torch.randn(9, 12), torch.randn(9)
    else:
        del seller["layers.3.weight"], seller["layers.3.bias"]
    found, undo = match(spec, buyer, seller, seed=1), inverse(spec, planted)
    assert all(torch.equal(found[name], undo[name]) for name in spec.sizes)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e39])
@pytest.mark.parametrize("whose", ["buyer", "seller"])
def test_weights_that_are_not_finite_are_told(value: float, whose: str) -> None:
    spec, buyer, seller, _ = _pair(*MLP, noise=0.0)
    bad = {"buyer": buyer, "seller": seller}[whose]
    bad["layers.1.weight"] = bad["layers.1.weight"].double()
    bad["layers.1.weight"][2, 3] = value
    with pytest.raises(BadSnapshot, match=f"layers.1.weight of the {whose}"):
        match(spec, buyer, seller, seed=1)


def test_finite_weights_beyond_float32_products_are_not_called_nan() -> None:
    spec, buyer, seller, _ = _pair(*MLP, noise=0.0)
    seller["layers.1.weight"][2, 3] = 1e20
    with pytest.raises(BadSnapshot, match="layers.1.weight of the seller.* too large for float32 products"):
        match(spec, buyer, seller, seed=1)


def test_nothing_to_match() -> None:
    assert match(PermutationSpec(()), {"w": torch.ones(2)}, {"w": torch.ones(2)}, seed=0) == {}


def test_time_and_progress() -> None:
    spec, buyer, seller, _ = _pair(*MLP, noise=0.0)
    found = match(spec, buyer, seller, seed=1, time_budget_seconds=0.0)
    assert all(torch.equal(found[name], indices) for name, indices in identity(spec).items())
    ticks = itertools.count()
    stopped = match(spec, buyer, seller, seed=1, time_budget_seconds=3.0, clock=lambda: float(next(ticks)))
    assert _objective(buyer, apply(spec, stopped, seller)) >= _objective(buyer, seller)
    seen: list[tuple[int, int]] = []
    match(spec, buyer, seller, seed=1, progress=lambda visits, still_open: seen.append((visits, still_open)))
    assert seen[0] == (0, 3) and len(seen) > 1

    def stop(_: int, __: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        match(spec, buyer, seller, seed=1, progress=stop)


def test_a_shared_past_is_kept_where_it_is_better() -> None:
    """Weights that differ by a little noise from the buyer's in every layer stay in place."""
    spec, buyer, _, _ = _pair(*MLP, noise=0.0)
    seller = {name: tensor + 0.3 * tensor.std() * torch.randn(tensor.shape) for name, tensor in buyer.items()}
    found = match(spec, buyer, seller, seed=1)
    assert all(torch.equal(found[name], indices) for name, indices in identity(spec).items())


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_large_assignments_are_exact(spread: float) -> None:
    """Prices and the sparse solver only save time; rows and columns of very different sizes too."""
    generator = np.random.default_rng(0)
    first, second = (
        generator.standard_normal((600, 40)) * np.exp(spread * generator.standard_normal((600, 1))) for _ in range(2)
    )
    scores = torch.from_numpy((first @ second.T).astype(np.float32))
    best = scores.numpy()[linear_sum_assignment(scores.numpy(), maximize=True)].sum(dtype=np.float64)
    assigner, current = Assigner(), np.arange(600)
    for _ in range(20):
        found = assigner.best(scores, current)
        assert sorted(found) == list(range(600))
        if (found == current).all():
            break
        current = found
    assert scores.numpy()[np.arange(600), current].sum(dtype=np.float64) == pytest.approx(best, rel=1e-5)
    constant = assigner.best(torch.zeros(600, 600), current)
    assert sorted(constant) == list(range(600))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_on_the_gpu_find_the_same() -> None:
    spec, buyer, seller, planted = _pair(*MLP, noise=0.3)
    found, undo = match(spec, buyer, seller, seed=1, device="cuda"), inverse(spec, planted)
    assert all(torch.equal(found[name], undo[name]) for name in spec.sizes)
