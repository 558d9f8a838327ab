"""An agent as a program: the built-in trainer, or a sidecar beside somebody else's.

Knows: epochs, checkpoints, when to visit the market. Refuses to know: how events are shown (`emit` does). A broken
network costs visits, never training; the wrong input of an operator is raised at the start.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

import torch
from torch import Tensor

from p2pmarket.datasets import Dataset, load_dataset
from p2pmarket.errors import MachineFault, ModelError, SettingsError
from p2pmarket.events import Emit, stop_asked
from p2pmarket.market import MarketTerms, Task
from p2pmarket.models import build_model
from p2pmarket.node.agent import AsyncAgent
from p2pmarket.node.joining import joined
from p2pmarket.node.results import TradeResult
from p2pmarket.node.sidecar import Stamp, next_checkpoint, write_checkpoint
from p2pmarket.node.strategies.choosing import strategy_of
from p2pmarket.node.trainers import Trainer, score
from p2pmarket.parameters.snapshot import take_snapshot
from p2pmarket.settings import NodeSettings
from p2pmarket.tasks import end_tasks

WRITE_AGAIN_SECONDS = 2.0


async def run_node(settings: NodeSettings, emit: Emit, origins: Mapping[str, str] | None = None) -> None:
    """Runs until training is done, or until SIGINT or SIGTERM.

    :param origins: where each setting came from (options.resolve), so that none given by hand is passed over
    :raises MarketError: something could not be started; says what and what to do
    """
    work = _choose(settings)
    strategy = strategy_of(settings, origins)
    data = {name: load_dataset(source, allow_import=True) for name, source in _sources(settings).items()}
    async with joined(settings, strategy) as agent:
        terms = await agent.ready()
        ready = {
            "event": "ready",
            "role": "node",
            "market": terms.name,
            "peer_id": agent.peer_id,
            "broker": agent.broker,
            "balance": await agent.balance(),
            "addresses": list(await agent.addresses()),
        }
        with stop_asked(on_eof=settings.stop_on_eof) as asked:
            emit(ready)
            working = asyncio.create_task(work(settings, agent, terms, data, emit))
            stopping = asyncio.create_task(asked.wait())
            try:
                await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    await working
                    emit({"event": "done", "balance": await agent.balance()})
            finally:
                emit({"event": "stopping"})
                await end_tasks((working, stopping))


Work = Callable[[NodeSettings, AsyncAgent, MarketTerms, dict[str, Dataset], Emit], Coroutine[None, None, None]]


def _choose(settings: NodeSettings) -> Work:
    """What this node does, from what it was given."""
    if settings.watch is not None:
        if settings.out is None:
            raise SettingsError("a sidecar writes its result somewhere: give --out FILE.safetensors with --watch")
        if not settings.out.expanduser().parent.is_dir():
            raise SettingsError(f"the folder of --out {settings.out} is not there; make it, or name another")
        return _watch
    if not settings.data:
        raise SettingsError("give --data FILE.npz to train, or --watch CHECKPOINT.safetensors to trade for a program")
    return _train


def _sources(settings: NodeSettings) -> dict[str, str]:
    named = {"train": settings.data if settings.watch is None else "", "test": settings.test_data}
    return {name: source for name, source in named.items() if source}


# ---- the built-in trainer -------------------------------------------------------------------------------------------


async def _train(
    settings: NodeSettings, agent: AsyncAgent, terms: MarketTerms, data: dict[str, Dataset], emit: Emit
) -> None:
    task = _task(settings, terms)
    torch.manual_seed(settings.seed)
    model = build_model(settings.model or terms.model, terms.arguments(task.name), allow_import=bool(settings.model))
    twin = copy.deepcopy(model) if settings.compare_alone else None

    def trainer_of(any_model: torch.nn.Module) -> Trainer:
        return Trainer(
            any_model,
            data["train"],
            loss=task.loss,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            momentum=settings.momentum,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )

    trainer, alone = trainer_of(model), trainer_of(twin) if twin is not None else None
    test = data.get("test")
    for epoch in range(1, settings.epochs + 1):
        loss = await asyncio.to_thread(trainer.epoch)
        if alone is not None:
            await asyncio.to_thread(alone.epoch)
        result = None
        if epoch >= settings.trade_from and (epoch - settings.trade_from) % settings.trade_every == 0:
            result = await agent.trade(model, task=task.name, step=epoch)
        emit(
            {
                "event": "round",
                "epoch": epoch,
                "loss": loss,
                "score": await _score(model, test, task),
                "alone": await _score(twin, test, task),
                **_told(result),
            }
        )
    if settings.save is not None:
        await asyncio.to_thread(write_checkpoint, settings.save, take_snapshot(model))
        emit({"event": "saved", "path": str(settings.save)})


async def _score(model: torch.nn.Module | None, data: Dataset | None, task: Task) -> float | None:
    if model is None or data is None:
        return None
    return await asyncio.to_thread(score, model, data, task.loss)


def _task(settings: NodeSettings, terms: MarketTerms) -> Task:
    task = terms.task(settings.task) if settings.task else terms.tasks[0]
    if task is None:
        names = ", ".join(task.name for task in terms.tasks)
        raise SettingsError(f"the market has no task {settings.task!r}; it has {names}")
    return task


def _told(result: TradeResult | None) -> dict[str, object]:
    """A visit to the market as an event's keys."""
    if result is None:
        return {"trade": ""}
    best = result.reports[0] if result.reports else None
    return {
        "trade": str(result),
        "gain": best.gain if best else None,
        "gain_low": best.gain_low if best else None,
        "gain_high": best.gain_high if best else None,
        "merit": best.merit if best else None,
        "bought": [
            {"seller": purchase.seller, "price": purchase.price, "trade": purchase.trade.hex()}
            for purchase in result.bought
        ],
        "sold": [{"price": sale.price, "fee": sale.fee, "trade": sale.trade.hex()} for sale in result.sold],
        "repaid": [
            {"amount": refund.amount, "bought": refund.bought, "trade": refund.trade.hex(), "reason": refund.reason}
            for refund in result.repaid
        ],
        "balance": result.balance,
        "problem": result.problem,
    }


