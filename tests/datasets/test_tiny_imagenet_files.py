"""TinyImageNet from its archive and folder; images are decoded one at a time, and only so large."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import pytest
import torch
from image_files import jpeg, tar, tiny_form, unpacked, zipped

from p2pmarket.datasets import ImageData, bounds, load_images
from p2pmarket.errors import DataError

image_format = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def load(path: Path, size: int | None = None) -> ImageData:
    return load_images("tinyimagenet", path, size=size)


def test_archive_and_folder_give_the_same_images(tmp_path: Path) -> None:
    macos = {"__MACOSX/tiny-imagenet-200/train/n01/images/._n01_0.JPEG": b"resource fork"}
    forms = [
        zipped(tmp_path / "tiny-imagenet-200.zip", tiny_form(), "tiny-imagenet-200/"),
        zipped(tmp_path / "bare.zip", tiny_form() | macos),
        unpacked(tmp_path / "tiny-imagenet-200", tiny_form()),
    ]
    for form in forms:
        data = load(form, 32)
        assert data.shape == (3, 32, 32) and data.classes == ("n01", "n02")
        assert data.train.targets.tolist() == [0, 0, 1, 1] and data.test.targets.tolist() == [1, 0, 1]
        grey, red = data.train.inputs[0], data.train.inputs[3]
        assert (grey - 80 / 255).abs().max() < 0.02
        assert (red.mean(dim=(1, 2)) - torch.tensor([200, 30, 60]) / 255).abs().max() < 0.02
    assert load(forms[0]).shape == (3, 64, 64)
    assert load(forms[0]).about == "tinyimagenet: 4 images to train on, 3 to test on, 2 classes, 3 x 64 x 64"


def test_resizing_averages(tmp_path: Path) -> None:
    """A fine chessboard becomes grey, where picking single pixels would leave it black or white."""
    board = image_format.new("L", (64, 64))
    board.putdata([255 * ((x + y) % 2) for y in range(64) for x in range(64)])
    file = io.BytesIO()
    board.save(file, "JPEG", quality=95)
    data = load(unpacked(tmp_path, tiny_form() | {"val/images/val_0.JPEG": file.getvalue()}), 16)
    assert (data.test.inputs[0, :, 2:-2, 2:-2] - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (jpeg()[:-40], "train/n02/images/n02_1.JPEG is not a readable JPEG image"),
        (b"", "not a readable JPEG"),
        (b"GIF89a" + bytes(60), "not a readable JPEG"),
        (jpeg(side=(2049, 8)), "side above 2048"),
        (jpeg(side=63), "another size"),
    ],
)
def test_an_image_that_is_wrong(tmp_path: Path, image: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        load(unpacked(tmp_path, tiny_form() | {"train/n02/images/n02_1.JPEG": image}))


def test_another_format_in_disguise_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    image_format.new("RGB", (64, 64)).save(file, "PNG")
    with pytest.raises(DataError, match="not a readable JPEG"):
        load(unpacked(tmp_path, tiny_form() | {"val/images/val_0.JPEG": file.getvalue()}))


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    bomb = bytearray(jpeg())
    at = bomb.index(b"\xff\xc0") + 5
    bomb[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(DataError, match=r"not a readable JPEG image \(DecompressionBomb(Error|Warning)\)"):
        load(unpacked(tmp_path / "error", tiny_form() | {"val/images/val_0.JPEG": bytes(bomb)}), 32)
    bomb[at : at + 4] = struct.pack(">HH", 10_000, 10_000)
    with pytest.raises(DataError, match=r"DecompressionBombWarning"):
        load(unpacked(tmp_path / "warning", tiny_form() | {"val/images/val_0.JPEG": bytes(bomb)}), 32)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("val/val_annotations.txt", b"val_0.JPEG\tn02\nval_1.JPEG\tn01\n", "3 test images, but .* names 2"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn02\nval_1.JPEG\tn01\nval_9.JPEG\tn01\n", "names 3 or others"),
        (
            "val/val_annotations.txt",
            b"val_0.JPEG\tn02\nval_1.JPEG\tn03\n",
            "line 2 of .* names 'n03', which is no class",
        ),
        ("val/val_annotations.txt", b"val_0.JPEG n02\n", "line 1 of .* names ''"),
        ("val/val_annotations.txt", b"val_0.JPEG\tn02\nval_0.JPEG\tn01\n", "two classes"),
        ("val/val_annotations.txt", b"\xff\xfe\x00", "which is no class"),
        ("train/n03/images/extra.JPEG", b"no image", "extra.JPEG is not a readable JPEG"),
    ],
)
def test_labels_that_do_not_fit(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        load(unpacked(tmp_path, tiny_form() | {name: content}))


def test_what_is_not_tiny_imagenet(tmp_path: Path) -> None:
    def without(start: str) -> dict[str, bytes]:
        return {name: data for name, data in tiny_form().items() if not name.startswith(start)}

    for number, start in enumerate(("train/", "train/n01", "val/images", "val/val_annotations")):
        with pytest.raises(DataError, match="is not TinyImageNet: found"):
            load(unpacked(tmp_path / str(number), without(start)))
    twice = {f"{folder}/{name}": data for name, data in tiny_form().items() for folder in "ab"}
    with pytest.raises(DataError, match="twice"):
        load(unpacked(tmp_path / "twice", twice))
    with pytest.raises(DataError, match="not a whole zip archive"):
        load(tar(tmp_path / "tiny.tar.gz", tiny_form()))
    cut = zipped(tmp_path / "cut.zip", tiny_form())
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(DataError, match="not a whole zip archive"):
        load(cut)


def test_sizes_and_counts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpacked(tmp_path, tiny_form())
    for bound, value, told in (
        ("MAX_IMAGES", 6, "more than 6 images"),
        ("MAX_IMAGE_BYTES", 100, "more than the 100"),
        ("MAX_CLASSES", 1, "of 2 classes"),
        ("MAX_TEXT_BYTES", 50, "more than the 50"),
        ("MAX_IMAGE_SIDE", 60, "side above 60"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(bounds, bound, value)
            with pytest.raises(DataError, match=told):
                load(folder)
    for size in (0, -1, 2049):
        with pytest.raises(DataError, match=f"resize images to {size} pixels"):
            load(folder, size)


def test_without_pillow_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpacked(tmp_path, tiny_form())
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'p2pmarket\[research\]'"):
        load(folder)
