"""Many coefficients at once, by gradient steps from the scalar optimum: one for each tensor, or for each output row.

Knows: a loss that can be differentiated with respect to coefficients, and another that says when to stop. Refuses to
know: models, data, what the coefficients multiply. Deterministic: the batches come from a private generator.

Hundreds of numbers can learn the samples by heart. Three guards: bounds, a penalty on the distance from the scalar
optimum, and the step is kept that was best on samples which no gradient has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from p2pmarket.appraisal.merging import Coefficients

STEPS = 80
BATCH = 512
RATE = 0.1
"""Adam's step: from one end of [0, 1] to the other in ten steps."""
PENALTY = 0.0005
"""Weight of the mean squared distance from the scalar optimum: it decides where the loss hardly does."""
LOOK_EVERY = 5
"""Steps between two looks at the held-back samples."""
PATIENCE = 4
"""Looks in a row without a better one after which it ends."""


def learn(
    loss_of: Callable[[Coefficients, Tensor], Tensor],
    held_loss: Callable[[Coefficients], float],
    start: Coefficients,
    *,
    samples: int,
    low: float,
    high: float,
    seed: int,
) -> dict[str, Tensor]:
    """The coefficients in [low, high] with the least `held_loss` on the way; `start` itself where no step helps.

    :param loss_of: (coefficients, indices (batch,) of samples) -> mean loss, a scalar that can be differentiated
    :param start: the scalar optimum, as float32 tensors of the wanted shapes
    """
    shapes = {name: tensor.shape for name, tensor in start.items()}
    origin = torch.cat([tensor.reshape(-1) for tensor in start.values()]).float()
    flat = origin.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([flat], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    best, best_loss, worse = origin, _finite(held_loss(start)), 0
    batches = _batches(samples, generator)
    for step in range(1, STEPS + 1):
        optimiser.zero_grad()
        loss = loss_of(_named(flat, shapes), next(batches)) + PENALTY * (flat - origin).square().mean()
        if not math.isfinite(float(loss.detach())):
            break
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            flat.clamp_(low, high)
        if step % LOOK_EVERY == 0:
            now = _finite(held_loss(_named(flat.detach(), shapes)))
            worse = 0 if now < best_loss else worse + 1
            if now < best_loss:
                best, best_loss = flat.detach().clone(), now
            if worse == PATIENCE:
                break
    return {name: tensor.clone() for name, tensor in _named(best, shapes).items()}


def _named(flat: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    parts = torch.split(flat, [shape.numel() for shape in shapes.values()])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _batches(samples: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from torch.split(torch.randperm(samples, generator=generator), min(BATCH, samples))


def _finite(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
