"""What a merge's layers expect of their inputs: BatchNorm's buffers, and which buffers nobody may average.

Knows: modules and their buffers. Refuses to know: losses, coefficients.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from p2pmarket.appraisal.evaluator import Evaluator


def module_of(evaluator: Evaluator) -> nn.Module:
    """The module that the evaluator took over; whoever hooks it must leave it as it was."""
    return evaluator._model


def statistics_of(model: nn.Module) -> frozenset[str]:
    """Names of BatchNorm's running means and variances: a merge computes them anew, nobody averages them."""
    return frozenset(
        f"{name}.{part}" if name else part
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
        for part in ("running_mean", "running_var")
    )


def own_buffers(model: nn.Module) -> frozenset[str]:
    """Names of all other buffers: masks, tables, counters. They mean something to their owner only, and stay there."""
    return frozenset(name for name, _ in model.named_buffers()) - statistics_of(model)
