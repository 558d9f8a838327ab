"""What to tell about a module's own code that failed: one sentence, whatever it raised.

Knows: how an exception is cut to a line, and which line of whose source it came from. Refuses to know: what the module
was run for. Fails never.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from p2pmarket.errors import ModelError

_NOT_THEIRS = frozenset({"torch", *sys.stdlib_module_names})
_LONGEST = 200


def fails_on_inputs(
    module: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any], reason: Exception
) -> ModelError:
    """The error for a module that does not run on what it was given."""
    given = [_described(part) for part in arguments]
    given += [f"{name}={_described(part)}" for name, part in keywords.items()]
    return ModelError(
        f"{type(module).__name__} fails on the example inputs {', '.join(given) or '(none)'}: {in_short(reason)}; "
        "give it inputs of the shapes, types and values that it takes"
    )


def in_short(reason: BaseException) -> str:
    """Where it was raised in code that is neither torch's nor ours, the exception's type, its first sentence."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()] or [""]
    text = lines[0].partition(" (unhinted:")[0].partition(". ")[0].rstrip(".")
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rpartition(" ")[0] + " ..."
    return ": ".join(part for part in (_where(reason), type(reason).__name__, text) if part)


def _where(reason: BaseException) -> str:
    """File and line of the innermost call that a module's author wrote; empty where there is none."""
    error: BaseException | None = reason
    while error is not None:
        place, traceback = "", error.__traceback__
        while traceback is not None:
            code, module = traceback.tb_frame.f_code.co_filename, traceback.tb_frame.f_globals.get("__name__", "")
            ours = module.startswith("p2pmarket.alignment.") or module.partition(".")[0] in _NOT_THEIRS
            if not ours and not code.startswith("<"):
                place = f"{Path(code).name}:{traceback.tb_lineno}"
            traceback = traceback.tb_next
        if place:
            return place
        error = error.__cause__ or error.__context__
    return ""


def _described(given: Any) -> str:
    """As the command line writes it: 2x16:int64, with the values where they may be indices."""
    if not isinstance(given, Tensor):
        return type(given).__name__
    text = f"{'x'.join(map(str, given.shape)) or 'scalar'}:{str(given.dtype).removeprefix('torch.')}"
    if given.is_floating_point() or given.is_complex() or not given.numel():
        return text
    return f"{text} of {int(given.min())} to {int(given.max())}"
