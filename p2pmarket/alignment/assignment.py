"""One linear assignment problem, solved fast: prices first, then scipy on what the prices leave open.

Knows: that subtracting a price from every entry of a column changes no assignment, and that scipy's solvers (shortest
augmenting paths: Crouse 2016; on sparse graphs Jonker and Volgenant 1987) have next to nothing left to do where the
prices are nearly the dual solution. Such prices come from a few annealed Sinkhorn steps (Cuturi 2013), as matrix-vector
products on whatever device the scores are on. They only change how long the solvers take.
Refuses to know: what the scores mean. Finite scores never fail; ties and constants are fine.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

Indices = NDArray[np.int64]
Scores = NDArray[np.float32]

_PRICED_FROM = 512
"""Rows from which prices pay: scipy alone needs 0.6 s for 2048 normal scores, 5 s for ones with a trained spectrum;
prices and the rest 0.2 and 0.4 s (measured, one core)."""
_COLD = (1.0, 0.3, 0.1, 0.03)
_WARM = (0.1, 0.03)
"""Temperatures, in median standard deviations of a row."""
_STEPS = 6
_PER_ROW = 12
_FAINT = -60.0
"""Below this exponents end in denormal numbers, which processors multiply slowly."""
_SAMPLE = 256
"""Rows and columns from which scales are estimated."""
_TOO_DENSE = 0.05
"""Fraction of entries from which the sparse solver is the slower one."""


class Assigner:
    """Solves one class's assignment problems, each from the prices of the one before."""

    def __init__(self) -> None:
        self._prices: Tensor | None = None

    def best(self, scores: Tensor, current: Indices) -> Indices:
        """The column of each row, all different: a larger sum than `current` has, or the largest there is.

        :param scores: (n, n) float32; how well row i suits column j
        """
        if len(scores) < _PRICED_FROM:
            return _dense(scores.cpu().numpy())
        favourites: Indices = scores.argmax(1).cpu().numpy()
        if len(np.unique(favourites)) == len(favourites):  # every row can have its best: near copies of one model
            return favourites
        self._prices = _priced(scores, self._prices)
        left = scores - self._prices
        column_best = (left >= left.amax(0)).cpu().numpy()
        reduced: Scores = left.cpu().numpy()
        hopeful = column_best | _hopeful(reduced, current)
        if np.count_nonzero(hopeful) <= _TOO_DENSE * hopeful.size:
            columns = _sparse(reduced, hopeful)
            if _total(reduced, columns) > _total(reduced, current) + _noise(reduced, current):
                return columns
        return _dense(reduced)


def _priced(scores: Tensor, prices: Tensor | None) -> Tensor:
    """(n,) column prices: nearly dual, or anything where the numbers are too far apart for it."""
    scale = float(scores[:: max(1, len(scores) // _SAMPLE)].std(1).median())
    temperatures = _COLD if prices is None else _WARM
    prices = torch.zeros_like(scores[0]) if prices is None else prices
    if not scale > 0.0:
        return prices
    for temperature in temperatures:
        kernel = scores - prices
        kernel.sub_(kernel.amax(1, keepdim=True)).div_(temperature * scale)
        kernel.clamp_(min=_FAINT).exp_()
        columns = torch.ones_like(prices)
        for _ in range(_STEPS):
            rows = 1.0 / (kernel @ columns).clamp_(min=1e-30)
            columns = 1.0 / (kernel.T @ rows).clamp_(min=1e-30)
        prices = prices - temperature * scale * columns.log()
    return prices


def _dense(scores: Scores) -> Indices:
    columns: Indices = linear_sum_assignment(scores, maximize=True)[1]
    return columns


def _total(scores: Scores, columns: Indices) -> float:
    return float(scores[np.arange(len(scores)), columns].sum(dtype=np.float64))


def _noise(scores: Scores, columns: Indices) -> float:
    """What float32 scores cannot tell from zero."""
    return 1e-6 * float(np.abs(scores[np.arange(len(scores)), columns]).sum(dtype=np.float64))


def _hopeful(reduced: Scores, current: Indices) -> NDArray[np.bool_]:
    """The best few of each row, and `current`, so that there always is a full matching."""
    size = len(reduced)
    sample = reduced[:, :: max(1, size // _SAMPLE)]
    kept = max(1, round(_PER_ROW * sample.shape[1] / size))
    limits = np.partition(sample, -kept - 1, axis=1)[:, -kept - 1]
    hopeful: NDArray[np.bool_] = reduced > limits[:, None]
    hopeful[np.arange(size), current] = True
    return hopeful


def _sparse(scores: Scores, hopeful: NDArray[np.bool_]) -> Indices:
    size = len(scores)
    places = np.flatnonzero(hopeful)
    values = scores.reshape(-1)[places].astype(np.float64)
    costs = values.max() - values + 1.0 + float(np.abs(values).max())  # an explicit zero would be no entry
    starts = np.zeros(size + 1, np.int32)
    np.cumsum(hopeful.sum(1), out=starts[1:])
    graph = csr_array((costs, (places % size).astype(np.int32), starts), shape=(size, size))
    columns: Indices = min_weight_full_bipartite_matching(graph)[1].astype(np.int64)
    return columns
