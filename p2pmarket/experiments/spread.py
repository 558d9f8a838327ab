"""Means over seeds, and how far they may be off. With a value that is not finite, as of a run that diverged, there is
none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

CONFIDENCE = 0.95


def mean_of(values: Iterable[float]) -> float:
    """The mean; nan where one of them is not finite, or their sum is beyond a float."""
    values = list(values)
    if not all(map(math.isfinite, values)):
        return math.nan
    try:
        return statistics.fmean(values)
    except OverflowError:
        return math.nan


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and half of its 95 % interval by Student's t; None for a single value, (nan, None) without a mean."""
    mean = mean_of(values)
    if len(values) < 2 or math.isnan(mean):
        return mean, None
    from scipy.stats import t

    try:
        deviation = statistics.stdev(values)
    except OverflowError:
        return math.nan, None
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return (mean, half) if math.isfinite(half) else (math.nan, None)
