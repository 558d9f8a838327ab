"""Ctrl-C and a service manager's signal, which reach every process of a group at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from peers import eventually

pytestmark = pytest.mark.testnet


def start_peer(folder: Path) -> tuple[subprocess.Popen[str], list[str]]:
    """A bootstrap peer in a process group of its own, as a shell starts it, and its addresses."""
    peer = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "p2pmarket",
            "peer",
            "--json",
            "--state",
            folder,
            "--host_maddrs",
            "/ip4/127.0.0.1/tcp/0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    ready = json.loads(peer.stdout.readline())
    assert ready["event"] == "ready"
    return peer, ready["addresses"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_ends_a_peer_without_a_word(tmp_path, number):
    for _ in range(3):
        peer, _ = start_peer(tmp_path / "peer")
        os.killpg(peer.pid, number)
        _, errors = peer.communicate(timeout=30)
        assert (peer.returncode, errors) == (0, "")


@pytest.mark.parametrize("ignored", [False, True])
def test_a_command_that_computes_ends_on_sigterm_also_where_ctrl_c_is_ignored(tmp_path, ignored):
    """A background job of a script ignores SIGINT (POSIX, Shell Command Language 2.11); managers send SIGTERM."""
    scenario = tmp_path / "long.toml"
    subprocess.run([sys.executable, "-m", "p2pmarket", "simulate", "--new", scenario], check=True, capture_output=True)
    command = [sys.executable, "-m", "p2pmarket", "simulate", str(scenario), "--set", "scenario.rounds=100000"]
    program = subprocess.Popen(
        [*command, "--jobs", "1", "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL),
    )
    try:
        while program.poll() is None and not (tmp_path / "out").is_dir():
            time.sleep(0.05)
        program.terminate()
        _, errors = program.communicate(timeout=60)
    finally:
        program.kill()
    assert program.returncode == 130
    assert "Traceback" not in errors


async def test_the_daemon_does_not_outlive_a_killed_peer(tmp_path):
    peer, (address,) = start_peer(tmp_path / "peer")
    port = int(address.split("/")[4])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    peer.kill()
    peer.communicate(timeout=30)

    async def nobody_listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return True
        writer.close()
        return False

    await eventually(nobody_listens)
    again, _ = start_peer(tmp_path / "peer")  # which removes the sockets that were left
    again.terminate()
    assert again.wait(30) == 0
    again.communicate()
