"""How alike a buyer's and a seller's units are, kept up to date at the price of what changed.

Knows: both models' tensors (float32, one more layout where an axis is not the first), the orders of their axes.
A family's matrices are sums over all tensors it lies on; when k positions of another axis of a tensor change, only
these k columns are multiplied again. Sums that decide are float64. Refuses to know: how assignments are chosen.
A weight that is not a finite number makes the matrices not finite; matching looks before.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from p2pmarket.alignment.families import AxisUse, Family, Part
from p2pmarket.alignment.symmetry import Permutations

Orders = Mapping[tuple[str, int], Tensor]
"""(tensor, axis) -> (length,) int64: which of the seller's positions stands at each position now."""

_CHUNK = 1 << 14
"""Numbers taken to float64 at a time: they stay in the cache, and are too few for torch to wake its other threads."""
_ALIKE = 0.5
"""Cosine of the weights from which the models are taken to share a past."""


class Pair:
    """Both models' common tensors."""

    def __init__(
        self, buyer: Mapping[str, Tensor], seller: Mapping[str, Tensor], axes: Mapping[str, dict[int, AxisUse]]
    ) -> None:
        self.buyer, self.seller, self.axes = buyer, seller, axes
        self._layouts: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        self.bounds = {
            name: float(torch.linalg.vector_norm(tensor)) * float(torch.linalg.vector_norm(seller[name]))
            for name, tensor in buyer.items()
        }
        """Tensor -> what its inner product cannot exceed (Cauchy, Schwarz)."""

    def equal(self, orders: Orders) -> bool:
        """Whether the permuted seller is the buyer: no permutation does better."""
        return all(torch.equal(self.buyer[name], self._ordered(self.seller[name], name, orders)) for name in self.buyer)

    def products(self, orders: Orders) -> dict[str, float]:
        """Tensor -> inner product of the buyer's and the permuted seller's weights, in float64."""
        return {name: self.inner_product(name, orders) for name in self.buyer}

    def alike(self, products: Mapping[str, float]) -> bool:
        """Whether matrices and kernels are more alike than those of models that were trained apart."""
        names = [name for name, tensor in self.buyer.items() if tensor.ndim > 1]
        return sum(products[name] for name in names) >= _ALIKE * sum(self.bounds[name] for name in names)

    def orders(
        self, permutations: Permutations, keys: Iterable[tuple[str, int]] | None = None
    ) -> dict[tuple[str, int], Tensor]:
        """The orders of these axes, or of all."""
        device = next(iter(self.buyer.values())).device
        wanted = (
            ((name, axis) for name, axes in self.axes.items() for axis in axes) if keys is None else dict.fromkeys(keys)
        )
        return {(name, axis): self.axes[name][axis].order(permutations).to(device) for name, axis in wanted}

    def inner_product(self, name: str, orders: Orders) -> float:
        """<buyer, permuted seller> of one tensor."""
        return _dot(self.buyer[name], self._ordered(self.seller[name], name, orders))

    def gain(self, name: str, axis: int, old: Orders, new: Orders) -> float:
        """What the inner product gains when the order of one axis changes."""
        changed = torch.nonzero(old[name, axis] != new[name, axis]).squeeze(1)
        if not len(changed):
            return 0.0
        others = self._ordered(self.seller[name], name, old, but=axis)
        buyer = self.buyer[name].index_select(axis, changed)
        return _dot(buyer, others.index_select(axis, new[name, axis][changed])) - _dot(
            buyer, others.index_select(axis, old[name, axis][changed])
        )

    def rows(self, name: str, axis: int) -> tuple[Tensor, Tensor]:
        """Both tensors with the axis last, the others first: gathering along the others then moves whole runs."""
        kept = self._layouts.get((name, axis))
        if kept is None:
            buyer, seller = (tensors[name].movedim(axis, -1).contiguous() for tensors in (self.buyer, self.seller))
            kept = self._layouts[name, axis] = (buyer, seller)
        return kept

    def _ordered(self, values: Tensor, name: str, orders: Orders, but: int = -1) -> Tensor:
        for axis in self.axes[name]:
            if axis != but:
                values = values.index_select(axis, orders[name, axis])
        return values


