"""`inspect`: a model's permutation symmetries, found or given: what alignment can move, and why not more."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from p2pmarket.cli.show import print_rows
from p2pmarket.errors import ModelError, SettingsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from p2pmarket.alignment import Pinned, Symmetry

Row = dict[str, Any]


def inspect(given: argparse.Namespace) -> int:
    """Prints the classes, the coverage and the reasons for what stays; the model is made here, with fresh weights."""
    started = time.monotonic()
    symmetry = _found(given)
    seconds = time.monotonic() - started
    if given.json:
        print(json.dumps(_as_json(symmetry, seconds)))
        return 0
    print_rows(_classes(symmetry), as_json=False, title=f"permutation classes of {given.model}", empty="no classes")
    print_rows(_reasons(symmetry.pinned), as_json=False, title="axes that stay as they are", empty="nothing is pinned")
    print(
        f"alignment can move {symmetry.coverage:.1%} of {symmetry.parameters:,} parameters; method {symmetry.method}; "
        f"{len(symmetry.spec.classes)} classes from {symmetry.operations:,} operations in {seconds:.1f} s; "
        "self-test passed"
    )
    for note in symmetry.notes:
        print(f"note: {note}")
    return 0


def _found(given: argparse.Namespace) -> Symmetry:
    arguments = _arguments(given.arguments)
    from p2pmarket.alignment import find_symmetry
    from p2pmarket.models import build_model

    model = build_model(given.model, arguments, True)
    inputs = tuple(_input(text) for text in given.input) if given.input else _usual_input(given.model, model)
    if given.spec is None:
        return find_symmetry(model, inputs)
    return _given(model, given.spec, inputs)


def _given(model: nn.Module, reference: str, inputs: tuple[Tensor, ...]) -> Symmetry:
    from p2pmarket.alignment.automatic import given_symmetry
    from p2pmarket.permutation import PermutationSpec
    from p2pmarket.plugins import load_plugin

    function = load_plugin(reference, allowed=True, error=ModelError)
    if not callable(function):
        raise ModelError(
            f"{reference!r} is not a function; name one that takes the model and returns a PermutationSpec"
        )
    try:
        spec = function(model)
    except Exception as reason:  # an operator's own code may fail in any way
        raise ModelError(f"{reference!r} failed: {type(reason).__name__}: {reason}") from reason
    if not isinstance(spec, PermutationSpec):
        raise ModelError(f"{reference!r} returned {type(spec).__name__}, not a PermutationSpec")
    return given_symmetry(model, spec, inputs)


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError as reason:
        raise SettingsError(
            f"--arguments is not JSON: {reason}; give an object such as '{{\"outputs\": 10}}'"
        ) from None
    if not isinstance(arguments, dict):
        raise SettingsError("--arguments must be a JSON object, such as '{\"outputs\": 10}'")
    return arguments


def _input(text: str) -> Tensor:
    """`2x3x32x32`: normal numbers; `2x16:int64<1000`: whole numbers below 1000.

    :raises SettingsError: the text is neither
    """
    import torch

    shape, _, kind = text.partition(":")
    dtype, _, below = kind.partition("<")
    try:
        sizes = [int(size) for size in shape.split("x")]
        high = int(below) if below else 2
    except ValueError:
        sizes, high = [], 0
    if not sizes or min(sizes) < 1 or high < 1 or dtype not in ("", "float32", "int64", "int32", "bool"):
        raise SettingsError(
            f"--input {text!r} is not a shape; give one such as 2x3x224x224, or 2x16:int64<1000 for indices below 1000"
        )
    generator = torch.Generator().manual_seed(0)
    if dtype in ("", "float32"):
        return torch.randn(sizes, generator=generator)
    return torch.randint(high, sizes, generator=generator).to(getattr(torch, dtype))


def _usual_input(name: str, model: nn.Module) -> tuple[Tensor, ...]:
    """What a built-in model takes."""
    first = next(model.parameters(), None)
    if ":" in name or first is None:
        raise SettingsError(
            "say what the model takes with --input, such as --input 2x3x224x224 or --input '2x16:int64<1000'"
        )
    return (_input(f"4x{first.shape[1]}" if first.ndim == 2 else f"2x{first.shape[1]}x32x32"),)


def _classes(symmetry: Symmetry) -> list[Row]:
    return [
        {
            "class": group.name,
            "units": group.size,
            "blocks": group.blocks if group.blocks > 1 else None,
            "within": group.within or None,
            "tensors": len({member.tensor for member in group.members}),
            "axes": len({(member.tensor, member.axis) for member in group.members}),
        }
        for group in symmetry.spec.classes
    ]


def _reasons(pinned: tuple[Pinned, ...]) -> list[Row]:
    """One row for each reason and operation: how many axes, the first one, and where in the source."""
    groups: dict[tuple[str, str], list[Pinned]] = {}
    for one in pinned:
        groups.setdefault((one.reason, one.op), []).append(one)
    rows = []
    for (reason, op), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        sources = Counter(member.source for member in members if member.source)
        more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        rows.append(
            {
                "reason": reason,
                "operation": op,
                "axes": len(members),
                "first": f"{members[0].tensor} axis {members[0].axis}",
                "source": next(iter(sources), "") + more,
            }
        )
    return rows


def _as_json(symmetry: Symmetry, seconds: float) -> Row:
    return {
        "classes": [
            {**row, "members": [list(member) for member in group.members]}
            for row, group in zip(_classes(symmetry), symmetry.spec.classes, strict=True)
        ],
        "pinned": [dataclasses.asdict(one) for one in symmetry.pinned],
        "coverage": symmetry.coverage,
        "parameters": symmetry.parameters,
        "operations": symmetry.operations,
        "method": symmetry.method,
        "notes": list(symmetry.notes),
        "seconds": seconds,
    }
