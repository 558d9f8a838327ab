"""A dictionary of numbers, texts and byte arrays that somebody pickled, read as data: nothing is imported or called.

Knows: the opcodes (Python's `pickletools` documents them) that Python 2 and 3 use for lists, tuples, dictionaries and
NumPy arrays of bytes. What a pickle asks to be called is not called: the names that NumPy's arrays need stand for
records here, and any other name ends the reading. So does any other opcode. Refuses to know: what the values mean.
Fails with DataError. Work and memory are bounded by the file's length and by `bounds`.
"""

from __future__ import annotations

import warnings
from typing import NoReturn

from p2pmarket.datasets import bounds
from p2pmarket.datasets.pickled_arrays import NAMES, Encoded, Name, built, called
from p2pmarket.errors import DataError

_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
_INTEGERS = {b"K": (1, False), b"M": (2, False), b"J": (4, True)}
_BYTES = {b"U": 1, b"T": 4, b"C": 1, b"B": 4, b"\x8e": 8, b"\x96": 8}
"""Opcodes of bytes and Python 2's texts, with the width of their length."""
_TEXTS = {b"\x8c": 1, b"X": 4, b"\x8d": 8}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUTS = {b"q": 1, b"r": 4}
_GETS = {b"h": 1, b"j": 4}
_SKIPPED = {b"\x80": 1, b"\x95": 8}
"""The protocol's number, and the length of a frame."""


class _Mark:
    """Where a list's, tuple's or dictionary's items begin on the stack."""


_MARK = _Mark()


def read_mapping(data: bytes, where: str) -> dict[str, object]:
    """The dictionary that the pickle `data` writes down, with texts as keys.

    Values are None, bool, int, str, bytes (Python 2's texts too), list, tuple, dict or `PickledBytes`.

    :param where: what to call the data in an error's sentence
    :raises DataError: anything else, see the module's first paragraph
    """
    value = _Machine(data, where).run()
    if not isinstance(value, dict):
        raise DataError(f"{where} holds {type(value).__name__}, expected a dictionary; is it another data set?")
    return {key if isinstance(key, str) else key.decode("latin-1"): each for key, each in value.items()}


