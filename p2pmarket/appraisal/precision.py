"""In which number format and memory layout a model runs fastest here, and whether its losses survive that.

Knows: formats, the conversion of tensors, the rule that decides. Refuses to know: how losses are computed (it is given
a function that runs the model in a format), and what is done with them. A format that makes the model raise counts as
not available, never as an error.

A processor that can compute with bfloat16 is not always faster with it, so the choice is by time, on the model itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

PRECISIONS = ("auto", "float32", "bfloat16")
TOLERANCE = 0.02
"""How far apart the losses of one sample may be on average, as a part of the mean loss, before float32 is taken."""
_WORTH = 1.6
"""A format must be this many times as fast as float32: what it chooses is confirmed in float32, which costs passes, and
below that the choice would be the clock's mood."""
_RUNS = (2, 10)
"""Runs at least, for the first may build kernels, and at most: of a small model, so that the fastest is no accident."""
_SECONDS = 0.05
"""Seconds after which no more than the least number of runs is done."""


@dataclasses.dataclass(frozen=True)
class Format:
    """How float32 tensors are stored while the model runs; all others stay as they are."""

    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.") + (", channels last" if self.channels_last else "")

    def of(self, tensor: Tensor) -> Tensor:
        """The tensor in this format; itself where nothing changes."""
        if tensor.dtype != torch.float32:
            return tensor
        images = self.channels_last and tensor.ndim == 4
        return tensor.to(self.dtype, memory_format=torch.channels_last if images else torch.preserve_format)

    def of_all(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every tensor in this format."""
        return {name: self.of(tensor) for name, tensor in tensors.items()}


EXACT = Format()
"""Float32 as it comes: what is reported is measured so."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """The format for losses that only choose, and why, as a part of a sentence for a status line."""

    format: Format
    reason: str

    def __str__(self) -> str:
        return f"{self.format}: {self.reason}"


def has_convolutions(model: nn.Module) -> bool:
    """Whether there is anything that channels-last could help."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return any(isinstance(module, kinds) for module in model.modules())


def formats(model: nn.Module, precision: str) -> tuple[Format, ...]:
    """What to try besides `EXACT`."""
    layouts = (False, True) if has_convolutions(model) else (False,)
    types = {"auto": (torch.float32, torch.bfloat16), "float32": (torch.float32,), "bfloat16": (torch.bfloat16,)}
    return tuple(
        Format(dtype, layout) for dtype in types[precision] for layout in layouts if Format(dtype, layout) != EXACT
    )


def fastest(
    run: Callable[[Format], Tensor], among: Sequence[Format], *, forced: bool, clock: Callable[[], float]
) -> Choice:
    """The fastest format with losses near those of float32; `EXACT` unless another is well ahead of it.

    :param run: losses of a small batch in a format, on the CPU, so that a device has finished when it returns
    :param forced: the person running this named the format: take the fastest of `among` however slow
    """
    if not among:
        return Choice(EXACT, "nothing else to choose from")
    exact, exact_seconds = _timed(run, EXACT, clock)
    best, refusal = Choice(EXACT, "no other format is well ahead of it here"), ""
    best_seconds = float("inf") if forced else exact_seconds / _WORTH
    for candidate in among:
        try:
            losses, seconds = _timed(run, candidate, clock)
        except Exception as error:  # whatever a model's code raises when its tensors are not float32
            refusal = f"the model does not run in {candidate} ({type(error).__name__})"
            continue
        away = distance(exact, losses)
        if not away <= TOLERANCE:
            refusal = f"in {candidate} the losses are off by {away:.1%}"
        elif seconds < best_seconds:
            best_seconds = seconds
            best = Choice(
                candidate,
                f"{exact_seconds / seconds:.1f} times as fast as float32 here, losses within {away:.2%} of it",
            )
    return best if best.format != EXACT or not refusal else Choice(EXACT, refusal)


def distance(exact: Tensor, losses: Tensor) -> float:
    """Mean absolute difference of the losses, as a part of the mean loss; equal infinities or NaN are none."""
    same = (exact == losses) | (exact.isnan() & losses.isnan())
    differences = torch.where(same, torch.zeros_like(exact), (exact - losses).abs())
    finite = exact[exact.isfinite()].abs()
    scale = float(finite.mean()) if finite.numel() else 1.0
    return float(differences.mean()) / max(scale, 1e-6)


def _timed(run: Callable[[Format], Tensor], form: Format, clock: Callable[[], float]) -> tuple[Tensor, float]:
    """The fastest of a few runs."""
    seconds, start = float("inf"), clock()
    for done in range(_RUNS[1]):
        began = clock()
        if done >= _RUNS[0] and began - start > _SECONDS:
            break
        losses = run(form)
        seconds = min(seconds, clock() - began)
    return losses, seconds
