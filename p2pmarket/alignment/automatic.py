"""The permutation symmetries of any module: traced, proposed, tested, reported.

Knows: the order of these steps, what is done where one fails. Refuses to know: how each is done (tracing, op_rules,
collecting, verification), what a symmetry is used for. Every spec returned has passed the self-test.
Fails with ModelError where a module can neither be exported nor taken apart into modules that can.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from p2pmarket.alignment import axes
from p2pmarket.alignment.axes import Leaf, Pin
from p2pmarket.alignment.collecting import Place, Proposal, fitting, found_places
from p2pmarket.alignment.exporting import export
from p2pmarket.alignment.sharing import Shared, shared_tensors
from p2pmarket.alignment.submodules import export_parts
from p2pmarket.alignment.tracing import Traced, trace
from p2pmarket.alignment.verification import SAME_FUNCTION, SelfTest, copied, verify_spec
from p2pmarket.errors import ModelError
from p2pmarket.permutation import PermutationSpec, last_position

log = logging.getLogger(__name__)

Method = Literal["graph", "submodules", "given"]


@dataclasses.dataclass(frozen=True)
class Pinned:
    """Positions of an axis that stay as they are, and the first reason for it."""

    tensor: str
    axis: int
    size: int
    op: str
    source: str
    """Module and line of the operation; empty where there is none."""
    reason: str


@dataclasses.dataclass(frozen=True)
class Symmetry:
    """The permutation symmetries of a module, tested, and what of it cannot be permuted."""

    spec: PermutationSpec
    pinned: tuple[Pinned, ...]
    coverage: float
    """Portion of the parameters' elements (shared ones once) that a permutation of some class can move."""
    method: Method
    parameters: int
    """Elements of the parameters, shared ones once."""
    operations: int
    """Operations of the graph; 0 for a spec that was given."""
    notes: tuple[str, ...] = ()
    """Sentences: what could not be traced, operations without a rule, a tolerance that had to be wider."""


