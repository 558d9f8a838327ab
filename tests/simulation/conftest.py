"""Markets in memory that are quick to break: short pauses, and a check that nothing is left pending or unsaid."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from market_examples import OpenMarket, blobs, terms

from p2pmarket.broker_node import broker, desk
from p2pmarket.network import transfer
from p2pmarket.node import link
from p2pmarket.simulation.market import MarketInMemory


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower with more; and what the imports made need not be looked through after each test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that matter between machines are short here."""
    monkeypatch.setattr(link, "RETRY_SECONDS", (0.005, 0.02))
    monkeypatch.setattr(broker, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(desk, "GOODBYE_SECONDS", 0.2)
    monkeypatch.setattr(transfer, "_GOODBYE_SECONDS", 0.2)


@pytest.fixture(autouse=True)
async def nothing_pending(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Fails on a task or thread that outlives its market, and on what asyncio says about lost exceptions."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    others = asyncio.all_tasks()
    threads = threads_of_ours()
    yield
    pending = {task for task in asyncio.all_tasks() - others if task is not asyncio.current_task()}
    assert not pending, f"left pending: {pending}"
    assert threads_of_ours() == threads
    gc.collect()
    assert not complaints, complaints
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not errors, errors


def threads_of_ours() -> set[threading.Thread]:
    """Threads that a role started and owns."""
    names = ("ledger", "journal", "appraiser", "peer-book")
    return {each for each in threading.enumerate() if each.name.startswith(names)}


@pytest.fixture
def open_market(tmp_path: Path) -> OpenMarket:
    """A market of blobs in a folder of this test."""

    def make(folder: str = "market", clock: Callable[[], int] | None = None, **changes: Any) -> MarketInMemory:
        more = {} if clock is None else {"clock": clock}
        return MarketInMemory(terms(**changes), {"blobs": blobs(400, 99)}, tmp_path / folder, **more)

    return make
