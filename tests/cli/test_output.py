"""What is printed: no control characters from others for people, exact texts for programs, and a disk that is full."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from peers import identity_of

from p2pmarket.cli import _PrintableFormatter, main
from p2pmarket.cli.show import print_rows, printable, sentence
from p2pmarket.crypto.keys import Identity
from p2pmarket.ledger.journal import Ledger
from p2pmarket.units import CREDIT

AGENT = identity_of("agent")
NASTY = "\x1b[2Jpaid\r\x07 [red]x[/red] :smile: \u202egnp\x9b1m"
SHOWN = "\\x1b[2Jpaid\\r\\x07 [red]x[/red] :smile: \\u202egnp\\x9b1m"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    broker = Identity.load_or_create(tmp_path / "identity.key")
    with Ledger.open(tmp_path / "ledger.sqlite", broker, "digits") as ledger:
        ledger.grant(AGENT.peer_id, 12 * CREDIT, NASTY, b"m" * 16)
        ledger.grant(AGENT.peer_id, 1, "", b"n" * 16)
    return tmp_path


def test_printable() -> None:
    assert printable(NASTY) == SHOWN
    assert printable("plain ä€😀 text") == "plain ä€😀 text"


def test_a_memo_does_nothing_to_the_terminal_and_stays_exact_for_programs(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "history", "--state", str(state)]) == 0
    text = capsys.readouterr().out
    assert SHOWN in text and not set(text) & set("\x1b\r\x07\u202e\x9b")
    assert main(["ledger", "history", "--state", str(state), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["memo"] == NASTY


def test_events_errors_and_logs_do_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert sentence({"event": "problem", "sentence": NASTY}) == f"problem: {SHOWN}"
    assert "\x1b" not in sentence({"event": "trade", "trade": NASTY})
    ready = {"event": "ready", "role": "peer", "peer_id": "p", "market": "", "addresses": [NASTY]}
    assert SHOWN in sentence(ready)
    assert main(["ledger", "balances", "--state", f"no{NASTY}"]) == 2
    assert f"no{SHOWN}" in capsys.readouterr().err
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "a peer said %s", (NASTY,), None)
    assert _PrintableFormatter("%(message)s").format(record) == f"a peer said {SHOWN}"


def test_amounts_are_aligned_at_their_points(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, object]] = [
        {"account": "a", "held": None, "balance": 12_000_000},
        {"account": "b", "held": 5, "balance": -1_250_001},
    ]
    print_rows(rows, as_json=False, title="t", empty="", amounts=("held", "balance"))
    first, second = (line.rstrip() for line in capsys.readouterr().out.splitlines() if "000" in line)
    assert "12.000000" in first and "0.000005" in second and "-1.250001" in second
    assert len(first) == len(second), "the right ends and the points are below one another"
    print_rows(rows, as_json=True, title="t", empty="", amounts=("held", "balance"))
    assert json.loads(capsys.readouterr().out) == rows


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [["--help"], ["ledger", "balances"], ["ledger", "export", "--format", "csv"]])
def test_a_full_device_is_one_sentence(state: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-m", "p2pmarket", *arguments]
    if arguments != ["--help"]:
        command += ["--state", str(state)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 3
    assert done.stderr == "p2pmarket: the output cannot be written (No space left on device); send it elsewhere\n"
