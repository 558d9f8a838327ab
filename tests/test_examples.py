"""The examples, run as their users run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from testnet_market import p2pmarket, running_market, save_clouds, trained

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_one_trade_in_memory():
    ended = subprocess.run(
        [sys.executable, EXAMPLES / "one_trade_in_memory.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    steps = [line for line in ended.stdout.splitlines() if line[0].isdigit()]
    assert [step[:2] for step in steps] == [f"{number}." for number in range(1, 9)]
    assert "the ledger verifies" in steps[-1]


def test_appraise_a_pair():
    ended = subprocess.run(
        [sys.executable, EXAMPLES / "appraise_a_pair.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    before, coverage, _, verdict, after = ended.stdout.splitlines()
    assert coverage.startswith("alignment can move 99.8% of 6,570 parameters")
    assert verdict.startswith("gain: the loss falls by ")
    alone, bought = (float(re.findall(r"buyer .*?([\d.]+) %", line)[0]) for line in (before, after))
    assert bought > alone + 5


def test_price_a_sale():
    ended = subprocess.run(
        [sys.executable, EXAMPLES / "price_a_sale.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    parts = [int(part) for part in re.findall(r"(\d+)% of the best income", ended.stdout)]
    assert len(parts) == 4 and parts[0] < 70 and parts[-1] >= 95
    assert "a bid of 1.00: no deal" in ended.stdout


def test_train_and_trade_ends_with_a_sentence(tmp_path):
    ended = subprocess.run(
        [
            sys.executable,
            EXAMPLES / "train_and_trade.py",
            "--market",
            "none",
            "--peers",
            "x",
            "--data",
            tmp_path / "no.npz",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "no.npz does not exist" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.testnet
async def test_train_and_trade(tmp_path):
    script = (sys.executable, str(EXAMPLES / "train_and_trade.py"))
    data = save_clouds(tmp_path / "few.npz", 24, seed=3)
    async with running_market(tmp_path) as market:
        await market.start_agent("seller", "--no_buy")
        await market.visit("seller", trained(0))
        ended = await p2pmarket(
            "--market", "clouds", "--data", data, "--epochs", 3, "--state", tmp_path / "example", "--peers",
            *market.peers, program=script,
        )  # fmt: skip
        sold = sum(state == "delivered" for _, state in market.rows("SELECT trade, state FROM trades") or ())
    assert (ended.code, ended.error) == (0, "")
    lines = ended.out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert "bought from" in lines[0]
    assert sold >= 1
