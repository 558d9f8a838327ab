"""Losses and metrics of every sample, by name.

Knows: outputs and targets. Refuses to know: models, devices. Losses are float32 whatever the outputs are in.
Fails with ModelError where outputs and targets do not fit each other.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from p2pmarket.errors import ModelError

LOSSES = ("cross_entropy", "mse")
METRICS = ("accuracy", "loss")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What each sample gave, on the CPU in float64."""

    losses: Tensor
    """(N,)"""
    metrics: Tensor
    """(N,) correct or not for accuracy (a fraction where a sample has many targets); the loss itself for loss."""

    @property
    def loss(self) -> float:
        """Mean loss."""
        return float(self.losses.mean())

    @property
    def metric(self) -> float:
        """Mean metric."""
        return float(self.metrics.mean())

    @property
    def finite(self) -> bool:
        """Whether every loss is a number."""
        return bool(self.losses.isfinite().all())


def losses_of(loss: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """(N,) float32 of outputs (N, ...) whatever they are in.

    :raises ModelError: targets that do not fit the outputs
    """
    if loss == "mse":
        if outputs.numel() != targets.numel():
            raise ModelError(
                f"the model returns the shape {tuple(outputs.shape)} for targets of shape {tuple(targets.shape)}"
            )
        return (outputs.float() - targets.reshape(outputs.shape)).square().reshape(len(outputs), -1).mean(1)
    fits = outputs.ndim >= 2 and targets.shape == (outputs.shape[0], *outputs.shape[2:])
    if not fits or targets.dtype != torch.int64:
        raise ModelError(
            f"cross_entropy needs integer targets and outputs (N, classes, ...); the model returns "
            f"{tuple(outputs.shape)} for targets of {targets.dtype} and shape {tuple(targets.shape)}"
        )
    if int(targets.max()) >= outputs.shape[1] or int(targets.min()) < 0:
        raise ModelError(
            f"the validation data has classes {int(targets.min())} ... {int(targets.max())}; "
            f"the model knows 0 ... {outputs.shape[1] - 1}"
        )
    return functional.cross_entropy(outputs.float(), targets, reduction="none").reshape(len(targets), -1).mean(1)


def metrics_of(metric: str, outputs: Tensor, targets: Tensor, losses: Tensor) -> Tensor:
    """(N,) of the same outputs."""
    if metric == "loss":
        return losses
    return (outputs.argmax(1) == targets).float().reshape(len(targets), -1).mean(1)
