"""CIFAR-10 (Krizhevsky 2009; 32 x 32 colour images of ten classes) from its Python or binary batches.

Knows: both forms as cs.toronto.edu/~kriz/cifar.html describes them, in an archive or folder. The Python form is
pickles, which are read as data (`pickled`) and never loaded. Fails with DataError: batches that are missing, damaged,
of unlike length, or of another data set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from p2pmarket.datasets.archives import members
from p2pmarket.datasets.images import ImageData, image_data
from p2pmarket.datasets.pickled import read_mapping
from p2pmarket.datasets.pickled_arrays import PickledBytes
from p2pmarket.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_PYTHON = (*_TRAIN, "test_batch")
_BINARY = tuple(f"{name}.bin" for name in _PYTHON)

_Batch = tuple[np.ndarray, np.ndarray]
"""Images (N, 3072) uint8: red, green, blue, each row after row; labels (N,)."""


def load_cifar10(source: Path) -> ImageData:
    """CIFAR-10 from `source`: cifar-10-python.tar.gz, cifar-10-binary.tar.gz, or the folder that either unpacks to.

    :raises DataError: see the module's first paragraph
    """
    found: dict[str, _Batch] = {}
    with members(source) as files:
        for file in files:
            if file.base in _PYTHON or file.base in _BINARY:
                if file.base in found:
                    raise DataError(f"{source} holds {file.base} twice; give one data set alone")
                read = _from_binary if file.base in _BINARY else _from_pickle
                found[file.base] = read(file.read(), f"{source}: {file.name}")
    names = _BINARY if all(name in found for name in _BINARY) else _PYTHON
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(
            f"{source} lacks CIFAR-10's {', '.join(missing)}; expected cifar-10-python.tar.gz, cifar-10-binary.tar.gz "
            "or the folder that one of them unpacks to"
        )
    batches = [found[name] for name in names]
    lengths = {name: len(found[name][0]) for name in names}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{length} in {name}" for name, length in lengths.items())
        raise DataError(f"{source} has batches of unlike length ({told} images); fetch it anew")
    images, labels = (np.concatenate(column) for column in zip(*batches[:-1], strict=True))
    train, test = ((part[0].reshape(-1, *_SHAPE), part[1]) for part in ((images, labels), batches[-1]))
    return image_data("cifar10", train, test, CLASSES)


def _from_binary(data: bytes, where: str) -> _Batch:
    if not data or len(data) % (1 + _PIXELS):
        raise DataError(f"{where} has {len(data):,} bytes, not a multiple of {1 + _PIXELS}; fetch it anew")
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return rows[:, 1:], rows[:, 0]


def _from_pickle(data: bytes, where: str) -> _Batch:
    batch = read_mapping(data, where)
    images, labels = batch.get("data"), batch.get("labels")
    if not isinstance(images, PickledBytes) or not isinstance(labels, list):
        found = ", ".join(sorted(name[:32] for name in batch)[:8]) or "nothing"
        raise DataError(f"{where}: found {found}; expected the array 'data' and the list 'labels' of CIFAR-10")
    if not all(type(label) is int and 0 <= label < len(CLASSES) for label in labels):
        raise DataError(f"{where} has labels that are not whole numbers from 0 to {len(CLASSES) - 1}; fetch it anew")
    pixels = images.array(where)
    if pixels.shape != (len(labels), _PIXELS):
        raise DataError(
            f"{where} has {len(labels)} labels and data of shape {pixels.shape}, expected (labels, {_PIXELS})"
        )
    return pixels, np.asarray(labels, dtype=np.int64)
