"""Programs that cannot start: one sentence that says what, whose fault and what to do, and its exit code."""

from __future__ import annotations

import shutil

import pytest
from peers import identity_of
from testnet_market import Ended, Market, p2pmarket

pytestmark = [pytest.mark.testnet, pytest.mark.asyncio(loop_scope="session")]


def sentence(ended: Ended, code: int) -> str:
    """The one line on stderr of a program that ended with this code."""
    assert (ended.code, ended.out) == (code, ""), ended
    lines = ended.error.splitlines()
    assert lines[-1].startswith("p2pmarket: ")
    assert all("(trying again)" in line for line in lines[:-1]), ended.error
    return lines[-1]


def node(market: Market, name: str, *flags: object) -> tuple[object, ...]:
    """The command line of a sidecar with a folder of its own."""
    return ("node", "--state", market.folder / name, "--watch", "x.safetensors", "--out", "y.safetensors", *flags)


async def test_port_in_use(market: Market):
    address = market.peers[0].rpartition("/p2p/")[0]
    ended = await p2pmarket("peer", "--state", market.folder / "late", "--host_maddrs", address)
    assert f"another program listens on {address}" in sentence(ended, 3)


async def test_unreachable_bootstrap(market: Market):
    nobody = f"/ip4/127.0.0.1/tcp/9/p2p/{identity_of('nobody').peer_id}"
    flags = ("--market", "clouds", "--startup_timeout_seconds", 2, "--peers", nobody)
    ended = await p2pmarket(*node(market, "lost", *flags))
    assert "none of the initial peers answered" in sentence(ended, 4)
    assert nobody in ended.error


async def test_unknown_market(market: Market):
    flags = ("--market", "unheard-of", "--trade_timeout_seconds", 2, "--peers", *market.peers)
    ended = await p2pmarket(*node(market, "astray", *flags))
    assert "no broker announces market unheard-of (seen: clouds)" in sentence(ended, 4)


async def test_identity_that_runs_elsewhere(market: Market):
    folder = market.folder / "twin"
    folder.mkdir(mode=0o700)
    shutil.copy(market.net.folder / "buyer" / "identity.key", folder / "identity.key")
    ended = await p2pmarket(*node(market, "twin", "--market", "clouds", "--peers", *market.peers))
    assert "is on this network already" in sentence(ended, 3)
    await market.buys("buyer")


async def test_folder_that_is_in_use(market: Market):
    state = market.net.folder / "buyer"
    ended = await p2pmarket(*node(market, "", "--state", state, "--market", "clouds", "--peers", *market.peers))
    assert "another process runs with the identity" in sentence(ended, 3)
    await market.buys("buyer")


async def test_peer_that_runs_no_market(market: Market, tmp_path):
    """A broker named by its id that is none."""
    flags = ("--market", "clouds", "--broker", market.net.children["bootstrap"].ready["peer_id"])
    ended = await p2pmarket(*node(market, "picky", *flags, "--trade_timeout_seconds", 2, "--peers", *market.peers))
    assert sentence(ended, 4)
