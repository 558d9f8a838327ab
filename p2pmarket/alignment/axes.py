"""Axes as terms: what is permuted together in a network, found by unification.

Knows: an axis is a leaf (units that move together), a product (reshaped: outer factors first) or a sum (concatenated),
and two axes that an operation joins must be the same term. A leaf is refined by binding it to a product or a sum, so
everything that was said about it before stays said about its parts. Sound because a symmetry of the parts is one of
the whole. Refuses to know: tensors, operations, models.
What cannot be made the same is pinned, which is always sound. Axes of different lengths raise Misfit.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence


class Misfit(Exception):
    """A rule joined axes that cannot be the same; the caller treats the operation as unknown."""


@dataclasses.dataclass(frozen=True)
class Pin:
    """Why an axis stays as it is: the operation, where it is in the source, and the reason."""

    op: str
    source: str
    reason: str


class Leaf:
    """Units of one axis. `bound` is the term it turned out to be; a pinned leaf stays as it is."""

    __slots__ = ("size", "bound", "pin", "origin", "used")

    def __init__(self, size: int, pin: Pin | None = None) -> None:
        self.size = size
        self.bound: Term | None = None
        self.pin = pin
        self.origin: tuple[str, int] | None = None
        """The reshape (its name and the axis) that brought this leaf about, should it have to be done otherwise."""
        self.used = True
        """False: cut off and never looked at; it may look free and is not."""


@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """A reshaped axis: position = outer * size of the inner factors + inner."""

    factors: tuple[Term, ...]

    @property
    def size(self) -> int:
        return math.prod(factor.size for factor in self.factors)


@dataclasses.dataclass(frozen=True, eq=False)
class Sum:
    """Axes one after the other."""

    parts: tuple[Term, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


Term = Leaf | Product | Sum


def resolve(term: Term) -> Term:
    """The term as it is known now: bound leaves replaced at the root, products and sums flat, factors of 1 left out."""
    if isinstance(term, Leaf):
        if term.bound is None:
            return term
        term.bound = resolve(term.bound)
        return term.bound
    if isinstance(term, Product):
        return product([resolve(factor) for factor in term.factors])
    return join([resolve(part) for part in term.parts])


def product(factors: Sequence[Term]) -> Term:
    """The axis whose factors these are, outer first."""
    flat: list[Term] = []
    for factor in map(resolve, factors):
        flat.extend(factor.factors if isinstance(factor, Product) else [factor])
    flat = [factor for factor in flat if factor.size != 1]
    return Product(tuple(flat)) if len(flat) > 1 else flat[0] if flat else Leaf(1)


def join(parts: Sequence[Term]) -> Term:
    """The axis that has these one after the other."""
    flat: list[Term] = []
    for part in map(resolve, parts):
        flat.extend(part.parts if isinstance(part, Sum) else [part])
    flat = [part for part in flat if part.size]
    return Sum(tuple(flat)) if len(flat) > 1 else flat[0] if flat else Leaf(0)


def leaves(term: Term) -> Iterator[Leaf]:
    """Every leaf of a term, from its first position on."""
    term = resolve(term)
    if isinstance(term, Leaf):
        yield term
    else:
        for part in term.factors if isinstance(term, Product) else term.parts:
            yield from leaves(part)


def pin(term: Term, why: Pin) -> None:
    """All of the axis stays as it is. The first reason is kept."""
    for leaf in leaves(term):
        leaf.pin = leaf.pin or why


def use(term: Term) -> None:
    """All of the axis is looked at."""
    for leaf in leaves(term):
        leaf.used = True


def unify(first: Term, second: Term, why: Pin) -> None:
    """Makes two axes the same; where their structures do not meet, both are pinned.

    :raises Misfit: they differ in length
    """
    first, second = resolve(first), resolve(second)
    if first.size != second.size:
        raise Misfit(f"axes of {first.size} and {second.size} positions are joined")
    if first is second or first.size <= 1:
        return
    if isinstance(first, Leaf):
        _bind(first, second)
    elif isinstance(second, Leaf):
        _bind(second, first)
    elif isinstance(first, Product) and isinstance(second, Product):
        _unify_products(first, second, why)
    else:
        ends = sorted({*_ends(first), *_ends(second)})
        sizes = [end - start for start, end in itertools.pairwise([0, *ends])]
        if len(sizes) == 1:
            raise Misfit("sums without parts are joined")
        for one, other in zip(cut(first, sizes, why), cut(second, sizes, why), strict=True):
            unify(one, other, why)


def _ends(term: Term) -> Iterator[int]:
    end = 0
    for part in term.parts if isinstance(term, Sum) else (term,):
        end += part.size
        yield end


def _bind(leaf: Leaf, term: Term) -> None:
    if leaf.pin is not None:
        pin(term, leaf.pin)
    if leaf.used:
        use(term)
    if isinstance(term, Leaf):
        term.origin = term.origin or leaf.origin
    leaf.bound = term


def _unify_products(first: Product, second: Product, why: Pin) -> None:
    ours, theirs = list(first.factors), list(second.factors)
    while ours and theirs:
        one, other = resolve(ours.pop(0)), resolve(theirs.pop(0))
        # A factor may have been refined by a unification just before.
        if isinstance(one, Product) or isinstance(other, Product):
            ours[:0] = one.factors if isinstance(one, Product) else (one,)
            theirs[:0] = other.factors if isinstance(other, Product) else (other,)
            continue
        common = math.gcd(one.size, other.size)
        if one.size == other.size:
            unify(one, other, why)
        elif common == 1:
            for term in (one, other, *ours, *theirs):
                pin(term, why)
            return
        else:
            ours[:0] = _halve(one, common, why)
            theirs[:0] = _halve(other, common, why)


def _halve(term: Term, outer: int, why: Pin) -> tuple[Term, ...]:
    """An axis as an outer factor of `outer` positions and what lies inside; pinned where it has no such factor."""
    if term.size == outer:
        return (term,)
    inner = term.size // outer
    if isinstance(term, Leaf):
        halves = _leaves_of(term, [outer, inner])
        term.bound = Product(halves)
        return halves
    if isinstance(term, Sum) and all(part.size % inner == 0 for part in term.parts):
        # Concatenated axes with one inner factor: what lies inside them must then be the same.
        pieces = [regroup(part, [part.size // inner, inner], why) for part in term.parts]
        for piece in pieces[1:]:
            unify(pieces[0][1], piece[1], why)
        return (join([piece[0] for piece in pieces]), pieces[0][1])
    pin(term, why)
    return (Leaf(outer, why), Leaf(inner, why))


def _leaves_of(leaf: Leaf, sizes: Sequence[int]) -> tuple[Leaf, ...]:
    parts = tuple(Leaf(size, leaf.pin) for size in sizes)
    for part in parts:
        part.used = leaf.used
    return parts


def regroup(term: Term, sizes: Sequence[int], why: Pin) -> list[Term]:
    """The factors of an axis, outer first, with these sizes; pinned where it has no such factors.

    :raises Misfit: the sizes do not multiply to the axis
    """
    if math.prod(sizes) != term.size:
        raise Misfit(f"an axis of {term.size} positions is reshaped to {tuple(sizes)}")
    factors, groups = [resolve(term)], []
    for size in sizes:
        taken: list[Term] = []
        need = size
        while need > 1:
            factor = resolve(factors.pop(0))
            if isinstance(factor, Product):
                factors[:0] = factor.factors
            elif need % factor.size == 0:
                taken.append(factor)
                need //= factor.size
            elif math.gcd(need, factor.size) > 1:
                factors[:0] = _halve(factor, math.gcd(need, factor.size), why)
            else:
                pin(term, why)
                return [Leaf(size, why) for size in sizes]
        groups.append(product(taken))
    return groups


def cut(term: Term, sizes: Sequence[int], why: Pin, *, used: bool = True) -> list[Term]:
    """The axis cut into pieces one after the other; pinned where a cut falls inside of units.

    :param used: whether all new pieces count as looked at
    :raises Misfit: the sizes do not add up to the axis
    """
    term = resolve(term)
    if sum(sizes) != term.size:
        raise Misfit(f"an axis of {term.size} positions is cut into {tuple(sizes)}")
    if len(sizes) == 1:
        return [term]
    if isinstance(term, Leaf):
        pieces = _leaves_of(term, [size for size in sizes if size])
        for piece in pieces:
            piece.used = piece.used and used
        term.bound = join(pieces)
        left = iter(pieces)
        return [next(left) if size else Leaf(0) for size in sizes]
    if isinstance(term, Sum):
        return _cut_sum(term, sizes, why, used)
    inner = product(term.factors[1:])
    if all(size % inner.size == 0 for size in sizes):
        outer = cut(term.factors[0], [size // inner.size for size in sizes], why, used=used)
        return [product([piece, inner]) if piece.size else piece for piece in outer]
    pin(term, why)
    return [Leaf(size, why) for size in sizes]


def _cut_sum(term: Sum, sizes: Sequence[int], why: Pin, used: bool) -> list[Term]:
    left, pieces = list(term.parts), []
    for size in sizes:
        taken: list[Term] = []
        while size:
            part = left.pop(0)
            if part.size > size:
                part, rest = cut(part, [size, part.size - size], why, used=used)
                left.insert(0, rest)
            taken.append(part)
            size -= part.size
        pieces.append(join(taken))
    return pieces
