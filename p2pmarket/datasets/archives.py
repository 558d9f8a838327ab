"""The files inside a .tar(.gz), a .zip or a folder, one after another, read in memory and never extracted.

Knows: archives, and how much of one to believe (`bounds`). Refuses to know: what the files mean. Fails with DataError:
an archive that is damaged, too large, or names something outside itself, a link or a device.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from p2pmarket.datasets import bounds
from p2pmarket.errors import DataError

_GZIP, _ZIP = b"\x1f\x8b", b"PK"
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)
_ZIP_DAMAGE = (*_DAMAGE, RuntimeError)
"""zipfile raises RuntimeError for a password, and NotImplementedError (one of them) for a method it lacks."""


class Member(NamedTuple):
    """A file inside an archive or folder."""

    name: str
    """Its path inside, with slashes."""
    read: Callable[[], bytes]
    """All of it. A tar's must be read before the next member is asked for.

    :raises DataError: damaged, or larger than it may be"""

    @property
    def base(self) -> str:
        """The last part of its path."""
        return self.name.rpartition("/")[2]


@contextlib.contextmanager
def members(path: Path) -> Iterator[Iterator[Member]]:
    """The files inside `path`: a folder, a .zip (or .npz), a .tar or .tar.gz.

    :raises DataError: see the module's first paragraph
    """
    if path.is_dir():
        yield _of_folder(path)
        return
    with _opened(path) as file:
        start = file.read(2)
        file.seek(0)
        if start == _ZIP:
            yield of_zip(file, str(path))
        elif start == _GZIP:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield _of_tar(unpacked, str(path))
        else:
            yield _of_tar(file, str(path))


def of_zip(file: BinaryIO, where: str) -> Iterator[Member]:
    """The files inside a .zip; `file` stays open while they are read.

    :param where: what to call the archive in an error's sentence
    """
    with _damage_told(where, "zip archive"):
        archive = zipfile.ZipFile(file)
    infos = archive.infolist()
    _check_count(len(infos), where)
    if sum(info.file_size for info in infos) > bounds.MAX_UNPACKED_BYTES:
        raise DataError(f"{where} unpacks to more than {bounds.MAX_UNPACKED_BYTES:,} bytes; it is not opened")
    for info in infos:
        _check_name(info.filename, where)
        if not info.is_dir():
            yield Member(info.filename, _zip_reader(archive, info, where))


def unzipped(data: bytes, where: str) -> bytes:
    """What a .gz holds.

    :raises DataError: damaged, cut short, or unpacked above `bounds.MAX_MEMBER_BYTES`
    """
    with _damage_told(where, "gzip file"):
        machine = zlib.decompressobj(wbits=31)
        content = machine.decompress(data, bounds.MAX_MEMBER_BYTES)
        if machine.unconsumed_tail:
            raise DataError(f"{where} unpacks to more than {bounds.MAX_MEMBER_BYTES:,} bytes; it is not opened")
        if not machine.eof:
            raise EOFError("it ends too early")
        return content


def _of_folder(folder: Path) -> Iterator[Member]:
    count = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        count += len(folders) + len(names)
        _check_count(count, str(folder))
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file():
                yield Member(path.relative_to(folder).as_posix(), _file_reader(path))


def _of_tar(file: BinaryIO | gzip.GzipFile, where: str) -> Iterator[Member]:
    stream = _Bounded(file, where)
    with _damage_told(where, "tar archive"):
        archive = tarfile.open(fileobj=stream, mode="r|")
    count = 0
    while True:
        with _damage_told(where, "tar archive"):
            info = archive.next()
        if info is None:
            break
        count += 1
        _check_count(count, where)
        _check_name(info.name, where)
        if info.isdir():
            continue
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            raise DataError(f"{where} holds a link or device ({info.name!r}), which a data set does not; fetch it anew")
        _check_size(info.size, bounds.MAX_MEMBER_BYTES, f"{where}: {info.name!r}")
        yield Member(info.name, _tar_reader(archive, info, where))
    with _damage_told(where, "tar archive"):
        while stream.read(1 << 20):  # the checksum of a .gz comes last
            pass


def _zip_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Callable[[], bytes]:
    def read() -> bytes:
        _check_size(info.file_size, bounds.MAX_MEMBER_BYTES, f"{where}: {info.filename!r}")
        with _damage_told(where, "zip archive"), archive.open(info) as file:
            return file.read(bounds.MAX_MEMBER_BYTES)

    return read


def _tar_reader(archive: tarfile.TarFile, info: tarfile.TarInfo, where: str) -> Callable[[], bytes]:
    def read() -> bytes:
        with _damage_told(where, "tar archive"):
            file = archive.extractfile(info)
            assert file is not None, "a regular file"
            return file.read()

    return read


def _file_reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        with _damage_told(str(path), "file"), path.open("rb") as file:
            data = file.read(bounds.MAX_MEMBER_BYTES + 1)
        _check_size(len(data), bounds.MAX_MEMBER_BYTES, str(path))
        return data

    return read


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; give an archive, or a folder with what it holds")
    with contextlib.ExitStack() as stack:
        with _damage_told(str(path), "file"):
            file = stack.enter_context(path.open("rb"))
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
        _check_size(size, bounds.MAX_ARCHIVE_BYTES, str(path))
        yield file


@contextlib.contextmanager
def _damage_told(where: str, form: str) -> Iterator[None]:
    try:
        yield
    except _ZIP_DAMAGE as reason:
        raise DataError(
            f"{where} is not a readable {form} ({reason or type(reason).__name__}); fetch it anew"
        ) from None


def _check_count(count: int, where: str) -> None:
    if count > bounds.MAX_MEMBERS:
        raise DataError(
            f"{where} holds more than {bounds.MAX_MEMBERS:,} files; give the data set's own archive or folder"
        )


def _check_size(size: int, most: int, where: str) -> None:
    if size > most:
        raise DataError(f"{where} has {size:,} bytes, more than the {most:,} that such a file may have")


def _check_name(name: str, where: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(name) > bounds.MAX_NAME_CHARACTERS:
        shown = name[:80]
        raise DataError(f"{where} holds a file that would lie outside of it ({shown!r}); fetch it anew")


class _Bounded(io.BufferedIOBase):
    """A stream that refuses to give more than an archive may unpack to."""

    def __init__(self, file: BinaryIO | gzip.GzipFile, where: str) -> None:
        self._file = file
        self._where = where
        self._left = bounds.MAX_UNPACKED_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._file.read(size if size is not None and 0 <= size <= self._left else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise DataError(f"{self._where} unpacks to more than {bounds.MAX_UNPACKED_BYTES:,} bytes; it is not opened")
        return data