def find_symmetry(
    model: nn.Module,
    example_inputs: Sequence[Any],
    *,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Symmetry:
    """The permutation symmetries of a module in evaluation mode, found from its graph and tested.

    Method: Ainsworth et al. 2022, section 2, for the axes of an exported graph joined by unification. The model is
    not changed. Give a batch of at least two examples: an axis of one position looks like a stretched one.

    Takes 30 to 50 bytes of memory for each parameter while it runs, as the self-test holds float64 copies.

    :param example_inputs: what the model is called with; floating point or indices
    :raises ModelError: the module cannot be copied, run or traced, or has parameters that cannot be permuted
    """
    keywords = dict(kwargs or {})
    state = shared_tensors(model)
    started = time.monotonic()
    log.info("looking for the symmetries of %s, %s parameters", type(model).__name__, f"{_elements(state):,}")
    copy = copied(model)
    arguments = tuple(part.cpu() if isinstance(part, torch.Tensor) else part for part in example_inputs)
    keywords = {name: part.cpu() if isinstance(part, torch.Tensor) else part for name, part in keywords.items()}
    notes: list[str] = []
    method: Method = "graph"
    try:
        programs = {"": export(copy, arguments, keywords)}
    except ModelError as reason:
        programs, left_out = export_parts(copy, arguments, keywords)
        if not programs:
            raise
        method = "submodules"
        notes += [str(reason).partition("; write")[0], *left_out]
    traced = trace(programs, state)
    del copy, programs  # the self-test needs the memory
    found = found_places({shared.names: traced.tensors[shared.names[0]] for shared in state})
    _pin_what_is_out_of_reach(found, traced)
    test = SelfTest(model, arguments, keywords, seed=seed)
    spec = _tested(found, test)
    log.info(
        "found the symmetries of %s in %.1f s: %d classes from %d operations",
        type(model).__name__,
        time.monotonic() - started,
        len(spec.classes),
        traced.operations,
    )
    if test.tolerance != SAME_FUNCTION:
        notes.append(f"the model computes in low precision: outputs were compared to {test.tolerance:g} only")
    notes += _about_unknown(traced.unknown)
    return Symmetry(
        spec,
        tuple(_pinned(found)),
        coverage(state, spec),
        method,
        _elements(state),
        traced.operations,
        tuple(notes),
    )


def given_symmetry(
    model: nn.Module,
    spec: PermutationSpec,
    example_inputs: Sequence[Any],
    *,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Symmetry:
    """The symmetries that somebody wrote down, tested.

    :raises ModelError: the spec does not fit, or a class changes the function
    """
    verify_spec(model, spec, example_inputs, kwargs=kwargs, seed=seed)
    state = shared_tensors(model)
    return Symmetry(spec, (), coverage(state, spec), "given", _elements(state), 0)


def coverage(state: Sequence[Shared], spec: PermutationSpec) -> float:
    """Portion of the parameters' elements with a coordinate that belongs to a class."""
    moved = 0.0
    on = spec.members_on()
    for shared in state:
        if shared.trained:
            still = 1.0
            for axis, size in enumerate(shared.tensor.shape):
                free = torch.zeros(size, dtype=torch.bool)
                for group, member in on.get((shared.names[0], axis), ()):
                    if group.size > 1 or group.blocks > 1:
                        width = group.size * member.inner
                        stride = member.stride or width
                        for start in range(member.start, last_position(group, member) + 1, stride):
                            free[start : start + width] = True
                still *= 1 - float(free.double().mean()) if size else 1.0
            moved += (1 - still) * shared.tensor.numel()
    return moved / max(_elements(state), 1)


def _elements(state: Sequence[Shared]) -> int:
    return sum(shared.tensor.numel() for shared in state if shared.trained)


def _pin_what_is_out_of_reach(found: Mapping[Leaf, Sequence[Place]], traced: Traced) -> None:
    """A tensor or a part of one that the example inputs do not reach looks free, and is not."""
    why = Pin("", "", "the example inputs do not reach it")
    for leaf, places in found.items():
        if not leaf.used or not any(traced.reached.intersection(place.names) for place in places):
            axes.pin(leaf, why)


def _tested(found: Mapping[Leaf, Sequence[Place]], test: SelfTest) -> PermutationSpec:
    """The largest spec that passes: blocks become shared permutations where they fail, culprits are pinned."""
    free = [leaf for leaf in found if leaf.pin is None]
    shared: set[Leaf] = set()
    while True:
        proposal = Proposal(found, shared)
        kept, left = fitting(proposal, [leaf for leaf in free if leaf.pin is None])
        for leaf in left:
            leaf.pin = Pin("layout", "", "its units lie across those of another class")
        if left:
            continue
        if test.holds(proposal.spec(kept)):
            return proposal.spec(kept)
        if not kept:
            raise ModelError("the model's outputs change though nothing was permuted")
        culprits = _culprits(proposal, kept, test)
        for leaf in culprits:
            if proposal.chain(leaf) and leaf not in shared:
                shared.add(leaf)
            else:
                leaf.pin = Pin("self-test", "", "the self-test found that permuting it changes the outputs")


def _culprits(proposal: Proposal, leaves: Sequence[Leaf], test: SelfTest) -> list[Leaf]:
    """Classes that fail alone; where none does, the first that fails together with those before it."""
    failing = []
    for leaf in leaves:
        around = [*proposal.chain(leaf), leaf]
        classes = {group.name: group for group in proposal.spec(around).classes}
        group = classes.get(proposal.names[leaf])
        if group is not None and not test.holds(PermutationSpec((dataclasses.replace(group, within=""),))):
            failing.append(leaf)
    if failing:
        return failing
    ordered = sorted(leaves, key=lambda leaf: len(proposal.chain(leaf)))
    for count in range(1, len(ordered) + 1):
        if not test.holds(proposal.spec(ordered[:count])):
            return [ordered[count - 1]]
    return [ordered[-1]]  # chance: the whole failed and passes now


def _about_unknown(unknown: Collection[Pin]) -> list[str]:
    """One sentence for each kind of operation that had to be pinned."""
    first: dict[tuple[str, str], str] = {}
    times: dict[tuple[str, str], int] = {}
    for why in unknown:
        key = (why.op, why.reason)
        first.setdefault(key, why.source)
        times[key] = times.get(key, 0) + 1
    return [f"{op} ({times[op, reason]} times, first in {first[op, reason]}): {reason}" for op, reason in times]


def _pinned(found: Mapping[Leaf, Sequence[Place]]) -> list[Pinned]:
    """One record for each name and reason of pinned positions of an axis."""
    sizes: dict[tuple[str, int, Pin], int] = {}
    for leaf, places in found.items():
        if leaf.pin is not None:
            for place in places:
                for name in place.names:
                    key = (name, place.axis, leaf.pin)
                    sizes[key] = sizes.get(key, 0) + leaf.size
    return [Pinned(name, axis, size, why.op, why.source, why.reason) for (name, axis, why), size in sizes.items()]
