"""A module's graph walked: for every tensor of its state the axes as terms.

Knows: torch.export's graphs, and where in the source an operation stands. Refuses to know: what an operation means
(op_rules), how it was exported (exporting), what becomes of the terms (automatic).
An operation without a rule pins what it reads and makes; a walk does not fail.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from p2pmarket.alignment import axes, op_rules_index, op_rules_linear, op_rules_network, op_rules_shape
from p2pmarket.alignment.axes import Leaf, Misfit, Pin
from p2pmarket.alignment.exporting import WITHIN_ANSWER
from p2pmarket.alignment.op_rules import RULES, Call, Dims, Stack, is_dims, pointwise, unknown
from p2pmarket.alignment.op_rules_shape import merged
from p2pmarket.alignment.sharing import Shared

_RULE_FILES = (op_rules_index, op_rules_linear, op_rules_network, op_rules_shape)
"""Imported for their rules, which they enter into the table."""

_TAKES_STACKS = {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "select", "unbind", "chunk"}
_TAKES_STACKS |= {"split", "split_with_sizes", "tensor_split", "clone", "contiguous", "detach", "alias", "to"}
_TAKES_STACKS |= {"squeeze", "unsqueeze"}
_BLANK = {"zeros", "ones", "full", "new_zeros", "new_ones", "new_full"}
_WRAPPERS = {"wrap_with_set_grad_enabled", "wrap_with_autocast"}
_SILENT = {"aten::sym_size", "aten::_assert_tensor_metadata", "aten::_assert_scalar", "aten::_assert_async"}
_OWN_CODE = re.compile(r'File "(?P<path>[^"]+)", line (?P<line>\d+)')

Tensors = dict[str, Dims]
"""Name of a state's tensor -> its axes. Names of one shared tensor have the same axes."""


@dataclasses.dataclass(frozen=True)
class Traced:
    """What the graphs say about a state's tensors."""

    tensors: Tensors
    reached: frozenset[str]
    operations: int
    unknown: tuple[Pin, ...]
    """Operations without a rule."""


def trace(programs: Mapping[str, ExportedProgram], state: Sequence[Shared]) -> Traced:
    """Walks the graphs, each of the submodule of that name ("": the whole); inputs and outputs are pinned.

    Walks again where an axis turns out to be taken apart into things that mean different things.
    """
    stacks: set[tuple[str, int]] = set()
    while True:
        tensors = {name: dims for shared in state for name, dims in _fresh(shared).items()}
        walk = _Walk(tensors, frozenset(stacks))
        for prefix, program in programs.items():
            walk.program(program, prefix)
        if walk.wanted - stacks:
            stacks |= walk.wanted
            continue
        return Traced(tensors, frozenset(walk.reached), walk.operations, tuple(walk.unknown))


def _fresh(shared: Shared) -> Tensors:
    why = None
    if shared.clashes:
        why = Pin("state", shared.names[0], f"it shares memory with {shared.clashes}")
    elif not shared.tensor.is_floating_point():
        why = Pin("state", shared.names[0], "whole numbers may be indices")
    dims = tuple(Leaf(size, why) for size in shared.tensor.shape)
    return dict.fromkeys(shared.names, dims)


