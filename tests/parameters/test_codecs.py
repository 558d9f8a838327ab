"""Codecs: the error bounds they state, over everything a float can be."""

from __future__ import annotations

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmarket.errors import BadSnapshot, ModelError
from p2pmarket.parameters.codecs import BLOCK, PIECE, codec_for, decode, encode, encoded_length, round_trip

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
SMALLER = st.floats(min_value=-65000, max_value=65000, width=32)


def _error(tensor: torch.Tensor, codec: str) -> torch.Tensor:
    data = encode(tensor, codec)
    assert len(data) == encoded_length(tensor.numel(), tensor.dtype, codec_for(tensor.dtype, codec))
    decoded = decode(data, tuple(tensor.shape), tensor.dtype, codec)
    assert decoded.dtype == tensor.dtype and decoded.shape == tensor.shape
    assert encode(decoded, codec) == data  # encoding what was decoded gives the same bytes
    return (decoded.double() - tensor.double()).abs()


def _int8_bound(tensor: torch.Tensor) -> float:
    return float(tensor.double().abs().max()) / 254 * (1 + 2**-15) + 1e-36


@settings(max_examples=300, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40))
def test_int8_bound(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    assert float(_error(tensor, "int8").max()) <= _int8_bound(tensor)


@settings(max_examples=300, deadline=None)
@given(st.lists(SMALLER, min_size=1, max_size=40))
def test_float16_bound(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    assert bool((_error(tensor, "float16") <= tensor.double().abs() * 2**-11 + 2**-25).all())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(min_value=-(2.0**126), max_value=2.0**126, width=32), min_size=1, max_size=40))
def test_bfloat16_bound(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    assert bool((_error(tensor, "bfloat16") <= tensor.double().abs() * 2**-8 + 2**-133).all())


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7, PIECE + 3])
@pytest.mark.parametrize("codec", ["none", "float16", "bfloat16", "int8"])
def test_every_length(size: int, codec: str) -> None:
    tensor = torch.randn(size, generator=torch.Generator().manual_seed(size))
    error = _error(tensor, codec)
    assert size == 0 or float(error.max()) <= _int8_bound(tensor)
    assert codec != "none" or not error.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1e-45, 1e-40, 1e-36, 1e-30, 1e-3, 1.0, 1e30, 3e38])
def test_int8_at_every_scale(dtype: torch.dtype, scale: float) -> None:
    tensor = (torch.rand(3000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1) * scale
    tensor = tensor.to(dtype)
    blocks, errors = tensor.split(BLOCK), _error(tensor, "int8").split(BLOCK)
    assert all(float(error.max()) <= _int8_bound(block) for block, error in zip(blocks, errors, strict=True))


def test_int8_of_the_largest_float_stays_finite() -> None:
    tensor = torch.full((3,), torch.finfo(torch.float32).max)
    assert bool(torch.isfinite(decode(encode(tensor, "int8"), (3,), torch.float32, "int8")).all())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3),
        torch.tensor([True, False]),
        torch.tensor([-(2**62), 2**62]),
        torch.tensor([[1.0, 1 / 3]], dtype=torch.float16),
        torch.tensor([1 / 3, 3e38], dtype=torch.bfloat16),
        torch.zeros(2, 0, 3, dtype=torch.int32),
    ],
)
@pytest.mark.parametrize("codec", ["none", "float16", "bfloat16", "int8"])
def test_integers_booleans_and_half_precision_lose_nothing(tensor: torch.Tensor, codec: str) -> None:
    decoded = round_trip({"t": tensor}, codec)["t"]
    assert decoded.dtype == tensor.dtype and torch.equal(decoded, tensor)


def test_zero_dimensions_and_strides() -> None:
    assert decode(encode(torch.tensor(1.5), "int8"), (), torch.float32, "int8").shape == ()
    matrix = torch.randn(5, 7).T
    assert torch.equal(decode(encode(matrix, "none"), (7, 5), torch.float32, "none"), matrix)


@pytest.mark.parametrize(
    ("value", "dtype", "codec"),
    [
        (70000.0, torch.float32, "float16"),
        (-1e30, torch.float64, "float16"),
        (3.4e38, torch.float32, "bfloat16"),
        (1e300, torch.float64, "bfloat16"),
        (1e300, torch.float64, "int8"),
    ],
)
def test_what_a_codec_cannot_hold_is_refused(value: float, dtype: torch.dtype, codec: str) -> None:
    with pytest.raises(ModelError, match=f"w: .*too large for the codec {codec}"):
        round_trip({"w": torch.tensor([0.0, value], dtype=dtype)}, codec)


@pytest.mark.parametrize("codec", ["none", "float16", "bfloat16", "int8"])
def test_nan_is_refused(codec: str) -> None:
    with pytest.raises(ModelError, match="NaN"):
        encode(torch.tensor([1.0, float("nan")]), codec)


@pytest.mark.parametrize("codec", ["none", "float16", "bfloat16", "int8"])
def test_wrong_lengths_are_refused(codec: str) -> None:
    data = encode(torch.randn(2000), codec)
    for wrong in (b"", data[:-1], data + b"\0", data + data):
        with pytest.raises(BadSnapshot):
            decode(wrong, (2000,), torch.float32, codec)


def test_hostile_values_are_refused() -> None:
    with pytest.raises(BadSnapshot, match="boolean"):
        decode(b"\x02", (1,), torch.bool, "none")
    for scale in (float("nan"), float("inf"), -1.0):
        with pytest.raises(BadSnapshot, match="scale"):
            decode(struct.pack("<f", scale) + b"\x01", (1,), torch.float32, "int8")
