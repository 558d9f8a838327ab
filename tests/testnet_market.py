"""A market of real processes on loopback, and a test's hold on it: which snapshot comes when, who is killed when.

Agents are sidecars: each writing of a checkpoint is one visit to the market, so a test decides about every trade. One
sells a trained model, others come with untrained ones and gain by buying it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import eventually
from torch import Tensor

from p2pmarket.cli.books import open_ledger
from p2pmarket.ledger.trade import STATES
from p2pmarket.models import build_model
from p2pmarket.node.sidecar import read_checkpoint, write_checkpoint
from p2pmarket.simulation.processes import Child, Event, LocalNet, peers_of
from p2pmarket.units import CREDIT

TERMS = """
[market]
name = "clouds"
[model]
name = "mlp"
arguments = { inputs = 8, hidden = [16], outputs = 4 }
[[task]]
name = "clouds"
loss = "cross_entropy"
metric = "accuracy"
[pricing]
opening_credit = "100"
fee_percent = "1"
[limits]
submissions_per_hour = 1000000
"""
OPENING = 100 * CREDIT
VISIT_SECONDS = 60.0
TRIES = 10


def clouds(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Four clouds of points, (samples, 8) float32, and which cloud each is of."""
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(4, 8, generator=generator)
    generator.manual_seed(seed)
    targets = torch.randint(4, (samples,), generator=generator)
    return centres[targets] + torch.randn(samples, 8, generator=generator), targets


def untrained(seed: int) -> dict[str, Tensor]:
    """Parameters that know nothing: whoever has them gains by a purchase."""
    torch.manual_seed(seed)
    model = build_model("mlp", {"inputs": 8, "hidden": [16], "outputs": 4}, allow_import=False)
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def trained(seed: int) -> dict[str, Tensor]:
    """Parameters after a hundred steps on all clouds."""
    torch.manual_seed(seed)
    model = build_model("mlp", {"inputs": 8, "hidden": [16], "outputs": 4}, allow_import=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    inputs, targets = clouds(400, seed)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def save_clouds(path: Path, samples: int, seed: int) -> Path:
    """A data file of clouds."""
    inputs, targets = clouds(samples, seed)
    np.savez(path, inputs=inputs.numpy(), targets=targets.numpy())
    return path


@dataclasses.dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    error: str


async def p2pmarket(*arguments: object, timeout_seconds: float = 60.0, program: Sequence[str] = ()) -> Ended:
    """Runs one command of the command line to its end."""
    process = await asyncio.create_subprocess_exec(
        *(program or (sys.executable, "-m", "p2pmarket")),
        *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"OMP_NUM_THREADS": "1", **os.environ},
    )
    try:
        out, error = await asyncio.wait_for(process.communicate(), timeout_seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), error.decode())


