"""`testnet`: a bootstrap, a broker and agents on this machine, left running until Ctrl-C, with the commands to join."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path

from rich.console import Console

from p2pmarket.cli.show import sentence
from p2pmarket.errors import SettingsError
from p2pmarket.events import stop_asked
from p2pmarket.simulation.endowments import Endowments, prepare
from p2pmarket.simulation.processes import Child, LocalNet, peers_of
from p2pmarket.tasks import end_tasks

MAX_AGENTS = 16


def testnet(given: argparse.Namespace) -> int:
    """Runs until it is asked to stop."""
    if not 0 <= given.agents <= MAX_AGENTS:
        raise SettingsError(f"--agents {given.agents} is not between 0 and {MAX_AGENTS}")
    folder = given.state.expanduser() if given.state else Path(tempfile.mkdtemp(prefix="p2pmarket-testnet-"))
    asyncio.run(_run(given, folder))
    return 0


async def _run(given: argparse.Namespace, folder: Path) -> None:
    console = Console(stderr=given.json)
    endowments = await asyncio.to_thread(
        prepare, folder / "data", None, agents=max(2, given.agents), seed=given.seed, rounds="continuous"
    )
    async with LocalNet(folder / "peers") as net:
        console.print("starting a bootstrap peer, a broker and the agents ...", highlight=False)
        bootstrap = await net.start("bootstrap", "peer")
        peers = peers_of([bootstrap])
        broker = await net.start(
            "broker", "broker", "--initial_peers", *peers,
            "--market", str(endowments.terms), "--validation", str(endowments.validation),
        )  # fmt: skip
        agents = await asyncio.gather(
            *(_start_agent(net, endowments, given, index, peers) for index in range(given.agents))
        )
        with stop_asked() as asked:
            _tell(console, given, folder, endowments, [bootstrap, broker, *agents], peers)
            followers = [asyncio.create_task(_follow(child, console)) for child in (broker, *agents)]
            try:
                await asked.wait()
            finally:
                await end_tasks(followers)


async def _start_agent(
    net: LocalNet, endowments: Endowments, given: argparse.Namespace, index: int, peers: tuple[str, ...]
) -> Child:
    return await net.start(
        f"agent-{index}", "node", "--market", "digits", "--data", str(endowments.agents[index]),
        "--test_data", str(endowments.test), "--epochs", str(given.epochs), "--seed", str(given.seed * 100 + index),
        "--reserve", "0", *endowments.flags, "--initial_peers", *peers,
    )  # fmt: skip


def _tell(
    console: Console,
    given: argparse.Namespace,
    folder: Path,
    endowments: Endowments,
    children: list[Child],
    peers: tuple[str, ...],
) -> None:
    join = (
        f"p2pmarket node --market digits --data {endowments.agents[0]} --test {endowments.test} "
        f"--state {folder / 'mine'} --peers {' '.join(peers)}"
    )
    if given.json:
        addresses = {child.name: list(child.ready["addresses"]) for child in children}
        ready = {"event": "ready", "role": "testnet", "market": "digits", "peers": list(peers), "folder": str(folder)}
        print(json.dumps({**ready, "children": addresses, "join": join}), flush=True)
        return
    lines = [
        f"a market named 'digits' runs on this machine; everything of it is in {folder}",
        f"To connect other peers, use --initial_peers {' '.join(peers)}",
        "Join with another agent:",
        f"  {join}",
        "Look at it:",
        f"  p2pmarket offers --state {folder / 'mine'} --peers {' '.join(peers)}",
        f"  p2pmarket trades --state {folder / 'peers' / 'broker'}",
        f"  p2pmarket ledger balances --state {folder / 'peers' / 'broker'}",
        "Ctrl-C stops it.",
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


async def _follow(child: Child, console: Console) -> None:
    async for event in child.events():
        text = sentence(event)
        if text:
            console.print(f"{child.name}: {text}", highlight=False, markup=False, soft_wrap=True)
