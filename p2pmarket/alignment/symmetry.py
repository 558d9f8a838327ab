"""Applying a model's permutation symmetries.

Knows: specs as data (p2pmarket/permutation), tensors by name. Refuses to know: how a spec was found (automatic) and
proved (verification), how a permutation is chosen (matching). Fails with ModelError where a spec does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from p2pmarket.errors import ModelError
from p2pmarket.permutation import Axis, PermutationClass, PermutationSpec, last_position

Permutations = Mapping[str, Tensor]
"""Class name -> int64 indices, (size,), or (blocks, size) where a class has blocks: unit i of the result is unit
`indices[i]` of what is permuted. A class within another is permuted where the other has brought its blocks."""


def identity(spec: PermutationSpec) -> dict[str, Tensor]:
    """The permutations that change nothing."""
    return {group.name: _in_place(group) for group in spec.classes}


def is_identity(permutations: Permutations) -> bool:
    """Whether every unit stays where it is."""
    return all(
        torch.equal(indices, torch.arange(indices.shape[-1]).expand_as(indices)) for indices in permutations.values()
    )


def inverse(spec: PermutationSpec, permutations: Permutations) -> dict[str, Tensor]:
    """Permutations that undo these: what brings a seller to a buyer brings, inverted, the buyer to the seller."""
    return _from_orders(spec, {name: torch.argsort(order) for name, order in _orders(spec, permutations).items()})


def compose(spec: PermutationSpec, first: Permutations, second: Permutations) -> dict[str, Tensor]:
    """The permutations that do what `first` does and then `second`."""
    then = _orders(spec, second)
    return _from_orders(spec, {name: order[then[name]] for name, order in _orders(spec, first).items()})


def apply(spec: PermutationSpec, permutations: Permutations, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every member axis permuted; the others as they are, without a copy.

    A tensor the spec names and `tensors` lacks is passed over: another task's model may lack a head.

    :raises ModelError: the spec does not fit the tensors
    """
    check_fits(spec, tensors)
    permuted = dict(tensors)
    for (name, axis), members in spec.members_on().items():
        if name in permuted:
            order = axis_order(members, permutations, permuted[name].shape[axis])
            permuted[name] = permuted[name].index_select(axis, order.to(permuted[name].device))
    return permuted


def axis_order(members: Sequence[tuple[PermutationClass, Axis]], permutations: Permutations, length: int) -> Tensor:
    """(length,) int64: from which position of an axis each position of the permuted one comes.

    :param members: the classes on this axis, an outer one before those within it, as `members_on` gives them
    """
    order = torch.arange(length)
    for group, member in members:
        step = torch.arange(length)
        places = _places(group, member)  # (blocks, repeats, size, inner)
        indices = permutations[group.name].reshape(group.blocks, 1, group.size, 1).expand(places.shape)
        step[places.reshape(-1)] = places.gather(2, indices).reshape(-1)
        order = order[step]
    return order


def _places(group: PermutationClass, member: Axis) -> Tensor:
    """(blocks, outer / blocks, size, inner): the axis positions of the class's units."""
    outer = torch.arange(member.outer) * (member.stride or group.size * member.inner)
    units = torch.arange(group.size) * member.inner
    places = member.start + outer[:, None, None] + units[:, None] + torch.arange(member.inner)
    return places.reshape(group.blocks, member.outer // group.blocks, group.size, member.inner)


def _in_place(group: PermutationClass) -> Tensor:
    indices = torch.arange(group.size)
    return indices if group.blocks == 1 else indices.repeat(group.blocks, 1)


def _orders(spec: PermutationSpec, permutations: Permutations) -> dict[str, Tensor]:
    """Class name -> (blocks * size,): where each unit of all blocks comes from, moves of the blocks included."""
    orders: dict[str, Tensor] = {}
    for group in spec.classes:
        blocks = orders[group.within] if group.within else torch.arange(group.blocks)
        indices = permutations[group.name].reshape(group.blocks, group.size)
        orders[group.name] = (blocks[:, None] * group.size + indices).reshape(-1)
    return orders


def _from_orders(spec: PermutationSpec, orders: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {group.name: (orders[group.name] % group.size).reshape(_in_place(group).shape) for group in spec.classes}


def check_fits(spec: PermutationSpec, tensors: Mapping[str, Tensor]) -> None:
    """:raises ModelError: a class lies beyond the end of an axis; tensors that the spec names may be missing"""
    for group in spec.classes:
        for member in group.members:
            tensor = tensors.get(member.tensor)
            if tensor is None:
                continue
            if member.axis >= tensor.ndim or tensor.shape[member.axis] <= last_position(group, member):
                raise ModelError(
                    f"permutation class {group.name!r} has {group.blocks * group.size} units, but axis {member.axis} "
                    f"of {member.tensor} of shape {tuple(tensor.shape)} does not"
                )
