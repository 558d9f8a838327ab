"""The Merkle tree over the ledger's leaves: RFC 6962, section 2.1, SHA-256.

Knows: hashes. Refuses to know: what a leaf says and where leaves are kept.
A proof that does not hold is False, never an exception; IndexError means that the caller asked for a leaf outside
its own log.

A growing log needs only its `peaks`: the roots of the full subtrees, largest first, that the binary digits of its
size name. They give the tree head, and, reversed, they are the audit path of the next leaf to be appended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

Range = tuple[int, int]
"""Leaves from the first number up to, and without, the second."""
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""Tree head of a log without leaves."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256 of 0x00 and the leaf: the prefix keeps a leaf from passing as a node."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of 0x01 and the two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Merkle tree head over leaf hashes in order (section 2.1, by its definition)."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    split = _split(len(hashes))
    return node_hash(root_of(hashes[:split]), root_of(hashes[split:]))


def grow(peaks: tuple[bytes, ...], size: int, leaf: bytes) -> tuple[bytes, ...]:
    """The peaks after appending leaf hash `leaf` to a log of `size` leaves."""
    kept = list(peaks)
    while size & 1:
        leaf = node_hash(kept.pop(), leaf)
        size >>= 1
    return (*kept, leaf)


def full_subtrees(peaks: tuple[bytes, ...], size: int, leaf: bytes) -> list[tuple[int, int, bytes]]:
    """(level, place, root) of each full subtree of two leaves or more that appending leaf hash `leaf` completes in a
    log of `size` leaves with these peaks: 2^level leaves, from leaf place * 2^level on."""
    completed = []
    level, place = 0, size
    while place & 1:
        leaf = node_hash(peaks[-1 - level], leaf)
        level, place = level + 1, place >> 1
        completed.append((level, place, leaf))
    return completed


def root_of_peaks(peaks: tuple[bytes, ...]) -> bytes:
    """Merkle tree head of the log with these peaks."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def subtrees(part: Range) -> list[tuple[int, int]]:
    """(level, place) of the full subtrees that a range of leaves of a proof, or from the first leaf on, consists of,
    the largest first: their roots are its peaks."""
    start, end = part
    found = []
    while start < end:
        level = (end - start).bit_length() - 1
        found.append((level, start >> level))
        start += 1 << level
    return found


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The ranges of leaves whose heads are the audit path of leaf `index`, from the leaf up (section 2.1.1).

    :raises IndexError: no such leaf
    """
    if not 0 <= index < size:
        raise IndexError(f"leaf {index} of a log of {size}")
    start, end = 0, size
    ranges = []
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    return ranges[::-1]


def inclusion_proof(hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Audit path of leaf `index`, from the leaf up (section 2.1.1).

    :raises IndexError: no such leaf
    """
    return tuple([root_of(hashes[start:end]) for start, end in inclusion_ranges(index, len(hashes))])


def consistency_ranges(first: int, second: int) -> list[Range]:
    """The ranges of leaves whose heads prove that the log of `second` leaves continues that of `first`, in the order
    of the proof (section 2.1.2, SUBPROOF); none from an empty log, and none to the same one.

    :raises IndexError: unless 0 <= first <= second
    """
    if not 0 <= first <= second:
        raise IndexError(f"a log of {first} leaves inside one of {second}")
    start, end = 0, second
    ranges = []
    while 0 < first < end:
        split = start + _split(end - start)
        if first <= split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    if start:  # else the first log is a full subtree, whose head the verifier has
        ranges.append((start, end))
    return ranges[::-1]


def consistency_proof(hashes: Sequence[bytes], first: int, second: int) -> tuple[bytes, ...]:
    """Proof that the log of the first `second` of these leaf hashes continues that of the first `first`
    (section 2.1.2).

    :raises IndexError: unless 0 <= first <= second <= len(hashes)
    """
    if second > len(hashes):
        raise IndexError(f"a log of {second} leaves where there are {len(hashes)}")
    return tuple([root_of(hashes[start:end]) for start, end in consistency_ranges(first, second)])


def is_consistent(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the log of `second` leaves with this head continues that of `first` leaves (RFC 9162, section 2.1.4.2).

    Every log continues the empty one.
    """
    if not 0 <= first <= second:
        return False
    if first in (0, second):
        return not proof and first_root == (second_root if first == second else EMPTY_ROOT)
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        return False
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first_found = second_found = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first_found = node_hash(sibling, first_found)
            second_found = node_hash(sibling, second_found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second_found = node_hash(second_found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and first_found == first_root and second_found == second_root


def includes(root: bytes, size: int, leaf: bytes, index: int, proof: Sequence[bytes]) -> bool:
    """Whether leaf hash `leaf` is leaf `index` of the log with this head and size (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last = index, size - 1
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            leaf = node_hash(sibling, leaf)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            leaf = node_hash(leaf, sibling)
        node >>= 1
        last >>= 1
    return last == 0 and leaf == root


def _split(size: int) -> int:
    """The largest power of two below `size`, for size > 1."""
    return 1 << ((size - 1).bit_length() - 1)
