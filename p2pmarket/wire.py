"""Frames of a session stream: bytes <-> frames, no input or output.

A frame is `length (4) | kind (1) | number (8) | body`, integers big endian, `length` counting all after itself.
A REPLY repeats the number of its REQUEST; MAIL is numbered 1, 2, ... per agent and kept by the broker until a
MAIL_ACK names its number or a higher one; PING and PONG have no body. Bodies are signed records (crypto/signing).
"""

from __future__ import annotations

import dataclasses
import enum
import struct

from p2pmarket.errors import MalformedMessage, TooLarge
from p2pmarket.limits import MAX_RECORD_BYTES

LENGTH = struct.Struct("!I")
_HEAD = struct.Struct("!BQ")


class Kind(enum.IntEnum):
    """What a frame is."""

    REQUEST = 1
    REPLY = 2
    MAIL = 3
    MAIL_ACK = 4
    PING = 5
    PONG = 6


_WITHOUT_BODY = (Kind.MAIL_ACK, Kind.PING, Kind.PONG)


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame; `number` is a request's or a mail's, 0 for PING and PONG."""

    kind: Kind
    number: int = 0
    body: bytes = b""


def encode_frame(frame: Frame) -> bytes:
    """A frame's bytes, length included.

    :raises TooLarge: a body above MAX_RECORD_BYTES
    """
    if len(frame.body) > MAX_RECORD_BYTES:
        raise TooLarge(f"a frame's body of {len(frame.body)} bytes is above {MAX_RECORD_BYTES}")
    head = _HEAD.pack(frame.kind, frame.number)
    return LENGTH.pack(len(head) + len(frame.body)) + head + frame.body


def body_length(length: bytes) -> int:
    """How many bytes follow a frame's first four, checked before anything is read or allocated.

    :raises TooLarge: more than a frame may have
    :raises MalformedMessage: fewer than a frame has
    """
    (count,) = LENGTH.unpack(length)
    if count > _HEAD.size + MAX_RECORD_BYTES:
        raise TooLarge(f"a frame of {count} bytes is above {_HEAD.size + MAX_RECORD_BYTES}")
    if count < _HEAD.size:
        raise MalformedMessage(f"a frame of {count} bytes is shorter than its head")
    return int(count)


def decode_frame(data: bytes) -> Frame:
    """The frame in the bytes after its length.

    :raises MalformedMessage: an unknown kind, or a body where there is none
    """
    code, number = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    try:
        kind = Kind(code)
    except ValueError:
        raise MalformedMessage(f"unknown frame kind {code}") from None
    if body and kind in _WITHOUT_BODY:
        raise MalformedMessage(f"{kind.name} has no body")
    return Frame(kind, number, body)
