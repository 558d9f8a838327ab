"""The best point of the line between two models, with few samples and few points.

Knows: functions of one number, sampled. Refuses to know: models, merges, devices: the caller's function gives the
losses. Deterministic; draws nothing. The line need not have one minimum only (there may be a barrier between two
models), so a grid comes first and only then a refinement between the best point's neighbours. Every choice on a part of
the samples is a paired one, so that a hard sample is hard for all points alike.
Fails with nothing of its own: losses that are no numbers count as infinite.

One search serves both directions of a pair: the line from the seller to the buyer holds the same models, and what is
alpha in one direction is 1 - alpha in the other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Sequence

import torch
from torch import Tensor

LossesAt = Callable[[Sequence[float], int, int], list[Tensor]]
"""(alphas, start, stop) -> for each alpha the losses (stop - start,), float64 on the CPU, of the samples start ... stop
of one fixed random order. A sample is asked for at most once for each alpha."""

STAGES = (128, 512, 2048)
"""Samples after which points that are clearly worse are dropped. The last one below all is where refinement happens."""
STATISTICS_SAMPLES = 512
"""Samples enough to reset a candidate's BatchNorm statistics during the search; the final model deserves all."""

_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
_CLEARLY = 3.0
"""Standard errors of the paired difference beyond which a point is dropped: one drop in 700 is wrong by chance."""
_TOLERANCE = 1e-4
"""A refinement that promises less than this part of the loss is not tried."""
_CLOSE = 0.06
"""Points nearer than this tell little about the curve: the loss of a rounded model is rough at that scale."""
_STEPS = 6
"""Refinements at most on a part of the samples, and again on all."""
_GOLDEN = (3 - math.sqrt(5)) / 2


@dataclasses.dataclass(frozen=True)
class LineMinimum:
    """Where the mean loss over all samples is least, among the points that were tried on all."""

    alpha: float
    losses: Tensor
    """(samples,) at alpha."""
    tried: tuple[float, ...]
    """Every point looked at, in ascending order."""
    evaluations: int
    """Losses asked for: one for each sample and point."""

    @property
    def loss(self) -> float:
        """Mean loss at alpha."""
        return float(self.losses.mean())


def search_line(
    losses_at: LossesAt, samples: int, *, low: float = 0.0, high: float = 1.0, stages: Sequence[int] = STAGES
) -> LineMinimum:
    """The point of [low, high] with the least mean loss; ties go to the point nearest to 0.

    The grid 0, 1/4, ... 1 (and `low` and `high`, where they lie outside) races on growing parts of the samples: what is
    worse than the best by more than three standard errors of the paired differences is dropped. Then a bounded
    refinement in Brent's manner inside the best point's bracket, on the largest part below all: parabolas through three
    known points, golden sections where those mislead. The winner, and rivals from other valleys that were not beaten
    clearly, are measured on all samples; a last parabola takes its curvature from the part and its slope from all. 0
    and 1 are always in the race.

    :param samples: how many there are
    """
    return search_lines([losses_at], samples, low=low, high=high, stages=stages)[1]


def search_lines(
    lines: Sequence[LossesAt],
    samples: int,
    *,
    low: float = 0.0,
    high: float = 1.0,
    stages: Sequence[int] = STAGES,
) -> tuple[int, LineMinimum]:
    """`search_line` on several lines that share the samples: the index of the line with the least loss, and its point.

    A line whose refined best is clearly worse than another's on the part is not measured on all samples. Ties go to the
    first line. `evaluations` counts those of all lines.
    """
    if samples < 1 or not low <= 0.0 < 1.0 <= high:
        raise ValueError("a line search needs a sample, and bounds around 0 ... 1")
    races = [_Race(losses_at, low, high) for losses_at in lines]
    parts = [stage for stage in sorted(stages) if 2 * stage <= samples] or [samples]
    for race in races:
        race.start(parts)
    remaining = [race for race in races if not any(race.beaten_by(other, parts[-1]) for other in races)]
    if parts[-1] < samples:
        for race in remaining:
            race.finish(parts[-1], samples)
    winner = min(remaining, key=lambda race: race.mean(race.best(samples), samples))
    best = winner.best(samples)
    evaluations = sum(len(losses) for race in races for losses in race.losses.values())
    found = LineMinimum(best, winner.losses[best], tuple(sorted(winner.losses)), evaluations)
    return races.index(winner), found


