"""Which names of a module's state are one tensor, and which tensors share memory in a way that cannot be followed.

Knows: storages and strides. Refuses to know: what the tensors are for.
Fails with ModelError where a parameter has no tensor yet, or numbers that are packed.
"""

from __future__ import annotations

import dataclasses
import itertools

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from p2pmarket.errors import ModelError


@dataclasses.dataclass(frozen=True)
class Shared:
    """One tensor of a module's state, under all its names."""

    names: tuple[str, ...]
    tensor: Tensor
    trained: bool
    """A parameter, not a buffer."""
    clashes: str
    """A tensor that overlaps this one in memory without being it; empty: none."""


def shared_tensors(module: nn.Module) -> tuple[Shared, ...]:
    """Every tensor of the module's state once, in the order of its state.

    :raises ModelError: lazily made or packed parameters
    """
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    groups: dict[object, list[str]] = {}
    tensors: dict[object, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            if name.endswith("_packed_params"):
                raise ModelError(f"{name!r} is packed (quantised); permute and merge a module with plain tensors")
            continue
        _check(name, tensor)
        key = _key(tensor)
        groups.setdefault(key, []).append(name)
        tensors[key] = tensor
    clashes = _clashes({names[0]: tensors[key] for key, names in groups.items()})
    return tuple(
        Shared(tuple(names), tensors[key], names[0] in parameters, clashes.get(names[0], ""))
        for key, names in groups.items()
    )


def _check(name: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise ModelError(f"{name!r} has no shape before the module's first pass; run the module once, then ask again")
    if tensor.device.type == "meta":
        raise ModelError(f"{name!r} has a shape and no numbers (device meta); give the module its tensors first")
    if tensor.is_quantized or tensor.layout != torch.strided:
        raise ModelError(f"{name!r} is quantised or sparse; permute and merge a module with plain tensors")
    if isinstance(tensor, nn.Parameter) and not tensor.is_floating_point():
        raise ModelError(f"the parameter {name!r} is {tensor.dtype}, which cannot be merged; use floating point")


def _key(tensor: Tensor) -> object:
    if not tensor.numel():
        return id(tensor)
    return (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


def _clashes(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Tensors whose ranges of memory overlap: name -> another."""
    ranges: dict[object, list[tuple[int, int, str]]] = {}
    for name, tensor in tensors.items():
        if tensor.numel():
            reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            first = tensor.data_ptr()
            ranges.setdefault(tensor.device, []).append((first, first + (reach + 1) * tensor.element_size(), name))
    found: dict[str, str] = {}
    for spans in ranges.values():
        spans.sort()
        for (_, end, name), (start, _, other) in itertools.pairwise(spans):
            if start < end:
                found[name], found[other] = other, name
    return found
