"""What an agent makes of a strategy's answer, whatever a caller's own code does."""

from __future__ import annotations

import logging
from typing import Any

import numpy
import pytest
import torch
from test_strategy import WALLET, report

from p2pmarket.errors import StrategyFault
from p2pmarket.limits import MAX_AMOUNT
from p2pmarket.messages import GainReport
from p2pmarket.node.consulting import amount_of, informed
from p2pmarket.node.strategy import Knowledge, Strategy, Wallet


class Says(Strategy):
    """Bids, and asks, one thing."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        object.__setattr__(self, "answer", answer)

    def bid(self, report: GainReport, wallet: Wallet) -> int | None:
        return self.answer  # type: ignore[attr-defined, no-any-return]

    def standing_ask(self) -> int | None:
        return self.answer  # type: ignore[attr-defined, no-any-return]

    def informed(self, knowledge: Knowledge) -> Strategy:
        return self.answer  # type: ignore[attr-defined, no-any-return]


class Fails(Strategy):
    """Cannot say what anything is worth."""

    def value(self, report: GainReport, wallet: Wallet) -> int:
        raise ZeroDivisionError("division\nby zero")


@pytest.mark.parametrize(
    "wrong", [1.5, 1.0, float("nan"), float("inf"), -5, True, MAX_AMOUNT + 1, "5", torch.tensor(1.5)]
)
def test_what_is_no_whole_number_of_micro_credits_is_said_with_its_class(wrong: object) -> None:
    with pytest.raises(StrategyFault) as caught:
        amount_of(Says(wrong).bid, report(0.5, 0.5), WALLET)
    assert str(caught.value).startswith(f"your strategy test_consulting:Says returned {wrong!r} as a bid; amounts are")
    with pytest.raises(StrategyFault, match="as a standing ask; amounts are whole micro-credits"):
        amount_of(Says(wrong).standing_ask)


@pytest.mark.parametrize("right", [0, 5, MAX_AMOUNT, numpy.int64(5), torch.tensor(5)])
def test_whole_numbers_are_amounts_whoever_counted_them(right: Any) -> None:
    amount = amount_of(Says(right).bid, report(0.5, 0.5), WALLET)
    assert type(amount) is int and amount == int(right)
    assert amount_of(Says(None).bid, report(0.5, 0.5), WALLET) is None


def test_code_that_fails_is_one_sentence_and_its_traceback_is_for_those_who_look(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(StrategyFault) as caught:
        amount_of(Fails().bid, report(0.5, 0.5), WALLET)
    assert str(caught.value) == "your strategy test_consulting:Fails failed in bid: ZeroDivisionError: division by zero"
    (record,) = caplog.records
    assert record.levelname == "DEBUG" and record.exc_info is not None
    caplog.clear()


def test_an_interruption_is_no_answer() -> None:
    class Interrupted(Strategy):
        def standing_ask(self) -> int | None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        amount_of(Interrupted().standing_ask)


def test_what_a_strategy_becomes_is_a_strategy() -> None:
    knowledge = Knowledge(0, 0, 0)
    assert informed(Strategy(reserve=3), knowledge).reserve == 3
    with pytest.raises(StrategyFault, match="test_consulting:Says returned None from informed"):
        informed(Says(None), knowledge)