class _Race:
    """Points and the losses known of each, on a prefix of the samples."""

    def __init__(self, losses_at: LossesAt, low: float, high: float) -> None:
        self.losses: dict[float, Tensor] = {}
        self._losses_at = losses_at
        self._alive: Collection[float] = sorted({low, *_GRID, high})

    def start(self, parts: Sequence[int]) -> None:
        """The race of the grid on growing parts, and the refinement on the last of them."""
        for part in parts:
            self.extend(self._alive, part)
            self._alive = self.not_clearly_worse(self._alive, part)
        self.refine(parts[-1])

    def beaten_by(self, other: _Race, count: int) -> bool:
        """Whether another line's best is clearly better than this one's."""
        mine, theirs = self.losses[self.best(count)][:count], other.losses[other.best(count)][:count]
        return _clearly_above(mine, theirs)

    def finish(self, part: int, samples: int) -> None:
        """The winner, and what may still win, on all samples."""
        self.finals(self._alive, part, samples)
        self.refine(samples)

    def extend(self, alphas: Iterable[float], count: int) -> None:
        """Knows `count` losses of each of `alphas`; asks for several points at a time where it can."""
        missing: dict[int, list[float]] = {}
        for alpha in alphas:
            known = len(self.losses.get(alpha, ()))
            if known < count:
                missing.setdefault(known, []).append(alpha)
        for known, group in missing.items():
            for alpha, losses in zip(group, self._losses_at(group, known, count), strict=True):
                self.losses[alpha] = torch.cat([self.losses[alpha], losses]) if known else losses

    def mean(self, alpha: float, count: int) -> float:
        mean = float(self.losses[alpha][:count].mean())
        return mean if math.isfinite(mean) else math.inf

    def best(self, count: int) -> float:
        """Of the points known on `count` samples."""
        known = [alpha for alpha, losses in self.losses.items() if len(losses) >= count]
        return min(known, key=lambda alpha: (self.mean(alpha, count), abs(alpha), alpha))

    def not_clearly_worse(self, alphas: Iterable[float], count: int) -> list[float]:
        best = self.best(count)
        least = self.losses[best][:count]
        return [alpha for alpha in alphas if alpha == best or not _clearly_above(self.losses[alpha][:count], least)]

    def refine(self, count: int) -> None:
        """Tries points between the best one's neighbours while a parabola promises to be worth it."""
        for _ in range(_STEPS):
            best = self.best(count)
            if math.isinf(self.mean(best, count)):
                return
            proposed = self._proposal(best, count)
            if proposed is None:
                return
            self.extend([proposed], count)

    def finals(self, alive: Iterable[float], part: int, samples: int) -> None:
        """Everything that may still win, on all samples, and one point beside the best to know the slope there."""
        best = self.best(part)
        left, right = self._neighbours(best)
        inside = (best if left is None else left, best if right is None else right)
        rivals = [alpha for alpha in self.not_clearly_worse(alive, part) if not inside[0] <= alpha <= inside[1]]
        beside = self._witness(best, part, {best})
        self.extend([best, *([] if beside is None else [beside]), *rivals], samples)

    def _neighbours(self, best: float) -> tuple[float | None, float | None]:
        return (
            max((alpha for alpha in self.losses if alpha < best), default=None),
            min((alpha for alpha in self.losses if alpha > best), default=None),
        )

    def _proposal(self, best: float, count: int) -> float | None:
        """The next point to try, None where nothing is promised."""
        left, right = self._neighbours(best)
        if left is None or right is None:
            return self._inside(best, count)
        below, above = self._rise(left, best, count), self._rise(right, best, count)
        for alpha, rise in ((left, below), (right, above)):
            if rise <= 0 and len(self.losses[alpha]) < count:
                return alpha  # by all that is known it is the better one
        ahead, behind = right - best, best - left
        wide = min(ahead, behind) > 2 * _CLOSE
        golden = best + _GOLDEN * ahead if ahead > behind else best - _GOLDEN * behind
        if not (math.isfinite(below) and math.isfinite(above)):
            return golden if max(ahead, behind) > _CLOSE else None
        # The parabola through (-behind, below), (0, 0), (ahead, above): curvature * x^2 + slope * x
        curvature = (above / ahead + below / behind) / (ahead + behind)
        slope = above / ahead - curvature * ahead
        if not curvature > 0:
            return golden if wide else None
        shift = -slope / (2 * curvature)
        promise = slope * slope / (4 * curvature)
        if wide:
            # Once, however little is promised: a parabola a quarter wide is blind to a lopsided valley.
            shift = math.copysign(max(abs(shift), _CLOSE), shift)
        elif promise < _TOLERANCE * abs(self.mean(best, count)):
            return None
        return self._new(min(max(best + shift, left), right), count)

    def _inside(self, best: float, count: int) -> float | None:
        """The next point where an end is best: a dip narrower than the grid's first step may hide beside it."""
        near, far = sorted((alpha for alpha in self.losses if alpha != best), key=lambda alpha: abs(alpha - best))[:2]
        if abs(near - best) > 2 * _CLOSE:
            return best + _GOLDEN * (near - best)
        low, high = self._rise(near, best, count), self._rise(far, best, count)
        short, long = abs(near - best), abs(far - best)
        if not (math.isfinite(low) and math.isfinite(high)):
            return None
        # curvature * x^2 + slope * x through the end and both points, x away from the end
        curvature = (high / long - low / short) / (long - short)
        slope = low / short - curvature * short
        if not (curvature > 0 > slope) or slope * slope / (4 * curvature) < _TOLERANCE * abs(self.mean(best, count)):
            return None
        shift = min(-slope / (2 * curvature), short)
        return self._new(best + math.copysign(shift, near - best), count)

    def _new(self, proposed: float, count: int) -> float | None:
        """The point, or the known one it is too near to: None where that has nothing more to tell."""
        nearest = min(self.losses, key=lambda alpha: abs(alpha - proposed))
        if abs(nearest - proposed) >= 1e-3:
            return proposed
        return nearest if len(self.losses[nearest]) < count else None

    def _witness(self, best: float, count: int, but: Collection[float]) -> float | None:
        """A point known on `count` samples, not in `but`, near the best one and yet far enough to show a slope."""
        known = [alpha for alpha, losses in self.losses.items() if len(losses) >= count and alpha not in but]
        known = [alpha for alpha in known if math.isfinite(self.mean(alpha, count))]
        apart = [alpha for alpha in known if abs(alpha - best) >= _CLOSE]
        if apart:
            return min(apart, key=lambda alpha: (abs(alpha - best), alpha))
        return max(known, key=lambda alpha: (abs(alpha - best), alpha), default=None)

    def _rise(self, alpha: float, best: float, count: int) -> float:
        """Mean loss at alpha above that at best, on `count` samples; where alpha is known on fewer, by those, with the
        slope corrected by a point that is known on all of them."""
        known = min(len(self.losses[alpha]), count)
        rise = self._difference(alpha, best, known)
        witness = self._witness(best, count, {alpha, best})
        if known == count or witness is None:
            return rise
        drift = self._difference(witness, best, count) - self._difference(witness, best, known)
        return rise + drift / (witness - best) * (alpha - best)

    def _difference(self, alpha: float, best: float, count: int) -> float:
        mean = float((self.losses[alpha][:count] - self.losses[best][:count]).mean())
        return mean if math.isfinite(mean) else math.inf


def _clearly_above(losses: Tensor, least: Tensor) -> bool:
    """Whether the paired differences say so beyond chance; no number is clearly worse than a number."""
    differences = losses - least
    mean = float(differences.mean())
    if not math.isfinite(mean):
        return math.isfinite(float(least.mean()))
    count = len(differences)
    error = float(differences.std(correction=1)) / math.sqrt(count) if count > 1 else math.inf
    return mean > _CLEARLY * error
