"""Name and arguments -> model, and model -> permutation spec.

Knows: which models are built in and what their arguments may be. A reference may come with a broker's terms, so
every argument is bounded (limits) and a model's size is counted before its memory is taken.
Refuses to know: training, tensors' values. Fails with a ModelError that lists the choices.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from p2pmarket import limits
from p2pmarket.errors import ModelError
from p2pmarket.models.mlp import Mlp, mlp_spec
from p2pmarket.models.residual import NORMS, ResNet20, WideResNet, resnet20_spec, wide_resnet_spec
from p2pmarket.permutation import PermutationSpec
from p2pmarket.plugins import load_plugin


@dataclasses.dataclass(frozen=True)
class _Argument:
    """What one argument may be: an integer in 1 ... high, a list of such, or one of `words`."""

    high: int = 0
    many: bool = False
    words: tuple[str, ...] = ()
    default: object = None
    """None: the argument must be given."""

    def read(self, value: object) -> object:
        """:raises ValueError: with what the value must be"""
        if self.words:
            if value not in self.words:
                raise ValueError(f"must be one of {', '.join(self.words)}")
            return value
        if self.many:
            if not isinstance(value, (list, tuple)) or len(value) > limits.MAX_MODEL_DEPTH:
                raise ValueError(f"must be a list of at most {limits.MAX_MODEL_DEPTH} integers")
            return tuple(self._integer(part) for part in value)
        return self._integer(value)

    def _integer(self, value: object) -> int:
        if type(value) is not int or not 1 <= value <= self.high:
            raise ValueError(f"must be an integer from 1 to {self.high}")
        return value


@dataclasses.dataclass(frozen=True)
class _BuiltIn:
    make: Callable[..., nn.Module]
    spec: Callable[[Any], PermutationSpec]
    arguments: Mapping[str, _Argument]


_WIDTH = _Argument(high=limits.MAX_MODEL_WIDTH)
_CHANNELS = _Argument(high=1024, default=3)

_BUILT_IN: dict[str, _BuiltIn] = {
    "mlp": _BuiltIn(
        Mlp,
        mlp_spec,
        {"inputs": _Argument(high=2**24), "hidden": dataclasses.replace(_WIDTH, many=True), "outputs": _WIDTH},
    ),
    "wide_resnet": _BuiltIn(
        WideResNet,
        wide_resnet_spec,
        {
            "depth": _Argument(high=limits.MAX_MODEL_DEPTH, default=22),
            "width": _Argument(high=64, default=6),
            "outputs": _WIDTH,
            "channels": _CHANNELS,
        },
    ),
    "resnet20": _BuiltIn(
        ResNet20,
        resnet20_spec,
        {
            "width": _Argument(high=64, default=1),
            "outputs": _WIDTH,
            "channels": _CHANNELS,
            "norm": _Argument(words=NORMS, default=NORMS[0]),
        },
    ),
}

MODEL_NAMES = tuple(_BUILT_IN)
"""Names `build_model` knows without importing anything."""


def build_model(reference: str, arguments: Mapping[str, object], allow_import: bool) -> nn.Module:
    """A new model with fresh weights (torch's global generator: seed it for the same weights again).

    `reference` is one of MODEL_NAMES, or "package.module:factory", called with `arguments` by keyword, where
    `allow_import` says that it comes from the operator's own configuration.

    :raises ModelError: unknown name or argument, an argument out of bounds, or a factory that fails
    """
    if ":" in reference:
        return _from_factory(reference, arguments, allow_import)
    built_in = _BUILT_IN.get(reference)
    if built_in is None:
        raise ModelError(
            f"unknown model {reference!r}; choose one of {', '.join(MODEL_NAMES)}, "
            "or name a factory as package.module:factory"
        )
    values = _read_arguments(reference, built_in.arguments, arguments)
    if reference == "wide_resnet" and (values["depth"] < 10 or (values["depth"] - 4) % 6):
        raise ModelError(f"wide_resnet: depth {values['depth']} is not 6 n + 4 with n >= 1; choose 10, 16, 22, 28 ...")
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in built_in.make(**values).parameters())
    if count > limits.MAX_MODEL_PARAMETERS:
        raise ModelError(f"{reference} with these arguments has {count:,} parameters; at most 2**34 are taken")
    return built_in.make(**values)


def permutation_spec(reference: str, arguments: Mapping[str, object], model: nn.Module) -> PermutationSpec | None:
    """The symmetries of a model made by `build_model(reference, arguments)`; None where none is known.

    A factory's module may have a function `permutation_spec(model) -> PermutationSpec`. Imports nothing: the
    factory's module was imported when the model was built.

    :raises ModelError: that function fails or returns something else
    """
    built_in = _BUILT_IN.get(reference)
    if built_in is not None:
        return built_in.spec(model)
    module = sys.modules.get(reference.partition(":")[0])
    function = getattr(module, "permutation_spec", None)
    if function is None:
        return None
    try:
        spec = function(model)
    except Exception as reason:  # an operator's own code may fail in any way
        raise ModelError(f"permutation_spec of {reference!r} failed: {type(reason).__name__}: {reason}") from reason
    if not isinstance(spec, PermutationSpec):
        raise ModelError(f"permutation_spec of {reference!r} returned {type(spec).__name__}, not a PermutationSpec")
    return spec


def _from_factory(reference: str, arguments: Mapping[str, object], allow_import: bool) -> nn.Module:
    factory = load_plugin(reference, allowed=allow_import, error=ModelError)
    if not callable(factory):
        raise ModelError(f"{reference!r} is {type(factory).__name__}, not a function that makes a model")
    try:
        model = factory(**arguments)
    except Exception as reason:  # an operator's own code may fail in any way
        raise ModelError(f"{reference!r} failed: {type(reason).__name__}: {reason}") from reason
    if not isinstance(model, nn.Module):
        raise ModelError(f"{reference!r} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _read_arguments(reference: str, known: Mapping[str, _Argument], given: Mapping[str, object]) -> dict[str, Any]:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ModelError(f"{reference} has no argument {unknown[0]!r}; it takes {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, argument in known.items():
        value = given.get(name, argument.default)
        if value is None:
            raise ModelError(f"{reference} needs the argument {name!r}; it takes {', '.join(known)}")
        try:
            values[name] = argument.read(value)
        except ValueError as reason:
            raise ModelError(f"{reference}: {name} = {value!r} {reason}") from None
    return values
