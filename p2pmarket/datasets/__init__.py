"""Data people train and test on: files of their own (`files.py`) in, tensors out.

Knows: every loader's public name. Refuses to know: models, markets and where a split is used. Fails with DataError:
one sentence that says what was found and what was expected.
"""

from __future__ import annotations

from p2pmarket.datasets.files import Dataset, load_dataset, split, subset_by_class

__all__ = ["Dataset", "load_dataset", "split", "subset_by_class"]
