"""The Merkle tree gives Certificate Transparency's published heads, and no changed proof holds."""

from __future__ import annotations

import random

import pytest

from p2pmarket.ledger.log import (
    EMPTY_ROOT,
    consistency_proof,
    full_subtrees,
    grow,
    includes,
    inclusion_proof,
    is_consistent,
    leaf_hash,
    node_hash,
    root_of,
    root_of_peaks,
    subtrees,
)

# Inputs, heads and audit paths of the Certificate Transparency reference tests (merkletree/merkle_tree_test.cc).
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
HASHES = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]


@pytest.mark.parametrize("size", list(range(9)))
def test_published_heads(size: int) -> None:
    assert root_of(HASHES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize("index, size", list(PATHS))
def test_published_audit_paths(index: int, size: int) -> None:
    assert [step.hex() for step in inclusion_proof(HASHES[:size], index)] == PATHS[index, size]


def test_peaks_give_every_head_and_the_next_leafs_path() -> None:
    peaks: tuple[bytes, ...] = ()
    hashes = [leaf_hash(bytes([number])) for number in range(70)]
    assert root_of_peaks(peaks) == EMPTY_ROOT
    for size, leaf in enumerate(hashes):
        path = tuple(reversed(peaks))
        peaks = grow(peaks, size, leaf)
        assert root_of_peaks(peaks) == root_of(hashes[: size + 1])
        assert path == inclusion_proof(hashes[: size + 1], size)


def test_every_leaf_of_every_size_is_provable() -> None:
    hashes = [leaf_hash(bytes([number])) for number in range(33)]
    for size in range(1, 34):
        root = root_of(hashes[:size])
        for index in range(size):
            assert includes(root, size, hashes[index], index, inclusion_proof(hashes[:size], index))


def test_no_changed_proof_holds() -> None:
    chance = random.Random(1)
    hashes = [leaf_hash(bytes([number])) for number in range(21)]
    root = root_of(hashes)
    for index in range(21):
        proof = inclusion_proof(hashes, index)
        leaf = hashes[index]
        assert not includes(root, 21, leaf, index, proof[:-1])
        assert not includes(root, 21, leaf, index, (*proof, leaf))
        assert not includes(root, 21, leaf_hash(b"another"), index, proof)
        assert not includes(leaf_hash(b"another"), 21, leaf, index, proof)
        assert not includes(root, 21, leaf, -1, proof) and not includes(root, 21, leaf, 21, proof)
        for other in set(range(21)) - {index}:
            assert not includes(root, 21, leaf, other, proof)
        bent = list(proof)
        step = chance.randrange(len(bent))
        bent[step] = bytes([bent[step][0] ^ 1]) + bent[step][1:]
        assert not includes(root, 21, leaf, index, bent)


def test_a_node_never_passes_as_a_leaf() -> None:
    left, right = HASHES[:2]
    assert leaf_hash(left + right) != node_hash(left, right)
    assert not includes(root_of(HASHES[:2]), 1, leaf_hash(left + right), 0, ())


@pytest.mark.parametrize("first, second", list(CONSISTENCY))
def test_published_consistency_proofs(first: int, second: int) -> None:
    proof = consistency_proof(HASHES, first, second)
    assert [step.hex() for step in proof] == CONSISTENCY[first, second]
    assert is_consistent(first, bytes.fromhex(ROOTS[first]), second, bytes.fromhex(ROOTS[second]), proof)


def test_the_rfcs_own_example() -> None:
    """RFC 6962, section 2.1.3: seven leaves, the logs of 3, 4 and 6 inside that of 7."""
    a, b, c, d, e, f, j = hashes = [leaf_hash(bytes([number])) for number in range(7)]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, last = node_hash(g, h), node_hash(i, j)
    assert consistency_proof(hashes, 3, 7) == (c, d, g, last)
    assert consistency_proof(hashes, 4, 7) == (last,)
    assert consistency_proof(hashes, 6, 7) == (i, j, k)


def subproof(m: int, hashes: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2, word for word."""
    n = len(hashes)
    if m == n:
        return [] if whole else [root_of(hashes)]
    k = 1
    while 2 * k < n:
        k *= 2
    if m <= k:
        return [*subproof(m, hashes[:k], whole), root_of(hashes[k:])]
    return [*subproof(m - k, hashes[k:], False), root_of(hashes[:k])]


MANY = [leaf_hash(bytes([number])) for number in range(64)]
HEADS = [root_of(MANY[:size]) for size in range(65)]


def test_every_log_is_proved_to_continue_every_earlier_one() -> None:
    for second in range(65):
        for first in range(second + 1):
            proof = consistency_proof(MANY, first, second)
            assert list(proof) == (subproof(first, MANY[:second], True) if first else [])
            assert is_consistent(first, HEADS[first], second, HEADS[second], proof)


def test_no_other_log_is_proved_to_continue_one() -> None:
    """Another head on either side, a hash altered, left out or added, another size: each is refused."""
    chance = random.Random(2)
    other = leaf_hash(b"another")
    for second in range(1, 65):
        for first in range(1, second + 1):
            proof = list(consistency_proof(MANY, first, second))
            old, new = HEADS[first], HEADS[second]
            assert not is_consistent(first, other, second, new, proof)
            assert not is_consistent(first, old, second, other, proof)
            assert not is_consistent(first, old, second, new, [*proof, other])
            if first < second:
                assert not is_consistent(first, new, second, new, proof)
                assert not is_consistent(first, old, second, old, proof)
                assert not is_consistent(second, new, first, old, proof)
            for step in range(len(proof)):
                assert not is_consistent(first, old, second, new, proof[:step] + proof[step + 1 :])
                bent = proof.copy()
                bent[step] = bytes([bent[step][0] ^ 1 << chance.randrange(8)]) + bent[step][1:]
                assert not is_consistent(first, old, second, new, bent)
            assert not is_consistent(first, other, second, other, proof) or first == second


def test_a_forked_log_is_not_consistent_whatever_is_shown() -> None:
    """The log of 40 with one early leaf exchanged: no proof that the broker could build passes for the old head."""
    forked = [*MANY[:3], leaf_hash(b"another"), *MANY[4:]]
    for first in range(4, 40):
        for shown in (consistency_proof(forked, first, 40), consistency_proof(MANY, first, 40)):
            assert not is_consistent(first, HEADS[first], 40, root_of(forked[:40]), shown)
    assert is_consistent(3, HEADS[3], 40, root_of(forked[:40]), consistency_proof(forked, 3, 40))


def test_sizes_that_are_none_prove_nothing() -> None:
    for first, second in ((-1, 5), (5, 4), (-2, -1)):
        assert not is_consistent(first, HEADS[1], second, HEADS[1], ())
        with pytest.raises(IndexError):
            consistency_proof(MANY, first, second)
    with pytest.raises(IndexError):
        consistency_proof(MANY, 3, 65)
    assert is_consistent(0, EMPTY_ROOT, 5, HEADS[5], ())
    assert not is_consistent(0, HEADS[1], 5, HEADS[5], ()) and not is_consistent(0, EMPTY_ROOT, 5, HEADS[5], HEADS[:1])


def test_the_subtrees_that_a_leaf_completes() -> None:
    peaks: tuple[bytes, ...] = ()
    stored: dict[tuple[int, int], bytes] = {(0, number): hashed for number, hashed in enumerate(MANY)}
    for size, leaf in enumerate(MANY):
        for level, place, hashed in full_subtrees(peaks, size, leaf):
            assert level >= 1 and stored.setdefault((level, place), hashed) is hashed, "each is completed once"
            assert hashed == root_of(MANY[place << level : (place + 1) << level])
        peaks = grow(peaks, size, leaf)
        assert tuple(stored[node] for node in subtrees((0, size + 1))) == peaks
    assert len(stored) == 64 + 63


def test_a_leaf_beyond_the_log_has_no_proof() -> None:
    with pytest.raises(IndexError):
        inclusion_proof(HASHES, 8)
    with pytest.raises(IndexError):
        inclusion_proof([], 0)
