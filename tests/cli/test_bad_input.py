"""What a person gives wrong gets one sentence on stderr and an exit code, and no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from p2pmarket.cli import main

TERMS = """
[market]
name = "digits"
[model]
name = "mlp"
arguments = { inputs = 4, hidden = [3], outputs = 2 }
[[task]]
name = "all"
loss = "cross_entropy"
metric = "accuracy"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with terms, data, and files that are wrong."""
    monkeypatch.chdir(tmp_path)
    Path("terms.toml").write_text(TERMS)
    Path("unknown-key.toml").write_text(TERMS + "[trade]\ncolour = 'red'\n")
    Path("no-toml.toml").write_text("x = [")
    Path("text.npz").write_text("this is no archive")
    Path("settings.toml").write_text("epoch = 5\n")
    Path("no-key").write_bytes(b"this is no key")
    np.savez("val.npz", inputs=np.zeros((8, 4), np.float32), targets=np.zeros(8, np.int64))
    return tmp_path


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("broker", 2, "give --market TERMS.toml"),
        ("broker --market none.toml", 2, "cannot read the market terms none.toml: No such file"),
        ("broker --market no-toml.toml", 2, "not valid TOML"),
        ("broker --market unknown-key.toml", 2, "unknown key 'colour' in [trade]; known are tradable"),
        ("broker --market terms.toml", 2, "no validation data for the task 'all': give --validation"),
        ("broker --market terms.toml --validation none.npz", 2, "none.npz does not exist"),
        ("broker --market terms.toml --validation text.npz", 2, "text.npz"),
        ("broker --market terms.toml --validation other=val.npz", 2, "the market has all"),
        ("broker --market terms.toml --validation val.npz --select_fraction 2", 2, "2 is not below 1"),
        ("node", 2, "give --data FILE.npz to train, or --watch"),
        ("node --data val.npz", 2, "which market? give --market NAME"),
        ("node --data val.npz --market digits --state s", 2, "through whom? give --peers"),
        ("node --data none.npz --market digits", 2, "none.npz does not exist"),
        ("node --watch here.safetensors", 2, "give --out FILE.safetensors with --watch"),
        ("node --epochs 0", 2, "the flag --epochs: 0 is not above 0"),
        ("node --reserve much", 2, "the flag --reserve: 'much' is not an amount of credits"),
        ("node --data val.npz --visits 3", 2, "the flag --visits: the strategy default makes nothing of it"),
        ("node --data val.npz --strategy :Mine", 2, "strategy is ':Mine'; name your own as package.module:Class"),
        ("node --compression gzip", 2, "'gzip' is none of none, float16"),
        ("node --config settings.toml", 2, "settings.toml: unknown key 'epoch'; known are"),
        ("node --config none.toml", 2, "cannot read the configuration none.toml: No such file"),
        ("peer --identity_path no-key --state s", 2, "not an identity file"),
        ("offers", 2, "through whom? give --peers"),
        ("trades --state nowhere", 2, "holds neither an agent's journal nor a broker's ledger"),
        (
            "ledger balances --state nowhere",
            2,
            "nowhere holds no broker's ledger; name the broker's folder with --state",
        ),
        ("ledger audit --state nowhere", 2, "holds no broker's ledger"),
        ("ledger grant nonsense 5 --state nowhere", 2, "'nonsense' is not the peer id of an Ed25519 key"),
        ("identity show --state nowhere", 2, "make one with `p2pmarket identity create`"),
        ("identity restore no-key --state s", 2, "not an identity file"),
        ("identity restore none --state s", 2, "none cannot be read (No such file or directory)"),
        ("config show node --epochs x", 2, "'x' is not a whole number"),
    ],
)
def test_one_sentence_and_an_exit_code(command: str, code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == code
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.startswith("p2pmarket: ")
    assert told.err.count("\n") == 1
    assert told.out == ""


@pytest.mark.usefixtures("place")
def test_with_json_a_program_reads_the_error_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["broker", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["event"], told["code"]) == ("error", "bad-settings")
    assert "--market" in told["sentence"]


@pytest.mark.usefixtures("place")
def test_a_variable_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PMARKET_EPOCHS", "many")
    assert main(["node"]) == 2
    assert "the variable P2PMARKET_EPOCHS: 'many' is not a whole number" in capsys.readouterr().err
