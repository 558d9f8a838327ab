"""What was said in a simulated market, line by line, so that two runs can be compared.

Knows: the frames of sessions, well enough to name a message and its id. Refuses to know: what is inside a parcel. Lines
hold no bytes that differ from run to run (encryption keys, what is sealed to them): equal lines mean equal decisions.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping

from p2pmarket.crypto.signing import type_of
from p2pmarket.errors import PeerFault
from p2pmarket.messages import Hello, Welcome
from p2pmarket.units import Clock
from p2pmarket.wire import LENGTH, Kind, decode_frame

WITH_KEYS = (Hello.TYPE, Welcome.TYPE)
"""Messages that hold encryption keys, which no seed reaches."""


class Trace:
    """Give `hear` to a `MemoryNetwork` as its `watch`."""

    def __init__(self, clock: Clock, names: Mapping[str, str], *, quiet: tuple[Kind, ...] = (Kind.PING, Kind.PONG)):
        """
        :param names: what to call each peer id
        :param quiet: kinds of frames that are left out
        """
        self.lines: list[str] = []
        self.hears: list[Callable[[str, str, Kind, int, str], None]] = []
        """Told each frame too: sender, receiver, kind, number, type of message (empty: none)."""
        self._clock = clock
        self._names = names
        self._quiet = quiet

    def hear(self, sender: str, receiver: str, data: bytes) -> None:
        """Notes one write."""
        kind, number, text, of = _read(data)
        for hear in self.hears:
            if kind is not None:
                hear(sender, receiver, kind, number, of)
        if kind not in self._quiet:
            names = f"{self._names.get(sender, sender)} > {self._names.get(receiver, receiver)}"
            self.lines.append(f"{self._clock()} {names} {text}")

    def digest(self) -> str:
        """SHA-256 of all lines, in hexadecimal."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


def _read(data: bytes) -> tuple[Kind | None, int, str, str]:
    """A write as a frame, where it is one: kind, number, a line's text, type of message."""
    if len(data) < LENGTH.size or LENGTH.unpack_from(data)[0] != len(data) - LENGTH.size:
        return None, 0, f"{len(data)} bytes", ""
    try:
        frame = decode_frame(data[LENGTH.size :])
        of = type_of(frame.body) if frame.body else ""
    except (PeerFault, struct.error):  # part of a parcel
        return None, 0, f"{len(data)} bytes", ""
    body = "" if of in WITH_KEYS else hashlib.sha256(frame.body).hexdigest()[:16]
    return frame.kind, frame.number, f"{frame.kind.name.lower()} {frame.number} {of} {body}".strip(), of