class Market:
    """A bootstrap, a broker and sidecars; every one of them can be killed and started again."""

    def __init__(self, net: LocalNet, folder: Path) -> None:
        self.net = net
        self.folder = folder
        self.peers: tuple[str, ...] = ()
        """Addresses to join through: the bootstrap's, never the broker's."""
        self._seed = 0

    async def start(self) -> None:
        """The bootstrap and the broker."""
        (self.folder / "terms.toml").write_text(TERMS)
        save_clouds(self.folder / "validation.npz", 400, seed=1)
        self.peers = peers_of([await self.net.start("bootstrap", "peer")])
        await self.start_broker()

    async def start_broker(self) -> Child:
        """The broker, on what its folder holds."""
        return await self.net.start(
            "broker", "broker", "--initial_peers", *self.peers,
            "--market", str(self.folder / "terms.toml"), "--validation", str(self.folder / "validation.npz"),
        )  # fmt: skip

    async def start_agent(self, name: str, *flags: str, through: Sequence[str] = ()) -> Child:
        """A sidecar, on what its folder holds."""
        return await self.net.start(
            name, "node", "--market", "clouds", "--watch", str(self.checkpoint(name)), "--out", str(self.merged(name)),
            *flags, "--initial_peers", *(through or self.peers),
        )  # fmt: skip

    @property
    def broker(self) -> Child:
        return self.net.children["broker"]

    @property
    def broker_state(self) -> Path:
        """The broker's state folder."""
        return self.net.folder / "broker"

    def checkpoint(self, name: str) -> Path:
        """What an agent watches."""
        return self.folder / f"{name}.safetensors"

    def merged(self, name: str) -> Path:
        """What an agent writes."""
        return self.folder / f"{name}-merged.safetensors"

    def peer_id(self, name: str) -> str:
        """An agent's id and account."""
        return str(self.net.children[name].ready["peer_id"])

    def come(self, name: str, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Begins an agent's visit to the market, by default with an untrained model that was never there before."""
        self._seed += 1
        write_checkpoint(self.checkpoint(name), untrained(self._seed) if tensors is None else tensors)

    async def told(self, name: str) -> Event:
        """What an agent tells of the visit it is on."""
        event = await self.net.children[name].until("trade", VISIT_SECONDS)
        assert not event["problem"], event
        return event

    async def visit(self, name: str, tensors: Mapping[str, Tensor] | None = None) -> Event:
        """One whole visit."""
        self.come(name, tensors)
        return await self.told(name)

    async def buys(self, name: str) -> Event:
        """A visit in which the agent buys; what it then has is better than nothing."""
        event = await self.visit(name)
        assert len(event["bought"]) == 1, event
        self.check_merged(name)
        return event

    def check_merged(self, name: str) -> None:
        """What the agent wrote out classifies the clouds."""
        model = build_model("mlp", {"inputs": 8, "hidden": [16], "outputs": 4}, allow_import=False)
        model.load_state_dict(read_checkpoint(self.merged(name)))
        inputs, targets = clouds(400, seed=2)
        right = (model(inputs).argmax(-1) == targets).double().mean()
        assert right > 0.8, f"{right:.2f} of the test's clouds"

    # ---- looking into the broker ------------------------------------------------------------------------------

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]] | None:
        """Rows of the broker's ledger as they are at this moment; None while it is being written."""
        uri = f"file:{self.broker_state / 'ledger.sqlite'}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
            try:
                return connection.execute(query, values).fetchall()
            except sqlite3.OperationalError:
                return None

    def trades_of(self, buyer: str) -> list[tuple[str, str]] | None:
        """An agent's purchases, the newest first: (hex id, state)."""
        rows = self.rows(
            "SELECT lower(hex(trade)), state FROM trades WHERE buyer = ? ORDER BY created_ms DESC, rowid DESC",
            self.peer_id(buyer),
        )
        return rows  # type: ignore[return-value]

    def balances(self) -> dict[str, int]:
        """Micro-credits by peer id; the ledger has been verified."""
        with open_ledger(self.broker_state) as ledger:
            assert not ledger.verify().problems
            return {row.peer: row.balance for row in ledger.accounts()}

    def issued(self) -> int:
        """Micro-credits that the broker ever issued: opening credits and grants."""
        with contextlib.closing(sqlite3.connect(Path(self.broker_state) / "ledger.sqlite")) as ledger:
            return int(ledger.execute("SELECT minted FROM head").fetchone()[0])

    async def freeze_at(self, name: str, state: str) -> str:
        """Has an agent visit until a trade of it is in `state` and the broker, stopped at once, does not change that.

        The caller kills the broker or thaws it.
        """
        for _ in range(TRIES):
            known = await self._known_trades(name)
            self.come(name)
            trade = await self._stop_broker_at(name, state, known)
            if trade is not None:
                return trade
            thaw(self.broker)
            await self.told(name)
        raise AssertionError(f"no trade was found {state} in {TRIES} visits")

    async def _known_trades(self, name: str) -> set[str]:
        seen: list[list[tuple[str, str]]] = []

        async def read() -> bool:
            rows = self.trades_of(name)
            seen.extend([] if rows is None else [rows])
            return bool(seen)

        await eventually(read)
        return {trade for trade, _ in seen[0]}

    async def _stop_broker_at(self, name: str, state: str, known: set[str]) -> str | None:
        """Stops the broker when a new trade has come as far as `state`; None where it was past that by then."""
        early = STATES[: STATES.index(state)]

        def new() -> list[tuple[str, str]]:
            return [(trade, now) for trade, now in self.trades_of(name) or [] if trade not in known]

        async def come_so_far() -> bool:
            return any(now not in early for _, now in new())

        await eventually(come_so_far, VISIT_SECONDS, every_seconds=0.001)
        freeze(self.broker)
        return next((trade for trade, now in new() if now == state), None)


def freeze(child: Child) -> None:
    """Stops a process where it is; no signal but SIGCONT and SIGKILL reaches it."""
    os.kill(child.process.pid, signal.SIGSTOP)


def thaw(child: Child) -> None:
    """Lets a stopped process go on."""
    os.kill(child.process.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def running_market(folder: Path) -> AsyncIterator[Market]:
    """A market with a broker that is ready; nothing of it is left afterwards."""
    async with LocalNet(folder / "peers") as net:
        market = Market(net, folder)
        await market.start()
        try:
            yield market
        finally:
            for child in net.children.values():
                if child.process.returncode is None:
                    thaw(child)
