"""`demo` and `testnet` as their users run them: one command, many processes, none of them left."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.testnet

COMMAND = (sys.executable, "-m", "p2pmarket")


def run(*arguments: object, timeout_seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_seconds, check=False
    )


def check_outcome(ended: subprocess.CompletedProcess[str], report: Path) -> dict:
    """The demonstration's last line, after a look at its report."""
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout.splitlines()[-1])
    assert outcome.keys() == {"agents", "trades", "settled", "ledger_verified", "seconds"}
    assert outcome["agents"].keys() == {"A", "B"}
    for agent in outcome["agents"].values():
        assert agent.keys() == {"alone", "market"}
        assert all(0 <= accuracy <= 100 for accuracy in agent.values())
    assert outcome["ledger_verified"] is True
    names = {"curves.csv", "curves.png", "report.html", "summary.json", "trades.csv"}
    assert {path.name for path in report.iterdir()} == names
    page = (report / "report.html").read_text()
    assert "Report of a broker" in page and f">{outcome['trades']}<" in page
    assert f"look at it in any browser: {report.resolve() / 'report.html'}\n" in ended.stderr
    assert all(path.stat().st_size for path in report.iterdir())
    return outcome


def test_demo_on_digits(tmp_path):
    outcome = check_outcome(run("demo", "--rounds", 8, "--json", "--report", tmp_path / "report"), tmp_path / "report")
    assert outcome["trades"] >= 1
    assert outcome["settled"] > 0
    for agent in outcome["agents"].values():
        assert agent["market"] > agent["alone"]


def test_demo_on_a_file_like_mnist(tmp_path):
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (10, 28, 28))

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 10
        noisy = pictures[labels] + random.normal(0, 30, (count, 28, 28))
        return noisy.clip(0, 255).astype(np.uint8), labels.astype(np.int64)

    (x_train, y_train), (x_test, y_test) = images(600), images(100)
    np.savez(tmp_path / "tiny.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    report = tmp_path / "report"
    ended = run("demo", "--rounds", 6, "--json", "--report", report, "--data", tmp_path / "tiny.npz")
    check_outcome(ended, report)
    assert "tiny.npz: 100 images for the broker, 100 to test on" in ended.stderr


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: None, "missing.npz"),
        (lambda path: path.write_bytes(b"PK\3\4 and no more"), "not a readable .npz"),
        (lambda path: np.savez(path, images=np.zeros((4, 2))), "found images"),
        (lambda path: np.savez(path, x_train=np.array([{}], dtype=object), y_train=[0]), "pickle"),
    ],
    ids=["missing", "garbage", "other arrays", "objects"],
)
def test_demo_on_a_wrong_file(tmp_path, write, words):
    path = tmp_path / "missing.npz"
    write(path)
    ended = run("demo", "--data", path, "--report", tmp_path / "report")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert words in ended.stderr
    assert str(path) in ended.stderr
    assert not (tmp_path / "report").exists()


def test_demo_leaves_a_report_folder_that_was_there(tmp_path):
    (tmp_path / "report").mkdir()
    ended = run("demo", "--data", tmp_path / "none.npz", "--report", tmp_path / "report")
    assert ended.returncode == 2
    assert (tmp_path / "report").is_dir()


def test_demo_interrupted_leaves_no_report(tmp_path):
    demo = subprocess.Popen(
        [*COMMAND, "demo", "--report", tmp_path / "report"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells have background jobs ignore it
    )
    assert "scikit-learn's digits" in demo.stdout.readline()
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (130, "")
    assert not (tmp_path / "report").exists()


async def test_testnet_is_joined_with_the_command_it_prints_and_stops_when_asked(tmp_path):
    testnet = await asyncio.create_subprocess_exec(
        *COMMAND, "testnet", "--agents", "1", "--json", "--state", str(tmp_path / "net"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert testnet.stdout is not None
        ready = json.loads(await asyncio.wait_for(testnet.stdout.readline(), 90))
        assert (ready["event"], ready["market"]) == ("ready", "digits")
        join = shlex.split(ready["join"])
        assert join[0] == "p2pmarket"
        joined = await asyncio.create_subprocess_exec(
            *COMMAND, *join[1:], "--epochs", "3", "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, error = await asyncio.wait_for(joined.communicate(), 90)
        assert (joined.returncode, error) == (0, b"")
        events = [json.loads(line) for line in out.splitlines()]
        assert [event["event"] for event in events] == ["ready", "round", "round", "round", "done", "stopping"]
        assert all(event["balance"] for event in events if event.get("trade")), "it was at the market"
    finally:
        testnet.terminate()
        _, told = await asyncio.wait_for(testnet.communicate(), 60)
    assert testnet.returncode == 0
    assert b"Traceback" not in told
    left = [pid for pid in children_of(str(tmp_path / "net")) if pid != os.getpid()]
    assert left == []


def children_of(folder: str) -> list[int]:
    """Processes whose command line names this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if folder.encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # it ended meanwhile
    return found
