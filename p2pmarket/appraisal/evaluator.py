"""A model of the market's kind, evaluated with anybody's parameters.

Knows: losses and metrics per sample, batches, devices, BatchNorm statistics. Refuses to know: whose parameters, and
what is chosen by the result. Parameters are put under the module for one call (torch.func.functional_call), never
copied into it; the module belongs to one thread.

What is reported is measured exactly: in float32, as the parameters come. `exact=False` is for choosing only: it runs
in the number format that is fastest here, if its losses are near those of float32; losses are float32 in any case.
Losses that are no numbers are returned as they are: whose fault they are is the caller's to say (`Measured.finite`).
Fails with ModelError where model and data do not fit each other, DataError where there are no samples, MachineFault
(code "out-of-memory") where one sample does not fit into the device's memory.
"""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from p2pmarket.appraisal.losses import LOSSES, METRICS, Measured, losses_of, metrics_of
from p2pmarket.appraisal.memory import MIB, Batches, is_out_of_memory, out_of_memory
from p2pmarket.appraisal.precision import (
    EXACT,
    PRECISIONS,
    TOLERANCE,
    Choice,
    Format,
    distance,
    fastest,
    formats,
    has_convolutions,
)
from p2pmarket.errors import DataError, MachineFault, ModelError

__all__ = ["LOSSES", "METRICS", "Evaluator", "Measured", "evaluators_for"]

Kept = TypeVar("Kept")

MEMORY_MIB = 1024
"""Memory for activations. More makes no model faster on a CPU, and little on a CUDA device."""

_STACKED_PARAMETERS = 1_000_000
"""Models up to this size, without convolutions, spend a CUDA device's time in launching: many sets go in one pass."""
_STACKED_WORK = 2_000_000
"""Parameters times samples up to which that is so on a CPU; beyond, its batched products are the slower ones."""
_PROBE_SAMPLES = 512
_PROBE_IMAGES = 16
"""Samples on which formats are timed and compared; a convolutional model is slow enough for few."""