class _Machine:
    """The pickle's stack and memo, and where in the file we are."""

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._where = where
        self._at = 0
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        for _ in range(bounds.MAX_PICKLE_OPCODES):
            code = self._take(1)
            if code == b".":
                return self._pop()
            self._step(code)
        self._fail(f"more than {bounds.MAX_PICKLE_OPCODES:,} steps")

    def _step(self, code: bytes) -> None:
        push = self._stack.append
        if code in _INTEGERS:
            push(self._integer(*_INTEGERS[code]))
        elif code in _PUTS:
            self._memo[self._integer(_PUTS[code])] = self._top()
        elif code in _GETS:
            push(self._remembered(self._integer(_GETS[code])))
        elif code in _BYTES:
            push(self._take(self._integer(_BYTES[code])))
        elif code in _TEXTS:
            push(self._decoded(self._take(self._integer(_TEXTS[code])), "utf-8"))
        elif code in _CONSTANTS:
            push(_CONSTANTS[code])
        elif code in _TUPLES:
            push(tuple(reversed([self._pop() for _ in range(_TUPLES[code])])))
        elif code in _SKIPPED:
            self._take(_SKIPPED[code])
        elif code == b"(":
            push(_MARK)
        elif code == b"]":
            push([])
        elif code == b"}":
            push({})
        elif code == b"t":
            push(tuple(self._items()))
        elif code == b"l":
            push(self._items())
        elif code == b"d":
            push(self._filled({}, self._items()))
        elif code in (b"a", b"e"):
            self._append([self._pop()] if code == b"a" else self._items())
        elif code in (b"s", b"u"):
            items = [self._pop(), self._pop()][::-1] if code == b"s" else self._items()
            self._filled(self._top(), items)
        elif code == b"c":
            push(self._named(self._text_line(), self._text_line()))
        elif code == b"\x93":
            name, module = self._pop(), self._pop()
            push(self._named(module, name))
        elif code == b"R":
            arguments, name = self._pop(), self._pop()
            made = called(name, arguments)
            if made is None:
                self._fail("a call that is no array of bytes")
            push(made)
        elif code == b"b":
            state = self._pop()
            if not built(self._top(), state):
                self._fail("an array that is not of bytes")
        elif code == b"\x94":
            self._memo[len(self._memo)] = self._top()
        else:
            self._line_step(code)

    def _line_step(self, code: bytes) -> None:
        """The opcodes of protocol 0, whose arguments are lines of text, and LONG1."""
        if code == b"I":
            line = self._text_line()
            self._stack.append(line == "01" if line in ("00", "01") else self._number(line))
        elif code == b"L":
            self._stack.append(self._number(self._text_line().removesuffix("L")))
        elif code == b"p":
            self._memo[self._number(self._text_line())] = self._top()
        elif code == b"g":
            self._stack.append(self._remembered(self._number(self._text_line())))
        elif code == b"S":
            quoted = self._line()
            if len(quoted) < 2 or quoted[:1] not in (b"'", b'"') or quoted[-1:] != quoted[:1]:
                self._fail("a text without quotes")
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Python only warns of an escape that does not exist
                text = self._decoded(quoted[1:-1], "unicode_escape")
            self._stack.append(Encoded(text).bytes(self._where))
        elif code == b"V":
            self._stack.append(self._decoded(self._line(), "raw_unicode_escape"))
        elif code == b"\x8a":
            self._stack.append(int.from_bytes(self._take(self._integer(1)), "little", signed=True))
        else:
            self._fail(f"the opcode {code!r} at byte {self._at - 1:,}")

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise DataError(f"{self._where} ends too early; fetch it anew")
        taken, self._at = self._data[self._at : end], end
        return taken

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise DataError(f"{self._where} ends too early; fetch it anew")
        line, self._at = self._data[self._at : end], end + 1
        return line

    def _text_line(self) -> str:
        line = self._line()
        if len(line) > bounds.MAX_PICKLE_LINE_BYTES:
            self._fail("a number or name that is too long")
        return self._decoded(line, "ascii")

    def _integer(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self._take(width), "little", signed=signed)

    def _number(self, line: str) -> int:
        try:
            return int(line)
        except ValueError:
            self._fail("a number that is none")

    def _decoded(self, data: bytes, encoding: str) -> str:
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, Warning):
            self._fail(f"a text that is not {encoding}")

    def _pop(self) -> object:
        value = self._top()
        del self._stack[-1]
        return value

    def _top(self) -> object:
        if not self._stack or self._stack[-1] is _MARK:
            self._fail("an item that was never written")
        return self._stack[-1]

    def _items(self) -> list[object]:
        """What lies above the last mark."""
        for start in range(len(self._stack) - 1, -1, -1):
            if self._stack[start] is _MARK:
                items = self._stack[start + 1 :]
                del self._stack[start:]
                return items
        self._fail("an end without a beginning")

    def _remembered(self, key: int) -> object:
        if key not in self._memo:
            self._fail("an item that was never written")
        return self._memo[key]

    def _append(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, list):
            self._fail("items of something that is no list")
        target.extend(items)

    def _filled(self, target: object, items: list[object]) -> object:
        keys = [key.text if isinstance(key, Encoded) else key for key in items[::2]]
        if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(key, (str, bytes)) for key in keys):
            self._fail("a dictionary whose keys are not texts")
        target.update(zip(keys, items[1::2], strict=True))
        return target

    def _named(self, module: object, name: object) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            self._fail("a name that is no text")
        if (module, name) not in NAMES:
            self._fail(f"the name {module[:64]}.{name[:64]}")
        return NAMES[module, name]

    def _fail(self, found: str) -> NoReturn:
        raise DataError(
            f"{self._where} is a pickle with {found}, which such a data set never has; nothing of it was run, "
            "and it is not read any further"
        )
