"""What the tests of several rooms share: networks, and the check that nothing of ours outlives the run."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peers import identity_of

from p2pmarket.network.memory import MemoryNetwork
from p2pmarket.network.transport import Transport
from p2pmarket.settings import NetworkSettings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: these models are slower with more

RUN = "P2PMARKET_TEST_RUN"
"""Every process that a test starts inherits this variable; its value names the run."""


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails the run when a daemon or a socket directory of it is left at the end."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    place = tempfile.mkdtemp(prefix="p2pm-")
    os.environ[RUN] = os.environ["TMPDIR"] = tempfile.tempdir = place
    yield
    deadline = time.monotonic() + 5  # a daemon notices within 2 s that its process was killed
    while daemons_left(place) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [*daemons_left(place), *Path(place).glob("p2pmarket-*")]
    shutil.rmtree(place, ignore_errors=True)
    assert not left, f"left behind: {left}"


def daemons_left(run: str) -> list[str]:
    """The p2pd processes that this run started and that still run."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            named = (process / "comm").read_text().strip() == "p2pd"
            running = (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if named and running and f"{RUN}={run}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(f"p2pd, process {process.name}")
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


@pytest.fixture
def memory_network() -> MemoryNetwork:
    """An empty network in memory."""
    return MemoryNetwork()


JoinLibp2p = Callable[..., Awaitable[Any]]


@pytest.fixture
async def join_libp2p(tmp_path: Path) -> AsyncIterator[JoinLibp2p]:
    """`await join_libp2p("name", initial_peers=..., ...)` starts a Libp2pTransport on loopback; closed at the end."""
    from p2pmarket.network.libp2p import Libp2pTransport

    joined = []

    async def join(name: str, *, ping_every_seconds: float = 10.0, **settings: Any) -> Libp2pTransport:
        path = tmp_path / f"{name}.key"
        if not path.exists():
            identity_of(name).save(path)
        settings = {"startup_timeout_seconds": 30.0, **settings}
        transport = await Libp2pTransport.create(
            NetworkSettings(path, **settings), ping_every_seconds=ping_every_seconds
        )
        joined.append(transport)
        return transport

    yield join
    for transport in reversed(joined):
        await transport.close()


Join = Callable[[str], Awaitable[Transport]]


@pytest.fixture(params=["memory", pytest.param("libp2p", marks=pytest.mark.testnet)])
async def transports(
    request: pytest.FixtureRequest, memory_network: MemoryNetwork, join_libp2p: JoinLibp2p
) -> AsyncIterator[Join]:
    """`await transports("name")` joins one network, in memory or over libp2p; everyone is closed at the end."""
    joined: list[Transport] = []

    async def join(name: str) -> Transport:
        if request.param == "memory":
            joined.append(memory_network.join(identity_of(name).peer_id))
        else:
            seeds = await joined[0].addresses() if joined else ()
            joined.append(await join_libp2p(name, initial_peers=seeds))
        return joined[-1]

    yield join
    for transport in joined:
        await transport.close()