class _Walk:
    """One walk over all graphs."""

    def __init__(self, tensors: Tensors, stacks: frozenset[tuple[str, int]]) -> None:
        self._tensors = tensors
        self._stacks = stacks
        self._prefix = ""
        self.reached: set[str] = set()
        self.wanted: set[tuple[str, int]] = set()
        self.operations = 0
        self.unknown: list[Pin] = []

    def program(self, program: ExportedProgram, prefix: str) -> None:
        self._prefix = prefix
        placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
        made: dict[fx.Node, Any] = {}
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            name = prefix + (spec.target or "").removeprefix(WITHIN_ANSWER)
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and name in self._tensors:
                made[node] = self._tensors[name]
                if node.users:
                    self.reached.add(name)
            elif spec.kind in (InputKind.CONSTANT_TENSOR, InputKind.BUFFER):
                made[node] = _constant(program.constants.get(spec.target or ""), node)
            else:
                made[node] = _pinned(node, Pin("input", "", "an input's layout is given"))
        for result in self._graph(program.graph_module, made):
            for dims in _all_dims(result):
                for term in dims:
                    axes.pin(term, Pin("output", "", "an output's layout is given"))

    def _graph(self, module: fx.GraphModule, made: dict[fx.Node, Any]) -> list[Any]:
        for node in module.graph.nodes:
            if node.op == "call_function":
                made[node] = self._call(node, made, module)
            elif node.op == "get_attr":
                value = getattr(module, str(node.target), None)
                made[node] = _constant(value, node) if isinstance(value, Tensor) else None
            elif node.op == "output":
                return [_known(part, made) for part in _flat(node.args[0])]
        raise AssertionError("a graph without an output")

    def _call(self, node: fx.Node, made: dict[fx.Node, Any], module: fx.GraphModule) -> Any:
        if node.target is operator.getitem:
            whole, index = _known(node.args[0], made), node.args[1]
            return whole[index] if isinstance(whole, list) and isinstance(index, int) else None
        name = getattr(node.target, "__name__", str(node.target))
        if name in _WRAPPERS:
            return self._wrapped(node, made, module)
        if not isinstance(node.target, torch._ops.OpOverload) and not isinstance(
            node.target, torch._ops.HigherOrderOperator
        ):
            return None  # arithmetic on sizes
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.name in _SILENT:
            return None
        self.operations += 1
        call = self._described(node, made)
        takes_stacks = call.op in _TAKES_STACKS
        each = torch.Tag.pointwise in getattr(node.target, "tags", ())
        if not takes_stacks:
            alone = [value for value in call.arguments.values() if isinstance(value, (Stack, tuple, list))]
            if each and len(alone) == 1 and isinstance(alone[0], Stack):
                return alone[0]
            call = _without_stacks(call)
        function = RULES.get(call.op) or (pointwise if each else None)
        try:
            if function is None:
                raise Misfit("no rule is known for this operation")
            result = function(call)
            _check(result, call.shapes)
        except (Misfit, KeyError, IndexError, TypeError, ValueError, AttributeError) as reason:
            words = str(reason) if isinstance(reason, Misfit) else "its arguments are not understood"
            self.unknown.append(call.why(words))
            return unknown(_without_stacks(call), words)
        return result

    def _wrapped(self, node: fx.Node, made: dict[fx.Node, Any], module: fx.GraphModule) -> Any:
        """A part of the graph under another mode of gradients or precision."""
        at = next(place for place, part in enumerate(node.args) if _is_submodule(part, module))
        inner: fx.GraphModule = getattr(module, str(node.args[at].target))  # type: ignore[union-attr]
        placeholders = [inside for inside in inner.graph.nodes if inside.op == "placeholder"]
        given = {inside: _known(part, made) for inside, part in zip(placeholders, node.args[at + 1 :], strict=True)}
        return self._graph(inner, given)

    def _described(self, node: fx.Node, made: Mapping[fx.Node, Any]) -> Call:
        target = node.target
        arguments: dict[str, Any] = {}
        if isinstance(target, torch._ops.OpOverload):
            op = str(target._schema.name).partition("::")[2]
            for place, argument in enumerate(target._schema.arguments):
                if place < len(node.args):
                    given = node.args[place]
                elif argument.name in node.kwargs:
                    given = node.kwargs[argument.name]
                else:
                    given = argument.default_value if argument.has_default_value() else None
                arguments[argument.name] = _known(given, made)
            if not target._schema.name.startswith("aten::"):
                op = target._schema.name
        else:
            op = str(target)
            arguments = {str(place): _known(part, made) for place, part in enumerate(node.args)}
        blank = frozenset(name for name, value in _nodes_by_name(target, node) if all(map(_is_blank, value)))
        short = op[:-1] if op.endswith("_") and not op.endswith("__") else op
        shapes = _shapes(node.meta.get("val"))
        return Call(
            short, self._prefix + node.name, self._source(node), arguments, shapes, self._stacks, self.wanted, blank
        )

    def _source(self, node: fx.Node) -> str:
        frames = _OWN_CODE.findall(node.meta.get("stack_trace") or "")
        own = [
            frame for frame in frames if "/torch/" not in frame[0] and not frame[0].endswith("alignment/exporting.py")
        ] or frames
        line = f"{Path(own[-1][0]).name}:{own[-1][1]}" if own else ""
        modules = list((node.meta.get("nn_module_stack") or {}).values())
        inside = str(modules[-1][0]).removeprefix("module").strip(".") if modules else ""
        path = (self._prefix + inside).strip(".")
        return f"{path} ({line})" if path and line else path or line


