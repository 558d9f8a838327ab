"""Image data sets as they are handed out: training and test images with labels, class names and shape; and what turns
one into another.

Knows: tensors. Refuses to know: files and archives. Fails with DataError: labels out of range, counts that do not
match, groups of classes that overlap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from p2pmarket.datasets.files import Dataset
from p2pmarket.errors import DataError

Labelled = tuple[np.ndarray, np.ndarray]
"""Images (N, C, H, W) or (N, H, W) uint8; labels (N,), whole numbers."""


@dataclasses.dataclass(frozen=True)
class ImageData:
    """A data set of images, each with one of a few classes."""

    name: str
    train: Dataset
    """Inputs (N, C, H, W) float32 between 0 and 1, or (N, H, W) where there is one channel; targets (N,) int64."""
    test: Dataset
    """As `train`."""
    classes: tuple[str, ...]
    """Their names; a target is a place in here."""
    shape: tuple[int, int, int]
    """Channels, height, width."""
    about: str
    """One line in words."""


def image_data(name: str, train: Labelled, test: Labelled, classes: Sequence[str]) -> ImageData:
    """A data set from images of bytes.

    :raises DataError: no images, another number of labels, a label that is no class, or two shapes
    """
    count = len(classes)
    training, testing = (_part(*train, count, f"{name}'s training data"), _part(*test, count, f"{name}'s test data"))
    return described(name, training, testing, classes)


def described(name: str, train: Dataset, test: Dataset, classes: Sequence[str]) -> ImageData:
    """A data set with its shape and a line in words.

    :param train: inputs (N, C, H, W) or (N, H, W)
    :raises DataError: training and test images of two shapes
    """
    one, other = (tuple(part.inputs.shape[1:]) for part in (train, test))
    if one != other:
        raise DataError(f"{name}: training images are {_sides(one)} and test images {_sides(other)}")
    *channels, height, width = one
    shape = (channels[0] if channels else 1, height, width)
    about = f"{name}: {len(train)} images to train on, {len(test)} to test on, {len(classes)} classes, {_sides(shape)}"
    return ImageData(name, train, test, tuple(classes), shape, about)


def standardised(data: ImageData, mean: Sequence[float], deviation: Sequence[float]) -> ImageData:
    """Every channel less its `mean`, divided by its `deviation`; both in units of the images, 0 ... 1.

    :raises DataError: another number of channels, or a deviation that is not positive
    """
    channels = data.shape[0]
    if len(mean) != channels or len(deviation) != channels:
        raise DataError(f"{data.name} has {channels} channels; give one mean and one deviation for each")
    shift, scale = (torch.tensor(list(values), dtype=torch.float32) for values in (mean, deviation))
    if not torch.isfinite(shift).all() or not torch.isfinite(scale).all() or not (scale > 0).all():
        raise DataError(f"cannot standardise {data.name}: means are finite numbers, deviations positive ones")

    def part(dataset: Dataset) -> Dataset:
        ends = (1,) * min(2, dataset.inputs.ndim - 1)
        return Dataset((dataset.inputs - shift.reshape(-1, *ends)) / scale.reshape(-1, *ends), dataset.targets)

    return dataclasses.replace(data, train=part(data.train), test=part(data.test), about=f"{data.about}, standardised")


def relabelled(dataset: Dataset, groups: Sequence[Sequence[int]]) -> Dataset:
    """Another task on the same inputs: a sample's new class is the place of the group that holds its old one.

    Samples whose class is in no group are left out; the order stays. `[(0, 2, 4, 6, 8), (1, 3, 5, 7, 9)]` makes of
    ten digits even and odd ones.

    :raises DataError: targets that are not classes, a class in two groups, an empty group, or no sample left
    """
    if dataset.targets.dtype != torch.int64 or dataset.targets.ndim != 1:
        raise DataError("new classes need targets of one integer a sample")
    members = [label for group in groups for label in group]
    if not groups or not all(groups) or len(set(members)) != len(members):
        raise DataError("groups of classes need a class each, and no class may be in two of them")
    known = sorted((label, place) for place, group in enumerate(groups) for label in group)
    labels, places = (torch.tensor(column, dtype=torch.int64) for column in zip(*known, strict=True))
    at = torch.searchsorted(labels, dataset.targets).clamp_(max=len(labels) - 1)
    chosen = labels[at] == dataset.targets
    if not chosen.any():
        raise DataError(f"no sample has a class of {sorted(members)}")
    return Dataset(dataset.inputs[chosen], places[at[chosen]])


def _part(images: np.ndarray, targets: np.ndarray, classes: int, where: str) -> Dataset:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or targets.dtype.kind not in "iu" or targets.ndim != 1:
        raise DataError(f"{where}: expected images of bytes and whole numbers for labels; is it another data set?")
    if images.size == 0 or len(images) != len(targets):
        raise DataError(f"{where}: {len(images)} images and {len(targets)} labels; expected as many, and at least one")
    if targets.min() < 0 or targets.max() >= classes:
        raise DataError(
            f"{where} has labels from {targets.min()} to {targets.max()}, expected 0 to {classes - 1}; "
            "is it another data set?"
        )
    inputs: Tensor = torch.from_numpy(images.astype(np.float32))
    return Dataset(inputs.div_(255.0), torch.from_numpy(targets.astype(np.int64)))


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)
