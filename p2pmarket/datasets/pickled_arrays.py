"""What stands for NumPy's arrays of bytes while a pickle is read as data: records in place of everything called.

Knows: how NumPy describes an array of uint8 to a pickle (numpy.ndarray.__reduce__ and __reduce_ex__). Refuses to know:
opcodes, and every other type. Fails with DataError, or with None where a call means nothing here.
"""

from __future__ import annotations

import dataclasses
import enum
import math

import numpy as np

from p2pmarket.errors import DataError


class Name(enum.Enum):
    """What may be named: a sign, never the thing itself."""

    RECONSTRUCT = enum.auto()
    FROM_BUFFER = enum.auto()
    ARRAY = enum.auto()
    DTYPE = enum.auto()
    ENCODE = enum.auto()


NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): Name.RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): Name.RECONSTRUCT,
    ("numpy.core.numeric", "_frombuffer"): Name.FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): Name.FROM_BUFFER,
    ("numpy", "ndarray"): Name.ARRAY,
    ("numpy", "dtype"): Name.DTYPE,
    ("_codecs", "encode"): Name.ENCODE,  # how Python 3 writes bytes for Python 2 to read
}


@dataclasses.dataclass
class PickledBytes:
    """An array of uint8 as a pickle describes it."""

    shape: object = None
    raw: object = None
    column_major: object = None

    def array(self, where: str) -> np.ndarray:
        """The array; it may share the pickle's memory and is not to be written to.

        :raises DataError: a shape that does not fit the bytes
        """
        raw, shape = self.raw, self.shape
        if isinstance(raw, Encoded):
            raw = raw.bytes(where)
        whole = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not whole or not isinstance(raw, bytes) or type(self.column_major) is not bool:
            raise DataError(f"{where} holds an array that is not of bytes; fetch it anew")
        assert isinstance(shape, tuple)
        if len(shape) > 4 or math.prod(shape) != len(raw):
            raise DataError(f"{where} holds an array of {len(raw):,} bytes whose shape says otherwise; fetch it anew")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if self.column_major else "C")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Bytes written as a text of the same code points. Encoded late, and once: a pickle may mention them often."""

    text: str

    def bytes(self, where: str) -> bytes:
        try:
            return self.text.encode("latin-1")
        except UnicodeEncodeError:
            raise DataError(f"{where} holds bytes above 255; fetch it anew") from None


class ByteType:
    """NumPy's uint8."""


def called(name: object, arguments: object) -> object:
    """What a call that NumPy's arrays are written with stands for; None for any other."""
    if not isinstance(arguments, tuple) or not 2 <= len(arguments) <= 4:
        return None
    first = arguments[0]
    if name is Name.RECONSTRUCT and first is Name.ARRAY:
        return PickledBytes()
    if name is Name.DTYPE and first in ("u1", b"u1"):
        return ByteType()
    if name is Name.ENCODE and isinstance(first, str) and arguments[1:] in (("latin1",), ("latin-1",), (b"latin1",)):
        return Encoded(first)
    if name is Name.FROM_BUFFER and len(arguments) == 4 and isinstance(arguments[1], ByteType):
        return PickledBytes(arguments[2], first, arguments[3] in ("F", b"F"))
    return None


def built(target: object, state: object) -> bool:
    """Gives an array its contents. What a byte's type adds (byte order, alignment) changes nothing.

    :returns: whether that is the state of an array of bytes
    """
    if isinstance(target, ByteType):
        return True
    if not isinstance(target, PickledBytes) or not isinstance(state, tuple) or len(state) != 5:
        return False
    _, shape, kind, column_major, raw = state
    if not isinstance(kind, ByteType) or type(column_major) not in (bool, int):
        return False
    target.shape, target.raw, target.column_major = shape, raw, bool(column_major)
    return True
