"""Data files: the forms that are read, and one sentence for each way a file is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from p2pmarket.datasets import Dataset, load_dataset, split, subset_by_class
from p2pmarket.errors import DataError


def _npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


def test_images_are_scaled_and_keep_their_axes(tmp_path: Path) -> None:
    images = np.array([[[0, 255]], [[51, 102]]], dtype=np.uint8)
    source = _npz(tmp_path / "a.npz", inputs=images, targets=np.array([1, 0], dtype=np.uint8))
    dataset = load_dataset(source, allow_import=False)
    assert dataset.inputs.dtype == torch.float32 and dataset.targets.dtype == torch.int64
    torch.testing.assert_close(dataset.inputs, torch.tensor([[[0.0, 1.0]], [[0.2, 0.4]]]))
    assert dataset.targets.tolist() == [1, 0] and len(dataset) == 2


def test_parts_of_a_file(tmp_path: Path) -> None:
    source = _npz(
        tmp_path / "m.npz",
        x_train=np.zeros((3, 2)),
        y_train=np.zeros(3, int),
        x_test=np.ones((1, 2)),
        y_test=np.ones(1, int),
    )
    assert len(load_dataset(source + "#train", allow_import=False)) == 3
    assert load_dataset(source + "#test", allow_import=False).targets.tolist() == [1]
    with pytest.raises(DataError, match="#train or #test"):
        load_dataset(source, allow_import=False)
    with pytest.raises(DataError, match="#train or #test"):
        load_dataset(source + "#valid", allow_import=False)


def test_other_forms(tmp_path: Path) -> None:
    source = _npz(tmp_path / "r.npz", x=np.zeros((2, 3), np.float64), y=np.array([0.5, 1.5], ">f8"))
    regression = load_dataset(source, allow_import=False)
    assert regression.inputs.dtype == regression.targets.dtype == torch.float32
    assert regression.targets.tolist() == [0.5, 1.5]
    save_file({"x": torch.tensor([[1, 2]], dtype=torch.int32), "y": torch.tensor([3])}, tmp_path / "t.safetensors")
    tokens = load_dataset(str(tmp_path / "t.safetensors"), allow_import=False)
    assert tokens.inputs.dtype == torch.int64 and tokens.inputs.tolist() == [[1, 2]]


def test_a_function_of_the_operators_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "market_data_for_tests.py").write_text(
        "import numpy as np\n"
        "def good(): return np.zeros((2, 2), np.uint8), np.zeros(2, int)\n"
        "def bad(): return 7\n"
        "def fails(): raise OSError('gone')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert len(load_dataset("market_data_for_tests:good", allow_import=True)) == 2
    with pytest.raises(DataError, match="own configuration"):
        load_dataset("market_data_for_tests:good", allow_import=False)
    with pytest.raises(DataError, match="returned int"):
        load_dataset("market_data_for_tests:bad", allow_import=True)
    with pytest.raises(DataError, match="gone"):
        load_dataset("market_data_for_tests:fails", allow_import=True)


@pytest.mark.parametrize(
    ("inputs", "targets", "words"),
    [
        (np.zeros((3, 2)), np.zeros(2, int), "same number of samples"),
        (np.zeros((0, 2)), np.zeros(0, int), "no samples"),
        (np.array([[np.nan]]), np.zeros(1, int), "NaN"),
        (np.array([[np.inf]]), np.zeros(1, int), "NaN or infinite"),
        (np.array([[None]], dtype=object), np.zeros(1, int), "pickle"),
        (np.array(["a"]), np.zeros(1, int), "expected numbers"),
        (np.array(1.0), np.zeros(1, int), "same number of samples"),
        (np.array([1j]), np.zeros(1, int), "expected numbers"),
    ],
)
def test_wrong_contents(tmp_path: Path, inputs: np.ndarray, targets: np.ndarray, words: str) -> None:
    source = _npz(tmp_path / "w.npz", inputs=inputs, targets=targets)
    with pytest.raises(DataError, match=words):
        load_dataset(source, allow_import=False)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found weights; expected"):
        load_dataset(_npz_other(tmp_path / "k.npz"), allow_import=False)
    with pytest.raises(DataError, match="does not exist"):
        load_dataset(str(tmp_path / "none.npz"), allow_import=False)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(DataError, match="is a directory"):
        load_dataset(str(tmp_path / "folder.npz"), allow_import=False)
    for name in ("junk.npz", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not one")
        with pytest.raises(DataError, match="not a readable"):
            load_dataset(str(tmp_path / name), allow_import=False)
    with pytest.raises(DataError, match="expected a file ending in"):
        load_dataset("data.csv", allow_import=True)


def _npz_other(path: Path) -> str:
    return _npz(path, weights=np.zeros(1))


@pytest.fixture
def dataset() -> Dataset:
    return Dataset(torch.arange(1000.0)[:, None], torch.arange(1000) % 10)


def test_split_is_disjoint_and_seeded(dataset: Dataset) -> None:
    first, second = split(dataset, (0.5, 0.3), seed=1)
    assert (len(first), len(second)) == (500, 300)
    assert not set(first.inputs.flatten().tolist()) & set(second.inputs.flatten().tolist())
    assert torch.equal(split(dataset, (0.5, 0.3), seed=1)[1].inputs, second.inputs)
    assert not torch.equal(split(dataset, (0.5, 0.3), seed=2)[1].inputs, second.inputs)


@pytest.mark.parametrize("fractions", [(), (0.6, 0.6), (0.5, 0.0), (-0.1,), (1e-6,)])
def test_split_refuses(dataset: Dataset, fractions: tuple[float, ...]) -> None:
    with pytest.raises(DataError):
        split(dataset, fractions, seed=1)


def test_the_papers_endowment(dataset: Dataset) -> None:
    subset = subset_by_class(dataset, {label: 0.1 for label in range(5)}, seed=4)
    counts = torch.bincount(subset.targets).tolist()
    assert counts == [10] * 5 + [100] * 5
    assert torch.equal(subset.inputs.flatten().long() % 10, subset.targets)
    assert torch.equal(subset.inputs, subset_by_class(dataset, {label: 0.1 for label in range(5)}, seed=4).inputs)


def test_subset_refuses(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        subset_by_class(dataset, {1: 1.5}, seed=1)
    with pytest.raises(DataError, match="no samples"):
        subset_by_class(dataset, {label: 0.0 for label in range(10)}, seed=1)
    with pytest.raises(DataError, match="one integer a sample"):
        subset_by_class(Dataset(dataset.inputs, dataset.inputs), {1: 0.5}, seed=1)


def test_a_file_without_the_part_that_was_asked_for_says_which_arrays_parts_need(tmp_path):
    path = tmp_path / "whole.npz"
    np.savez(path, inputs=np.zeros((4, 2)), targets=np.zeros(4))
    with pytest.raises(DataError, match="found inputs, targets; .* needs arrays x_train, y_train, x_test, y_test$"):
        load_dataset(f"{path}#train", allow_import=False)
