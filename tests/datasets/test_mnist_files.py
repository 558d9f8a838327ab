"""MNIST from an .npz, the idx files and archives of either; and what is not MNIST."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import idx, idx_form, mnist_arrays, npz, tar, unpacked, zipped

from p2pmarket.datasets import ImageData, find_images, load_dataset, load_images
from p2pmarket.errors import DataError

GIVEN = Path(os.environ.get("P2PMARKET_DATA", "/no/data"))
REAL = GIVEN if GIVEN.is_file() else GIVEN / "mnist.npz"


def load(path: Path) -> ImageData:
    return load_images("mnist", path)


def test_every_form_gives_the_same_images(tmp_path: Path) -> None:
    arrays = mnist_arrays()
    file = npz(arrays)
    plain, packed = (idx_form(arrays, compressed=compressed) for compressed in (False, True))
    dotted = {name.replace("-idx", ".idx"): data for name, data in plain.items()}
    (tmp_path / "any.npz").write_bytes(file)
    forms = [
        tmp_path / "any.npz",
        unpacked(tmp_path / "one", {"mnist.npz": file, "README.md": b"about"}),
        unpacked(tmp_path / "two", plain),
        unpacked(tmp_path / "three", packed),
        unpacked(tmp_path / "four", plain | packed),
        unpacked(tmp_path / "five", dotted),
        zipped(tmp_path / "a.zip", {"data/mnist.npz": file}),
        zipped(tmp_path / "b.zip", packed, "MNIST/raw/"),
        tar(tmp_path / "c.tar.gz", plain, "mnist/"),
    ]
    for form in forms:
        data = load(form)
        assert data.train.inputs.shape == (6, 28, 28) and data.train.inputs.dtype == torch.float32
        assert np.array_equal((data.train.inputs * 255).round().numpy(), arrays["x_train"])
        assert np.array_equal((data.test.inputs * 255).round().numpy(), arrays["x_test"])
        assert data.train.targets.tolist() == [0, 1, 2, 3, 4, 5] and data.test.targets.tolist() == [9, 9, 9]
        assert data.shape == (1, 28, 28) and data.classes == tuple("0123456789")
    assert data.about == "mnist: 6 images to train on, 3 to test on, 10 classes, 1 x 28 x 28"


def test_an_array_with_its_columns_first_is_the_same(tmp_path: Path) -> None:
    arrays = mnist_arrays()
    turned = arrays | {"x_train": np.asfortranarray(arrays["x_train"]), "y_train": arrays["y_train"].astype(">i8")}
    (tmp_path / "m.npz").write_bytes(npz(turned))
    data = load(tmp_path / "m.npz")
    assert np.array_equal((data.train.inputs * 255).round().numpy(), arrays["x_train"])
    assert data.train.targets.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.skipif(not REAL.exists(), reason="$P2PMARKET_DATA names no mnist.npz, nor its folder")
def test_the_real_one() -> None:
    data = load_images("mnist", find_images("mnist", GIVEN))
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert data.test.targets.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert float(data.train.inputs.mean()) == pytest.approx(0.1307, abs=1e-4)
    same = load_dataset(f"{REAL}#test", allow_import=False)
    assert torch.equal(same.inputs, data.test.inputs) and torch.equal(same.targets, data.test.targets)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"y_train": np.array([0, 1, 2, 3, 4], np.uint8)}, "6 images and 5 labels"),
        ({"y_train": np.array([0, 1, 2, 3, 4, 10], np.uint8)}, "labels from 0 to 10, expected 0 to 9"),
        ({"y_train": np.array([0, 1, 2, 3, 4, -1], np.int64)}, "labels from -1 to 4"),
        ({"y_train": np.zeros(6, np.float32)}, "float32, expected whole numbers"),
        ({"y_train": np.array([{}] * 6, dtype=object)}, "pickle"),
        ({"y_train": np.zeros((6, 10), np.uint8)}, "2 dimensions, expected 1"),
        ({"x_train": np.zeros((6, 28, 28), np.int32)}, "images of bytes"),
        ({"x_train": np.zeros((6, 784), np.uint8)}, "2 dimensions, expected 3"),
        ({"x_train": np.zeros((6, 32, 32), np.uint8)}, r"shape \(32, 32\), expected MNIST's"),
        ({"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.zeros(0, np.uint8)}, "at least one"),
    ],
)
def test_arrays_that_are_not_mnist(tmp_path: Path, change: dict[str, np.ndarray], told: str) -> None:
    (tmp_path / "m.npz").write_bytes(npz(mnist_arrays() | change))
    with pytest.raises(DataError, match=told):
        load(tmp_path / "m.npz")


def test_what_is_missing_or_twice_is_named(tmp_path: Path) -> None:
    arrays = mnist_arrays()
    del arrays["y_test"]
    (tmp_path / "m.npz").write_bytes(npz(arrays))
    with pytest.raises(DataError, match="lacks MNIST's y_test; expected"):
        load(tmp_path / "m.npz")
    with pytest.raises(DataError, match="lacks MNIST's x_train, y_train, x_test, y_test"):
        load(unpacked(tmp_path / "none", {"notes.txt": b"nothing"}))
    two = {"one.npz": npz(mnist_arrays()), "two.npz": npz(mnist_arrays() | {"y_test": np.zeros(3, np.uint8)})}
    with pytest.raises(DataError, match="holds y_test twice"):
        load(unpacked(tmp_path / "two", two))


def test_files_that_disagree_with_their_headers(tmp_path: Path) -> None:
    arrays = mnist_arrays()
    images = idx(arrays["x_train"])
    for number, broken in enumerate(
        [
            images[:-1],
            images + b"0",
            images[:10],
            b"",
            b"\x00\x00\x0d\x03" + images[4:],
            b"\x00\x00\x08\xff" + b"\x00\x00\x00\x01" * 255 + b"1",
            images[:4] + b"\xff" * 12 + images[16:],
        ]
    ):
        files = idx_form(arrays, compressed=False) | {"train-images-idx3-ubyte": broken}
        with pytest.raises(DataError, match="idx file of labels or images|its header says"):
            load(unpacked(tmp_path / str(number), files))
    files = idx_form(arrays, compressed=True)
    files["train-images-idx3-ubyte.gz"] = gzip.compress(images)[:-20]
    with pytest.raises(DataError, match="not a readable gzip file"):
        load(unpacked(tmp_path / "gz", files))


def test_an_array_whose_header_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    """NumPy itself would ask for the memory first."""
    files = {f"{name}.npy": _npy(array) for name, array in mnist_arrays().items()}
    headers = [files["x_train.npy"].replace(b"(6, 28, 28)", claim) for claim in (b"(6, 28, 99)", b"(-6,28,-28)")]
    for number, array in enumerate(headers):
        with pytest.raises(DataError, match="its header says"):
            load(zipped(tmp_path / f"{number}.npz", files | {"x_train.npy": array}))
    broken = [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x06\x00{'a':(", b"\x93NUMPY\x09\x09" + bytes(64)]
    for number, array in enumerate(broken):
        with pytest.raises(DataError, match="not a readable NumPy array"):
            load(zipped(tmp_path / f"broken-{number}.npz", files | {"x_train.npy": array}))
    assert len(load(zipped(tmp_path / "good.npz", files)).train) == 6


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()
