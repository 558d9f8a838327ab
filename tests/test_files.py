"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from p2pmarket.errors import DiskFull, MachineFault
from p2pmarket.files import disk_errors, private_folder, remove_tree, replacing, write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_whole(path, b"one", "a file")
    write_whole(path, b"two", "a file")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"one", "a file")
    with pytest.raises(RuntimeError), replacing(path, "a file") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, DiskFull, "the disk is full; free some space"),
        (errno.EDQUOT, DiskFull, "the disk is full"),
        (errno.EFBIG, DiskFull, "the disk is full"),
        (errno.EACCES, MachineFault, "Permission denied"),
        (errno.EIO, MachineFault, "Input/output error"),
    ],
)
def test_errors_of_the_disk_become_sentences(number: int, kind: type[MachineFault], words: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=f"cannot write the plan to .*{words}") as refused:
        with disk_errors("the plan", tmp_path / "plan"):
            raise OSError(number, os.strerror(number))
    assert type(refused.value) is kind


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mine"), disk_errors("the plan", tmp_path):
        raise ValueError("mine")


def test_a_folder_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(MachineFault, match="cannot write the folder"):
        private_folder(tmp_path / "taken")


def test_private_folders_are_private_even_when_they_were_not(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True, mode=0o755)
    assert private_folder(folder) == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_removing_what_is_there_or_not(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "inner").mkdir(parents=True)
    remove_tree(folder)
    remove_tree(folder)
    assert not folder.exists()
