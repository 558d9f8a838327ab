"""CIFAR-10 in its Python and binary forms, packed and unpacked; and what is not CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import (
    BATCHES,
    binary_form,
    pixels,
    python2_batch,
    python2_batch_as_text,
    python_form,
    tar,
    unpacked,
)

from p2pmarket.datasets import ImageData, load_images
from p2pmarket.errors import DataError


def load(path: Path) -> ImageData:
    return load_images("cifar10", path)


def test_every_form_gives_the_same_images(tmp_path: Path) -> None:
    text = python_form(python2_batch_as_text)
    forms = [
        tar(tmp_path / "cifar-10-python.tar.gz", python_form() | {"batches.meta": b"."}, "cifar-10-batches-py/"),
        tar(tmp_path / "text.tar.gz", text),
        unpacked(tmp_path / "cifar-10-batches-py", python_form() | {"readme.html": b"<html>"}),
        tar(tmp_path / "cifar-10-binary.tar.gz", binary_form() | {"batches.meta.txt": b"cat"}, "cifar-10-batches-bin/"),
        unpacked(tmp_path / "cifar-10-batches-bin", binary_form()),
        tar(tmp_path / "turned.tar", dict(reversed(binary_form().items())), mode="w"),
        unpacked(tmp_path / "both", binary_form() | python_form()),
    ]
    whole = np.concatenate([pixels(4, seed) for seed in range(5)])
    for form in forms:
        data = load(form)
        assert data.train.inputs.shape == (20, 3, 32, 32) and data.test.inputs.shape == (4, 3, 32, 32)
        assert data.train.inputs.dtype == torch.float32 and 0 <= data.train.inputs.min() < data.train.inputs.max() <= 1
        assert np.array_equal((data.train.inputs * 255).round().numpy().reshape(20, 3072), whole)
        assert data.train.targets.tolist()[:8] == [0, 1, 2, 3, 1, 2, 3, 4]
        assert data.test.targets.tolist() == [5, 6, 7, 8] and data.test.targets.dtype == torch.int64
        assert data.shape == (3, 32, 32) and data.classes[0] == "airplane" and data.classes[9] == "truck"


def test_channels_and_rows_are_where_they_belong(tmp_path: Path) -> None:
    image = np.zeros((1, 3072), np.uint8)
    image[0, 1024 + 3 * 32 + 7] = 255  # green, fourth row, eighth pixel
    form = {name: python2_batch(image, [0]) for name in BATCHES}
    assert load(unpacked(tmp_path, form)).test.inputs.nonzero().tolist() == [[0, 1, 3, 7]]


def test_a_malicious_batch_in_a_real_archive_is_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    attack = b"\x80\x02cos\nsystem\nU" + bytes([len(f"touch {touched}")]) + f"touch {touched}".encode() + b"\x85R."
    path = tar(tmp_path / "cifar-10-python.tar.gz", python_form() | {"data_batch_3": attack}, "cifar-10-batches-py/")
    with pytest.raises(DataError, match=r"data_batch_3 is a pickle with the name os\.system"):
        load(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        (python2_batch(pixels(4), [1, 2, 3]), "3 labels and data of shape"),
        (python2_batch(pixels(4), [1, 2, 3, 10]), "labels that are not whole numbers from 0 to 9"),
        (python2_batch(pixels(4), [1, 2, 3, 4]).replace(b"K\x04e", b"\x88e"), "labels that are not whole numbers"),
        (python2_batch(pixels(4), [1, 2, 3, 4]).replace(b"K\x04e", b"Ne"), "labels that are not whole numbers"),
        (python2_batch(pixels(4), [1, 2, 3, 4]).replace(b"U\x06labels", b"U\x0bfine_labels"), "found .*fine_labels"),
        (python2_batch(pixels(4), [1, 2, 3, 4]).replace(b"U\x04data", b"U\x04date"), "expected the array 'data'"),
        (python2_batch(pixels(4), [1, 2, 3, 4]).replace(b"K\x04M\x00\x0c\x86", b"M\x00\x0cK\x04\x86"), "shape"),
        (python2_batch(pixels(3), [1, 2, 3]), "unlike length .*3 in data_batch_2"),
        (python2_batch(pixels(4), [1, 2, 3, 4])[:-600], "ends too early"),
        (b"(d.", "found nothing"),
        (b"", "ends too early"),
    ],
)
def test_a_batch_that_is_wrong(tmp_path: Path, batch: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        load(unpacked(tmp_path, python_form() | {"data_batch_2": batch}))


def test_binary_batches_that_are_wrong(tmp_path: Path) -> None:
    good = binary_form()
    label = bytes([10]) + good["data_batch_4.bin"][1:]
    for number, (broken, told) in enumerate(
        [
            (good["data_batch_4.bin"][:-1], "not a multiple of 3073"),
            (good["data_batch_4.bin"][:-3073], "unlike length .*3 in data_batch_4.bin"),
            (b"", "0 bytes"),
            (label, "labels from 0 to 10, expected 0 to 9"),
        ]
    ):
        with pytest.raises(DataError, match=told):
            load(unpacked(tmp_path / str(number), good | {"data_batch_4.bin": broken}))


def test_no_images_at_all(tmp_path: Path) -> None:
    empty = {
        name: python2_batch(pixels(1), []).replace(b"K\x01M\x00\x0c\x86", b"K\x00M\x00\x0c\x86") for name in BATCHES
    }
    empty = {name: data.replace(b"T\x00\x0c\x00\x00" + pixels(1).tobytes(), b"U\x00") for name, data in empty.items()}
    with pytest.raises(DataError, match="at least one"):
        load(unpacked(tmp_path, empty))


def test_what_is_missing_or_twice_is_named(tmp_path: Path) -> None:
    form = python_form()
    del form["data_batch_5"]
    with pytest.raises(DataError, match=r"lacks CIFAR-10's data_batch_5; expected cifar-10-python\.tar\.gz"):
        load(unpacked(tmp_path / "a", form))
    with pytest.raises(DataError, match="lacks CIFAR-10's data_batch_1"):
        load(tar(tmp_path / "other.tar.gz", {"cifar-100-python/train": b"(d."}))
    twice = {f"a/{name}": data for name, data in form.items()} | {f"b/{name}": data for name, data in form.items()}
    with pytest.raises(DataError, match="holds data_batch_1 twice"):
        load(unpacked(tmp_path / "b", twice))
    whole = tar(tmp_path / "cut.tar.gz", python_form()).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a readable tar archive"):
        load(tmp_path / "cut.tar.gz")
