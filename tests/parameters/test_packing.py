"""A parcel's plain bytes: what is written is read back, and what a stranger wrote is refused with its reason."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from blake3 import blake3

from p2pmarket import limits
from p2pmarket.errors import BadSnapshot, DiskFull, MalformedMessage, ModelError, PeerFault, TooLarge
from p2pmarket.parameters import digest_of, pack, read_manifest, round_trip, schema_of, unpack
from p2pmarket.parameters.codecs import PIECE, encode_pieces
from p2pmarket.parcel import Manifest, TensorEntry
from p2pmarket.records import encode as encode_record

CODECS = ("none", "float16", "bfloat16", "int8")


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "weight": torch.randn(40, 70, generator=generator),
        "odd": torch.tensor([True, False, True]),
        "after_odd": torch.randn(9, generator=generator, dtype=torch.float64),
        "zeros": torch.cat([torch.zeros(5000), torch.ones(5)]),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 4),
        "half": torch.randn(5, generator=generator).bfloat16(),
    }


def _pack(tensors: dict[str, torch.Tensor], path: Path, **options: Any) -> Manifest:
    settings = {"market": "m", "task": "t", "step": 3, "codec": "none", "zstd": False, "salt": bytes(16)}
    return pack(tensors, path, **{**settings, **options})


@pytest.mark.parametrize("zstd", [False, True])
@pytest.mark.parametrize("codec", CODECS)
def test_what_is_packed_is_unpacked(tmp_path: Path, codec: str, zstd: bool) -> None:
    tensors, path = _tensors(), tmp_path / "plain"
    manifest = _pack(tensors, path, codec=codec, zstd=zstd)
    assert read_manifest(path) == manifest
    assert not (tmp_path / "plain.part").exists()
    unpacked, expected = unpack(path, schema=schema_of(tensors)), round_trip(tensors, codec)
    assert unpacked.keys() == tensors.keys()
    for name, tensor in unpacked.items():
        assert tensor.dtype == tensors[name].dtype and torch.equal(tensor, expected[name]), name
    assert {entry.name for entry in manifest.tensors if entry.zstd} <= ({"weight", "zeros"} if zstd else set())


def test_zstd_only_where_it_pays(tmp_path: Path) -> None:
    by_name = {entry.name: entry for entry in _pack(_tensors(), tmp_path / "a", zstd=True).tensors}
    assert by_name["zeros"].zstd and by_name["zeros"].length < 0.95 * by_name["zeros"].encoded_bytes
    assert not by_name["count"].zstd and not by_name["empty"].zstd
    noise = torch.randint(0, 256, (400_000,), dtype=torch.uint8)
    assert not _pack({"noise": noise}, tmp_path / "b", zstd=True).tensors[0].zstd
    # The beginning compresses and the rest does not: taken back.
    mixed = torch.cat([torch.zeros(100_000, dtype=torch.uint8), torch.randint(0, 256, (4_000_000,), dtype=torch.uint8)])
    entry = _pack({"mixed": mixed, "next": torch.ones(2)}, tmp_path / "c", zstd=True).tensors[0]
    assert not entry.zstd and entry.length == mixed.numel()
    assert torch.equal(unpack(tmp_path / "c", schema=None)["mixed"], mixed)


def test_compression_beyond_the_readers_limit_is_not_used(tmp_path: Path) -> None:
    zeros = torch.zeros(4_000_000)
    assert not _pack({"zeros": zeros}, tmp_path / "z", zstd=True).tensors[0].zstd
    assert torch.equal(unpack(tmp_path / "z", schema=None)["zeros"], zeros)


def test_the_digest_names_the_manifest(tmp_path: Path) -> None:
    manifest = _pack(_tensors(), tmp_path / "a")
    assert digest_of(manifest) == hashlib.sha256(encode_record(manifest)).digest()
    assert digest_of(manifest) == digest_of(_pack(_tensors(), tmp_path / "b"))
    assert digest_of(manifest) != digest_of(_pack(_tensors(), tmp_path / "c", salt=b"1" * 16))
    changed = _tensors()
    changed["weight"][0, 0] += 1
    assert digest_of(manifest) != digest_of(_pack(changed, tmp_path / "d"))


def test_unpacked_tensors_may_be_written_to_without_changing_the_file(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    _pack(_tensors(), path)
    before = path.read_bytes()
    unpack(path, schema=None)["weight"].zero_()
    assert path.read_bytes() == before


def test_a_manifest_of_the_most_tensors_fits(tmp_path: Path) -> None:
    tensors = {
        f"model.layers.{index}.attention.projection.weight": torch.ones(1) for index in range(limits.MAX_TENSORS)
    }
    _pack(tensors, tmp_path / "many")
    assert len(unpack(tmp_path / "many", schema=None)) == limits.MAX_TENSORS


@pytest.mark.parametrize("codec", CODECS)
def test_packing_needs_a_few_mib_whatever_the_size(codec: str) -> None:
    pieces = [len(piece) for piece in encode_pieces(torch.zeros(10 * PIECE), codec)]
    assert len(pieces) == 10 and max(pieces) <= 2 * 1024 * 1024


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="big: .*float16"):
        _pack({"big": torch.tensor([1e6])}, tmp_path / "a", codec="float16")
    with pytest.raises(DiskFull, match="cannot write"):
        _pack(_tensors(), tmp_path / "missing" / "a")
    assert list(tmp_path.iterdir()) == []


# ---- what a stranger writes -----------------------------------------------------------------------------------


def _entry(body: bytes, **changes: Any) -> TensorEntry:
    whole = {
        "name": "a", "shape": (len(body) // 4,), "dtype": "float32", "codec": "none", "zstd": False, "offset": 0,
        "length": len(body), "encoded_bytes": len(body), "digest": blake3(body).digest(),
    }  # fmt: skip
    return TensorEntry(**{**whole, **changes})


def _write(path: Path, body: bytes, *entries: TensorEntry, body_bytes: int | None = None) -> Path:
    size = len(body) if body_bytes is None else body_bytes
    manifest = encode_record(Manifest("m", "t", 0, bytes(16), size, entries))
    path.write_bytes(body + manifest + len(manifest).to_bytes(4, "big"))
    return path


def _floats(*values: float) -> bytes:
    return torch.tensor(values).numpy().tobytes()


BODY = _floats(1.0, 2.0)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"shape": (3,)}, BadSnapshot, "do not fit its shape"),
        ({"shape": (2**40, 2**40)}, TooLarge, "no parcel can hold"),
        ({"shape": (0, 2**40, 2**40)}, TooLarge, "no parcel can hold"),
        ({"dtype": "float64"}, BadSnapshot, "do not fit its shape"),
        ({"dtype": "int32", "codec": "float16"}, BadSnapshot, "cannot have the codec"),
        ({"codec": "float16"}, BadSnapshot, "do not fit its shape"),
        ({"offset": 4}, BadSnapshot, "does not begin"),
        ({"length": 4}, BadSnapshot, "length that does not fit"),
        ({"encoded_bytes": 16}, BadSnapshot, "do not fit its shape"),
        ({"digest": bytes(32)}, BadSnapshot, "digest"),
        ({"zstd": True}, BadSnapshot, "zstd"),
        ({"zstd": True, "shape": (10**6,), "encoded_bytes": 4 * 10**6}, TooLarge, "1000 times"),
        ({"zstd": True, "shape": (1000,), "encoded_bytes": 4000}, BadSnapshot, "zstd"),
    ],
)
def test_an_entry_that_lies(tmp_path: Path, changes: dict[str, Any], error: type[PeerFault], words: str) -> None:
    assert unpack(_write(tmp_path / "p", BODY, _entry(BODY)), schema=None)["a"].tolist() == [1.0, 2.0]
    with pytest.raises(error, match=words):
        unpack(_write(tmp_path / "p", BODY, _entry(BODY, **changes)), schema=None)


def test_layouts_that_lie(tmp_path: Path) -> None:
    path, first = tmp_path / "p", _entry(BODY)
    overlapping = dataclasses.replace(first, name="b")
    with pytest.raises(BadSnapshot, match="does not begin"):
        unpack(_write(path, BODY, first, overlapping), schema=None)
    with pytest.raises(BadSnapshot, match="sorted"):
        unpack(_write(path, BODY + BODY, first, dataclasses.replace(first, offset=8)), schema=None)
    with pytest.raises(BadSnapshot, match="do not fill"):
        unpack(_write(path, BODY + b"hidden", first), schema=None)
    with pytest.raises(BadSnapshot, match="length its manifest says"):
        unpack(_write(path, BODY, first, body_bytes=7), schema=None)
    for junk in (b"", b"\0\0\0", b"\0\0\0\x09", b"\0\0\0\0"):
        path.write_bytes(junk)
        with pytest.raises(MalformedMessage):
            unpack(path, schema=None)
    path.write_bytes(b"\xff" * 8)
    with pytest.raises(TooLarge, match="manifest"):
        unpack(path, schema=None)


def test_values_that_lie(tmp_path: Path) -> None:
    nan = _floats(1.0, float("nan"))
    with pytest.raises(BadSnapshot, match="NaN"):
        unpack(_write(tmp_path / "p", nan, _entry(nan)), schema=None)
    two = b"\x02"
    for zstd, body in ((False, two), (True, zstandard.compress(two))):
        entry = _entry(body, shape=(1,), dtype="bool", encoded_bytes=1, zstd=zstd)
        with pytest.raises(BadSnapshot, match="boolean"):
            unpack(_write(tmp_path / "p", body, entry), schema=None)


@pytest.mark.parametrize(("announced", "words"), [(1000, "more than"), (3000, "less than")])
def test_a_frame_that_is_longer_or_shorter_than_it_announces(tmp_path: Path, announced: int, words: str) -> None:
    body = zstandard.compress(torch.arange(2000.0).numpy().tobytes())
    entry = _entry(body, shape=(announced,), encoded_bytes=4 * announced, zstd=True)
    with pytest.raises(BadSnapshot, match=words):
        unpack(_write(tmp_path / "p", body, entry), schema=None)


def test_a_bomb_is_stopped_where_it_announces_to_end(tmp_path: Path) -> None:
    body = zstandard.compress(bytes(2**28))
    entry = _entry(body, shape=(1000,), encoded_bytes=4000, zstd=True)
    with pytest.raises(BadSnapshot, match="more than it announces"):
        unpack(_write(tmp_path / "p", body, entry), schema=None)


def test_the_schema_and_the_count_are_checked_before_the_body(tmp_path: Path) -> None:
    path = _write(tmp_path / "p", BODY, _entry(BODY, digest=bytes(32)))
    with pytest.raises(BadSnapshot, match="does not have"):
        unpack(path, schema=schema_of({"b": torch.zeros(2)}))
    with pytest.raises(TooLarge, match="2 parameters"):
        unpack(path, schema=None, max_parameters=1)
