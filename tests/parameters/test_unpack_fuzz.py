"""Thousands of hostile parcels: refused as a peer's fault, never another exception, never a huge allocation."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch

from p2pmarket.errors import BadSnapshot, MalformedMessage, TooLarge
from p2pmarket.parameters import pack, unpack

HOSTILE: list[Callable[[random.Random], Any]] = [
    lambda r: 2 ** r.randrange(64) - r.randrange(2),
    lambda r: -r.randrange(2**31),
    lambda r: r.choice([None, True, False, 1.5, float("nan"), float("inf"), "", "a" * 300, b"", b"\0" * 40, {}, []]),
    lambda r: r.choice(["float64", "bool", "int8", "bfloat16", "none", "float16", "uint8"]),
    lambda r: r.randbytes(r.randrange(40)),
    lambda r: [2 ** r.randrange(41) for _ in range(r.randrange(10))],
    lambda r: [[]] * r.randrange(5),
]


@pytest.fixture
def parcel(tmp_path: Path) -> tuple[bytes, list[Any]]:
    tensors = {
        "weight": torch.randn(20, 30, generator=torch.Generator().manual_seed(1)),
        "flags": torch.tensor([True, False]),
        "ramp": torch.arange(3000),
        "zeros": torch.zeros(3000),
    }
    for name, codec in (("a", "int8"), ("b", "none")):
        pack(tensors, tmp_path / name, market="m", task="t", step=1, codec=codec, zstd=True, salt=bytes(16))
    data = (tmp_path / "a").read_bytes()
    length = int.from_bytes(data[-4:], "big")
    return data[: -4 - length], msgpack.unpackb(data[-4 - length : -4])


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], bool]:
    """Unpacks the bytes; whether they passed. Any exception but the three, or a huge tensor, fails the test."""
    path = tmp_path / "hostile"
    plain_empty = torch.empty

    def bounded_empty(shape: tuple[int, ...], *, dtype: torch.dtype) -> torch.Tensor:
        count = 1
        for size in shape:
            count *= size
        assert count * dtype.itemsize <= 8_000 * path.stat().st_size
        return plain_empty(shape, dtype=dtype)

    monkeypatch.setattr("p2pmarket.parameters.packing.torch.empty", bounded_empty)

    def run(data: bytes) -> bool:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        try:
            unpack(path, schema=None)
        except (BadSnapshot, TooLarge, MalformedMessage):
            return False
        return True

    return run


def _whole(body: bytes, manifest: Any) -> bytes:
    encoded = msgpack.packb(manifest)
    return body + encoded + len(encoded).to_bytes(4, "big")


def test_manifests_with_hostile_fields(parcel: tuple[bytes, list[Any]], attempt: Callable[[bytes], bool]) -> None:
    body, manifest = parcel
    assert attempt(_whole(body, manifest))
    rng, passed = random.Random(1), 0
    for _ in range(3000):
        hostile = _mutated(manifest, rng)
        passed += attempt(_whole(body, hostile))
    assert passed < 600  # only market, task, step and salt may be anything


def _mutated(manifest: list[Any], rng: random.Random) -> list[Any]:
    copy = msgpack.unpackb(msgpack.packb(manifest))
    for _ in range(rng.choice([1, 1, 2, 4])):
        target = copy
        while True:
            index = rng.randrange(len(target))
            if isinstance(target[index], list) and target[index] and rng.random() < 0.9:
                target = target[index]
                continue
            target[index] = rng.choice(HOSTILE)(rng)
            break
    return copy


def test_flipped_cut_and_longer_files(parcel: tuple[bytes, list[Any]], attempt: Callable[[bytes], bool]) -> None:
    body, manifest = parcel
    whole = _whole(body, manifest)
    rng = random.Random(2)
    for _ in range(1500):
        data = bytearray(whole)
        kind = rng.randrange(3)
        if kind == 0:
            data[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
            assert not attempt(bytes(data))
        elif kind == 1:
            position = rng.randrange(len(body), len(data))
            data[position : position + rng.randrange(1, 6)] = rng.randbytes(rng.randrange(1, 6))
            attempt(bytes(data))
        else:
            assert not attempt(bytes(data[: rng.randrange(len(data))]) + rng.randbytes(rng.randrange(8)))
    for _ in range(500):
        assert not attempt(rng.randbytes(rng.randrange(200)))
