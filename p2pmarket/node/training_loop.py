"""The market as one line in an ordinary training loop::

    from p2pmarket import Agent

    with Agent.join(["/ip4/.../p2p/12D3..."], market="digits") as agent:
        for epoch in range(20):
            train(model)
            print(agent.trade(model))

Knows: how to call an `AsyncAgent` from code without an event loop. The loop runs in a thread of its own; `trade` waits.
The model is copied, and what was bought is loaded, in the calling thread: the one that trains it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from torch import nn

from p2pmarket.market import MarketTerms
from p2pmarket.messages import Offer
from p2pmarket.node.agent import AsyncAgent, Tradable
from p2pmarket.node.joining import joined
from p2pmarket.node.results import TradeResult
from p2pmarket.node.strategy import Strategy
from p2pmarket.parameters.snapshot import load_in_place, take_snapshot
from p2pmarket.settings import MarketAccess
from p2pmarket.tasks import end_tasks

T = TypeVar("T")


class Agent:
    """A member of a market. Make it with `Agent.join`; `close` it, or use it in a `with`."""

    def __init__(self, access: MarketAccess, strategy: Strategy) -> None:
        """See `join`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="p2pmarket", daemon=True)
        self._thread.start()
        self._stack = contextlib.AsyncExitStack()
        try:
            self._agent: AsyncAgent = self._wait(self._stack.enter_async_context(joined(access, strategy)))
            self._terms = self._wait(self._agent.ready())
        except BaseException:
            try:
                self._wait(self._give_up())
            finally:
                self._stop_loop()
            raise

    @classmethod
    def join(
        cls,
        peers: Sequence[str],
        *,
        market: str,
        state: str | Path = "~/.p2pmarket/node",
        strategy: Strategy | None = None,
        **access: Any,
    ) -> Agent:
        """Joins a market through any peers of its network; returns when a broker has welcomed this agent.

        :param peers: addresses as other peers print them at their start
        :param state: folder for identity (the account!), journal and parcels; one agent a folder
        :param strategy: what to buy, bid and ask; by default `Strategy()`
        :param access: any other field of `settings.MarketAccess`, such as broker, compression or client_mode
        :raises SettingsError, NetworkFault, MachineFault, Refused: why the market cannot be joined
        """
        settings = MarketAccess(market=market, initial_peers=tuple(peers), state=Path(state), **access)
        return cls(settings, strategy or Strategy())

    @property
    def peer_id(self) -> str:
        """This agent's id and account."""
        return self._agent.peer_id

    @property
    def terms(self) -> MarketTerms:
        """The market's terms, as its broker signed them."""
        return self._terms

    def trade(self, model: Tradable, *, task: str = "", step: int | None = None) -> TradeResult:
        """One visit to the market; see `AsyncAgent.trade`."""
        if not isinstance(model, nn.Module):
            return self._wait(self._agent.trade(model, task=task, step=step))
        result = self._wait(self._agent.trade(take_snapshot(model), task=task, step=step))
        for purchase in result.bought:
            load_in_place(model, purchase.parameters)
        return self.loaded(result)

    def loaded(self, result: TradeResult) -> TradeResult:
        """Notes that what was bought for tensors by name is where it belongs; see `AsyncAgent.loaded`."""
        return self._wait(self._agent.loaded(result))

    def balance(self) -> int:
        """Micro-credits on this agent's account; see `AsyncAgent.balance`."""
        return self._wait(self._agent.balance())

    def offers(self) -> tuple[Offer, ...]:
        """What is for sale; see `AsyncAgent.offers`."""
        return self._wait(self._agent.offers())

    def close(self) -> None:
        """Leaves the market; may be called twice."""
        if self._loop.is_closed():
            return
        try:
            self._wait(self._stack.aclose())
        finally:
            self._stop_loop()

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _give_up(self) -> None:
        """Ends the joining where it is, and leaves what was joined."""
        await end_tasks(asyncio.all_tasks())
        await self._stack.aclose()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _stop_loop(self) -> None:
        # As `asyncio.run` does: hivemind forgets some of its own tasks. One that never ends holds up no training.
        self._wait(_end_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_others() -> None:
    """Ends the tasks that are left in this loop, where they let it."""
    await end_tasks(asyncio.all_tasks(), tries=5)
