"""Where a whole module cannot be exported: its largest submodules that can.

Knows: forward hooks, which see what each submodule is called with. Refuses to know: what is done with the graphs. A
submodule's inputs and outputs count as given, so nothing is permuted across its border.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from p2pmarket.alignment.exporting import export
from p2pmarket.alignment.failing import fails_on_inputs
from p2pmarket.errors import ModelError

Given = tuple[tuple[Any, ...], dict[str, Any]]


def export_parts(
    model: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[dict[str, ExportedProgram], list[str]]:
    """(name of a submodule with a dot -> its graph, sentences about those that cannot be exported).

    :raises ModelError: the model does not run at all
    """
    calls = _calls(model, arguments, keywords)
    programs: dict[str, ExportedProgram] = {}
    left_out: list[str] = []
    _descend(model, "", calls, programs, left_out)
    return programs, left_out


def _calls(model: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> dict[nn.Module, Given]:
    """Every submodule that is called -> what it is called with first."""
    calls: dict[nn.Module, Given] = {}

    def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        calls.setdefault(module, (given, named))

    hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        with torch.no_grad():
            model(*arguments, **keywords)
    except Exception as reason:  # a module's own code may fail in any way
        raise fails_on_inputs(model, arguments, keywords, reason) from reason
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _descend(
    module: nn.Module,
    prefix: str,
    calls: Mapping[nn.Module, Given],
    programs: dict[str, ExportedProgram],
    left_out: list[str],
) -> None:
    for name, child in module.named_children():
        path = f"{prefix}{name}."
        if not any(True for _ in child.parameters()):
            continue
        if child not in calls:
            _descend(child, path, calls, programs, left_out)
            continue
        try:
            programs[path] = export(child, *calls[child])
        except ModelError as reason:
            left_out.append(f"{path[:-1]}: {str(reason).partition('; write')[0]}")
            _descend(child, path, calls, programs, left_out)