def _is_submodule(part: Any, module: fx.GraphModule) -> bool:
    return (
        isinstance(part, fx.Node)
        and part.op == "get_attr"
        and isinstance(getattr(module, str(part.target), None), fx.GraphModule)
    )


def _nodes_by_name(target: Any, node: fx.Node) -> Iterator[tuple[str, list[fx.Node]]]:
    if isinstance(target, torch._ops.OpOverload):
        for argument, given in zip(target._schema.arguments, node.args, strict=False):
            nodes = [part for part in _flat(given) if isinstance(part, fx.Node)]
            if nodes:
                yield argument.name, nodes


def _is_blank(node: fx.Node) -> bool:
    packet = getattr(node.target, "_schema", None)
    return packet is not None and packet.name.partition("::")[2] in _BLANK and len(node.users) == 1


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [inner for part in value for inner in _flat(part)]
    return [value]


def _known(value: Any, made: Mapping[fx.Node, Any]) -> Any:
    """An argument with nodes replaced: tensors by their axes, numbers by themselves."""
    if isinstance(value, fx.Node):
        known = made.get(value)
        if known is None and isinstance(value.meta.get("val"), (int, float, bool)):
            return value.meta["val"]
        return known
    if isinstance(value, (list, tuple)):
        return [_known(part, made) for part in value]
    return value


def _without_stacks(call: Call) -> Call:
    def plain(value: Any) -> Any:
        if isinstance(value, Stack):
            return merged(call, value)
        return [plain(part) for part in value] if isinstance(value, list) else value

    return dataclasses.replace(call, arguments={name: plain(value) for name, value in call.arguments.items()})


def _all_dims(value: Any) -> Iterator[Dims]:
    if isinstance(value, Stack):
        yield from value.parts
    elif isinstance(value, list):
        for part in value:
            yield from _all_dims(part)
    elif is_dims(value):
        yield value


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return [_shapes(part) for part in value]
    return None


def _check(result: Any, shapes: Any) -> None:
    """A rule whose result has other sizes than the operation's did not understand it."""
    if isinstance(shapes, list) and isinstance(result, (list, tuple)) and not is_dims(result):
        for part, shape in zip(result, shapes, strict=False):
            _check(part, shape)
    elif isinstance(result, Stack):
        _check(result.parts[0], (*shapes[: result.axis], *shapes[result.axis + 1 :]))
    elif isinstance(shapes, tuple) and tuple(term.size for term in result) != shapes:
        raise Misfit("its rule does not fit its result")


def _pinned(node: fx.Node, why: Pin) -> Any:
    shapes = _shapes(node.meta.get("val"))
    return tuple(Leaf(size, why) for size in shapes) if isinstance(shapes, tuple) else None


def _constant(value: Tensor | None, node: fx.Node) -> Any:
    """A tensor that is part of the program: along an axis where it varies, positions differ."""
    why = Pin("constant", node.name, "a constant differs along it")
    if value is None or not isinstance(node.meta.get("val", value), Tensor):
        return _pinned(node, why)
    plain = value.detach()
    varies = [plain.numel() and not bool((plain == plain.narrow(axis, 0, 1)).all()) for axis in range(plain.ndim)]
    return tuple(Leaf(size, why if differs else None) for size, differs in zip(plain.shape, varies, strict=True))
