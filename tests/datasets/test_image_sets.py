"""Image data sets by name, and what turns one into another: other classes, standardised channels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from image_files import binary_form, idx_form, mnist_arrays, npz, python_form, tiny_form, unpacked

from p2pmarket.datasets import IMAGE_SETS, Dataset, ImageData, find_images, load_images, relabelled, standardised
from p2pmarket.errors import DataError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that has no data, and nothing in the environment."""
    monkeypatch.delenv("P2PMARKET_DATA", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_usual_names_are_found(elsewhere: Path) -> None:
    names = (
        *("mnist.npz", "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "tiny-imagenet-200.zip"),
        *("cifar-10-batches-py/x", "cifar-10-batches-bin/x", "tiny-imagenet-200/x", "MNIST/raw/x"),
    )
    for number, name in enumerate(names):
        folder = unpacked(elsewhere / str(number), {name: b"", "other": b""})
        kind = "mnist" if "mnist" in name.lower() else "cifar10" if "cifar" in name else "tinyimagenet"
        assert find_images(kind, folder) == folder / name.removesuffix("/x")
        other = "cifar10" if kind == "mnist" else "mnist"
        with pytest.raises(DataError, match=other):
            find_images(other, folder)


def test_a_file_or_the_data_sets_own_folder_is_taken_as_it_is(elsewhere: Path) -> None:
    folder = unpacked(elsewhere / "a", {"strange-name": b""})
    assert find_images("mnist", folder / "strange-name") == folder / "strange-name"
    pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    own = {
        "mnist": idx_form(mnist_arrays(), compressed=True),
        "cifar10": binary_form(1) | python_form(count=1),
        "tinyimagenet": tiny_form(),
    }
    for name, files in own.items():
        folder = unpacked(elsewhere / name, files)
        assert find_images(name, folder) == folder
        if name != "tinyimagenet":
            assert load_images(name, find_images(name, folder)).name == name


def test_without_a_path_the_environment_comes_first_and_then_the_folder_data(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked(elsewhere, {"data/mnist.npz": b"", "work/data/tiny-imagenet-200.zip": b"", "env/mnist.npz": b""})
    with pytest.raises(DataError, match="in data; get "):
        find_images("mnist")  # the folder above is nobody's to look into
    assert find_images("tinyimagenet") == Path("data/tiny-imagenet-200.zip")
    monkeypatch.setenv("P2PMARKET_DATA", str(elsewhere / "env"))
    assert find_images("mnist") == elsewhere / "env" / "mnist.npz"
    with pytest.raises(DataError, match=f"in {elsewhere / 'env'};"):
        find_images("tinyimagenet")
    assert find_images("mnist", elsewhere / "data").parent.name == "data"


@pytest.mark.parametrize(
    ("name", "get"),
    [
        (
            "mnist",
            "get mnist.npz as Keras distributes it (storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz)",
        ),
        ("mnist", "or the four idx files of yann.lecun.com/exdb/mnist, such as train-images-idx3-ubyte.gz"),
        ("cifar10", "get cifar-10-python.tar.gz, or cifar-10-binary.tar.gz, from cs.toronto.edu/~kriz/cifar.html"),
        ("tinyimagenet", "get tiny-imagenet-200.zip from cs231n.stanford.edu/tiny-imagenet-200.zip"),
    ],
)
def test_what_is_not_there_is_told_with_where_to_get_it(name: str, get: str) -> None:
    for data in (None, Path("no/such/folder")):
        with pytest.raises(DataError) as told:
            find_images(name, data)
        sentence = str(told.value)
        assert get in sentence and f"{name} is not here: looked for " in sentence
        assert f" in {'no/such/folder' if data else 'data'}; get " in sentence
        assert "--data or $P2PMARKET_DATA, or put it into the folder data" in sentence


def test_an_unknown_name_is_told() -> None:
    for ask in (lambda: find_images("imagenet"), lambda: load_images("imagenet", Path())):
        with pytest.raises(
            DataError, match="'imagenet' is not a known data set .* mnist, cifar10, tinyimagenet, digits"
        ):
            ask()


def test_digits_need_no_file_and_are_always_the_same() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    assert IMAGE_SETS[-1] == "digits"
    data = load_images("digits", find_images("digits"))
    assert (len(data.train), len(data.test), data.shape) == (1348, 449, (1, 8, 8))
    assert data.train.inputs.shape[1:] == (8, 8) and float(data.train.inputs.max()) == 1.0
    assert set(data.test.targets.tolist()) == set(range(10))
    again = load_images("digits", Path(), size=8)
    assert torch.equal(again.test.inputs, data.test.inputs)
    both = torch.cat([data.train.inputs, data.test.inputs]).flatten(1)
    assert len({tuple(image.tolist()) for image in both}) == len(both), "no image is in both parts"


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'p2pmarket\[research\]'"):
        load_images("digits", Path())


def test_only_tiny_imagenet_is_resized(elsewhere: Path) -> None:
    (elsewhere / "m.npz").write_bytes(npz(mnist_arrays()))
    assert load_images("mnist", elsewhere / "m.npz", size=28).shape == (1, 28, 28)
    with pytest.raises(DataError, match="mnist has images of 28 x 28; only tinyimagenet is resized"):
        load_images("mnist", elsewhere / "m.npz", size=32)


def test_the_optional_libraries_are_not_imported_before_they_are_needed() -> None:
    code = "import sys, p2pmarket.datasets; print({'PIL', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def colours() -> ImageData:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(10, 3, 4, 4, generator=generator)
    part = Dataset(inputs, torch.zeros(10, dtype=torch.int64))
    return ImageData("colours", part, part.take(torch.arange(3)), ("a",), (3, 4, 4), "colours")


def test_standardised_channels_have_mean_zero_and_deviation_one() -> None:
    data = colours()
    before = data.train.inputs.clone()
    mean, deviation = before.mean((0, 2, 3)).tolist(), before.std((0, 2, 3)).tolist()
    done = standardised(data, mean, deviation)
    assert torch.allclose(done.train.inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(done.train.inputs.std((0, 2, 3)), torch.ones(3), atol=1e-5)
    assert torch.equal(done.test.inputs, done.train.inputs[:3]) and done.about == "colours, standardised"
    assert torch.equal(data.train.inputs, before), "the data given are left as they were"


def test_standardised_grey_images() -> None:
    part = Dataset(torch.full((2, 5, 4), 0.75), torch.zeros(2, dtype=torch.int64))
    done = standardised(ImageData("grey", part, part, ("a",), (1, 5, 4), "grey"), [0.25], [0.5])
    assert torch.equal(done.test.inputs, torch.ones(2, 5, 4))


@pytest.mark.parametrize(
    ("mean", "deviation", "told"),
    [
        ([0.5], [0.5], "3 channels"),
        ([0.5] * 3, [0.5] * 2, "3 channels"),
        ([0.5] * 3, [0.5, 0.5, 0], "deviations positive"),
        ([0.5] * 3, [0.5, 0.5, float("nan")], "deviations positive"),
        ([0.5, float("inf"), 0], [0.5] * 3, "finite"),
    ],
)
def test_means_and_deviations_that_make_no_sense(mean: list[float], deviation: list[float], told: str) -> None:
    with pytest.raises(DataError, match=told):
        standardised(colours(), mean, deviation)


def labelled(*labels: int) -> Dataset:
    return Dataset(torch.arange(len(labels), dtype=torch.float32).reshape(-1, 1), torch.tensor(labels))


def test_relabelled_makes_another_task_of_the_same_inputs() -> None:
    parity = relabelled(labelled(*range(10)), [(0, 2, 4, 6, 8), (1, 3, 5, 7, 9)])
    assert parity.targets.tolist() == [0, 1] * 5 and len(parity) == 10
    some = relabelled(labelled(3, 9, 7, 3, 0, 1), [(7,), (3, 0)])
    assert some.targets.tolist() == [1, 0, 1, 1] and some.targets.dtype == torch.int64
    assert some.inputs.flatten().tolist() == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        ([], "a class each"),
        ([(1,), ()], "a class each"),
        ([(1, 2), (2, 3)], "no class may be in two"),
        ([(1, 1)], "no class may be in two"),
        ([(5,), (-1,)], r"no sample has a class of \[-1, 5\]"),
    ],
)
def test_groups_that_make_no_task(groups: list[tuple[int, ...]], told: str) -> None:
    with pytest.raises(DataError, match=told):
        relabelled(labelled(0, 1, 2, 3), groups)


def test_only_classes_are_relabelled() -> None:
    with pytest.raises(DataError, match="one integer a sample"):
        relabelled(Dataset(torch.zeros(2, 1), torch.zeros(2)), [(0,)])