# ---- the sidecar ----------------------------------------------------------------------------------------------------


async def _watch(
    settings: NodeSettings, agent: AsyncAgent, terms: MarketTerms, data: dict[str, Dataset], emit: Emit
) -> None:
    assert settings.watch is not None and settings.out is not None
    watch, out = settings.watch.expanduser(), settings.out.expanduser()
    task = _task(settings, terms)
    seen: Stamp | None = None
    while True:
        tensors, seen = await next_checkpoint(watch, seen)
        try:
            result = await agent.trade(tensors, task=task.name)
        except ModelError as error:
            if settings.once:
                raise
            emit({"event": "problem", "sentence": f"{watch}: {error}"})
            continue
        for purchase in result.bought:
            tensors.update(purchase.parameters)
        if result.bought:
            written = await _write_patiently(out, tensors, emit)
            result = await agent.loaded(result)
            if _same(watch, out):
                seen = written
        emit({"event": "trade", **_told(result)})
        if settings.once:
            return


async def _write_patiently(out: Path, tensors: dict[str, Tensor], emit: Emit) -> Stamp | None:
    """Writes what was bought; it is paid for and nowhere else, so a disk that refuses it is asked again."""
    told = ""
    while True:
        try:
            written = await asyncio.to_thread(write_checkpoint, out, tensors)
        except MachineFault as error:
            if str(error) != told:
                told = str(error)
                emit({"event": "problem", "sentence": f"{told}; what was bought waits in memory"})
            await asyncio.sleep(WRITE_AGAIN_SECONDS)
        else:
            emit({"event": "saved", "path": str(out)})
            return written


def _same(one: Path, other: Path) -> bool:
    """Whether the sidecar writes over what it watches: its own writing is then no news."""
    return one.resolve() == other.resolve()
