"""A model of the market's kind, evaluated with anybody's parameters.

Knows: losses and metrics per sample, batches, devices, BatchNorm statistics. Refuses to know: whose parameters, and
what is chosen by the result. Parameters are put under the module for one call (torch.func.functional_call), never
copied into it; the module belongs to one thread.
Fails with ModelError where model and data do not fit each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

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


class Evaluator:
    """Evaluates parameters in `model`, which it takes over: moved to the device and set to evaluation."""

    def __init__(
        self, model: nn.Module, *, loss: str, metric: str, device: str = "auto", batch_size: int = 1024
    ) -> None:
        """`device`: "auto" is cuda where there is one; else a torch device's name.

        :raises ModelError: an unknown loss, metric or device, or accuracy without classes
        """
        if loss not in LOSSES or metric not in METRICS:
            raise ModelError(
                f"loss {loss!r} with metric {metric!r}: choose a loss of {', '.join(LOSSES)} "
                f"and a metric of {', '.join(METRICS)}"
            )
        if loss == "mse" and metric == "accuracy":
            raise ModelError("the metric accuracy needs classes; with the loss mse choose the metric loss")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.device = torch.device(device)
            self._model = model.to(self.device).eval().requires_grad_(False)
        except (RuntimeError, AssertionError) as reason:
            raise ModelError(f"device {device!r} cannot be used: {str(reason).splitlines()[0]}") from None
        self._loss = loss
        self._metric = metric
        self._batch_size = batch_size
        self._norms = {
            name: module
            for name, module in self._model.named_modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats
        }

    def place(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors on the evaluator's device."""
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def measure(self, tensors: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Measured:
        """Loss and metric of every sample with these parameters; all on the evaluator's device.

        :raises ModelError: the model cannot take the data
        """
        losses, metrics = [], []
        with torch.inference_mode():
            for batch, wanted in zip(
                torch.split(inputs, self._batch_size), torch.split(targets, self._batch_size), strict=True
            ):
                outputs = self._call(tensors, batch)
                loss = self._losses(outputs, wanted)
                losses.append(loss)
                metrics.append(self._metrics(outputs, wanted, loss))
        return Measured(torch.cat(losses).double().cpu(), torch.cat(metrics).double().cpu())

    def mean_loss(self, tensors: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of one batch, a scalar on the device that can be differentiated with respect to `tensors`.

        :raises ModelError: the model cannot take the data
        """
        return self._losses(self._call(tensors, inputs), targets).mean()

    def has_statistics(self) -> bool:
        """Whether the model has BatchNorm layers with running statistics."""
        return bool(self._norms)

    def reset_statistics(
        self, tensors: Mapping[str, Tensor], inputs: Tensor, names: Collection[str]
    ) -> dict[str, Tensor]:
        """The tensors with BatchNorm's running means and variances, those in `names`, computed anew on `inputs`.

        Merged linearly they describe neither model: the merged activations vary less than the buffers say (variance
        collapse, Jordan et al. 2022, "REPAIR", section 3).
        """
        fresh = dict(tensors)
        for name, module in self._norms.items():
            fresh[f"{name}.running_mean"] = torch.zeros_like(tensors[f"{name}.running_mean"])
            fresh[f"{name}.running_var"] = torch.ones_like(tensors[f"{name}.running_var"])
            fresh[f"{name}.num_batches_tracked"] = torch.zeros_like(tensors[f"{name}.num_batches_tracked"])
            module.train()
        momenta = {name: module.momentum for name, module in self._norms.items()}
        try:
            for module in self._norms.values():
                module.momentum = None  # a plain mean over the batches
            with torch.no_grad():
                for batch in torch.split(inputs, self._batch_size):
                    self._call(fresh, batch)
        finally:
            for name, module in self._norms.items():
                module.momentum = momenta[name]
                module.eval()
        wanted = {f"{name}.{part}" for name in self._norms for part in ("running_mean", "running_var")} & set(names)
        return {**tensors, **{name: fresh[name] for name in wanted}}

    def _call(self, tensors: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        try:
            outputs = torch.func.functional_call(self._model, dict(tensors), (batch,))
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as reason:
            raise ModelError(
                f"the model cannot take validation inputs of {batch.dtype} and shape (N, "
                f"{', '.join(map(str, batch.shape[1:]))}): {str(reason).splitlines()[0]}"
            ) from reason
        if not isinstance(outputs, Tensor) or outputs.ndim < 1 or len(outputs) != len(batch):
            raise ModelError("the model does not return one tensor with a row for every sample")
        return outputs

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self._loss == "mse":
            if outputs.numel() != targets.numel():
                raise ModelError(
                    f"the model returns the shape {tuple(outputs.shape)} for targets of shape {tuple(targets.shape)}"
                )
            return (outputs.float() - targets.reshape(outputs.shape)).square().flatten(1).mean(1)
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

    def _metrics(self, outputs: Tensor, targets: Tensor, losses: Tensor) -> Tensor:
        if self._metric == "loss":
            return losses
        return (outputs.argmax(1) == targets).float().reshape(len(targets), -1).mean(1)
