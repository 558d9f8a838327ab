"""The gain of a purchase with an interval: paired differences of per-sample losses.

Knows: statistics. Refuses to know: models. Pairing takes out what makes a sample hard for both models, so a small gain
shows in few samples. Fails with BadSnapshot where a measurement is no number.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from scipy.special import stdtrit
from torch import Tensor

from p2pmarket.appraisal.evaluator import Measured
from p2pmarket.errors import BadSnapshot


@dataclasses.dataclass(frozen=True)
class Gain:
    """Mean loss before minus mean loss after, and the two-sided interval of that mean."""

    mean: float
    low: float
    high: float


NO_GAIN = Gain(0.0, 0.0, 0.0)
"""No purchase: nothing was measured, nothing changes."""


def paired_gain(before: Tensor, after: Tensor, confidence: float) -> Gain:
    """Student's t interval of the mean of `before - after`, two tensors (samples,) of losses of the same samples.

    With a few hundred samples and the skewed differences of cross entropy it covers within 2 points of `confidence`
    (tests/appraisal/test_rules.py).
    """
    differences = (before - after).to(torch.float64)
    count = differences.numel()
    mean = float(differences.mean())
    error = float(differences.std(correction=1)) / math.sqrt(count)
    reach = float(stdtrit(count - 1, 0.5 + confidence / 2)) * error
    return Gain(mean, mean - reach, mean + reach)


@dataclasses.dataclass(frozen=True)
class ClassGain:
    """What a purchase changes on the samples of one class."""

    label: int
    samples: int
    gain: float
    """Mean loss before minus after."""
    low: float | None
    """Lower limit of the gain's interval; None for a class of one sample. Ten classes are ten intervals: that one of
    them does not hold is to be expected more often than for the whole."""
    metric_before: float
    metric_after: float


@dataclasses.dataclass(frozen=True)
class TaskGain:
    """What one delivery changes on one task's REPORT data."""

    gain: Gain
    loss_before: float
    loss_after: float
    metric_before: float
    metric_after: float
    per_class: tuple[ClassGain, ...]


def measured_gain(before: Measured, after: Measured, targets: Tensor, confidence: float) -> TaskGain:
    """The gain from `before` to `after`, two measurements of the same samples, in whole and class by class.

    :param targets: (R,) int64 for classes; with other targets there are no classes to tell apart
    :raises BadSnapshot: a loss or a metric that is not finite
    """
    gain = NO_GAIN if before is after else paired_gain(before.losses, after.losses, confidence)
    if not all(map(math.isfinite, (before.loss, after.loss, gain.low, gain.high))):
        raise BadSnapshot("the parameters give a loss that is not a number on the validation data")
    if not all(map(math.isfinite, (before.metric, after.metric))):
        raise BadSnapshot("the parameters give a metric that is not a number on the validation data")
    return TaskGain(
        gain, before.loss, after.loss, before.metric, after.metric, _by_class(before, after, targets.cpu(), confidence)
    )


def _by_class(before: Measured, after: Measured, targets: Tensor, confidence: float) -> tuple[ClassGain, ...]:
    if targets.dtype != torch.int64 or targets.ndim != 1:
        return ()
    found = []
    for label in sorted(set(targets.tolist())):
        here = targets == label
        count = int(here.sum())
        losses = before.losses[here], after.losses[here]
        found.append(
            ClassGain(
                label,
                count,
                float((losses[0] - losses[1]).mean()),
                paired_gain(*losses, confidence).low if count > 1 else None,
                float(before.metrics[here].mean()),
                float(after.metrics[here].mean()),
            )
        )
    return tuple(found)
