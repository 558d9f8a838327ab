"""Parcels on disk: what survives a restart, and what is refused when files changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from parcel_examples import CHUNK_BYTES, NOW_MS, PLAIN, RECEIVER, SENDER, OneEpoch, expectation, outgoing

from p2pmarket import limits
from p2pmarket.crypto.sealing import TAG_BYTES, Opener
from p2pmarket.errors import BadSeal, BadSignature, DataError, DiskFull
from p2pmarket.network import files, spool
from p2pmarket.network.spool import Incoming, Outgoing

SEALED = CHUNK_BYTES + TAG_BYTES


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHUNK_BYTES", CHUNK_BYTES)


def chunks_of(parcel: Outgoing) -> list[bytes]:
    out = memoryview(bytearray(SEALED))
    return [bytes(parcel.seal(index, 1, out)) for index in range(parcel.context.chunks)]


def opener_of(parcel: Outgoing) -> Opener:
    return Opener(parcel.header, expectation(), OneEpoch(), NOW_MS)


def scratch() -> memoryview:
    return memoryview(bytearray(CHUNK_BYTES))


def test_an_outgoing_parcel_is_private_and_the_same_after_a_restart(tmp_path: Path) -> None:
    parcel = outgoing(tmp_path)
    before = chunks_of(parcel)[:4]
    again = Outgoing.load(tmp_path / "out", SENDER)
    assert again.header == parcel.header and chunks_of(again)[:4] == before
    assert again.trailer() == parcel.trailer()
    assert (tmp_path / "out" / "file-key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "packed").exists()
    again.remove()
    assert not (tmp_path / "out").exists()


def test_a_sender_that_lost_its_tags_makes_the_same_trailer(tmp_path: Path) -> None:
    parcel = outgoing(tmp_path)
    chunks_of(parcel)
    expected = parcel.trailer()
    (tmp_path / "out" / "tags").unlink()
    again = Outgoing.load(tmp_path / "out", SENDER)
    again.seal(8, 1, memoryview(bytearray(SEALED)))
    assert again.trailer() == expected


def test_other_bytes_are_never_sealed_under_the_same_key(tmp_path: Path) -> None:
    parcel = outgoing(tmp_path)
    chunks_of(parcel)
    path = tmp_path / "out" / "plain"
    path.write_bytes(b"x" + PLAIN[1:])
    with pytest.raises(DataError, match="changed after it was sealed"):
        Outgoing.load(tmp_path / "out", SENDER).seal(0, 1, memoryview(bytearray(SEALED)))
    path.write_bytes(PLAIN[:-1])
    with pytest.raises(DataError, match="lost bytes"):
        parcel.seal(9, 1, memoryview(bytearray(SEALED)))


def test_what_is_no_whole_outgoing_parcel_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no whole outgoing parcel"):
        Outgoing.load(tmp_path, SENDER)
    outgoing(tmp_path)
    with pytest.raises(DataError, match="another identity's"):
        Outgoing.load(tmp_path / "out", RECEIVER)
    (tmp_path / "out" / "plain").write_bytes(b"short")
    with pytest.raises(DataError, match="changed"):
        Outgoing.load(tmp_path / "out", SENDER)
    with pytest.raises(DataError, match="is empty"):
        outgoing(tmp_path, plain=b"")
    (tmp_path / "out" / "header").write_bytes(b"P2PM")
    with pytest.raises(DataError, match="no whole outgoing parcel"):
        Outgoing.load(tmp_path / "out", SENDER)


def test_an_incoming_parcel_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    parcel, incoming = outgoing(tmp_path), Incoming.open(tmp_path / "in")
    assert incoming.begin(opener_of(parcel)) == 0
    incoming.keep(0, chunks_of(parcel), scratch())
    with pytest.raises(BadSignature):
        incoming.check(bytes(64))
    assert not incoming.plain_path.exists()
    assert incoming.check(parcel.trailer()).read_bytes() == PLAIN
    assert not incoming.plain_path.exists()
    incoming.finish()
    assert incoming.plain_path.read_bytes() == PLAIN
    assert Incoming.open(tmp_path / "in").begin(opener_of(parcel)) == parcel.context.chunks
    incoming.remove()
    assert not (tmp_path / "in").exists()


def test_chunks_before_a_bad_one_are_kept(tmp_path: Path) -> None:
    parcel, incoming = outgoing(tmp_path), Incoming.open(tmp_path / "in")
    incoming.begin(opener_of(parcel))
    chunks = chunks_of(parcel)
    with pytest.raises(BadSeal, match="chunk 2"):
        incoming.keep(0, [*chunks[:2], chunks[3]], scratch())
    assert incoming.begin(opener_of(parcel)) == 2
    with pytest.raises(BadSeal, match="ended before its last chunk"):
        incoming.check(parcel.trailer())


@pytest.mark.parametrize(("name", "place", "first"), [("plain.part", 3, 3), ("tags", 4, 4), ("plain.part", 0, 0)])
def test_a_kept_chunk_that_went_bad_on_disk_is_found(tmp_path: Path, name: str, place: int, first: int) -> None:
    parcel, incoming = outgoing(tmp_path), Incoming.open(tmp_path / "in")
    incoming.begin(opener_of(parcel))
    incoming.keep(0, chunks_of(parcel)[:7], scratch())
    path = tmp_path / "in" / name
    data = bytearray(path.read_bytes())
    data[place * (CHUNK_BYTES if name == "plain.part" else TAG_BYTES) + 5] ^= 4
    path.write_bytes(data)
    assert Incoming.open(tmp_path / "in").begin(opener_of(parcel)) == first


def test_control_without_that_look_a_bad_chunk_passes_the_trailer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcel, incoming = outgoing(tmp_path), Incoming.open(tmp_path / "in")
    incoming.begin(opener_of(parcel))
    incoming.keep(0, chunks_of(parcel), scratch())
    part = tmp_path / "in" / "plain.part"
    part.write_bytes(b"rot" + part.read_bytes()[3:])
    monkeypatch.setattr(Incoming, "_verify_kept", lambda self, opener: opener.context.chunks)
    again = Incoming.open(tmp_path / "in")
    again.begin(opener_of(parcel))
    assert again.check(parcel.trailer()).read_bytes() != PLAIN


def test_files_cut_short_by_a_power_failure_count_as_far_as_they_are_good(tmp_path: Path) -> None:
    parcel, incoming = outgoing(tmp_path), Incoming.open(tmp_path / "in")
    incoming.begin(opener_of(parcel))
    incoming.keep(0, chunks_of(parcel)[:7], scratch())
    part = tmp_path / "in" / "plain.part"
    part.write_bytes(part.read_bytes()[: 5 * CHUNK_BYTES + 9])
    assert Incoming.open(tmp_path / "in").begin(opener_of(parcel)) == 5


def test_a_whole_parcel_that_went_bad_is_no_longer_whole(tmp_path: Path) -> None:
    parcel, incoming = outgoing(tmp_path), Incoming.open(tmp_path / "in")
    incoming.begin(opener_of(parcel))
    incoming.keep(0, chunks_of(parcel), scratch())
    incoming.check(parcel.trailer())
    incoming.finish()
    incoming.plain_path.write_bytes(PLAIN[: 6 * CHUNK_BYTES] + b"rot" + PLAIN[6 * CHUNK_BYTES + 3 :])
    again = Incoming.open(tmp_path / "in")
    assert again.begin(opener_of(parcel)) == 6
    assert not again.plain_path.exists()


def test_another_parcel_begins_anew(tmp_path: Path) -> None:
    first, second = outgoing(tmp_path / "1"), outgoing(tmp_path / "2")
    incoming = Incoming.open(tmp_path / "in")
    incoming.begin(opener_of(first))
    incoming.keep(0, chunks_of(first)[:5], scratch())
    assert incoming.begin(opener_of(second)) == 0
    incoming.keep(0, chunks_of(second), scratch())
    assert incoming.check(second.trailer()).read_bytes() == PLAIN


def test_no_room_is_found_out_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parcel, incoming = outgoing(tmp_path), Incoming.open(tmp_path / "in")
    usage = spool.shutil.disk_usage(tmp_path)._replace(free=spool.SPARE_BYTES + len(PLAIN) - 1)
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DiskFull, match="make room"):
        incoming.begin(opener_of(parcel))


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.os.pwrite
    monkeypatch.setattr(files.os, "pwrite", lambda file, data, offset: real(file, bytes(data)[:7], offset))
    parcel, incoming = outgoing(tmp_path), Incoming.open(tmp_path / "in")
    incoming.begin(opener_of(parcel))
    incoming.keep(0, chunks_of(parcel), scratch())
    assert incoming.check(parcel.trailer()).read_bytes() == PLAIN