class Evaluator:
    """Evaluates parameters in `model`, which it takes over: moved to the device and set to evaluation."""

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: str,
        metric: str,
        device: str = "auto",
        batch_size: int = 1024,
        precision: str = "auto",
        memory_mib: int = MEMORY_MIB,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`device`: "auto" is cuda where there is one; else a torch device's name.

        :param batch_size: samples at a time, at most; fewer where their activations need more than `memory_mib`
        :param precision: for `exact=False`: "auto", "float32" or "bfloat16", which is still checked against float32
        :param clock: seconds, to time formats
        :raises ModelError: an unknown loss, metric, precision or device, or accuracy without classes
        """
        if loss not in LOSSES or metric not in METRICS or precision not in PRECISIONS:
            raise ModelError(
                f"loss {loss!r} with metric {metric!r} in {precision!r}: choose a loss of {', '.join(LOSSES)}, "
                f"a metric of {', '.join(METRICS)} and a precision of {', '.join(PRECISIONS)}"
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
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # torch's default would make exact losses 10-bit ones
        self._loss = loss
        self._metric = metric
        self._batches = Batches(self.device, batch_size, memory_mib)
        self._precision = precision
        self._clock = clock
        self._formats = formats(self._model, precision)
        self._convolutions = has_convolutions(self._model)
        self._parameters = sum(parameter.numel() for parameter in self._model.parameters())
        self._stacks = not self._convolutions and self._parameters <= _STACKED_PARAMETERS
        self._stacked_before = False
        self._fastest: Choice | None = None
        self._choice: Choice | None = None
        self._kept: tuple[bytes, Any] | None = None
        self._norms = {
            name: module
            for name, module in self._model.named_modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats
        }

    @property
    def module(self) -> nn.Module:
        """The module taken over, for its names and shapes; whoever hooks it must leave it as it was."""
        return self._model

    @property
    def precision(self) -> str:
        """What `exact=False` uses and why, for a status line."""
        return "not probed yet" if self._choice is None else str(self._choice)

    @property
    def rounds(self) -> bool:
        """Whether losses of `exact=False` are those of rounded parameters: a choice by them deserves an exact loss."""
        return self._choice is None or self._choice.format.dtype != torch.float32

    @property
    def batch_size(self) -> int:
        """Samples that fit at a time, as far as is known."""
        return self._batches.size

    @property
    def peak_mib(self) -> float:
        """Most memory used: the device's count for this program on CUDA, an estimate of the activations on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / MIB
        return self._batches.peak / MIB

    def place(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors on the evaluator's device."""
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}

    def keep(self, key: bytes, make: Callable[[], Kept]) -> Kept:
        """What `make` returned for the same key the last time: one thing at a time stays on the device.

        :param key: says everything that the thing depends on besides the device
        """
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, make())
        found: Kept = self._kept[1]
        return found

    def measure(
        self, tensors: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, *, exact: bool = True
    ) -> Measured:
        """Loss and metric of every sample with these parameters; all on the evaluator's device.

        :param exact: False for losses that only choose: in the fastest format, see `calibrate`
        :raises ModelError: the model cannot take the data
        :raises DataError: no samples, or not as many targets
        :raises MachineFault: out of memory with a single sample
        """
        self._check(inputs, targets)
        form = EXACT if exact else self._format(tensors, inputs, targets)
        ready = form.of_all(tensors)

        def row(batch: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
            return self._row(self._call(ready, form.of(batch)), wanted)

        with torch.inference_mode():
            self._batches.fit(lambda few: self._call(ready, form.of(few)), inputs)
            parts = list(self._batches.over(row, inputs, targets))
        return Measured(*(torch.cat(column).double().cpu() for column in zip(*parts, strict=True)))

    def measure_many(
        self, parameter_sets: Sequence[Mapping[str, Tensor]], inputs: Tensor, targets: Tensor, *, exact: bool = True
    ) -> list[Measured]:
        """`measure` of each set of parameters; a small model without convolutions takes them all in one pass.

        Losses differ from those of `measure` by rounding only. Parameters as for `measure`.
        """
        small = self.device.type == "cuda" or self._parameters * len(inputs) <= _STACKED_WORK
        if self._stacks and small and len(parameter_sets) > 1:
            self._check(inputs, targets)
            form = EXACT if exact else self._format(parameter_sets[0], inputs, targets)
            try:
                # Warning filters are the whole program's: they are touched for the first pass only.
                with contextlib.nullcontext() if self._stacked_before else _slow_batching_refused():
                    measured = self._stacked(parameter_sets, inputs, targets, form)
                self._stacked_before = True
                return measured
            except (RuntimeError, ValueError, TypeError, UserWarning, MachineFault):
                # Code that cannot be batched, or no memory for many. Where the data do not fit, the loop says so.
                measured = [self.measure(tensors, inputs, targets, exact=exact) for tensors in parameter_sets]
                self._stacks = False
                return measured
        return [self.measure(tensors, inputs, targets, exact=exact) for tensors in parameter_sets]

    def calibrate(self, tensors: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> str:
        """Checks the fastest format against float32 on the first samples with these parameters; returns `precision`.

        Worth a call for every new snapshot: one whose losses do not survive rounding is then searched in float32, until
        the next call. The first call, or the first use, times the formats as well.

        :raises ModelError: the model cannot take the data
        """
        self._check(inputs, targets)
        count = min(_PROBE_IMAGES if self._convolutions else _PROBE_SAMPLES, self.batch_size, len(inputs))
        sample, wanted = inputs[:count], targets[:count]

        def run(form: Format) -> Tensor:
            with torch.inference_mode():
                outputs = self._call(form.of_all(tensors), form.of(sample))
                return losses_of(self._loss, outputs, wanted).double().cpu()

        try:
            if self._fastest is None:
                self._choice = self._fastest = fastest(
                    run, self._formats, forced=self._precision == "bfloat16", clock=self._clock
                )
            elif self._fastest.format.dtype != torch.float32:
                away = distance(run(EXACT), run(self._fastest.format))
                refused = Choice(EXACT, f"in {self._fastest.format} the losses are off by {away:.1%}")
                self._choice = self._fastest if away <= TOLERANCE else refused
        except Exception as reason:
            if not is_out_of_memory(reason):
                raise
            self._choice = Choice(EXACT, "no memory to compare formats")
        return self.precision

    def mean_loss(self, tensors: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of one batch, a scalar on the device that can be differentiated with respect to `tensors`.

        :raises ModelError: the model cannot take the data
        :raises MachineFault: out of memory
        """
        try:
            return losses_of(self._loss, self._call(tensors, inputs), targets).mean()
        except (RuntimeError, MemoryError) as reason:
            if is_out_of_memory(reason):
                raise out_of_memory(self.device, len(inputs)) from reason
            raise

    def has_statistics(self) -> bool:
        """Whether the model has BatchNorm layers with running statistics."""
        return bool(self._norms)

    def reset_statistics(
        self, tensors: Mapping[str, Tensor], inputs: Tensor, names: Collection[str]
    ) -> dict[str, Tensor]:
        """The tensors with BatchNorm's running means and variances, those in `names`, computed anew on `inputs`.

        Merged linearly they describe neither model: the merged activations vary less than the buffers say (variance
        collapse, Jordan et al. 2022, "REPAIR", section 3). During a search a part of the data is enough
        (`line_search.STATISTICS_SAMPLES`).

        :raises ModelError: the model cannot take the data
        :raises MachineFault: out of memory with a single sample
        """
        wanted = {f"{name}.{part}" for name in self._norms for part in ("running_mean", "running_var")} & set(names)
        while True:
            try:
                fresh = self._fresh_statistics(tensors, inputs)
                return {**tensors, **{name: fresh[name] for name in wanted}}
            except (RuntimeError, MemoryError) as reason:
                self._batches.halve(reason, min(self.batch_size, len(inputs)))

    def _fresh_statistics(self, tensors: Mapping[str, Tensor], inputs: Tensor) -> dict[str, Tensor]:
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
                for batch in torch.split(inputs, self.batch_size):
                    if (
                        len(batch) == min(self.batch_size, len(inputs)) or len(batch) > 1
                    ):  # one left over has no variance
                        self._call(fresh, batch)
        finally:
            for name, module in self._norms.items():
                module.momentum = momenta[name]
                module.eval()
        return fresh

    def _check(self, inputs: Tensor, targets: Tensor) -> None:
        if len(inputs) == 0 or len(inputs) != len(targets):
            raise DataError(
                f"there are {len(inputs)} inputs and {len(targets)} targets to measure on; expected as many, and some"
            )

    def _format(self, tensors: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Format:
        if self._choice is None:
            self.calibrate(tensors, inputs, targets)
        assert self._choice is not None
        return self._choice.format

    def _stacked(
        self, sets: Sequence[Mapping[str, Tensor]], inputs: Tensor, targets: Tensor, form: Format
    ) -> list[Measured]:
        ready = {name: torch.stack([form.of(tensors[name]) for tensors in sets]) for name in sets[0]}

        def rows(batch: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
            outputs = torch.func.vmap(
                lambda tensors: torch.func.functional_call(self._model, tensors, (form.of(batch),))
            )(ready)
            if not isinstance(outputs, Tensor) or outputs.ndim < 2 or outputs.shape[1] != len(batch):
                raise ValueError("no row for every sample")
            losses, metrics = self._row(outputs.flatten(0, 1), wanted.repeat(len(sets), *[1] * (wanted.ndim - 1)))
            return losses.reshape(len(sets), -1), metrics.reshape(len(sets), -1)

        with torch.inference_mode():
            one = form.of_all(sets[0])
            self._batches.fit(lambda few: self._call(one, form.of(few)), inputs)
            parts = list(self._batches.over(rows, inputs, targets, copies=len(sets)))
        losses, metrics = (torch.cat(column, 1).double().cpu() for column in zip(*parts, strict=True))
        return [Measured(*pair) for pair in zip(losses, metrics, strict=True)]

    def _row(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses = losses_of(self._loss, outputs, targets)
        return losses, metrics_of(self._metric, outputs, targets, losses)

    def _call(self, tensors: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        try:
            outputs = torch.func.functional_call(self._model, dict(tensors), (batch,))
        except (RuntimeError, ValueError, TypeError, IndexError) as reason:
            if is_out_of_memory(reason):
                raise
            raise ModelError(
                f"the model cannot take validation inputs of {batch.dtype} and shape (N, "
                f"{', '.join(map(str, batch.shape[1:]))}): {str(reason).splitlines()[0]}"
            ) from reason
        if not isinstance(outputs, Tensor) or outputs.ndim < 1 or len(outputs) != len(batch):
            raise ModelError("the model does not return one tensor with a row for every sample")
        return outputs


@contextlib.contextmanager
def _slow_batching_refused() -> Iterator[None]:
    """Raises torch's warning of an operation that vmap runs one set at a time: that is no faster than the loop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="There is a performance drop", category=UserWarning)
        yield


def evaluators_for(model: nn.Module, *, device: str = "auto", **options: Any) -> tuple[Evaluator, ...]:
    """One evaluator for each CUDA device, with a copy of the model each; a single one where `device` names one.

    Each belongs to one thread, so that a worker for each device can appraise pairs of its own.

    :param options: those of `Evaluator`
    """
    if device == "auto" and torch.cuda.device_count() > 1:
        places = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        return tuple(Evaluator(copy.deepcopy(model), device=place, **options) for place in places)
    return (Evaluator(model, device=device, **options),)
