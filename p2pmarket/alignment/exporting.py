"""A module's graph from torch.export, undecomposed: linear maps, norms and attention stay whole.

Knows: torch.export and what it stumbles over. Refuses to know: what the graph means.
Fails with ModelError where the module cannot be exported.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from p2pmarket.alignment.answers import tensors_in
from p2pmarket.alignment.failing import in_short
from p2pmarket.errors import ModelError


def export(module: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> ExportedProgram:
    """The undecomposed graph of a module in evaluation mode.

    :raises ModelError: the exporter cannot follow it
    """
    try:
        with warnings.catch_warnings(), _plain_attention(), _quiet(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(_Answer(module), tuple(arguments), dict(keywords), strict=False)
    except Exception as reason:  # a module's own code may fail in any way
        raise ModelError(
            f"{type(module).__name__} cannot be exported ({in_short(reason)}); "
            "write a function permutation_spec(model) beside its factory"
        ) from reason


class _Answer(nn.Module):
    """A module that returns the tensors of its answer alone: caches for a next call are none of its function."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any, **keywords: Any) -> tuple[Tensor, ...]:
        return tuple(tensors_in(self.module(*arguments, **keywords)))


WITHIN_ANSWER = "module."


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """A fused encoder layer is one operation that nobody can look into."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs and prints whole graphs where it fails; its error says what is needed.

    What the module itself prints to the standard error is lost with it, for this run of its code alone.
    """
    talking = [
        logger
        for name in list(logging.root.manager.loggerDict)
        if name.startswith("torch") and not (logger := logging.getLogger(name)).disabled
    ]
    try:
        for logger in talking:
            logger.disabled = True
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger in talking:
            logger.disabled = False
