"""Means over seeds, and how far they may be off."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

CONFIDENCE = 0.95


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and half of its 95 % interval by Student's t; None for a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    from scipy.stats import t

    return mean, float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
