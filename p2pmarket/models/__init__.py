"""Models a market can name: built in, or a factory from the operator's own configuration."""

from p2pmarket.models.registry import MODEL_NAMES, build_model, permutation_spec

__all__ = ["MODEL_NAMES", "build_model", "permutation_spec"]
