"""Permutation symmetries: bringing a seller's units into a buyer's order."""

from p2pmarket.alignment.activations import match_activations
from p2pmarket.alignment.automatic import Pinned, Symmetry, find_symmetry
from p2pmarket.alignment.matching import match
from p2pmarket.alignment.symmetry import Permutations, apply, compose, identity, inverse, is_identity
from p2pmarket.alignment.verification import verify_spec
from p2pmarket.permutation import Axis, PermutationClass, PermutationSpec

__all__ = [
    "Axis",
    "PermutationClass",
    "PermutationSpec",
    "Permutations",
    "Pinned",
    "Symmetry",
    "apply",
    "compose",
    "find_symmetry",
    "identity",
    "inverse",
    "is_identity",
    "match",
    "match_activations",
    "verify_spec",
]
