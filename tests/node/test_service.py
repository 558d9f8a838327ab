"""What an agent's program does with its settings, and how its sidecar goes on where others would end."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest
import torch

from p2pmarket.errors import DataError, DiskFull, ModelError, SettingsError
from p2pmarket.market import parse_terms
from p2pmarket.node import service, sidecar
from p2pmarket.node.results import TradeResult
from p2pmarket.node.service import run_node, strategy_of
from p2pmarket.node.sidecar import read_checkpoint, write_checkpoint
from p2pmarket.settings import NodeSettings
from p2pmarket.units import CREDIT

TERMS = parse_terms(
    {
        "market": {"name": "m"},
        "model": {"name": "mlp", "arguments": {"inputs": 2, "hidden": [], "outputs": 2}},
        "task": [{"name": "t", "loss": "cross_entropy", "metric": "accuracy"}],
    }
)


async def refused(settings: NodeSettings) -> str:
    """The sentence with which a program ends before it reaches for the network."""
    events: list = []
    with pytest.raises((SettingsError, DataError)) as caught:
        await run_node(settings, events.append)
    assert events == []
    return str(caught.value)


async def test_it_says_what_it_was_not_given(tmp_path):
    settings = NodeSettings(state=tmp_path / "state", market="m", initial_peers=("/ip4/127.0.0.1/tcp/1/p2p/x",))
    assert "give --data" in await refused(settings)
    assert "give --out" in await refused(dataclasses.replace(settings, watch=tmp_path / "in.safetensors"))
    assert str(tmp_path / "no.npz") in await refused(dataclasses.replace(settings, data=str(tmp_path / "no.npz")))
    nowhere = dataclasses.replace(settings, watch=tmp_path / "in", out=tmp_path / "typo" / "out")
    assert f"the folder of --out {tmp_path / 'typo' / 'out'} is not there" in await refused(nowhere)
    watching = dataclasses.replace(settings, watch=tmp_path / "in", out=tmp_path / "out", test_data="no.npz")
    assert "no.npz" in await refused(watching)
    assert not (tmp_path / "state").exists(), "nothing is written before the settings are known to be right"


async def test_it_says_that_it_needs_a_market_and_a_peer(tmp_path):
    watching = NodeSettings(state=tmp_path, watch=tmp_path / "in", out=tmp_path / "out")
    assert "--market NAME" in await refused(watching)
    assert "--peers" in await refused(dataclasses.replace(watching, market="m"))


def test_the_knobs_reach_the_strategy():
    settings = NodeSettings(
        buy=False, sell=False, minimum_gain=0.5, credits_per_gain=3 * CREDIT, budget=7 * CREDIT, reserve=CREDIT
    )
    strategy = strategy_of(settings)
    knobs = ("buy", "sell", "minimum_gain", "credits_per_gain", "budget", "reserve")
    assert {name: getattr(strategy, name) for name in knobs} == {name: getattr(settings, name) for name in knobs}


def test_an_unknown_task_is_named_beside_the_known():
    with pytest.raises(SettingsError, match="no task 'x'; it has t"):
        service._task(NodeSettings(task="x"), TERMS)
    assert service._task(NodeSettings(), TERMS).name == "t"


# ---- the sidecar ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Bought:
    """As much of a purchase as a sidecar looks at."""

    parameters: dict
    seller: str = "s"
    price: int = 5
    trade: bytes = b"t"


class Market:
    """An agent whose visits end as the test says."""

    def __init__(self, *ends: object) -> None:
        self.ends = list(ends)
        self.came: list[dict] = []
        self.out: Path | None = None
        self.noted: list[bool] = []
        """Whenever a purchase was noted as loaded: whether it was written."""

    async def trade(self, tensors: dict, *, task: str) -> TradeResult:
        self.came.append(dict(tensors))
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    async def loaded(self, result: TradeResult) -> TradeResult:
        self.noted.append(self.out is not None and self.out.exists())
        return result


BOUGHT = TradeResult(bought=(Bought({"weight": torch.ones(2)}),))  # type: ignore[arg-type]


@pytest.fixture
def watching(tmp_path, monkeypatch):
    """`start(market, **settings)` runs a sidecar; its events come in a queue."""
    monkeypatch.setattr(sidecar, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(service, "WRITE_AGAIN_SECONDS", 0.005)

    def start(market: Market, **changes: object) -> tuple[asyncio.Task, asyncio.Queue]:
        settings = NodeSettings(**{"watch": tmp_path / "in", "out": tmp_path / "out", **changes})
        events: asyncio.Queue = asyncio.Queue()
        return asyncio.create_task(service._watch(settings, market, TERMS, {}, events.put_nowait)), events

    return start


async def following(events: asyncio.Queue, *names: str) -> list:
    """The next events, which have these names."""
    found = [await asyncio.wait_for(events.get(), 10) for _ in names]
    assert [event["event"] for event in found] == list(names), found
    return found


async def test_once_trades_once(watching, tmp_path):
    write_checkpoint(tmp_path / "in", {"weight": torch.zeros(2), "kept": torch.zeros(1)})
    task, events = watching(Market(BOUGHT), once=True)
    await asyncio.wait_for(task, 10)
    await following(events, "saved", "trade")
    written = read_checkpoint(tmp_path / "out")
    assert written["weight"].tolist() == [1, 1]
    assert written["kept"].tolist() == [0], "what was not bought is the buyer's own"
    assert read_checkpoint(tmp_path / "in")["weight"].tolist() == [0, 0]


async def test_nothing_bought_nothing_written(watching, tmp_path):
    write_checkpoint(tmp_path / "in", {"weight": torch.zeros(2)})
    task, events = watching(Market(TradeResult(problem="nobody there")), once=True)
    await asyncio.wait_for(task, 10)
    (trade,) = await following(events, "trade")
    assert trade["problem"] == "nobody there"
    assert not (tmp_path / "out").exists()


async def test_one_file_for_both_is_not_news_when_the_sidecar_wrote_it(watching, tmp_path):
    path = tmp_path / "in"
    market = Market(BOUGHT, BOUGHT)
    write_checkpoint(path, {"weight": torch.zeros(2)})
    task, events = watching(market, out=Path(f"{tmp_path}/../{tmp_path.name}/in"))
    await following(events, "saved", "trade")
    write_checkpoint(path, {"weight": torch.full((2,), 9.0)})
    await following(events, "saved", "trade")
    task.cancel()
    assert [tensors["weight"][0].item() for tensors in market.came] == [0, 9]


async def test_a_checkpoint_that_cannot_be_traded_is_told_and_the_next_one_is_taken(watching, tmp_path):
    path = tmp_path / "in"
    write_checkpoint(path, {"weight": torch.full((2,), torch.nan)})
    task, events = watching(Market(ModelError("not finite; did training diverge?"), BOUGHT))
    (problem,) = await following(events, "problem")
    assert problem["sentence"] == f"{path}: not finite; did training diverge?"
    write_checkpoint(path, {"weight": torch.zeros(2)})
    await following(events, "saved", "trade")
    task.cancel()


async def test_once_ends_with_a_checkpoint_that_cannot_be_traded(watching, tmp_path):
    write_checkpoint(tmp_path / "in", {"weight": torch.zeros(2)})
    task, _ = watching(Market(ModelError("another model")), once=True)
    with pytest.raises(ModelError, match="another model"):
        await asyncio.wait_for(task, 10)


async def test_what_was_paid_for_waits_for_a_full_disk(watching, tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "in", {"weight": torch.zeros(2)})
    tries = []

    def write(path, tensors):
        tries.append(path)
        if len(tries) < 4:
            raise DiskFull("the disk is full")
        return write_checkpoint(path, tensors)

    monkeypatch.setattr(service, "write_checkpoint", write)
    market = Market(BOUGHT)
    market.out = tmp_path / "out"
    task, events = watching(market, once=True)
    await asyncio.wait_for(task, 10)
    assert market.noted == [True], "its parcel is kept until then"
    problem, _, _ = await following(events, "problem", "saved", "trade")
    assert problem["sentence"] == "the disk is full; what was bought waits in memory"
    assert read_checkpoint(tmp_path / "out")["weight"].tolist() == [1, 1]
