"""Files and folders: written whole or not at all, removed without complaint, a full disk told in words."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from p2pmarket.errors import DiskFull, MachineFault


@contextlib.contextmanager
def disk_errors(what: str, path: Path) -> Iterator[None]:
    """Turns an OSError inside into a sentence.

    :raises DiskFull: no space, or over quota
    :raises MachineFault: any other reason a file cannot be written
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(f"cannot write {what} to {path}: the disk is full; free some space and try again") from error
        raise MachineFault(f"cannot write {what} to {path}: {error.strerror or error}") from error


def write_whole(path: Path, data: bytes, what: str) -> None:
    """Replaces a file by `data`, or leaves it as it was.

    :raises DiskFull, MachineFault: as `disk_errors` says
    """
    with replacing(path, what) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def replacing(path: Path, what: str) -> Iterator[Path]:
    """A temporary path beside `path` to write to; renamed over it at the end, removed when something fails.

    :raises DiskFull, MachineFault: as `disk_errors` says
    """
    with disk_errors(what, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Removes a folder and all in it; a folder that is not there is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def private_folder(path: Path) -> Path:
    """Makes a folder that only its owner may enter.

    :raises DiskFull, MachineFault: as `disk_errors` says
    """
    with disk_errors("the folder", path):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    return path
