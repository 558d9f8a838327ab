"""Tiny data sets in the real files' formats, written byte by byte where the format is the point."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def pixels(count: int, seed: int = 0) -> np.ndarray:
    """(count, 3072) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def python2_batch(images: np.ndarray, labels: Sequence[int], name: bytes = b"training batch 1 of 5") -> bytes:
    """A batch as Python 2's cPickle wrote it with protocol 2, as in cifar-10-python.tar.gz."""
    count = len(images)
    rows = b"M" + count.to_bytes(2, "little") if count > 255 else b"K" + bytes([count])
    raw = images.tobytes()
    return b"".join(
        [
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U" + bytes([len(name)]) + name + b"q\x03",
            b"U\x06labelsq\x04]q\x05(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e",
            b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01bq\n\x87q\x0bRq\x0c",
            b"(K\x01" + rows + b"M\x00\x0c\x86q\r",
            b"cnumpy\ndtype\nq\x0eU\x02u1q\x0fK\x00K\x01\x87q\x10Rq\x11(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b",
            b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"q\x14tq\x15b",
            b"U\tfilenamesq\x16]q\x17(" + b"U\x05a.pngr\x18\x01\x00\x00" + b"h\x16" * (count - 1) + b"eu.",
        ]
    )


def python2_batch_as_text(images: np.ndarray, labels: Sequence[int]) -> bytes:
    """The same with protocol 0, whose arguments are lines."""
    quoted = repr(images.tobytes())[1:].encode("ascii")
    return b"".join(
        [
            b"(dp1\nS'data'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntp5\nS'b'\np6\ntp7\nRp8\n",
            b"(I1\n(I%d\nI3072\ntp9\n" % len(images),
            b"cnumpy\ndtype\np10\n(S'u1'\np11\nI0\nI1\ntp12\nRp13\n(I3\nS'|'\np14\nNNNI-1\nI-1\nI0\ntp15\nb",
            b"I00\nS" + quoted + b"\np16\ntp17\nbsS'labels'\np18\n(lp19\n",
            b"".join(b"I%d\na" % label for label in labels),
            b"sV\\u0062atch_label\np20\nL7L\nsg18\ng19\ns.",
        ]
    )


def python_form(
    write: Callable[[np.ndarray, Sequence[int]], bytes] = python2_batch, count: int = 4
) -> dict[str, bytes]:
    """The six batches by name; images of batch k have seed k, labels are k, k + 1 ... modulo ten."""
    return {name: write(pixels(count, k), [(k + i) % 10 for i in range(count)]) for k, name in enumerate(BATCHES)}


def binary_form(count: int = 4) -> dict[str, bytes]:
    """The same data as `python_form`, as records of a label and 3,072 bytes."""
    return {
        f"{name}.bin": b"".join(bytes([(k + i) % 10]) + row.tobytes() for i, row in enumerate(pixels(count, k)))
        for k, name in enumerate(BATCHES)
    }


def tar(path: Path, files: Mapping[str, bytes], folder: str = "", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def zipped(path: Path, files: Mapping[str, bytes], folder: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(folder + name, data)
    return path


def unpacked(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def mnist_arrays(train: int = 6, test: int = 3) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    return {
        "x_train": generator.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        "y_train": (np.arange(train) % 10).astype(np.uint8),
        "x_test": generator.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        "y_test": np.full(test, 9, np.uint8),
    }


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def idx_form(arrays: Mapping[str, np.ndarray], *, compressed: bool) -> dict[str, bytes]:
    names = {
        "train-images-idx3-ubyte": "x_train",
        "train-labels-idx1-ubyte": "y_train",
        "t10k-images-idx3-ubyte": "x_test",
        "t10k-labels-idx1-ubyte": "y_test",
    }
    if compressed:
        return {f"{name}.gz": gzip.compress(idx(arrays[key])) for name, key in names.items()}
    return {name: idx(arrays[key]) for name, key in names.items()}


def jpeg(colour: tuple[int, ...] | int = (200, 30, 60), side: int | tuple[int, int] = 64) -> bytes:
    """One JPEG of one colour; grey where `colour` is a number."""
    from PIL import Image

    size = (side, side) if isinstance(side, int) else side
    file = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(file, "JPEG", quality=95)
    return file.getvalue()


def tiny_form() -> dict[str, bytes]:
    """TinyImageNet with two classes of two images, and three test images: red, grey, red."""
    red, grey = jpeg(), jpeg(80)
    return {
        "wnids.txt": b"n02\nn01\n",
        "train/n02/images/n02_0.JPEG": red,
        "train/n02/images/n02_1.JPEG": red,
        "train/n02/n02_boxes.txt": b"n02_0.JPEG\t0\t0\t63\t63\n",
        "train/n01/images/n01_0.JPEG": grey,
        "train/n01/images/n01_1.JPEG": grey,
        "val/images/val_0.JPEG": red,
        "val/images/val_1.JPEG": grey,
        "val/images/val_2.JPEG": red,
        "val/val_annotations.txt": b"val_0.JPEG\tn02\t0\t0\t63\t63\nval_1.JPEG\tn01\t0\t0\t63\t63\n"
        b"val_2.JPEG\tn02\t0\t0\t63\t63\n",
        "test/images/test_0.JPEG": b"never read",
    }
