"""Data files -> tensors, with one clear sentence for everything a data file can get wrong.

Knows: .npz (never with pickle), .safetensors, and functions from the operator's own configuration.
Refuses to know: models, and where a split is used. Fails with DataError: what was found, what was expected.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from p2pmarket.errors import DataError
from p2pmarket.plugins import load_plugin

_PAIRS = (("inputs", "targets"), ("x", "y"))
_PARTS = ("train", "test")
_EXPECTED = "arrays 'inputs' and 'targets' (or x and y, or x_train, y_train, x_test, y_test with #train or #test)"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Samples and what is to be predicted for each, on the CPU."""

    inputs: Tensor
    """(N, ...) float32, or int64 for tokens."""
    targets: Tensor
    """(N, ...) int64 for classes, float32 for numbers."""

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    def take(self, indices: Tensor) -> Dataset:
        """The samples at `indices` (int64, 1-D), in that order."""
        return Dataset(self.inputs[indices], self.targets[indices])


def load_dataset(source: str, *, allow_import: bool) -> Dataset:
    """The dataset called `source`: "file.npz", "file.npz#test", "file.safetensors" or "package.module:function".

    uint8 inputs are taken for images and scaled to [0, 1]; their axes stay as they are.

    :raises DataError: see the module's first paragraph
    """
    path_text, _, part = source.partition("#")
    if part not in ("", *_PARTS):
        raise DataError(f"{source}: '#{part}' is not a part of a data file; write #train or #test")
    path = Path(path_text).expanduser()
    if path.suffix == ".npz":
        return _select(_read_npz(path), part, source)
    if path.suffix == ".safetensors":
        return _select(_read_safetensors(path), part, source)
    if ":" in source:
        return _from_function(source, allow_import)
    raise DataError(f"{source}: expected a file ending in .npz or .safetensors, or package.module:function")


def split(dataset: Dataset, fractions: Sequence[float], seed: int) -> tuple[Dataset, ...]:
    """Disjoint random parts, `fractions` of the whole each; what is left over belongs to none.

    :raises DataError: a fraction that is not positive, a sum above 1, or a part without a sample
    """
    if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
        raise DataError(f"cannot split into {tuple(fractions)}: give positive fractions with a sum of at most 1")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(dataset)))
    ends = np.round(np.cumsum([0.0, *fractions]) * len(dataset)).astype(int)
    if (np.diff(ends) < 1).any():
        raise DataError(f"{len(dataset)} samples are too few for the parts {tuple(fractions)}")
    return tuple(dataset.take(order[start:end]) for start, end in zip(ends, ends[1:], strict=False))


def subset_by_class(dataset: Dataset, keep: Mapping[int, float], seed: int) -> Dataset:
    """A random fraction `keep[c]` of class c, all of the classes not in `keep`; the order stays.

    `{c: 0.1 for c in range(5)}` is agent A's endowment in the paper's experiments (section 5).

    :raises DataError: targets that are not classes, a fraction outside 0 ... 1, or nothing left
    """
    if dataset.targets.dtype != torch.int64 or dataset.targets.ndim != 1:
        raise DataError("a subset by class needs targets of one integer a sample")
    generator = np.random.default_rng(seed)
    chosen = np.ones(len(dataset), dtype=bool)
    classes = dataset.targets.numpy()
    for label, fraction in sorted(keep.items()):
        if not 0 <= fraction <= 1:
            raise DataError(f"fraction {fraction} of class {label} is not between 0 and 1")
        members = np.flatnonzero(classes == label)
        dropped = generator.permutation(members)[round(fraction * len(members)) :]
        chosen[dropped] = False
    if not chosen.any():
        raise DataError("the subset by class has no samples; keep more")
    return dataset.take(torch.from_numpy(np.flatnonzero(chosen)))


def _read_npz(path: Path) -> dict[str, Tensor | None]:
    """Every array's name; None for those that are left unread, as no dataset needs them."""
    _check_file(path)
    tensors: dict[str, Tensor | None] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                tensors[name] = _from_array(archive[name], f"{path}: array {name!r}") if _matters(name) else None
    except DataError:
        raise
    except Exception as reason:  # numpy and zipfile raise half a dozen kinds for damaged files
        if "allow_pickle" in str(reason):
            raise DataError(f"{path} holds Python objects (pickle), which are never loaded; save numbers") from None
        raise DataError(f"{path} is not a readable .npz file: {reason}") from reason
    return tensors


