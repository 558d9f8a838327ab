"""The Merkle tree gives Certificate Transparency's published heads, and no changed proof holds."""

from __future__ import annotations

import random

import pytest

from p2pmarket.ledger.log import (
    EMPTY_ROOT,
    grow,
    includes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    root_of_peaks,
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


def test_a_leaf_beyond_the_log_has_no_proof() -> None:
    with pytest.raises(IndexError):
        inclusion_proof(HASHES, 8)
    with pytest.raises(IndexError):
        inclusion_proof([], 0)
