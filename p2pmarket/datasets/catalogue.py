"""The image data sets of the paper by name: where their files usually lie, and how they are loaded.

Knows: file names and where people get them. Nothing is ever fetched from the web. Refuses to know: formats. Fails with
DataError: an unknown name, or a data set whose files are not there.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch

from p2pmarket.datasets.cifar import load_cifar10
from p2pmarket.datasets.files import Dataset, split
from p2pmarket.datasets.images import ImageData, described
from p2pmarket.datasets.mnist import load_mnist
from p2pmarket.datasets.tiny_imagenet import load_tiny_imagenet
from p2pmarket.errors import DataError

DATA_VARIABLE = "P2PMARKET_DATA"
"""The environment variable that names a data set's file, or the folder of all of them."""
FOLDER = Path("data")
"""Where data sets are looked for when nothing says where they are: under the current folder."""


@dataclasses.dataclass(frozen=True)
class _Known:
    """A data set's usual files, best first."""

    names: tuple[str, ...]
    marks: tuple[str, ...]
    """What a folder holds that is the data set itself."""
    get: str
    """Which of these files people get, and where."""


_KNOWN = {
    "mnist": _Known(
        ("mnist.npz", "mnist", "MNIST/raw", "mnist.zip", "mnist.tar.gz"),
        tuple(f"train-images{dash}idx3-ubyte{end}" for dash in "-." for end in ("", ".gz")),
        "mnist.npz as Keras distributes it (storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz), or the "
        "four idx files of yann.lecun.com/exdb/mnist, such as train-images-idx3-ubyte.gz",
    ),
    "cifar10": _Known(
        ("cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-batches-bin"),
        ("data_batch_1", "data_batch_1.bin"),
        "cifar-10-python.tar.gz, or cifar-10-binary.tar.gz, from cs.toronto.edu/~kriz/cifar.html",
    ),
    "tinyimagenet": _Known(
        ("tiny-imagenet-200.zip", "tiny-imagenet-200"),
        ("val/val_annotations.txt",),
        "tiny-imagenet-200.zip from cs231n.stanford.edu/tiny-imagenet-200.zip",
    ),
}
_DIGITS = "digits"
IMAGE_SETS = (*_KNOWN, _DIGITS)
"""Names that `load_images` knows."""


def find_images(name: str, data: Path | None = None) -> Path:
    """The file or folder of data set `name`.

    :param name: one of `IMAGE_SETS`; "digits" need no file, and get the current folder
    :param data: the data set's file or folder, or a folder of data sets; None: $P2PMARKET_DATA, or else
        `FOLDER`
    :raises DataError: an unknown name, or not there: what was looked for, where, and where people get it
    """
    known = _known(name)
    if known is None:
        return Path()
    variable = os.environ.get(DATA_VARIABLE)
    if data is None and variable:
        data = Path(variable)
    folder = FOLDER if data is None else data.expanduser()
    if folder.is_file() or any((folder / mark).exists() for mark in known.marks):
        return folder
    for usual in known.names:
        if (folder / usual).exists():
            return folder / usual
    raise DataError(
        f"{name} is not here: looked for {', '.join(known.names)} in {folder}; get {known.get}, and name the file or "
        f"its folder with --data or ${DATA_VARIABLE}, or put it into the folder {FOLDER}"
    )


def load_images(name: str, source: Path, *, size: int | None = None) -> ImageData:
    """Data set `name` from `source`, which `find_images` finds.

    "mnist" and "digits" have images (N, height, width), "cifar10" and "tinyimagenet" (N, 3, height, width).

    :param size: side in pixels to resize to, for TinyImageNet alone (the paper: 32); None: as the images are
    :raises DataError: an unknown name, files that are damaged, too large or another data set's, or a missing extra
    """
    _known(name)
    if name == "tinyimagenet":
        return load_tiny_imagenet(source, size)
    data = _digits() if name == _DIGITS else {"mnist": load_mnist, "cifar10": load_cifar10}[name](source)
    if size is not None and data.shape[1:] != (size, size):
        raise DataError(f"{name} has images of {data.shape[1]} x {data.shape[2]}; only tinyimagenet is resized")
    return data


def _known(name: str) -> _Known | None:
    if name not in IMAGE_SETS:
        raise DataError(f"{name[:64]!r} is not a known data set of images; there are {', '.join(IMAGE_SETS)}")
    return _KNOWN.get(name)


def _digits() -> ImageData:
    """scikit-learn's 1,797 digits of 8 x 8 pixels with 17 levels of grey; a quarter to test on, always the same."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("the digits come with scikit-learn: pip install 'p2pmarket[research]'") from None
    digits = load_digits()
    whole = Dataset(torch.tensor(digits.images / 16, dtype=torch.float32), torch.tensor(digits.target).to(torch.int64))
    train, test = split(whole, (0.75, 0.25), seed=0)
    return described(_DIGITS, train, test, [str(digit) for digit in range(10)])