class Similarity:
    """One family's matrices: for each pattern (sites, sites), or (blocks, size, size) for one class in blocks.

    Entry [i, j]: inner product of the buyer's site i and the seller's j, all other families as they are now.
    """

    def __init__(self, pair: Pair, family: Family) -> None:
        self._pair, self._family = pair, family
        self._blocks = [family.classes[0].blocks if family.simple else 1 for _ in family.patterns]
        self._seen: dict[Part, dict[int, Tensor]] = {}
        self._norms: dict[Part, list[Tensor]] = {}
        device = next(iter(pair.buyer.values())).device
        self.matrices = []
        for place, pattern in enumerate(family.patterns):
            vectors = [part for part in family.parts if part.pattern == place and pair.buyer[part.tensor].ndim == 1]
            size = pattern.sites // self._blocks[place]
            matrix = torch.zeros((self._blocks[place], size, size), device=device)
            if vectors:
                buyer, seller = (
                    torch.cat([tensors[part.tensor][part.places.to(device)] for part in vectors], 1)
                    for tensors in (pair.buyer, pair.seller)
                )
                shape = (self._blocks[place], size, -1)
                matrix.baddbmm_(buyer.reshape(shape), seller.reshape(shape).mT)
            self.matrices.append(matrix)

    def update(self, orders: Orders, decided: Container[str] | None = None, share: float = 1.0) -> None:
        """Takes in what changed; with `decided`, only parts on tensors in it; the largest, up to a share of all."""
        parts = self._open(decided)
        left = share * sum(self._pair.buyer[part.tensor].numel() for part in parts)
        for part in parts:
            if left <= 0.0:
                return
            left -= self._pair.buyer[part.tensor].numel()
            for buyer, seller in self._pending(part, orders):
                self.matrices[part.pattern].baddbmm_(buyer, seller.mT)
            self._seen[part] = self._others(part, orders)

    def settled(self, orders: Orders, chosen: Tensor) -> bool:
        """Whether `chosen` is each unit's best whatever the products would say of all that changed.

        Without them: no product of two rows is larger than that of their norms (Cauchy, Schwarz). For one class only.

        :param chosen: (blocks, size): which of the seller's units each of the buyer's has
        """
        upper = self.matrices[0]
        picks = chosen[..., None].to(upper.device)
        if len(self.matrices) > 1 or not torch.equal(upper.argmax(2, keepdim=True), picks):
            return False  # seldom provable then
        reached = upper.gather(2, picks)
        upper = upper.clone()
        for part in self._open(None):
            whole = part not in self._seen
            for buyer, seller in self._pending(part, orders):
                norms = self._norms.get(part) if whole else None  # whole rows: the same in every order of the rest
                if norms is None:
                    norms = [torch.linalg.vector_norm(rows, dim=2, keepdim=True) for rows in (buyer, seller)]
                if whole:
                    self._norms[part] = norms
                upper.baddbmm_(norms[0], norms[1].mT)
                picked = torch.stack([rows[order] for rows, order in zip(seller, picks[..., 0], strict=True)])
                reached = reached + torch.linalg.vecdot(buyer, picked)[..., None]
        upper.scatter_(2, picks, -torch.inf)
        return bool((upper.amax(2, keepdim=True) < reached).all())

    def _others(self, part: Part, orders: Orders) -> dict[int, Tensor]:
        return {axis: orders[part.tensor, axis] for axis in self._pair.axes[part.tensor] if axis != part.axis}

    def _open(self, decided: Container[str] | None) -> list[Part]:
        """The parts with another axis that count, largest first."""
        parts = [
            part
            for part in self._family.parts
            if self._pair.buyer[part.tensor].ndim > 1 and (decided is None or part.tensor in decided)
        ]
        return sorted(parts, key=lambda part: -self._pair.buyer[part.tensor].numel())

    def _pending(self, part: Part, orders: Orders) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (blocks, size, rest) of both models whose products the matrices lack."""
        seen, others = self._seen.get(part), self._others(part, orders)
        if seen is None:
            yield self._rows(part, others)
            return
        for axis, order in others.items():
            changed = torch.nonzero(order != seen[axis]).squeeze(1)
            if len(changed):
                yield self._rows(part, seen | {axis: order}, axis, changed, seen[axis])
                seen = seen | {axis: order}

    def _rows(
        self,
        part: Part,
        orders: Mapping[int, Tensor],
        axis: int = -1,
        changed: Tensor | None = None,
        before: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A part's rows, or those of what changed in it when `changed` positions of `axis` did."""
        first = part.axis == 0
        if first:
            buyer, seller = self._pair.buyer[part.tensor], self._pair.seller[part.tensor]
        else:
            buyer, seller = self._pair.rows(part.tensor, part.axis)
        for other, order in orders.items():
            if other != axis:
                seller = seller.index_select(_dim(other, part.axis), order)
        if changed is not None and before is not None:
            dim = _dim(axis, part.axis)
            buyer = buyer.index_select(dim, changed)
            old = seller.index_select(dim, before[changed])
            seller = seller.index_select(dim, orders[axis][changed]).sub_(old)
        return self._units(buyer, part, first), self._units(seller, part, first)

    def _units(self, values: Tensor, part: Part, first: bool) -> Tensor:
        """(blocks, size, rest): one row for each site."""
        sites, copies = part.places.shape
        blocks = self._blocks[part.pattern]
        if first:
            values = values.flatten(1)
            if not self._is_whole(part, len(values)):
                values = values.index_select(0, part.places.reshape(-1).to(values.device))
            return values.reshape(blocks, sites // blocks, -1)
        values = values.flatten(0, -2)
        if not self._is_whole(part, values.shape[1]):
            values = values.index_select(1, part.places.reshape(-1).to(values.device))
        if copies == 1 and blocks == 1:
            return values.T[None]
        return values.T.reshape(blocks, sites // blocks, -1)

    def _is_whole(self, part: Part, length: int) -> bool:
        """Whether the part's sites are the axis in its order, so that nothing needs gathering."""
        return part.places.numel() == length and bool((part.places.reshape(-1).diff() == 1).all())


def _dim(axis: int, moved: int) -> int:
    """Where an axis lies once axis `moved` (unless it is the first) was moved behind all others."""
    return axis - (0 < moved < axis)


def _dot(first: Tensor, second: Tensor) -> float:
    """Inner product in float64."""
    if first.device.type != "cpu":
        return float((first.double() * second.double()).sum())
    total = 0.0
    flat, beside = first.reshape(-1), second.reshape(-1)
    for start in range(0, len(flat), _CHUNK):
        part = slice(start, start + _CHUNK)
        total += float((flat[part].double() * beside[part]).sum())
    return total