def _matters(name: str) -> bool:
    """Whether an array of this name can be inputs or targets."""
    return any(name in (word, *(f"{word}_{part}" for part in _PARTS)) for pair in _PAIRS for word in pair)


def _read_safetensors(path: Path) -> dict[str, Tensor | None]:
    _check_file(path)
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as reason:
        raise DataError(f"{path} is not a readable .safetensors file: {reason}") from reason


def _check_file(path: Path) -> None:
    if not path.is_file():
        found = "is a directory" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {found}; expected a file with {_EXPECTED}")


def _from_array(array: np.ndarray, where: str) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where} holds {array.dtype}, expected numbers")
    native = array.astype(array.dtype.newbyteorder("="), order="C", copy=False)
    if native.dtype.kind == "u" and native.dtype.itemsize > 1:
        native = native.astype(np.int64)
    return torch.from_numpy(native)


def _from_function(source: str, allow_import: bool) -> Dataset:
    function = load_plugin(source, allowed=allow_import, error=DataError)
    if not callable(function):
        raise DataError(f"{source!r} is {type(function).__name__}, not a function that returns a dataset")
    try:
        value = function()
    except Exception as reason:  # an operator's own code may fail in any way
        raise DataError(f"{source!r} failed: {type(reason).__name__}: {reason}") from reason
    if isinstance(value, Dataset):
        value = (value.inputs, value.targets)
    if not isinstance(value, tuple) or len(value) != 2:
        raise DataError(f"{source!r} returned {type(value).__name__}, expected a Dataset or (inputs, targets)")
    parts = [part if isinstance(part, Tensor) else _from_array(np.asarray(part), source) for part in value]
    return _checked(parts[0], parts[1], source)


def _select(tensors: Mapping[str, Tensor | None], part: str, source: str) -> Dataset:
    for pair in _PAIRS:
        inputs, targets = (tensors.get(f"{word}_{part}" if part else word) for word in pair)
        if inputs is not None and targets is not None:
            return _checked(inputs, targets, source)
    found = ", ".join(sorted(tensors)) or "nothing"
    if not part and any(f"x_{word}" in tensors or f"inputs_{word}" in tensors for word in _PARTS):
        raise DataError(f"{source} has more than one part ({found}); add #train or #test to its name")
    if part:
        needed = ", ".join(f"{word}_{each}" for each in _PARTS for word in ("x", "y"))
        raise DataError(f"{source}: found {found}; a file with parts needs arrays {needed}")
    raise DataError(f"{source}: found {found}; expected {_EXPECTED}")


def _checked(inputs: Tensor, targets: Tensor, source: str) -> Dataset:
    if inputs.ndim == 0 or targets.ndim == 0 or inputs.shape[0] != targets.shape[0]:
        raise DataError(
            f"{source}: inputs of shape {tuple(inputs.shape)} and targets of shape {tuple(targets.shape)}; "
            "expected the same number of samples in both"
        )
    if inputs.numel() == 0 or targets.numel() == 0:
        raise DataError(f"{source} has no samples; expected at least one")
    for name, values in (("inputs", inputs), ("targets", targets)):
        if values.is_complex() or values.device.type != "cpu":
            raise DataError(f"{source}: {name} are {values.dtype} on {values.device}; expected numbers on the CPU")
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise DataError(f"{source}: {name} hold NaN or infinite values; expected finite numbers")
    return Dataset(_as_inputs(inputs), _as_targets(targets))


def _as_inputs(values: Tensor) -> Tensor:
    if values.dtype == torch.uint8:
        return values.to(torch.float32).div_(255.0)
    return values.to(torch.float32 if values.is_floating_point() or values.dtype == torch.bool else torch.int64)


def _as_targets(values: Tensor) -> Tensor:
    return values.to(torch.float32 if values.is_floating_point() else torch.int64)
