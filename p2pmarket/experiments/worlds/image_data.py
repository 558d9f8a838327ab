"""Images of a data set as a scenario asks for them: of a size, with a mean and a deviation, and as many as it wants.

Knows: pixels. Refuses to know: files (datasets), and who gets which. Raises `DataError` for images that are not there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from p2pmarket.datasets import Dataset, ImageData, find_images, load_images, split, standardised


@functools.lru_cache(maxsize=1)
def _images(name: str, source: Path, size: int | None, changed_ns: int) -> ImageData:
    data = load_images(name, source, size=size if name == "tinyimagenet" else None)
    train, test = (_resized(part, size) for part in (data.train, data.test))
    channels, *_ = data.shape
    height, width = train.inputs.shape[2:]
    return dataclasses.replace(data, train=train, test=test, shape=(channels, height, width))


def loaded(
    name: str, place: Path | None, *, size: int | None, mean: Sequence[float], deviation: Sequence[float]
) -> ImageData:
    """A data set as (N, C, H, W), kept for the next run of this process, which has mostly the same.

    :param size: side in pixels; None: as the images are
    :param mean: of each channel; none: pixels stay in 0 ... 1
    :raises DataError: it is not there, or not what it should be
    """
    source = find_images(name, place)
    changed_ns = source.stat().st_mtime_ns if source.exists() else 0
    data = _images(name, source, size, changed_ns)
    return standardised(data, mean, deviation) if mean else data


def _resized(data: Dataset, size: int | None) -> Dataset:
    """(N, H, W) -> (N, 1, H, W), and of another size by the means of the pixels that a new one covers."""
    images = data.inputs if data.inputs.ndim == 4 else data.inputs.unsqueeze(1)
    if size and images.shape[2:] != (size, size):
        images = torch.cat(
            [nn.functional.interpolate(some, (size, size), mode="area") for some in torch.split(images, 4096)]
        )
    return Dataset(images, data.targets)


def few(data: Dataset, count: int, seed: int) -> Dataset:
    """So many images drawn at random; 0: all."""
    if count == 0 or count >= len(data):
        return data
    return split(data, (count / len(data),), seed)[0]
