"""One market of real processes for the tests of this folder, and the check that a test leaves no process behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from peers import eventually
from testnet_market import Market, running_market, trained

RUN = "P2PMARKET_TEST_RUN"
"""As in ../conftest.py, which cannot be imported from a file of the same name."""
SELLER, BUYER, OTHER = "seller", "buyer", "other"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def market(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    """A bootstrap, a broker and three agents; the seller's trained model is on offer."""
    async with running_market(tmp_path_factory.mktemp("testnet")) as market:
        seller, _ = await asyncio.gather(market.start_agent(SELLER, "--no_buy"), market.start_agent(BUYER, "--no_sell"))
        await market.start_agent(OTHER, "--no_sell", through=seller.ready["addresses"])
        await market.visit(SELLER, trained(0))
        yield market


@pytest_asyncio.fixture(loop_scope="session", autouse=True)
async def no_child_left(market: Market) -> AsyncIterator[None]:
    """Fails a test after which other processes run than the market's own."""
    yield

    def strangers() -> set[int]:
        return processes() - family({child.process.pid for child in market.net.children.values()})

    async def only_the_market() -> bool:
        return not strangers()

    try:
        await eventually(only_the_market, 10)
    except asyncio.TimeoutError:
        raise AssertionError(f"left running: {names_of(strangers())}") from None


def processes() -> set[int]:
    """Processes of this test run but this one: they inherited the run's name."""
    mark = f"{RUN}={os.environ[RUN]}".encode()
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            running = _status(int(process.name))[0] != "Z"
            if running and mark in (process / "environ").read_bytes().split(b"\0"):
                found.add(int(process.name))
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found - {os.getpid()}


def names_of(pids: set[int]) -> list[str]:
    """What these processes run."""
    return [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids]


def family(pids: set[int]) -> set[int]:
    """These processes and their children."""
    found = set(pids)
    for pid in processes():
        try:
            if int(_status(pid)[1]) in pids:
                found.add(pid)
        except OSError:
            continue
    return found


def _status(pid: int) -> list[str]:
    """State and parent of a process (proc(5), /proc/pid/stat)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
