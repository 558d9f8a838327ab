"""`Agent`, the market as one line in ordinary code: an event loop in a thread of its own, models in the caller's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch
from torch import nn

from p2pmarket.errors import MarketNotFound
from p2pmarket.node import training_loop
from p2pmarket.node.results import TradeResult
from p2pmarket.node.strategy import Strategy
from p2pmarket.node.training_loop import Agent


class Recorder:
    """Stands for an AsyncAgent: says in which thread it was called, and with what."""

    peer_id = "12D3KooW"

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.closed = False
        self.given: Any = None
        self.thread: threading.Thread | None = None
        self.bought: dict[str, torch.Tensor] = {}
        self.model: nn.Module = nn.Linear(2, 1)
        self.noted: list[dict[str, torch.Tensor]] = []
        """What was in the model whenever a purchase was noted as loaded."""

    async def ready(self) -> str:
        if self.failure is not None:
            raise self.failure
        return "the terms"

    async def trade(self, model: Any, *, task: str, step: int | None) -> TradeResult:
        self.given, self.thread = model, threading.current_thread()
        purchase = type("Bought", (), {"parameters": self.bought})()
        return TradeResult(bought=(purchase,) if self.bought else (), note=f"{task} {step}")

    async def loaded(self, result: TradeResult) -> TradeResult:
        self.noted.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        return result

    async def balance(self) -> int:
        await asyncio.sleep(0)
        return 7


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()

    @contextlib.asynccontextmanager
    async def joined(access: Any, strategy: Strategy) -> AsyncIterator[Recorder]:
        try:
            yield recorder
        finally:
            recorder.closed = True

    monkeypatch.setattr(training_loop, "joined", joined)
    return recorder


def join() -> Agent:
    return Agent.join(["/ip4/127.0.0.1/tcp/1/p2p/x"], market="digits")


def test_a_model_is_copied_and_loaded_in_the_callers_thread(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    take, load = training_loop.take_snapshot, training_loop.load_in_place
    monkeypatch.setattr(training_loop, "take_snapshot", lambda m: threads.append(threading.current_thread()) or take(m))
    monkeypatch.setattr(
        training_loop, "load_in_place", lambda m, t: threads.append(threading.current_thread()) or load(m, t)
    )
    model = recorder.model
    place = model.weight.data_ptr()
    recorder.bought = {"weight": torch.tensor([[5.0, 6.0]])}
    with join() as agent:
        assert agent.terms == "the terms" and agent.peer_id == recorder.peer_id and agent.balance() == 7
        result = agent.trade(model, task="t", step=3)
    assert result.note == "t 3"
    assert threads == [threading.main_thread()] * 2 and recorder.thread is not threading.main_thread()
    assert recorder.given["weight"].data_ptr() != place, "a copy: training may go on"
    assert model.weight.tolist() == [[5.0, 6.0]] and model.weight.data_ptr() == place
    assert [noted["weight"].tolist() for noted in recorder.noted] == [[[5.0, 6.0]]], "loaded first, noted then"
    assert recorder.closed


def test_tensors_by_name_are_passed_on_and_left_alone(recorder: Recorder) -> None:
    recorder.bought = {"weight": torch.ones(1)}
    tensors = {"weight": torch.zeros(1)}
    with join() as agent:
        agent.trade(tensors)
    assert recorder.given is tensors and tensors["weight"].item() == 0


def test_closing_twice_and_leaving_no_thread(recorder: Recorder) -> None:
    before = set(threading.enumerate())
    agent = join()
    agent.close()
    agent.close()
    assert set(threading.enumerate()) == before


def test_a_market_that_cannot_be_joined_leaves_nothing(recorder: Recorder) -> None:
    before = set(threading.enumerate())
    recorder.failure = MarketNotFound("no broker announces market digits")
    with pytest.raises(MarketNotFound):
        join()
    assert recorder.closed, "what was started on the way is stopped"
    assert set(threading.enumerate()) == before
