"""Proving by experiment that permutations leave a model's function as it was.

Knows: a float64 copy of the model, disturbed weights, random permutations of every class at once. Refuses to know: how
a spec was found. Fails with ModelError where a spec does not fit the tensors or changes the function, or the model
gives nothing to compare.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from p2pmarket.alignment.answers import tensors_in
from p2pmarket.alignment.failing import fails_on_inputs
from p2pmarket.alignment.symmetry import Permutations, apply, check_fits
from p2pmarket.errors import ModelError
from p2pmarket.permutation import PermutationClass, PermutationSpec

SAME_FUNCTION = 1e-10
"""Largest relative change of a float64 model's outputs under a true symmetry; a wrong spec is off by far more."""
SAME_FUNCTION_LOW = 1e-4
"""The same for a model that computes in lower precision whatever it is given."""


def verify_spec(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: Sequence[Any],
    *,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> None:
    """Permutes a float64 copy of the model at random, all classes at once, and compares its outputs.

    All weights are disturbed first: fresh norms and biases are constant, and would hide a member left out. Symmetries
    compose, so where all together fail, one class fails alone and is named.

    :raises ModelError: the spec does not fit, or a class changes the function
    """
    state_dict = model.state_dict()
    missing = [member.tensor for group in spec.classes for member in group.members if member.tensor not in state_dict]
    if missing:
        raise ModelError(f"the permutation spec names {missing[0]!r}, which the model lacks")
    check_fits(spec, state_dict)
    test = SelfTest(model, example_inputs, kwargs or {}, seed=seed)
    if test.holds(spec):
        return
    for group in spec.classes:
        if not test.holds(alone(group)):
            raise ModelError(_accusation(group))
    raise ModelError("the permutation spec changes the model's function, though no class does so alone")


def alone(group: PermutationClass) -> PermutationSpec:
    """The spec of one class whose blocks stay in their places."""
    return PermutationSpec((dataclasses.replace(group, within=""),))


def _accusation(group: PermutationClass) -> str:
    members = ", ".join(f"{member.tensor} axis {member.axis}" for member in group.members[:6])
    return (
        f"permutation class {group.name!r} is not a symmetry of the model: permuting its units changes the outputs; "
        f"its members are {members}{' ...' if len(group.members) > 6 else ''}"
    )


def _names_of_one(state: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of the same memory: found here once more, as a spec that forgot one would pass where it is written last."""
    names: dict[object, list[str]] = {}
    for name, tensor in state.items():
        if tensor.numel():
            names.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), []).append(name)
    return [group for group in names.values() if len(group) > 1]


class SelfTest:
    """One model with disturbed weights and what it answers, to which permuted weights are compared."""

    def __init__(self, model: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any], *, seed: int) -> None:
        """:raises ModelError: the model cannot be copied, does not run, or answers with nothing that can be compared"""
        self._original = model
        self._fresh: nn.Module | None = None
        self._generator = torch.Generator().manual_seed(seed)
        self._model = copied(model).double()
        self._given = _in_double((tuple(arguments), dict(keywords)))
        self._state = self._model.state_dict()
        self._tied = _names_of_one(self._state)
        fresh = {name: tensor.clone() for name, tensor in self._state.items()}
        self.tolerance = SAME_FUNCTION
        self._draws = False
        for strength in (1.0, 0.1, 0.0):
            self._weights = self._disturbed(fresh, strength)
            self._before = self._first_answer()
            if all(bool(torch.isfinite(part).any()) for part in self._before):
                break
        else:
            raise ModelError("the model answers the example inputs with no finite number; give it other inputs")
        if not self._before:
            raise ModelError("the model returns no tensors, so its symmetry cannot be tested")
        if not self._repeats():
            self._draws = True
            self._before = self._answer(self._weights)
            if not self._repeats():
                raise ModelError("the model answers the same inputs differently each time, so it cannot be tested")

    def holds(self, spec: PermutationSpec) -> bool:
        """Whether moving every unit of every class leaves all outputs as they were."""
        permutations = {group.name: _moving_every_unit(group, self._generator) for group in spec.classes}
        if self._agrees(spec, permutations):
            return True
        if self._fresh is None:
            # A model may keep what it computed from weights; from now on every answer comes from a new copy.
            self._fresh = copied(self._original)
            self._fresh = self._fresh.double() if self.tolerance == SAME_FUNCTION else self._fresh.float()
            self._before = self._answer(self._weights)
            return self._agrees(spec, permutations)
        return False

    def _agrees(self, spec: PermutationSpec, permutations: Permutations) -> bool:
        permuted = apply(spec, permutations, self._weights)
        if any(not torch.equal(permuted[names[0]], permuted[name]) for names in self._tied for name in names[1:]):
            return False
        after = self._answer(permuted)
        return len(after) == len(self._before) and all(map(self._same, self._before, after))

    def _repeats(self) -> bool:
        return all(map(self._same, self._before, self._answer(self._weights)))

    def _same(self, before: Tensor, after: Tensor) -> bool:
        if before.shape != after.shape:
            return False
        if not before.is_floating_point():
            return torch.equal(before, after)
        finite = torch.isfinite(before)
        if not torch.equal(finite, torch.isfinite(after)):
            return False
        before, after = before[finite], after[finite]
        scale = float(before.abs().max()) if before.numel() else 0.0
        return not before.numel() or float((after - before).abs().max()) <= self.tolerance * (scale or 1.0)

    def _first_answer(self) -> list[Tensor]:
        """What the model answers in float64; where it cannot, in the precision it insists on."""
        try:
            return self._answer(self._weights)
        except Exception as reason:  # a module's own code may fail in any way
            if self.tolerance == SAME_FUNCTION_LOW:
                arguments, keywords = self._given
                raise fails_on_inputs(self._original, arguments, keywords, reason) from reason
        self._model.float()
        self._state = self._model.state_dict()
        self._given = _cast(self._given, torch.float32)
        self.tolerance = SAME_FUNCTION_LOW
        self._weights = {
            name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in self._weights.items()
        }
        return self._first_answer()

    def _answer(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        arguments, keywords = copy.deepcopy(self._given)
        with torch.no_grad(), contextlib.ExitStack() as modes:
            model, state = self._model, self._state
            if self._fresh is not None:
                model = copy.deepcopy(self._fresh)
                state = model.state_dict()
            for name, tensor in state.items():
                tensor.copy_(weights[name])
            if self.tolerance == SAME_FUNCTION:
                modes.enter_context(_Double())  # type: ignore[no-untyped-call]
            if self._draws:
                # The model draws from torch's generator: the same numbers each time, then its state back.
                modes.enter_context(torch.random.fork_rng(devices=[]))
                torch.default_generator.manual_seed(0)
            return list(tensors_in(model(*arguments, **keywords)))

    def _disturbed(self, fresh: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
        """Noise of the tensors' own size; on vectors not negative, as variances must stay positive."""
        disturbed: dict[str, Tensor] = {}
        for name, tensor in fresh.items():
            disturbed[name] = self._noisy(tensor, strength) if tensor.is_floating_point() else tensor.clone()
        for names in self._tied:
            disturbed.update(dict.fromkeys(names, disturbed[names[0]]))
        return disturbed

    def _noisy(self, tensor: Tensor, strength: float) -> Tensor:
        if not bool(torch.isfinite(tensor).all()):
            tensor = torch.zeros_like(tensor)
        if tensor.ndim < 2:
            noise = 0.5 * torch.rand(tensor.shape, generator=self._generator, dtype=tensor.dtype)
            return tensor + strength * noise
        noise = torch.randn(tensor.shape, generator=self._generator, dtype=tensor.dtype)
        return noise.mul_(strength * tensor.abs().mean().clamp(min=1e-3)).add_(tensor)


_LOW = (torch.float32, torch.float16, torch.bfloat16)


class _Double(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Whatever a model asks for in lower precision it gets in float64, so that rounding hides no wrong class."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("dtype") in _LOW:
            kwargs["dtype"] = torch.float64
        made = func(*args, **kwargs)
        if isinstance(made, Tensor) and made.dtype in _LOW and not any(isinstance(part, Tensor) for part in args):
            made = made.double()
        return made


def copied(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode on the CPU.

    :raises ModelError: it cannot be copied
    """
    try:
        with torch.no_grad():
            return copy.deepcopy(model).to("cpu").eval()
    except Exception as reason:  # a module's own code may fail in any way
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({type(reason).__name__}: {str(reason)[:200]}); modules that "
            "keep computed tensors, as torch.nn.utils.weight_norm does, can use torch.nn.utils.parametrizations instead"
        ) from reason


def _in_double(value: Any) -> Any:
    return _cast(value, torch.float64)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()
    if isinstance(value, dict):
        return {name: _cast(part, dtype) for name, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_cast(part, dtype) for part in value)
    return value


def _moving_every_unit(group: PermutationClass, generator: torch.Generator) -> Tensor:
    """A random cycle through all units: a random permutation of a few may be the identity, which proves nothing."""
    cycles = []
    for _ in range(group.blocks):
        order = torch.randperm(group.size, generator=generator)
        cycle = torch.empty_like(order)
        cycle[order] = order.roll(1)
        cycles.append(cycle)
    return cycles[0] if group.blocks == 1 else torch.stack(cycles)
