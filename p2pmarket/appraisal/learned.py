"""Many coefficients at once, by gradient steps from the scalar optimum: one for each tensor, or for each output row.

Knows: a vector's slope on a part of the samples, and losses that say when to stop. Refuses to know: models, data, what
the coefficients multiply. Deterministic: the order of the parts comes from a private generator.

Hundreds of numbers can learn the samples by heart. Three guards: bounds, a penalty on the distance from the scalar
optimum, and the step is kept that was best on samples which no gradient has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

STEPS = 80
RATE = 0.1
"""Adam's step: from one end of [0, 1] to the other in ten steps."""
MOMENTUM, SCALE = 0.9, 0.999
"""Adam's averages of the slope and of its square (Kingma and Ba 2015, algorithm 1)."""
PENALTY = 0.0005
"""Weight of the mean squared distance from the scalar optimum: it decides where the loss hardly does."""
LOOK_EVERY = 5
"""Steps between two looks at the held-back samples."""
PATIENCE = 4
"""Looks in a row without a better one after which it ends."""


def learn(
    slope_at: Callable[[Tensor, int], Tensor],
    held_losses: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    parts: int,
    low: float,
    high: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """The coefficients in [low, high] with the least mean of `held_losses` on the way, and these losses.

    `start` itself where no step helps.

    :param slope_at: (coefficients (C,), number of a part of the samples) -> (C,) the mean loss's slope on that part
    :param held_losses: coefficients -> (held,) losses of samples that no part holds
    :param start: (C,) float32, the scalar optimum
    """
    now = start.clone()
    momentum, scale = torch.zeros_like(now), torch.zeros_like(now)
    best, best_losses, worse = start, held_losses(start), 0
    least = _mean(best_losses)
    order = _order(parts, torch.Generator().manual_seed(seed))
    for step in range(1, STEPS + 1):
        slope = slope_at(now, next(order)).add_(now - start, alpha=2 * PENALTY / len(now))
        momentum.lerp_(slope, 1 - MOMENTUM)
        scale.mul_(SCALE).addcmul_(slope, slope, value=1 - SCALE)
        size = (scale / (1 - SCALE**step)).sqrt_().add_(1e-8)
        now.addcdiv_(momentum, size, value=-RATE / (1 - MOMENTUM**step)).clamp_(low, high)
        if step % LOOK_EVERY == 0:
            losses = held_losses(now)
            mean = _mean(losses)
            worse = 0 if mean < least else worse + 1
            if mean < least:
                best, best_losses, least = now.clone(), losses, mean
            if worse == PATIENCE or math.isinf(mean):
                break
    return best, best_losses


def _order(parts: int, generator: torch.Generator) -> Iterator[int]:
    while True:
        yield from torch.randperm(parts, generator=generator).tolist()


def _mean(losses: Tensor) -> float:
    mean = float(losses.mean())
    return math.inf if math.isnan(mean) else mean
