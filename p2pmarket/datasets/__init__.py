"""Data people train and test on: their own files (`files`), and the paper's image data sets (`catalogue`).

Knows: every loader's public name. Refuses to know: models, markets and where a split is used. Fails with DataError:
one sentence that says what was found and what was expected.
"""

from __future__ import annotations

from p2pmarket.datasets.catalogue import IMAGE_SETS, find_images, load_images
from p2pmarket.datasets.files import Dataset, load_dataset, split, subset_by_class
from p2pmarket.datasets.images import ImageData, relabelled, standardised

__all__ = [
    "IMAGE_SETS",
    "Dataset",
    "ImageData",
    "find_images",
    "load_dataset",
    "load_images",
    "relabelled",
    "split",
    "standardised",
    "subset_by_class",
]
