"""Archives are believed only so far: what is damaged, too large or leads outside is refused in one sentence."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from image_files import tar, unpacked, zipped

from p2pmarket.datasets import bounds
from p2pmarket.datasets.archives import members, unzipped
from p2pmarket.errors import DataError

FILES = {"a/one": b"1" * 5000, "a/b/two": bytes(range(256)) * 40}


def contents(path: Path) -> dict[str, bytes]:
    with members(path) as files:
        return {file.name: file.read() for file in files}


def test_every_form_gives_the_same_files(tmp_path: Path) -> None:
    forms = [
        tar(tmp_path / "x.tar.gz", FILES),
        tar(tmp_path / "x.tar", FILES, mode="w"),
        zipped(tmp_path / "x.zip", FILES),
        unpacked(tmp_path / "folder", FILES),
    ]
    for form in forms:
        assert contents(form) == FILES
    assert sorted(each.name for each in tmp_path.iterdir()) == ["folder", "x.tar", "x.tar.gz", "x.zip"]


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/outside", "a" * 600])
def test_paths_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    for form in (tar(tmp_path / "x.tar.gz", {name: b"1"}), zipped(tmp_path / "x.zip", {name: b"1"})):
        with pytest.raises(DataError, match="outside"):
            contents(form)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("data_batch_1")
    info.type, info.linkname = kind, "/etc/passwd"
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(info)
    with pytest.raises(DataError, match="link or device"):
        contents(tmp_path / "x.tar.gz")


def test_a_header_that_claims_a_huge_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("data_batch_1")
    info.size = 2**40
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"1" * 512))
    with pytest.raises(DataError, match=r"1,099,511,627,776 bytes, more than"):
        contents(tmp_path / "x.tar.gz")


def test_sizes_and_counts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tar(tmp_path / "x.tar.gz", FILES), zipped(tmp_path / "x.zip", FILES)
    folder = unpacked(tmp_path / "folder", FILES)
    for bound, value, told, forms in (
        ("MAX_UNPACKED_BYTES", 9000, "unpacks to more than 9,000 bytes", packed),
        ("MAX_MEMBER_BYTES", 9000, "10,240 bytes, more than the 9,000|9,001 bytes", (*packed, folder)),
        ("MAX_MEMBERS", 1, "more than 1 files", (*packed, folder)),
        ("MAX_ARCHIVE_BYTES", 50, "more than the 50", packed),
    ):
        for form in forms:
            assert contents(form) == FILES
            with monkeypatch.context() as patch:
                patch.setattr(bounds, bound, value)
                with pytest.raises(DataError, match=told):
                    contents(form)


def test_files_that_are_skipped_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb that nobody asked for is not unpacked on the way past it."""
    bomb = tar(tmp_path / "x.tar.gz", {"bomb": bytes(10**6)})
    monkeypatch.setattr(bounds, "MAX_UNPACKED_BYTES", 10**5)
    with members(bomb) as files, pytest.raises(DataError, match="unpacks to more"):
        list(files)


def test_damage_is_told(tmp_path: Path) -> None:
    good = {name: form.read_bytes() for name, form in _forms(tmp_path).items()}
    for name, data in good.items():
        middle = len(data) // 2
        broken = [data[:middle], data[:-9], data[:40], data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]]
        for number, each in enumerate(broken[:3] if name == "plain" else broken):
            path = tmp_path / f"{name}-{number}"
            path.write_bytes(each)
            if name == "plain" and number == 1:
                continue  # only of the zeros that end it
            with pytest.raises(DataError, match=r"not a readable (tar|zip) archive .*; fetch it anew"):
                contents(path)
    for name, data in (
        ("empty", b""),
        ("text", b"<html>404 not found</html>" * 40),
        ("zip", b"PK\x03\x04" + bytes(60)),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match="not a readable"):
            contents(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        contents(tmp_path / "none.zip")


def _forms(folder: Path) -> dict[str, Path]:
    import random

    noise = {"noise": random.Random(0).randbytes(20_000)}
    return {
        "gzip": tar(folder / "g.tar.gz", noise),
        "plain": tar(folder / "p.tar", noise, mode="w"),
        "zip": zipped(folder / "z.zip", noise),
    }


def test_a_zip_with_a_password_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"secret": b"1" * 99})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="password"):
        contents(path)


def test_gzip_is_bounded_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(bytes(10_000))
    assert unzipped(packed, "x") == bytes(10_000)
    for broken in (packed[:-1], packed[:5], b"", b"no gzip", packed[:-5] + b"\x00" + packed[-4:]):
        with pytest.raises(DataError, match="x is not a readable gzip file"):
            unzipped(broken, "x")
    monkeypatch.setattr(bounds, "MAX_MEMBER_BYTES", 9_999)
    with pytest.raises(DataError, match="x unpacks to more than 9,999 bytes"):
        unzipped(packed, "x")


def test_nested_zips_are_read_from_memory() -> None:
    from p2pmarket.datasets.archives import of_zip

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("one", b"1")
        archive.mkdir("folder") if hasattr(archive, "mkdir") else archive.writestr("folder/", b"")
    assert [(member.name, member.read()) for member in of_zip(file, "x")] == [("one", b"1")]
