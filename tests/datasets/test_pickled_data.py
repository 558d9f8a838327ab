"""Pickles read as data: the bytes people have are read, and whatever else a pickle can do is refused and not done."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_files import pixels, python2_batch, python2_batch_as_text

from p2pmarket.datasets import bounds
from p2pmarket.datasets.pickled import read_mapping
from p2pmarket.datasets.pickled_arrays import PickledBytes
from p2pmarket.errors import DataError


def array_in(value: object) -> np.ndarray:
    assert isinstance(value, PickledBytes)
    return value.array("x")


def test_what_python_2_wrote_is_read() -> None:
    images, labels = pixels(300), [i % 10 for i in range(300)]
    batch = read_mapping(python2_batch(images, labels), "batch")
    assert batch["labels"] == labels
    assert batch["batch_label"] == b"training batch 1 of 5"
    assert isinstance(batch["filenames"], list) and len(batch["filenames"]) == 300
    assert np.array_equal(array_in(batch["data"]), images)
    text = read_mapping(python2_batch_as_text(images, labels), "batch")
    assert text["labels"] == labels and text["batch_label"] == 7
    assert np.array_equal(array_in(text["data"]), images)


def test_the_hand_written_pickles_are_real() -> None:
    """Control: Python reads them the same way."""
    loads = getattr(pickle, "loads")  # noqa: B009 - our own bytes, and the linter knows the other spelling
    for written in (python2_batch, python2_batch_as_text):
        batch = loads(written(pixels(3), [4, 5, 6]), encoding="bytes")
        assert batch[b"labels"] == [4, 5, 6]
        assert np.array_equal(batch[b"data"], pixels(3))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("writeable", [True, False])
def test_what_python_3_writes_is_read(protocol: int, order: str, writeable: bool) -> None:
    images = np.asarray(pixels(3), order=order)  # type: ignore[call-overload]
    images.flags.writeable = writeable
    written = pickle.dumps({b"labels": [1, 2, 3], "data": images, "none": None, "yes": (True, -5)}, protocol)
    batch = read_mapping(written, "batch")
    assert batch["labels"] == [1, 2, 3] and batch["none"] is None and batch["yes"] == (True, -5)
    assert np.array_equal(array_in(batch["data"]), images)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    attack = b"(dS'data'\ncos\nsystem\n(S'touch " + str(touched).encode() + b"'\ntRs."
    with pytest.raises(DataError, match=r"the name os\.system.*nothing of it was run"):
        read_mapping(attack, "batch")
    assert not touched.exists()
    subprocess.run(
        [sys.executable, "-c", "import pickle, sys; pickle.load(sys.stdin.buffer)"], input=attack, check=True
    )
    assert touched.exists(), "control: Python itself would have run it"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"cthis\ns\n.", r"the name this\.s"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.", r"builtins\.eval"),
        (b"\x80\x02]]\x93.", "a name that is no text"),
        (b"(S'ls'\nios\nsystem\n.", "opcode b'i'"),
        (b"(cnumpy\ndtype\nS'u1'\no.", "opcode b'o'"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", r"opcode b'\\x81'"),
        (b"Psomething\n.", "opcode b'P'"),
        (b"\x80\x05\x97.", r"opcode b'\\x97'"),
        (b"\x80\x02\x82\x01.", r"opcode b'\\x82'"),
        (b"cnumpy\ndtype\n(S'O'\nI0\nI1\ntR.", "a call that is no array of bytes"),
        (b"c_codecs\nencode\n(V1\nVhex\ntR.", "a call that is no array of bytes"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.", "a call that is no array of bytes"),
        (b"S'u1'\n(I0\ntR.", "a call that is no array of bytes"),
        (b"S'text'\n(tb.", "an array that is not of bytes"),
        (b"(d(I1\nI2\nu.", "keys are not texts"),
        (b"(d(S'a'\nu.", "keys are not texts"),
        (b"I1\nI2\na.", "no list"),
        (b"I1_\n.", "a number that is none"),
        (b"I" + b"9" * 70 + b"\n.", "too long"),
        (b"Sopen\n.", "without quotes"),
        (b"S'\\q'\n.", "not unicode_escape"),
        (b"S'\\x4'\n.", "not unicode_escape"),
        (b"S'\\u4e00'\n.", "bytes above 255"),
        (b"X\x01\x00\x00\x00\xff.", "not utf-8"),
        (b"e.", "an end without a beginning"),
        (b"g3\n.", "never written"),
        (b"(.", "never written"),
        (b"", "ends too early"),
        (b"T\xff\xff\xff\x7fshort", "ends too early"),
        (b"I1", "ends too early"),
        (b"K\x01.", "holds int, expected a dictionary"),
    ],
)
def test_other_pickles_are_refused(body: bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_mapping(body, "batch")
    assert "this" not in sys.modules, "nothing is imported"


def test_every_cut_of_a_batch_is_refused() -> None:
    whole = python2_batch(pixels(1), [3])
    for end in (*range(0, 300), len(whole) - 2, len(whole) - 1):
        with pytest.raises(DataError):
            read_mapping(whole[:end], "batch")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x01K\x02M\x00\x0c\x86", b"K\x01K\x03M\x00\x0c\x86"),
        (b"K\x01K\x02M\x00\x0c\x86", b"K\x01J\xff\xff\xff\xffM\x00\x0c\x86"),
        (b"K\x01K\x02M\x00\x0c\x86", b"K\x01K\x02U\x02ab\x86"),
        (b"b\x89T", b"bNT"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(old: bytes, new: bytes) -> None:
    good = python2_batch(pixels(2), [1, 2])
    assert good.count(old) == 1
    with pytest.raises(DataError):
        array_in(read_mapping(good.replace(old, new), "batch")["data"])


def test_bytes_above_255_are_refused() -> None:
    written = pickle.dumps({"data": pixels(2)}, 2)
    assert b"\xc2\x80" in written
    with pytest.raises(DataError, match="above 255"):
        array_in(read_mapping(written.replace(b"\xc2\x80", b"\xd0\x80"), "batch")["data"])


def test_small_files_cannot_ask_for_much_work(monkeypatch: pytest.MonkeyPatch) -> None:
    laughs = b"\x80\x02(U\x03hahtq\x00" + b"".join(b"h%c" % i + b"h%c" % i + b"\x86q%c" % (i + 1) for i in range(200))
    with pytest.raises(DataError, match="a name that is no text"):
        read_mapping(laughs + b"h\xc8\x93.", "batch")
    monkeypatch.setattr(bounds, "MAX_PICKLE_OPCODES", 50)
    with pytest.raises(DataError, match="more than 50 steps"):
        read_mapping(b"]" * 51 + b".", "batch")
