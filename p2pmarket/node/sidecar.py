"""Beside a training program in any framework: watch its checkpoint, trade, write what came of it.

Knows: two .safetensors files. Refuses to know: the program that writes one and reads the other. A checkpoint that is
still being written, or is none, is looked at again when it changes; the output is replaced whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from p2pmarket.errors import DataError
from p2pmarket.files import replacing

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5

Stamp = tuple[int, int]
"""Size in bytes and time of change in nanoseconds: a file with another stamp is another checkpoint."""


def stamp_of(path: Path) -> Stamp | None:
    """The file's stamp; None when there is no file.

    :raises DataError: this process may not look there
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot look at the checkpoint {path}: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def is_whole(path: Path) -> bool:
    """Whether a .safetensors file has all the bytes that its header announces (its format: length, JSON, data)."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            size = path.stat().st_size
            if length > size:
                return False
            header = json.loads(file.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
            return bool(size == 8 + length + end)
    except (OSError, struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError):
        return False


async def next_checkpoint(path: Path, seen: Stamp | None) -> tuple[dict[str, Tensor], Stamp]:
    """Waits for a whole checkpoint with another stamp than `seen`; its tensors and stamp.

    A file that is not whole is taken to be in the making; where nobody writes on, a warning says so once.

    :raises DataError: this process may not look there
    """
    before: Stamp | None = None
    given_up: Stamp | None = None
    while True:
        stamp = stamp_of(path)
        if stamp is not None and stamp not in (seen, given_up):
            tensors = await asyncio.to_thread(_read_whole, path)
            if tensors is not None and stamp_of(path) == stamp:
                return tensors, stamp
            if tensors is None and stamp == before:
                log.warning("%s is not a whole .safetensors file; waiting for another", path)
                given_up = stamp
        before = stamp
        await asyncio.sleep(LOOK_SECONDS)


def _read_whole(path: Path) -> dict[str, Tensor] | None:
    """The tensors; None where the file is not whole."""
    if not is_whole(path):
        return None
    try:
        return read_checkpoint(path)
    except DataError as error:
        log.debug("%s", error)
        return None


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors file.

    :raises DataError: not such a file
    """
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is not a readable .safetensors checkpoint: {error}") from None


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor]) -> Stamp | None:
    """Replaces a .safetensors file; the stamp of what was written.

    :raises DiskFull, MachineFault: it cannot be written; the old one stays
    """
    with replacing(path, "the checkpoint") as temporary:
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        return stamp_of(temporary)
