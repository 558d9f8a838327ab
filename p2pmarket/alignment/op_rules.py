"""What an operation says about the axes of what it reads and makes: the table of rules, and what a rule is given.

Knows: one call of an operation, its arguments by the names of its schema, tensors among them as their axes. Refuses to
know: the graph, the model. The rules are in op_rules_shape, op_rules_linear and op_rules_network; each returns the
axes of what the operation makes. A rule that cannot tell raises Misfit, and the call is treated as unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from p2pmarket.alignment import axes
from p2pmarket.alignment.axes import Leaf, Misfit, Pin, Term

Dims = tuple[Term, ...]
"""The axes of one tensor."""


class Stack(NamedTuple):
    """A tensor along whose axis `axis` the others mean different things at each position: queries, keys, values."""

    axis: int
    parts: tuple[Dims, ...]


Made = Dims | Stack | Sequence[Any] | None
"""What an operation makes: the axes of a tensor, a stack, or a list of such."""


@dataclasses.dataclass(frozen=True)
class Call:
    """One operation in a graph."""

    op: str
    name: str
    """Of the node: the same in every trace of one model."""
    source: str
    arguments: dict[str, Any]
    shapes: Any
    """Of what it makes: a tuple, or a list of tuples."""
    stacks: frozenset[tuple[str, int]]
    """Reshapes (node, axis) whose axis is taken apart later."""
    wanted: set[tuple[str, int]]
    """More of these, found on this walk."""
    blank: frozenset[str]
    """Arguments that are freshly filled with one number and used nowhere else."""

    def __getitem__(self, name: str) -> Any:
        return self.arguments.get(name)

    def why(self, reason: str) -> Pin:
        """A reason of this operation's."""
        return Pin(self.op, self.source, reason)

    def unify(self, *terms: Term) -> Term:
        """These axes are one."""
        for term in terms[1:]:
            axes.unify(terms[0], term, self.why("it joins axes of different structure"))
        return terms[0]

    def regroup(self, term: Term, sizes: Sequence[int]) -> list[Term]:
        """The factors of an axis."""
        return axes.regroup(term, sizes, self.why("it reshapes across units"))

    def cut(self, term: Term, sizes: Sequence[int], *, used: bool = True) -> list[Term]:
        """The pieces of an axis."""
        return axes.cut(term, sizes, self.why("it cuts through units"), used=used)

    def pin(self, term: Term, reason: str) -> None:
        """The axis stays as it is."""
        axes.pin(term, self.why(reason))

    def fixed(self, size: int, reason: str) -> Leaf:
        """A new axis that stays as it is."""
        return Leaf(size, self.why(reason))

    def broadcast(self, *operands: Dims) -> Dims:
        """The axes of operands that are broadcast: right-aligned, axes of 1 stretched."""
        made: list[Term] = []
        for place in range(-max(map(len, operands), default=0), 0):
            here = [operand[place] for operand in operands if len(operand) >= -place]
            wide = [term for term in here if term.size != 1]
            made.append(self.unify(*wide) if wide else here[0])
        return tuple(made)


Rule = Callable[[Call], Made]

RULES: dict[str, Rule] = {}
"""Name of an operation, without its overload and without the underscore of in-place forms -> its rule."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enters a rule into the table."""

    def enter(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise ValueError(f"two rules for {name}")
            RULES[name] = function
        return function

    return enter


def operands(call: Call) -> list[Dims]:
    """Every tensor among the arguments, in order."""
    found: list[Dims] = []
    for value in call.arguments.values():
        if is_dims(value):
            found.append(value)
        elif isinstance(value, list):
            found.extend(part for part in value if is_dims(part))
    return found


def is_dims(value: object) -> bool:
    """Whether an argument is a tensor."""
    return isinstance(value, tuple) and all(isinstance(term, (Leaf, axes.Product, axes.Sum)) for term in value)


def pointwise(call: Call) -> Made:
    """Every number of the result from the numbers at its place."""
    return call.broadcast(*operands(call))


def unknown(call: Call, reason: str) -> Made:
    """Pins everything that the operation reads and makes."""
    for operand in operands(call):
        for term in operand:
            call.pin(term, reason)
    if isinstance(call.shapes, tuple):
        return tuple(call.fixed(size, reason) for size in call.shapes)
    return [tuple(call.fixed(size, reason) for size in shape) for shape in call.shapes or ()]


def place(dims: Dims, axis: int) -> int:
    """An axis counted from the front.

    :raises Misfit: there is none
    """
    if not -len(dims) <= axis < max(len(dims), 1):
        raise Misfit(f"axis {axis} of {len(dims)}")
    return axis % len(dims) if dims else 0


def replaced(dims: Dims, axis: int, *terms: Term) -> Dims:
    """The axes with one of them replaced by any number."""
    return (*dims[:axis], *terms, *dims[axis + 1 :])
