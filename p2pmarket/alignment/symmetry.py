"""Applying a model's permutation symmetries, and proving by experiment that a spec is right.

Knows: specs as data (p2pmarket/permutation), tensors by name. Refuses to know: how a spec was found, how a
permutation is chosen (matching). Fails with ModelError where a spec does not fit the tensors or the function.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from p2pmarket.errors import ModelError
from p2pmarket.permutation import PermutationClass, PermutationSpec

Permutations = Mapping[str, Tensor]
"""Class name -> int64 indices (size,): unit i of the result is unit `indices[i]` of what is permuted."""

_SAME_FUNCTION = 1e-10
"""Largest relative change of a float64 model's outputs under a true symmetry; a wrong spec is off by far more."""


def identity(spec: PermutationSpec) -> dict[str, Tensor]:
    """The permutations that change nothing."""
    return {name: torch.arange(size) for name, size in spec.sizes.items()}


def is_identity(permutations: Permutations) -> bool:
    """Whether every unit stays where it is."""
    return all(torch.equal(indices, torch.arange(len(indices))) for indices in permutations.values())


def inverse(permutations: Permutations) -> dict[str, Tensor]:
    """Permutations that undo these: what brings a seller to a buyer brings, inverted, the buyer to the seller."""
    return {name: torch.argsort(indices) for name, indices in permutations.items()}


def apply(spec: PermutationSpec, permutations: Permutations, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every member axis permuted; the others as they are, without a copy.

    :raises ModelError: the spec does not fit the tensors
    """
    check_fits(spec, tensors)
    permuted = dict(tensors)
    for name, axes in spec.axes_of().items():
        for axis, group in axes.items():
            permuted[name] = permuted[name].index_select(axis, permutations[group].to(permuted[name].device))
    return permuted


def check_fits(spec: PermutationSpec, tensors: Mapping[str, Tensor]) -> None:
    """:raises ModelError: a tensor the spec names is missing, or a member axis is not as long as its class is large"""
    for group in spec.classes:
        for member in group.members:
            tensor = tensors.get(member.tensor)
            if tensor is None:
                raise ModelError(f"permutation class {group.name!r} names {member.tensor!r}, which the model lacks")
            if not 0 <= member.axis < tensor.ndim or tensor.shape[member.axis] != group.size:
                raise ModelError(
                    f"permutation class {group.name!r} has {group.size} units, but axis {member.axis} of "
                    f"{member.tensor} of shape {tuple(tensor.shape)} does not"
                )


def verify_spec(model: nn.Module, spec: PermutationSpec, example_inputs: Sequence[Tensor], *, seed: int = 0) -> None:
    """Permutes a float64 copy of the model at random, all classes at once, and compares its outputs.

    All weights are disturbed first: fresh norms and biases are constant, and would hide a member left out. Symmetries
    compose, so where all together fail, one class fails alone and is named.

    :raises ModelError: the spec does not fit, or a class changes the function
    """
    check_fits(spec, model.state_dict())
    generator = torch.Generator().manual_seed(seed)
    double = copy.deepcopy(model).to("cpu").double().eval()
    state = {name: _disturbed(tensor, generator) for name, tensor in double.state_dict().items()}
    inputs = tuple(part.cpu().double() if part.is_floating_point() else part.cpu() for part in example_inputs)
    before = _outputs(double, state, inputs)
    if _holds(double, spec, state, inputs, before, generator):
        return
    for group in spec.classes:
        if not _holds(double, PermutationSpec((group,)), state, inputs, before, generator):
            raise ModelError(_accusation(group))
    raise ModelError("the permutation spec changes the model's function, though no class does so alone")


def _accusation(group: PermutationClass) -> str:
    members = ", ".join(f"{member.tensor} axis {member.axis}" for member in group.members[:6])
    return (
        f"permutation class {group.name!r} is not a symmetry of the model: permuting its units changes the outputs; "
        f"its members are {members}{' ...' if len(group.members) > 6 else ''}"
    )


def _holds(
    model: nn.Module,
    spec: PermutationSpec,
    state: Mapping[str, Tensor],
    inputs: tuple[Tensor, ...],
    before: Tensor,
    generator: torch.Generator,
) -> bool:
    permutations = {name: _moving_every_unit(size, generator) for name, size in spec.sizes.items()}
    after = _outputs(model, apply(spec, permutations, state), inputs)
    scale = float(before.abs().max()) or 1.0
    return bool(np.isfinite(scale)) and float((after - before).abs().max()) <= _SAME_FUNCTION * scale


def _moving_every_unit(size: int, generator: torch.Generator) -> Tensor:
    """A random cycle through all units: a random permutation of a few may be the identity, which proves nothing."""
    order = torch.randperm(size, generator=generator)
    cycle = torch.empty_like(order)
    cycle[order] = order.roll(1)
    return cycle


def _disturbed(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of the tensor's own size; on vectors not negative, as variances must stay positive."""
    if not tensor.is_floating_point():
        return tensor.clone()
    if tensor.ndim < 2:
        return tensor + 0.5 * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
    noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
    return tensor + noise * tensor.abs().mean().clamp(min=1e-3)


def _outputs(model: nn.Module, state: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        outputs = torch.func.functional_call(model, dict(state), inputs)
    if not isinstance(outputs, Tensor):
        raise ModelError(f"the model returns {type(outputs).__name__}; a permutation spec is tested on one tensor")
    return outputs
