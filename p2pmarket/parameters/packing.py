"""Tensors <-> the plain bytes of a parcel: `body | manifest | manifest length (4 bytes, big endian)`.

Knows: the layout, zstd, digests. Refuses to know: keys, streams, whose snapshot it is.
`pack` writes in one pass with a few MiB of memory. A reader trusts nothing: sizes first, then the manifest, then
each tensor's digest, length and values; whatever a stranger's file holds, it fails with BadSnapshot, TooLarge or
MalformedMessage and takes no more memory than the file's own limits allow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgpack
import torch
import zstandard
from blake3 import blake3
from torch import Tensor

from p2pmarket import limits
from p2pmarket.errors import BadSnapshot, DiskFull, MalformedMessage, ModelError, TooLarge
from p2pmarket.parameters.codecs import (
    Decoder,
    check_booleans,
    codec_for,
    dtype_of,
    encode_pieces,
    encoded_length,
)
from p2pmarket.parameters.snapshot import Tensors, check_against, check_finite, schema_of
from p2pmarket.parcel import Manifest, Schema, TensorEntry
from p2pmarket.records import decode as decode_record

_LENGTH_BYTES = 4
_ZSTD_LEVEL = 3
_ZSTD_WORTH = 0.95
"""zstd is kept for a tensor only where it saves at least 5 %."""
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
_STEP_BYTES = 4 * 1024 * 1024


def pack(
    tensors: Tensors, path: Path, *, market: str, task: str, step: int, codec: str, zstd: bool, salt: bytes
) -> Manifest:
    """Writes a parcel's plain bytes to `path`, which appears only when it is complete.

    `codec` is the market's; what travels otherwise is said in parameters/codecs. `salt`: 16 random bytes.

    :raises ModelError: a tensor that cannot travel, or a value that the codec cannot hold
    :raises TooLarge: above MAX_PARCEL_BYTES, or a manifest above MAX_MANIFEST_BYTES
    :raises DiskFull: the file cannot be written
    """
    schema_of(tensors)
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("w+b") as file:
            entries = tuple(_write_tensor(file, name, tensors[name], codec, zstd) for name in sorted(tensors))
            manifest = Manifest(market, task, step, salt, file.tell(), entries)
            encoded = _encode_manifest(manifest)
            file.write(encoded + len(encoded).to_bytes(_LENGTH_BYTES, "big"))
            if file.tell() > limits.MAX_PARCEL_BYTES:
                raise TooLarge(
                    f"the packed snapshot has {file.tell()} bytes; at most {limits.MAX_PARCEL_BYTES} are taken"
                )
        os.replace(partial, path)
    except OSError as reason:
        raise DiskFull(f"cannot write {path}: {reason.strerror}; free some space or choose another folder") from reason
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def digest_of(manifest: Manifest) -> bytes:
    """SHA-256 of the manifest's encoding: the snapshot's digest."""
    return hashlib.sha256(_encode_manifest(manifest)).digest()


def read_manifest(path: Path) -> Manifest:
    """The manifest at the end of a parcel's plain bytes, its layout checked against the file's size.

    :raises MalformedMessage: not a parcel
    :raises TooLarge: the manifest or the tensors it announces are above a limit
    :raises BadSnapshot: entries that contradict each other or the file
    """
    size = path.stat().st_size
    if size < _LENGTH_BYTES:
        raise MalformedMessage("a parcel ends before its manifest's length")
    with path.open("rb") as file:
        file.seek(size - _LENGTH_BYTES)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "big")
        if length > limits.MAX_MANIFEST_BYTES:
            raise TooLarge(f"a manifest of {length} bytes is above {limits.MAX_MANIFEST_BYTES}")
        if length + _LENGTH_BYTES > size:
            raise MalformedMessage("a parcel is shorter than its manifest")
        file.seek(size - _LENGTH_BYTES - length)
        manifest = decode_record(Manifest, file.read(length), max_bytes=limits.MAX_MANIFEST_BYTES)
    if manifest.body_bytes != size - _LENGTH_BYTES - length:
        raise BadSnapshot("a parcel's body does not have the length its manifest says")
    _check_layout(manifest)
    return manifest


def unpack(
    path: Path, *, schema: Schema | None, partial: bool = False, max_parameters: int = limits.MAX_MODEL_PARAMETERS
) -> dict[str, Tensor]:
    """The tensors of a parcel, every digest compared and every value finite.

    With a `schema`, names, shapes and types must be the market's, all of them unless `partial`; it is checked before
    anything is read. Tensors that travelled as they are share a private memory map of the file: writing to them is
    safe and changes no file, but the file must not be written to while they are in use.

    :raises MalformedMessage, TooLarge, BadSnapshot: see `read_manifest`; a digest, length or value that is wrong
    """
    manifest = read_manifest(path)
    if schema is not None:
        check_against(schema, manifest, partial=partial)
    parameters = sum(math.prod(entry.shape) for entry in manifest.tensors)
    if parameters > max_parameters:
        raise TooLarge(f"a snapshot of {parameters} parameters is above {max_parameters}")
    with path.open("rb") as file:
        body = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    tensors = {entry.name: _read_tensor(body, entry) for entry in manifest.tensors}
    check_finite(tensors)
    return tensors


def _encode_manifest(manifest: Manifest) -> bytes:
    """As records.encode, under the larger limit of manifests."""
    data: bytes = msgpack.packb(dataclasses.astuple(manifest), use_bin_type=True)
    if len(data) > limits.MAX_MANIFEST_BYTES:
        raise TooLarge(
            f"a manifest of {len(data)} bytes is above {limits.MAX_MANIFEST_BYTES}; use shorter tensor names"
        )
    return data


def _write_tensor(file: BinaryIO, name: str, tensor: Tensor, codec: str, zstd: bool) -> TensorEntry:
    used = codec_for(tensor.dtype, codec)
    plain = tensor.detach().to("cpu")
    offset = file.tell()
    encoded_bytes = encoded_length(plain.numel(), plain.dtype, used)
    try:
        compressed = zstd and _write_compressed(file, plain, used, encoded_bytes)
        if not compressed:
            for piece in encode_pieces(plain, used):
                file.write(piece)
    except ModelError as reason:
        raise ModelError(f"{name}: {reason}") from None
    length = file.tell() - offset
    spec = schema_of({name: plain}).tensors[0]
    return TensorEntry(
        name, spec.shape, spec.dtype, used, compressed, offset, length, encoded_bytes, _digest(file, offset, length)
    )


def _write_compressed(file: BinaryIO, plain: Tensor, codec: str, encoded_bytes: int) -> bool:
    """Whether zstd paid; where it did not, the file is as it was before."""
    if encoded_bytes == 0:
        return False
    offset = file.tell()
    sample = bytes(next(encode_pieces(plain, codec))[: 1024 * 1024])
    if len(zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(sample)) > _ZSTD_WORTH * len(sample):
        return False
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj(size=encoded_bytes)
    for piece in encode_pieces(plain, codec):
        file.write(compressor.compress(piece))
    file.write(compressor.flush())
    length = file.tell() - offset
    if length <= _ZSTD_WORTH * encoded_bytes and encoded_bytes <= limits.MAX_COMPRESSION_RATIO * length:
        return True
    file.seek(offset)
    file.truncate()
    return False


def _digest(file: BinaryIO, offset: int, length: int) -> bytes:
    """BLAKE3 of what was just written: read back, as zstd may have been taken back."""
    file.seek(offset)
    digest = blake3()
    while length:
        piece = file.read(min(length, _STEP_BYTES))
        digest.update(piece)
        length -= len(piece)
    return digest.digest()


def _check_layout(manifest: Manifest) -> None:
    """Entries sorted by name, one after the other, each with the length its shape, type and codec need."""
    end, decoded, last = 0, 0, ""
    for entry in manifest.tensors:
        if entry.name <= last:
            raise BadSnapshot("a manifest's tensors are not sorted by name")
        if math.prod(max(size, 1) for size in entry.shape) > limits.MAX_PARCEL_BYTES:
            raise TooLarge(f"tensor {entry.name!r} announces the shape {entry.shape}, which no parcel can hold")
        dtype = dtype_of(entry.dtype)
        if entry.codec != codec_for(dtype, entry.codec):
            raise BadSnapshot(f"tensor {entry.name!r} of {entry.dtype} cannot have the codec {entry.codec}")
        if entry.encoded_bytes != encoded_length(math.prod(entry.shape), dtype, entry.codec):
            raise BadSnapshot(f"tensor {entry.name!r} announces bytes that do not fit its shape")
        if entry.offset != end:
            raise BadSnapshot(f"tensor {entry.name!r} does not begin where the one before it ends")
        if not entry.zstd and entry.length != entry.encoded_bytes:
            raise BadSnapshot(f"tensor {entry.name!r} has a length that does not fit its shape")
        if entry.zstd and entry.encoded_bytes > limits.MAX_COMPRESSION_RATIO * entry.length:
            raise TooLarge(f"tensor {entry.name!r} announces more than {limits.MAX_COMPRESSION_RATIO} times its bytes")
        end += entry.length
        decoded += math.prod(entry.shape) * dtype.itemsize
        last = entry.name
    if end != manifest.body_bytes:
        raise BadSnapshot("a manifest's tensors do not fill the body")
    if decoded > limits.MAX_PARCEL_BYTES:
        raise TooLarge(f"a snapshot of {decoded} bytes is above {limits.MAX_PARCEL_BYTES}")


def _read_tensor(body: mmap.mmap, entry: TensorEntry) -> Tensor:
    with memoryview(body) as whole, whole[entry.offset : entry.offset + entry.length] as data:
        if blake3(data).digest() != entry.digest:
            raise BadSnapshot(f"the bytes of tensor {entry.name!r} do not have the digest in the manifest")
    dtype = dtype_of(entry.dtype)
    if entry.codec == "none" and not entry.zstd and entry.length and entry.offset % dtype.itemsize == 0:
        return _mapped(body, entry, dtype)
    tensor = torch.empty(entry.shape, dtype=dtype)
    decoder = Decoder(tensor, entry.codec)
    for piece in _plain_pieces(body, entry):
        decoder.write(piece)
    decoder.finish()
    return tensor


def _mapped(body: mmap.mmap, entry: TensorEntry, dtype: torch.dtype) -> Tensor:
    raw = torch.frombuffer(body, dtype=torch.uint8, count=entry.length, offset=entry.offset)
    if dtype == torch.bool:
        check_booleans(raw)
    return raw.view(dtype).view(entry.shape)


def _plain_pieces(body: mmap.mmap, entry: TensorEntry) -> Iterator[memoryview]:
    """The encoded bytes in pieces, decompressed; never more than the entry announces."""
    end = entry.offset + entry.length
    if not entry.zstd:
        for start in range(entry.offset, end, _STEP_BYTES):
            yield memoryview(body[start : min(end, start + _STEP_BYTES)])
        return
    frame = memoryview(body)[entry.offset : end]
    left = entry.encoded_bytes
    try:
        with zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).stream_reader(frame) as reader:
            while piece := reader.read(min(_STEP_BYTES, left + 1)):
                left -= len(piece)
                if left < 0:
                    raise BadSnapshot(f"tensor {entry.name!r} decompresses to more than it announces")
                yield memoryview(piece)
    except zstandard.ZstdError as reason:
        raise BadSnapshot(f"tensor {entry.name!r} is not a zstd frame: {reason}") from None
    if left:
        raise BadSnapshot(f"tensor {entry.name!r} decompresses to less than it announces")
