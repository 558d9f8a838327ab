"""The sidecar's two files: torn, wrong and changing checkpoints going in, whole ones coming out or none."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest
import torch
from peers import eventually
from safetensors.torch import save

from p2pmarket.errors import DataError, DiskFull, MachineFault
from p2pmarket.node import sidecar
from p2pmarket.node.sidecar import is_whole, next_checkpoint, read_checkpoint, stamp_of, write_checkpoint

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(sidecar, "LOOK_SECONDS", 0.005)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_written_is_read_and_its_stamp_is_told(tmp_path):
    path = tmp_path / "new" / "folder" / "out.safetensors"
    stamp = write_checkpoint(path, TENSORS)
    assert stamp == stamp_of(path)
    assert is_whole(path)
    assert same(read_checkpoint(path), TENSORS)
    assert list(path.parent.iterdir()) == [path], "no temporary file is left"


def test_tensors_in_any_layout_are_written(tmp_path):
    turned = {"turned": TENSORS["weight"].t()}
    write_checkpoint(tmp_path / "out.safetensors", turned)
    assert same(read_checkpoint(tmp_path / "out.safetensors"), turned)


def test_no_beginning_of_a_checkpoint_is_whole(tmp_path):
    whole = save(TENSORS)
    path = tmp_path / "torn.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not is_whole(path), length
    path.write_bytes(whole)
    assert is_whole(path)
    path.write_bytes(whole + b"\0")
    assert not is_whole(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02}q\x00.",  # a pickle
        b"PK\x03\x04" + bytes(60),
        b"\xff" * 64,
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (8).to_bytes(8, "little") + b'{"a": 1}',
        (32).to_bytes(8, "little") + b'{"a": {"data_offsets": ["x", 2]}}',
        (28).to_bytes(8, "little") + b'{"a": {"data_offsets": [0]}}',
    ],
)
def test_other_files_are_not_whole_checkpoints(tmp_path, data):
    (tmp_path / "other").write_bytes(data)
    assert not is_whole(tmp_path / "other")


async def test_a_torn_checkpoint_is_waited_for(tmp_path):
    whole = save(TENSORS)
    path = tmp_path / "torn.safetensors"
    path.write_bytes(whole[:40])
    waiting = asyncio.create_task(next_checkpoint(path, None))
    await asyncio.sleep(0)
    assert not waiting.done()
    path.write_bytes(whole)
    tensors, stamp = await asyncio.wait_for(waiting, 10)
    assert same(tensors, TENSORS)
    assert stamp == stamp_of(path)


async def test_a_file_that_is_no_checkpoint_is_warned_about_once_and_a_later_one_is_taken(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = tmp_path / "model.pt"
    path.write_bytes(b"\x80\x02}q\x00.")
    waiting = asyncio.create_task(next_checkpoint(path, None))

    async def warned() -> bool:
        return bool(caplog.records)

    await eventually(warned)
    write_checkpoint(path, TENSORS)
    assert same((await asyncio.wait_for(waiting, 10))[0], TENSORS)
    assert [record.message for record in caplog.records] == [
        f"{path} is not a whole .safetensors file; waiting for another"
    ]


async def test_a_checkpoint_that_passes_for_whole_and_is_none_is_waited_for_too(tmp_path):
    """Sizes that agree around a type that does not exist."""
    header = b'{"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert is_whole(path)
    with pytest.raises(DataError, match="not a readable"):
        read_checkpoint(path)
    waiting = asyncio.create_task(next_checkpoint(path, None))
    await asyncio.sleep(0)
    write_checkpoint(path, TENSORS)
    assert same((await asyncio.wait_for(waiting, 10))[0], TENSORS)


async def test_a_checkpoint_that_was_seen_is_passed_over_until_it_changes(tmp_path):
    path = tmp_path / "seen.safetensors"
    seen = write_checkpoint(path, TENSORS)
    waiting = asyncio.create_task(next_checkpoint(path, seen))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.05)
    os.utime(path, ns=(1, 1))
    assert (await asyncio.wait_for(waiting, 10))[1] == stamp_of(path)


async def test_a_checkpoint_appears_and_goes_and_appears(tmp_path):
    path = tmp_path / "late.safetensors"
    waiting = asyncio.create_task(next_checkpoint(path, None))
    await asyncio.sleep(0)
    write_checkpoint(path, TENSORS)
    _, seen = await asyncio.wait_for(waiting, 10)
    path.unlink()
    waiting = asyncio.create_task(next_checkpoint(path, seen))
    await asyncio.sleep(0)
    write_checkpoint(path, {"other": torch.ones(3)})
    assert (await asyncio.wait_for(waiting, 10))[0].keys() == {"other"}


async def test_a_place_where_one_may_not_look_is_said(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot look at the checkpoint"):
        await next_checkpoint(tmp_path / "file" / "in.safetensors", None)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.safetensors"
    write_checkpoint(path, TENSORS)

    def no_room(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(DiskFull, match=r"out\.safetensors: the disk is full"):
        write_checkpoint(path, {"weight": torch.zeros(2, 3)})
    assert same(read_checkpoint(path), TENSORS)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_said(tmp_path):
    (tmp_path / "out.safetensors").mkdir()
    with pytest.raises(MachineFault, match="cannot write the checkpoint"):
        write_checkpoint(tmp_path / "out.safetensors", TENSORS)
