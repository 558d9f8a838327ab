"""Plain file access for the spool: whole reads and writes at an offset, and one sentence for what a disk refuses.

Knows: file descriptors. Refuses to know: what is in the files. Fails with `DiskFull`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from p2pmarket.errors import DiskFull


@contextlib.contextmanager
def disk(directory: Path) -> Iterator[None]:
    """Turns what a file system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        raise DiskFull(f"{directory} cannot be used ({error.strerror}); free space or choose another place") from error


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    """A file descriptor, by default for reading and writing a private file that is made where there is none."""
    file = os.open(path, flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def write_fully(file: int, data: bytes | memoryview, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)


def read_fully(file: int, out: memoryview, offset: int) -> int:
    """Reads into `out`; returns the bytes read, fewer only at the end of the file."""
    read = 0
    while read < len(out):
        count = os.preadv(file, [out[read:]], offset + read)
        if not count:
            break
        read += count
    return read
