"""What a merge's layers expect of their inputs: BatchNorm's buffers, REPAIR, and which buffers nobody may average.

Knows: modules, their buffers, means and deviations of units. Refuses to know: losses, how coefficients are chosen.
Fails as the model does where it cannot take the inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from p2pmarket.appraisal.merging import Coefficients

REPAIR_SAMPLES = 1024
"""Inputs at most that REPAIR's means and deviations are taken over: one pass, so that each layer sees the repaired
units of those before it."""


def statistics_of(model: nn.Module) -> frozenset[str]:
    """Names of BatchNorm's running means and variances: a merge computes them anew, nobody averages them."""
    return frozenset(
        f"{name}.{part}" if name else part
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
        for part in ("running_mean", "running_var")
    )


def own_buffers(model: nn.Module) -> frozenset[str]:
    """Names of all other buffers: masks, tables, counters. They mean something to their owner only, and stay there."""
    return frozenset(name for name, _ in model.named_buffers()) - statistics_of(model)


def repair(
    model: nn.Module,
    merged: Mapping[str, Tensor],
    buyer: Mapping[str, Tensor],
    seller: Mapping[str, Tensor],
    alpha: float | Coefficients,
    inputs: Tensor,
) -> dict[str, Tensor]:
    """The merge with each unit's mean and deviation brought to those between its two parents'.

    Averaged units that agree in part only vary less than either parent's, layer after layer (variance collapse). After
    every Linear and Conv2d the unit gets the mean and the standard deviation (1 - alpha) buyer + alpha seller, alpha
    that of the weight or of its row (Jordan et al. 2022, "REPAIR", section 3), folded into the layer's weight and bias:
    no layer is added, and a layer without a bias gets the scale alone. Layers that run more than once in a pass, share
    their weight, or have no coefficient stay as they are.

    :param seller: aligned; what it lacks is the buyer's
    :param inputs: the first REPAIR_SAMPLES are used, in one batch
    """
    inputs = inputs[:REPAIR_SAMPLES]
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and owners.get(id(module.weight)) == 1
        and f"{name}.weight" in (seller if isinstance(alpha, float | int) else alpha)
    }
    parents: list[dict[str, list[tuple[Tensor, Tensor]]]] = []
    for tensors in (buyer, {**buyer, **seller}):
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
        _run(model, tensors, inputs, layers, functools.partial(_note, seen))
        parents.append(seen)
    repaired = dict(merged)

    def correct(name: str, output: Tensor) -> Tensor | None:
        if not len(parents[0][name]) == len(parents[1][name]) == 1:
            return None
        portion = alpha if isinstance(alpha, float | int) else alpha[f"{name}.weight"].to(output)
        (mean, deviation), targets = _moments(output), (parents[0][name][0], parents[1][name][0])
        wanted_mean, wanted = ((1 - portion) * own + portion * other for own, other in zip(*targets, strict=True))
        # Coefficients below 0 or above 1 may ask for less than no deviation, and a unit that never changes has none.
        usable = (wanted > 0) & (deviation > 1e-6 * deviation.max())
        scale = torch.where(usable, wanted / deviation.clamp(min=1e-30), 1.0)
        weight = merged[f"{name}.weight"]
        repaired[f"{name}.weight"] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1)).to(weight)
        shift = torch.zeros_like(mean)
        if f"{name}.bias" in seller and f"{name}.bias" in merged:
            shift = wanted_mean - mean * scale
            repaired[f"{name}.bias"] = merged[f"{name}.bias"] * scale.to(weight) + shift.to(weight)
        across = (-1, 1, 1) if output.ndim == 4 and isinstance(layers[name], nn.Conv2d) else (-1,)
        return output * scale.reshape(across).to(output) + shift.reshape(across).to(output)

    _run(model, merged, inputs, layers, correct)
    return repaired


def _note(seen: dict[str, list[tuple[Tensor, Tensor]]], name: str, output: Tensor) -> None:
    seen[name].append(_moments(output))


def _moments(output: Tensor) -> tuple[Tensor, Tensor]:
    """(units,) mean and standard deviation over all samples and places; units lie on axis 1 of images, else last."""
    values = output.movedim(1, -1) if output.ndim == 4 else output
    values = values.reshape(-1, values.shape[-1]).double()
    return values.mean(0), values.std(0, correction=0)


def _run(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    inputs: Tensor,
    layers: Mapping[str, nn.Module],
    look: Callable[[str, Tensor], Tensor | None],
) -> None:
    """One pass; what `look` returns takes the place of the layer's output."""
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: look(name, output))
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            torch.func.functional_call(model, dict(tensors), (inputs,))
    finally:
        for hook in hooks:
            hook.remove()
