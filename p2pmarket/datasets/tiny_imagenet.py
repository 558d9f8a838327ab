"""TinyImageNet (Stanford CS231n; 64 x 64 colour images of 200 classes) from its .zip or the folder it unpacks to.

Knows: train/<class>/images/*.JPEG, and val/images with val/val_annotations.txt, which is what people test on, as the
test images come without labels. Decodes one image at a time, each bounded. Refuses to know: other image formats.
Fails with DataError: a missing Pillow, an image that is damaged, too large or without a class.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np

from p2pmarket.datasets import bounds
from p2pmarket.datasets.archives import Member, members
from p2pmarket.datasets.images import ImageData, image_data
from p2pmarket.errors import DataError

_TRAIN = re.compile(r"(?:^|/)train/([^/]+)/images/([^/.][^/]*\.jpe?g)$", re.IGNORECASE)
_TEST = re.compile(r"(?:^|/)val/images/([^/.][^/]*\.jpe?g)$", re.IGNORECASE)
_LABELS = "val/val_annotations.txt"


def load_tiny_imagenet(source: Path, size: int | None) -> ImageData:
    """TinyImageNet from `source`: tiny-imagenet-200.zip or the folder tiny-imagenet-200.

    Classes have their WordNet names, sorted. The whole takes about a minute to decode.

    :param size: side in pixels to which images are resized (bilinear, with antialiasing); None: as they are
    :raises DataError: see the module's first paragraph
    """
    if size is not None and not 1 <= size <= bounds.MAX_IMAGE_SIDE:
        raise DataError(f"cannot resize images to {size} pixels; give 1 to {bounds.MAX_IMAGE_SIDE}")
    if source.is_file() and not zipfile.is_zipfile(source):
        raise DataError(f"{source} is not a whole zip archive; expected tiny-imagenet-200.zip; fetch it anew")
    with members(source) as files:
        train, test, labels = _sorted_out(files, source)
        classes = sorted({name for name, _ in train})
        if not train or not test or labels is None or not 2 <= len(classes) <= bounds.MAX_CLASSES:
            raise DataError(
                f"{source} is not TinyImageNet: found {len(train)} training images of {len(classes)} classes, "
                f"{len(test)} test images and {'the' if labels else 'no'} {_LABELS}; expected tiny-imagenet-200.zip "
                "or the folder that it unpacks to"
            )
        places = {name: place for place, name in enumerate(classes)}
        answers = _labels(_checked(labels), places, test, source)
        training = [train[key] for key in sorted(train)]
        with _decoding() as pillow:
            images = [
                _decoded(pillow, part, size, source) for part in (training, [test[name] for name in sorted(test)])
            ]
    return image_data(
        "tinyimagenet",
        (images[0], np.array([places[name] for name, _ in sorted(train)])),
        (images[1], np.array([answers[name] for name in sorted(test)])),
        classes,
    )


def _sorted_out(
    files: Iterable[Member], source: Path
) -> tuple[dict[tuple[str, str], Member], dict[str, Member], Member | None]:
    """Training images by class and name, test images by name, and the test images' labels."""
    train: dict[tuple[str, str], Member] = {}
    test: dict[str, Member] = {}
    labels: list[Member] = []
    for file in files:
        if found := _TRAIN.search(file.name):
            fresh = train.setdefault((found[1], found[2]), file) is file
        elif found := _TEST.search(file.name):
            fresh = test.setdefault(found[1], file) is file
        elif file.name == _LABELS or file.name.endswith(f"/{_LABELS}"):
            labels.append(file)
            fresh = len(labels) == 1
        else:
            continue
        if not fresh:
            raise DataError(f"{source} holds {file.base!r} twice; give one data set alone")
        if len(train) + len(test) > bounds.MAX_IMAGES:
            raise DataError(f"{source} holds more than {bounds.MAX_IMAGES:,} images; TinyImageNet has 110,000")
    return train, test, labels[0] if labels else None


def _checked(file: Member) -> str:
    data = file.read()
    if len(data) > bounds.MAX_TEXT_BYTES:
        raise DataError(f"{file.name} has {len(data):,} bytes, more than the {bounds.MAX_TEXT_BYTES:,} of such a list")
    return data.decode("utf-8", errors="replace")


def _labels(text: str, places: Mapping[str, int], test: Mapping[str, Member], source: Path) -> dict[str, int]:
    """Each test image's class: lines of its name, the class's name and a box, with tabs between."""
    answers: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        label = rest.partition("\t")[0].strip()
        if label not in places:
            raise DataError(f"{source}: line {number} of {_LABELS} names {label[:64]!r}, which is no class in train/")
        if answers.setdefault(name, places[label]) != places[label]:
            raise DataError(f"{source}: {_LABELS} gives {name[:64]!r} two classes; fetch it anew")
    if answers.keys() != test.keys():
        raise DataError(
            f"{source}: {len(test)} test images, but {_LABELS} names {len(answers)} or others; fetch it anew"
        )
    return answers


@contextlib.contextmanager
def _decoding() -> Iterator[ModuleType]:
    """Pillow's Image, which refuses inside what it would only warn of."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError("TinyImageNet's images are JPEG files: pip install 'p2pmarket[research]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield Image


def _decoded(pillow: ModuleType, files: list[Member], size: int | None, source: Path) -> np.ndarray:
    """Images (N, 3, H, W) uint8."""
    images: np.ndarray | None = None
    for place, file in enumerate(files):
        image = _one(pillow, file, size, f"{source}: {file.name}")
        if images is None:
            images = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise DataError(f"{source}: {file.name} has another size than the images before; give a size for all")
        images[place] = image
    assert images is not None, "there is an image"
    return images


def _one(pillow: ModuleType, file: Member, size: int | None, where: str) -> np.ndarray:
    """One image (3, H, W); grey ones get three equal channels."""
    data = file.read()
    if len(data) > bounds.MAX_IMAGE_BYTES:
        raise DataError(f"{where} has {len(data):,} bytes, more than the {bounds.MAX_IMAGE_BYTES:,} of such an image")
    try:
        with pillow.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if max(image.size) > bounds.MAX_IMAGE_SIDE:
                raise DataError(f"{where} has a side above {bounds.MAX_IMAGE_SIDE} pixels; it is not decoded")
            colours = image.convert("RGB")
            if size is not None and colours.size != (size, size):
                colours = colours.resize((size, size), pillow.BILINEAR)
            pixels: np.ndarray = np.asarray(colours)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombWarning, pillow.DecompressionBombError) as reason:
        raise DataError(f"{where} is not a readable JPEG image ({type(reason).__name__}); fetch it anew") from None
    return np.moveaxis(pixels, 2, 0)
