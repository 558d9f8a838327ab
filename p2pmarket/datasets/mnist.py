"""MNIST (LeCun, Cortes, Burges; 28 x 28 grey images of ten digits) from the files it is usually kept in.

Knows: an .npz with x_train, y_train, x_test, y_test, and the four idx files (yann.lecun.com/exdb/mnist, "FILE FORMATS
FOR THE MNIST DATABASE"), also inside a folder or archive. Refuses to know: pickled arrays. Fails with DataError.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from p2pmarket.datasets.archives import Member, members, of_zip, unzipped
from p2pmarket.datasets.images import ImageData, image_data
from p2pmarket.errors import DataError

_IDX = {
    "train-images-idx3-ubyte": "x_train",
    "train-labels-idx1-ubyte": "y_train",
    "t10k-images-idx3-ubyte": "x_test",
    "t10k-labels-idx1-ubyte": "y_test",
}
_ARRAYS = tuple(_IDX.values())
_DIMENSIONS = {"x": 3, "y": 1}


def load_mnist(source: Path) -> ImageData:
    """MNIST from `source`: an .npz, the folder of the four idx files, or an archive that holds either.

    :raises DataError: see the module's first paragraph
    """
    found: dict[str, np.ndarray] = {}
    with members(source) as files:
        _collect(files, found, str(source))
    missing = [name for name in _ARRAYS if name not in found]
    if missing:
        raise DataError(
            f"{source} lacks MNIST's {', '.join(missing)}; expected an .npz with {', '.join(_ARRAYS)}, or the files "
            f"{', '.join(_IDX)} (or .gz)"
        )
    train, test = ((found[f"x_{part}"], found[f"y_{part}"]) for part in ("train", "test"))
    for images, _ in (train, test):
        if images.shape[1:] != (28, 28):
            raise DataError(f"{source} has images of shape {images.shape[1:]}, expected MNIST's (28, 28)")
    return image_data("mnist", train, test, [str(digit) for digit in range(10)])


def _collect(files: Iterable[Member], found: dict[str, np.ndarray], where: str) -> None:
    for file in files:
        here = f"{where}: {file.name}"
        plain = file.base.removesuffix(".gz").replace(".idx", "-idx")
        if file.base.startswith("."):
            continue
        if file.base.endswith(".npz"):
            _collect(of_zip(io.BytesIO(file.read()), here), found, here)
        elif file.base.removesuffix(".npy") in _ARRAYS:
            _keep(found, file.base.removesuffix(".npy"), _from_npy(file.read(), here), where)
        elif plain in _IDX:
            data = unzipped(file.read(), here) if file.base.endswith(".gz") else file.read()
            _keep(found, _IDX[plain], _from_idx(data, here), where)


def _keep(found: dict[str, np.ndarray], name: str, array: np.ndarray, where: str) -> None:
    if array.ndim != _DIMENSIONS[name[0]]:
        raise DataError(f"{where}: {name} has {array.ndim} dimensions, expected {_DIMENSIONS[name[0]]}")
    if name in found and not np.array_equal(found[name], array):
        raise DataError(f"{where} holds {name} twice, and they differ; give one file alone")
    found[name] = array


def _from_npy(data: bytes, where: str) -> np.ndarray:
    """An array of whole numbers whose size fits the file; NumPy would believe any header."""
    file = io.BytesIO(data)
    try:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, column_major, kind = header(file)
    except Exception as reason:  # NumPy's parser of headers raises half a dozen kinds
        raise DataError(f"{where} is not a readable NumPy array ({type(reason).__name__}); fetch it anew") from None
    if kind.hasobject:
        raise DataError(f"{where} holds Python objects (pickle), which are never loaded; save numbers")
    if kind.kind not in "iu":
        raise DataError(f"{where} holds {kind}, expected whole numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize != len(data) - file.tell():
        raise DataError(f"{where} is shorter or longer than its header says; fetch it anew")
    array: np.ndarray = np.frombuffer(data, kind, offset=file.tell())
    return array.reshape(shape, order="F" if column_major else "C")


def _from_idx(data: bytes, where: str) -> np.ndarray:
    """Magic number 0, 0, 8 (bytes), 1 or 3 (dimensions); each size as four bytes, big-endian; the bytes."""
    if data[:4] not in (b"\x00\x00\x08\x01", b"\x00\x00\x08\x03"):
        raise DataError(f"{where} is not an idx file of labels or images; fetch it anew")
    start = 4 + 4 * data[3]
    sizes = [int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4)]
    if len(data) < start or math.prod(sizes) != len(data) - start:
        raise DataError(f"{where} is shorter or longer than its header says; fetch it anew")
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes)
