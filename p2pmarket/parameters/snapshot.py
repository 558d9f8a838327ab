"""A model's parameters at one moment: copied out, checked against a market's schema, loaded back in place.

Knows: tensors by name. Refuses to know: files (packing), training. An optimiser is never touched: bought values are
copied into the storage its moments belong to.
What is wrong with one's own model is a ModelError, with a peer's parameters a BadSnapshot; both name the tensor.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from p2pmarket.errors import BadSnapshot, MalformedMessage, MarketError, ModelError
from p2pmarket.parcel import DTYPES, Manifest, Schema, TensorSpec

Tensors = Mapping[str, Tensor]

TORCH_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
_PIECE = 2**20
"""Elements looked at together, so that checks need little memory."""


def take_snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Detached, contiguous copies on the CPU of everything in the model's state_dict, by name.

    :raises ModelError: an entry that is not a dense tensor of a type that may travel
    """
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in _state(model).items()}


def schema_of(model: nn.Module | Tensors) -> Schema:
    """Names, shapes and element types, sorted by name.

    :raises ModelError: no tensors, or a tensor that cannot travel
    """
    tensors = _state(model) if isinstance(model, nn.Module) else model
    for name, tensor in tensors.items():
        _check_kind(name, tensor)
    try:
        return Schema(
            tuple(
                TensorSpec(name, tuple(int(size) for size in tensor.shape), _NAMES[tensor.dtype])
                for name, tensor in sorted(tensors.items())
            )
        )
    except MalformedMessage as reason:
        raise ModelError(f"the model does not fit a schema: {reason}") from None


def check_against(schema: Schema, found: Tensors | Manifest, *, partial: bool = False) -> None:
    """Every tensor of `found` is in the schema with its shape and type, and (unless `partial`) none is missing.

    :raises BadSnapshot: a manifest does not fit: a peer's fault
    :raises ModelError: tensors do not fit: one's own model
    """
    error: type[MarketError]
    if isinstance(found, Manifest):
        error, whose = BadSnapshot, "the snapshot"
        rows = {entry.name: (entry.shape, entry.dtype) for entry in found.tensors}
    else:
        error, whose = ModelError, "the model"
        rows = {name: (tuple(tensor.shape), dtype_name(tensor)) for name, tensor in found.items()}
    expected = {spec.name: (spec.shape, spec.dtype) for spec in schema.tensors}
    for name in sorted(rows.keys() | expected.keys()):
        if name not in expected:
            raise error(f"{whose} has a tensor {name!r} that the market's model does not have")
        if name not in rows:
            if partial:
                continue
            raise error(f"{whose} lacks the tensor {name!r} of the market's model")
        if rows[name] != expected[name]:
            raise error(
                f"tensor {name!r} of {whose} is {rows[name][1]} of shape {rows[name][0]}; "
                f"the market's model has {expected[name][1]} of shape {expected[name][0]}"
            )


def check_finite(tensors: Tensors) -> None:
    """:raises BadSnapshot: the first tensor, by name, with a NaN or infinite value"""
    for name, tensor in sorted(tensors.items()):
        if tensor.is_floating_point() and not all(
            bool(torch.isfinite(piece).all()) for piece in torch.split(tensor.reshape(-1), _PIECE)
        ):
            raise BadSnapshot(f"tensor {name!r} has a NaN or infinite value")


def load_in_place(model: nn.Module, tensors: Tensors) -> None:
    """Copies values into the model's existing storage: any part of its tensors, and none at all unless all fit.

    :raises ModelError: a name, shape or type the model does not have
    """
    state = _state(model)
    for name, tensor in tensors.items():
        target = state.get(name)
        if target is None:
            raise ModelError(f"cannot load {name!r}: the model has no such tensor")
        if target.shape != tensor.shape or target.dtype != tensor.dtype:
            raise ModelError(
                f"cannot load {name!r}, {tensor.dtype} of shape {tuple(tensor.shape)}: "
                f"the model's is {target.dtype} of shape {tuple(target.shape)}"
            )
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)


def matching(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The names, in their order, that match one of the glob patterns (`layers.*.weight`), case and all."""
    wanted = tuple(patterns)
    return tuple(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted))


def dtype_name(tensor: Tensor) -> str:
    """The tensor's element type as the wire names it, or torch's own name for one that may not travel."""
    return _NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))


def _state(model: nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        _check_kind(name, tensor)
        state[name] = tensor
    return state


def _check_kind(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise ModelError(f"{name!r} in the model's state is {type(tensor).__name__}; only tensors can be traded")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.dtype not in _NAMES:
        raise ModelError(
            f"{name!r} is {tensor.dtype}, {tensor.layout} on {tensor.device}; "
            f"only dense tensors of {', '.join(DTYPES)} can be traded"
        )
