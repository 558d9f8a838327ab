"""How much memory a model's run takes, and what a device says when it has none left.

Knows: tensors alive at one time, batches, out-of-memory errors of both devices. Refuses to know: models, losses.
Fails with MachineFault, code "out-of-memory": the pair can be refused and the program goes on.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from p2pmarket.errors import MachineFault

MIB = 1024 * 1024
_MEASURED_SAMPLES = 8
OUT_OF_MEMORY = "out-of-memory"
_SAYINGS = ("can't allocate memory", "DefaultCPUAllocator", "not enough memory", "out of memory")

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had no memory left; on the CPU torch says so in words only."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in _SAYINGS)


def out_of_memory(device: torch.device, samples: int = 1) -> MachineFault:
    """The error for a batch that does not fit and is not made smaller."""
    return MachineFault(
        f"the device {device} ran out of memory on a batch of {samples}; free memory on it or use a larger one",
        code=OUT_OF_MEMORY,
    )


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes of tensors that `call` made and that were alive at one time; what kernels take inside is not seen."""
    watch = _Watch()
    with watch:
        call()
    return watch.peak


class Batches:
    """Samples in batches as large as a budget for activations allows, smaller from the first failure on."""

    def __init__(self, device: torch.device, size: int, memory_mib: int) -> None:
        """:param size: samples at a time, at most"""
        self.size = size
        self.peak = 0
        """Most bytes of activations, by the size measured on a few samples."""
        self._device = device
        self._budget = memory_mib * MIB
        self._sample_bytes: int | None = None

    def fit(self, run: Callable[[Tensor], object], inputs: Tensor) -> None:
        """Measures the activations of one sample with `run`, the first time only, and cuts the size to the budget."""
        if self._sample_bytes is not None:
            return
        few = inputs[:_MEASURED_SAMPLES]
        try:
            self._sample_bytes = math.ceil(peak_bytes(lambda: run(few)) / len(few))
        except (RuntimeError, MemoryError) as reason:
            if not is_out_of_memory(reason):
                raise
            self._sample_bytes = 0  # unknown; halving will find the size
        self.size = max(1, min(self.size, self._budget // max(self._sample_bytes, 1)))

    def over(
        self, run: Callable[[Tensor, Tensor], Result], inputs: Tensor, targets: Tensor, copies: int = 1
    ) -> Iterator[Result]:
        """`run` over batches; `copies` of the activations are alive at a time.

        :raises MachineFault: out of memory with a single sample
        """
        done = 0
        while done < len(inputs):
            size = max(self.size // copies, 1) if copies > 1 else self.size
            batch, wanted = inputs[done : done + size], targets[done : done + size]
            try:
                result = run(batch, wanted)
            except (RuntimeError, MemoryError) as reason:
                self.halve(reason, len(batch), copies)
                continue
            self.peak = max(self.peak, copies * len(batch) * (self._sample_bytes or 0))
            done += len(batch)
            yield result

    def halve(self, reason: Exception, failed: int, copies: int = 1) -> None:
        """Goes on with half of the `failed` samples; raises what is no lack of memory, or cannot be halved."""
        if not is_out_of_memory(reason):
            raise reason
        if failed <= 1:
            raise out_of_memory(self._device) from reason
        self.size = max(1, min(self.size, failed * copies) // 2)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations return until the last tensor on them is gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func, types, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs or {}))}
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._note(tensor, given)
        return result

    def _note(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key in given and key not in self._users:
            return  # a view of a parameter or of the inputs
        if key not in self._users:
            self._users[key] = 0
            self._alive += size
            self.peak = max(self.peak, self._alive)
        self._users[key] += 1
        weakref.finalize(tensor, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]
            self._alive -= size


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
