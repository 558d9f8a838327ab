"""The README's example of a strategy of one's own, as it is written there."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from pathlib import Path

import pytest
from test_strategy import report
from test_strategy_kinds import REQUEST, unmatched

from p2pmarket.messages import AskRequest, GainReport, Unmatched
from p2pmarket.node.consulting import amount_of
from p2pmarket.node.strategies.choosing import strategy_of
from p2pmarket.node.strategy import Strategy, Wallet
from p2pmarket.settings import NodeSettings
from p2pmarket.units import CREDIT

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def careful(monkeypatch: pytest.MonkeyPatch) -> Strategy:
    """As `--strategy mine:Careful` makes it."""
    (source,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Careful" in code)
    module = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    exec(source, vars(module))
    return strategy_of(NodeSettings(strategy="mine:Careful"))


def test_it_bids_and_asks_in_micro_credits(careful: Strategy) -> None:
    wallet = Wallet(balance=10 * CREDIT, spent=0)
    good = report(0.8, 0.6)  # sure of 0.4
    bid = amount_of(careful.bid, good, wallet)
    assert bid == 2 * CREDIT
    assert amount_of(careful.raise_bid, good, unmatched(2), bid, wallet) == 4 * CREDIT
    assert amount_of(careful.bid, good, Wallet(balance=5, spent=0)) == 5
    assert amount_of(careful.bid, report(0.01, 0.01), wallet) is None
    assert amount_of(careful.bid, report(0.8, -0.1), wallet) is None
    assert amount_of(careful.standing_ask) == CREDIT // 10
    assert amount_of(careful.ask, REQUEST) == CREDIT // 10
    assert amount_of(careful.ask, dataclasses.replace(REQUEST, weight=0.8)) == CREDIT // 5
    assert amount_of(dataclasses.replace(careful, sell=False).ask, REQUEST) is None


@pytest.mark.parametrize(
    ("argument", "kind"),
    [("report", GainReport), ("wallet", Wallet), ("unmatched", Unmatched), ("request", AskRequest)],
)
def test_every_field_that_it_names_is_there(argument: str, kind: type) -> None:
    (row,) = re.findall(rf"^\| `{argument}` \| (.*) \|$", README, re.MULTILINE)
    named = re.findall(r"`(\w+)`", row)
    assert named and {name for name in named} <= {field.name for field in dataclasses.fields(kind)}
