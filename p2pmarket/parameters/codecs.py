"""One tensor's values <-> bytes, with stated bounds on what is lost.

Knows: the codecs of `parcel.CODECS`. Refuses to know: names, files, zstd (packing). Bytes are little-endian.

| codec | bytes for n values | error of a value x of a block with largest magnitude m |
|---|---|---|
| none | n x element size | 0 |
| float16 | 2 n | at most 2**-11 abs(x) + 2**-25 |
| bfloat16 | 2 n | at most 2**-8 abs(x) + 2**-133 |
| int8 | n + 4 ceil(n / 1024) | at most (m / 254) (1 + 2**-15) + 1e-36 |

Integers, booleans and tensors already of 16 bits travel as "none" whatever the market's codec. Encoding what was
decoded gives the same bytes again, so a broker may keep either form. A value that a codec cannot hold (float16 ends
at 65,504) is refused with a ModelError, never clamped: a clamped model is another model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from p2pmarket.errors import BadSnapshot, ModelError
from p2pmarket.parameters.snapshot import TORCH_DTYPES

BLOCK = 1024
"""int8: values that share one float32 scale; each block is its scale and then its values."""
PIECE = 256 * BLOCK
"""Values encoded or decoded together: a few MiB of memory whatever the size of the tensor."""

_TINY = 1e-36
"""int8 sends a block whose largest magnitude is below this as zeros: its scale would be a denormal float32."""
_SCALE_BYTES = 4
_NARROW = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def codec_for(dtype: torch.dtype, codec: str) -> str:
    """The codec that a tensor of this type travels with in a market whose codec is `codec`."""
    return codec if dtype in (torch.float32, torch.float64) else "none"


def encoded_length(values: int, dtype: torch.dtype, codec: str) -> int:
    """Bytes that `values` values of type `dtype` take."""
    if codec == "none":
        return values * dtype.itemsize
    if codec == "int8":
        return values + _SCALE_BYTES * -(-values // BLOCK)
    return 2 * values


def encode(tensor: Tensor, codec: str) -> bytes:
    """All bytes of a tensor at once; `encode_pieces` needs less memory.

    :raises ModelError: a value is NaN, infinite, or too large for the codec
    """
    return b"".join(encode_pieces(tensor, codec))


def encode_pieces(tensor: Tensor, codec: str) -> Iterator[memoryview]:
    """The bytes of a tensor (any shape, on the CPU) in pieces of at most a few MiB.

    :raises ModelError: a value is NaN, infinite, or too large for the codec
    """
    used = codec_for(tensor.dtype, codec)
    for piece in torch.split(tensor.detach().reshape(-1), PIECE):
        if piece.numel() == 0:
            continue
        if piece.is_floating_point() and not torch.isfinite(piece).all():
            raise ModelError("the parameters hold a NaN or infinite value; did training diverge?")
        if used == "int8":
            yield _view(_quantise(piece))
        elif used in _NARROW:
            yield _view(_narrow(piece, used))
        else:
            yield _view(piece)


def decode(data: bytes | bytearray | memoryview, shape: tuple[int, ...], dtype: torch.dtype, codec: str) -> Tensor:
    """The tensor in `data`, in memory of its own. The caller has bounded `shape`.

    :raises BadSnapshot: the length is not what shape, type and codec need, or a value that cannot be
    """
    tensor = torch.empty(shape, dtype=dtype)
    decoder = Decoder(tensor, codec)
    decoder.write(memoryview(data))
    decoder.finish()
    return tensor


def round_trip(tensors: Mapping[str, Tensor], codec: str) -> dict[str, Tensor]:
    """What a receiver will decode: `decode(encode(...))` of every tensor.

    :raises ModelError: a value is NaN, infinite, or too large for the codec; names the tensor
    """
    decoded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        used = codec_for(tensor.dtype, codec)
        try:
            decoded[name] = decode(encode(tensor, used), tuple(tensor.shape), tensor.dtype, used)
        except ModelError as reason:
            raise ModelError(f"{name}: {reason}") from None
    return decoded


class Decoder:
    """Fills one tensor from bytes that arrive in pieces of any length."""

    def __init__(self, tensor: Tensor, codec: str) -> None:
        self._flat = tensor.view(-1)
        self._codec = codec
        self._done = 0
        """Values decoded."""
        self._rest = bytearray()
        """Bytes of a unit that is not complete yet."""

    def write(self, data: memoryview) -> None:
        """:raises BadSnapshot: more bytes than the tensor takes, or a value that cannot be"""
        for start in range(0, len(data), PIECE):
            self._rest += data[start : start + PIECE]
            self._take(self._whole_values())

    def finish(self) -> None:
        """:raises BadSnapshot: fewer bytes than the tensor takes"""
        remaining = self._flat.numel() - self._done
        if self._codec == "int8" and remaining < BLOCK:
            self._take(max(0, len(self._rest) - _SCALE_BYTES))
        if self._rest or self._done != self._flat.numel():
            raise BadSnapshot("a tensor's encoded bytes do not have the length its shape and codec need")

    def _whole_values(self) -> int:
        if self._codec == "int8":
            return len(self._rest) // (BLOCK + _SCALE_BYTES) * BLOCK
        return len(self._rest) // encoded_length(1, self._flat.dtype, self._codec)

    def _take(self, values: int) -> None:
        if values == 0:
            return
        if self._done + values > self._flat.numel():
            raise BadSnapshot("a tensor has more encoded bytes than its shape and codec need")
        used = encoded_length(values, self._flat.dtype, self._codec)
        raw = torch.frombuffer(self._rest[:used], dtype=torch.uint8)
        self._flat[self._done : self._done + values].copy_(_from_bytes(raw, values, self._flat.dtype, self._codec))
        self._done += values
        del self._rest[:used]


def check_booleans(raw: Tensor) -> None:
    """:raises BadSnapshot: a byte other than 0 and 1, which torch must never see as a bool"""
    if raw.numel() and int(raw.max()) > 1:
        raise BadSnapshot("a boolean tensor holds a byte that is neither 0 nor 1")


def _from_bytes(raw: Tensor, values: int, dtype: torch.dtype, codec: str) -> Tensor:
    if codec == "int8":
        return _dequantise(raw, values, dtype)
    if codec in _NARROW:
        return raw.view(_NARROW[codec]).to(dtype)
    if dtype == torch.bool:
        check_booleans(raw)
    return raw.view(dtype)


def _view(flat: Tensor) -> memoryview:
    return flat.contiguous().view(torch.uint8).numpy().data


def _narrow(piece: Tensor, codec: str) -> Tensor:
    narrow = piece.to(_NARROW[codec])
    if not torch.isfinite(narrow).all():
        raise ModelError(f"a value of magnitude {float(piece.abs().max()):.3g} is too large for the codec {codec}")
    return narrow


def _quantise(piece: Tensor) -> Tensor:
    """(n,) -> bytes: for each block a float32 scale s and integers round(x / s) in -127 ... 127.

    The scale has 17 significant bits, rounded up: with 7 bits of integer every product is an exact float32, so
    that decoding and encoding again gives the same bytes.
    """
    blocks = -(-piece.numel() // BLOCK)
    padded = torch.zeros(blocks * BLOCK, dtype=torch.float64)
    padded[: piece.numel()] = piece
    rows = padded.view(blocks, BLOCK)
    largest = rows.abs().amax(1, keepdim=True)
    if float(largest.max()) > torch.finfo(torch.float32).max:
        raise ModelError(f"a value of magnitude {float(largest.max()):.3g} is too large for the codec int8")
    scales = _round_up(largest / 127).masked_fill(largest < _TINY, 0.0)
    integers = (rows / scales.to(torch.float64).masked_fill(scales == 0, math.inf)).round().clamp(-127, 127)
    packed = torch.cat([scales.view(torch.uint8), integers.to(torch.int8).view(torch.uint8)], dim=1)
    return packed.view(-1)[: encoded_length(piece.numel(), torch.float32, "int8")]


def _round_up(values: Tensor) -> Tensor:
    """Positive float64 -> float32 with 17 significant bits, never smaller."""
    single = values.to(torch.float32)
    single = torch.where(
        single.to(torch.float64) < values, torch.nextafter(single, single.new_tensor(math.inf)), single
    )
    return ((single.view(torch.int32) + 0x7F) & ~0x7F).view(torch.float32)


def _dequantise(raw: Tensor, values: int, dtype: torch.dtype) -> Tensor:
    blocks = -(-values // BLOCK)
    padded = torch.zeros(blocks * (BLOCK + _SCALE_BYTES), dtype=torch.uint8)
    padded[: raw.numel()] = raw
    rows = padded.view(blocks, BLOCK + _SCALE_BYTES)
    scales = rows[:, :_SCALE_BYTES].contiguous().view(torch.float32)
    if not (torch.isfinite(scales) & (scales >= 0)).all():
        raise BadSnapshot("an int8 block has a scale that is negative, NaN or infinite")
    products = rows[:, _SCALE_BYTES:].contiguous().view(torch.int8).to(torch.float32) * scales
    largest = min(torch.finfo(torch.float32).max, torch.finfo(dtype).max)
    return products.clamp_(-largest, largest).view(-1)[:values].to(dtype)


def dtype_of(name: str) -> torch.dtype:
    """The torch type of a wire name in `parcel.DTYPES`."""
    return TORCH_DTYPES[name]
