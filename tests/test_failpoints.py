"""Named fail points: what may be ordered, when it is done, and that nothing is done otherwise."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pmarket import failpoints
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.errors import ConnectionLost, MachineFault, SettingsError
from p2pmarket.failpoints import FailPointHit, FailPoints, Order, read_orders
from p2pmarket.ledger.database import Database
from p2pmarket.messages import Done
from p2pmarket.network.session import write_frame
from p2pmarket.wire import Frame, Kind, encode_frame

Orders = Callable[[str], FailPoints]


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Orders:
    """`order("send.deal.before:1:error")` orders that of this process until the test ends."""

    def set_orders(text: str) -> FailPoints:
        points = FailPoints(read_orders(text))
        monkeypatch.setattr(failpoints, "POINTS", points)
        return points

    return set_orders


def test_orders_are_read() -> None:
    assert read_orders("") == ()
    assert read_orders("ledger.settle.after:2:kill,send.deal.before:1:delay") == (
        Order("ledger.settle.after", 2, "kill"),
        Order("send.deal.before", 1, "delay"),
    )


@pytest.mark.parametrize("text", ["a", "a:1", "a:0:kill", "a:-1:kill", "a:x:kill", ":1:kill", "a:1:die", "a:1:kill:2"])
def test_an_order_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="write name:nth"):
        read_orders(text)


def test_an_error_comes_at_that_visit_and_no_other(order: Orders) -> None:
    order("here:2:error")
    failpoints.reach("here")
    failpoints.reach("there")
    with pytest.raises(FailPointHit, match="here was told to fail at visit 2"):
        failpoints.reach("here")
    failpoints.reach("here")
    assert issubclass(FailPointHit, MachineFault)


def test_a_delay_waits_and_goes_on(order: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    order("here:1:delay")
    failpoints.reach("here")
    failpoints.reach("here")
    assert waited == [failpoints.DELAY_SECONDS]


@pytest.mark.parametrize(("orders", "code"), [("here:2:kill", -signal.SIGKILL), ("here:4:kill", 0), ("", 0)])
def test_a_kill_is_a_sigkill(orders: str, code: int) -> None:
    program = "from p2pmarket import failpoints\nfor _ in range(3): failpoints.reach('here')"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, failpoints.VARIABLE: orders}, timeout=60, check=False
    )
    assert done.returncode == code


def test_a_wrong_order_ends_the_process_before_anything_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from p2pmarket import failpoints; print('ran')"],
        env={**os.environ, failpoints.VARIABLE: "nonsense"}, timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert "ran" not in done.stdout
    assert "SettingsError" in done.stderr


def test_who_follows_hears_of_every_place(order: Orders) -> None:
    points = order("")
    heard: list[str] = []
    before = failpoints.watched()
    points.follow = heard.append
    assert (before, failpoints.watched()) == (False, True)
    failpoints.reach("here")
    failpoints.reach("here")
    assert heard == ["here", "here"]


async def test_without_orders_nothing_is_counted_or_named(
    order: Orders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    points = order("")
    monkeypatch.setattr(points, "reach", None)
    failpoints.reach("here")
    await write_frame(Pipe(), Frame(Kind.REQUEST, 1, b"no record"))
    with database(tmp_path).transaction("work") as connection:
        connection.execute("INSERT INTO t VALUES (1)")


# ---- messages ----------------------------------------------------------------------------------------------------


class Pipe:
    """A stream that keeps what is written."""

    peer_id = "somebody"

    def __init__(self) -> None:
        self.written = b""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    async def read_exactly(self, count: int) -> bytes:
        raise AssertionError("nobody reads here")

    async def close(self) -> None: ...


DONE = Frame(Kind.REPLY, 1, sign(Identity(bytes(32)), Done()))


async def test_a_frame_is_named_by_its_message_or_its_kind(order: Orders) -> None:
    heard: list[str] = []
    order("").follow = heard.append
    for frame in (DONE, Frame(Kind.MAIL_ACK, 3), Frame(Kind.REQUEST, 1, b"no record")):
        await write_frame(Pipe(), frame)
    names = [name for name in ("done", "mail-ack", "request") for _ in range(2)]
    assert heard == [f"send.{name}.{moment}" for name, moment in zip(names, ["before", "after"] * 3, strict=True)]


@pytest.mark.parametrize(("moment", "written"), [("before", b""), ("after", encode_frame(DONE))])
async def test_an_error_at_a_message_is_a_broken_stream(order: Orders, moment: str, written: bytes) -> None:
    order(f"send.done.{moment}:1:error")
    pipe = Pipe()
    with pytest.raises(ConnectionLost):
        await write_frame(pipe, DONE)
    assert pipe.written == written


# ---- commits -----------------------------------------------------------------------------------------------------


def database(folder: Path) -> Database:
    return Database(folder / "book.sqlite", application_id=1, version=1, schema=("CREATE TABLE t (x INTEGER)",))


def rows(folder: Path) -> list[int]:
    connection = sqlite3.connect(folder / "book.sqlite")
    found = [x for (x,) in connection.execute("SELECT x FROM t ORDER BY x")]
    connection.close()
    return found


@pytest.mark.parametrize(("moment", "kept"), [("before", []), ("after", [1])])
def test_an_error_before_a_commit_undoes_it_and_after_it_does_not(
    order: Orders, tmp_path: Path, moment: str, kept: list[int]
) -> None:
    book = database(tmp_path)
    order(f"book.pay.{moment}:1:error")
    with pytest.raises(FailPointHit), book.transaction("pay") as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    assert rows(tmp_path) == kept
    with book.transaction("pay") as connection:
        connection.execute("INSERT INTO t VALUES (2)")
    assert rows(tmp_path) == [*kept, 2]
    book.close()


def test_a_commit_is_named_by_all_the_work_in_it(order: Orders, tmp_path: Path) -> None:
    book = database(tmp_path)
    heard: list[str] = []
    order("").follow = heard.append
    with book.transaction() as connection:
        with book.transaction("inner"):
            connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(KeyError), book.transaction("undone"), book.transaction("undone-too"):
            raise KeyError
    assert heard == ["book.inner.before", "book.inner.after"]
    heard.clear()
    with book.transaction() as connection:
        connection.execute("SELECT x FROM t").fetchall()
    assert heard == [], "nothing was committed"
    with book.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (2)")
    assert heard == ["book.commit.before", "book.commit.after"]
    book.close()
