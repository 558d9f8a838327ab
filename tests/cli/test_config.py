"""`config show`: every setting, and where its value comes from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from p2pmarket.cli import main
from p2pmarket.settings import BrokerSettings, NodeSettings


def test_values_and_origins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "node.toml"
    config.write_text('budget = "4.20"\nepochs = 5\n')
    monkeypatch.setenv("P2PMARKET_EPOCHS", "7")
    monkeypatch.setenv("P2PMARKET_SEED", "8")
    assert main(["config", "show", "node", "--json", "--config", str(config), "--seed", "9", "--no_buy"]) == 0
    rows = {row["setting"]: (row["value"], row["origin"]) for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {field.name for field in dataclasses.fields(NodeSettings)}
    assert rows["seed"] == ("9", "the flag --seed")
    assert rows["epochs"] == ("7", "the variable P2PMARKET_EPOCHS")
    assert rows["budget"] == ("4.20", f"budget in {config}")
    assert rows["buy"] == ("no", "the flag --buy")
    assert rows["batch_size"] == ("64", "default")


def test_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "broker"]) == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(BrokerSettings):
        assert field.name in text
