"""A whole market in one process: the same broker and agents as over the internet, on the in-memory transport.

Knows: how to set the roles up, break them off without notice, and start them again from their folders. Refuses to know:
what the market decides. Parties that vanish are data (`network.memory.Fault`), so a run can be repeated exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmarket.broker_node.broker import Broker
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.broker_node.service import build_appraiser, statement_for
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.datasets import Dataset
from p2pmarket.files import private_folder
from p2pmarket.ledger.journal import Ledger
from p2pmarket.market import MarketTerms
from p2pmarket.messages import BrokerStatement, KeyStatement
from p2pmarket.network.directory import PeerBook, announce_once, find_brokers, note_welcome
from p2pmarket.network.memory import Fault, MemoryNetwork, MemoryTransport
from p2pmarket.node.agent import AsyncAgent
from p2pmarket.node.strategy import Strategy
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock, now_ms


@dataclasses.dataclass(frozen=True)
class RunningBroker:
    """A broker and what it stands on."""

    broker: Broker
    ledger: LedgerThread
    transport: MemoryTransport
    peer_id: str


@dataclasses.dataclass(frozen=True)
class RunningAgent:
    """An agent and what it stands on."""

    agent: AsyncAgent
    book: OwnThread[PeerBook]
    transport: MemoryTransport


class MarketInMemory:
    """One market, one broker, any number of agents. Use it in an `async with`."""

    def __init__(
        self,
        terms: MarketTerms,
        validation: Mapping[str, Dataset],
        folder: Path,
        *,
        faults: Sequence[Fault] = (),
        clock: Clock = now_ms,
        seed: int = 0,
    ) -> None:
        """:param validation: the broker's data for each task of the terms"""
        self.terms = terms
        self.folder = folder
        self.network = MemoryNetwork(clock, faults)
        self._clock = clock
        self._appraiser = build_appraiser(terms, validation, device="cpu", seed=seed)
        self._running: RunningBroker | None = None
        self._agents: dict[str, RunningAgent] = {}

    async def __aenter__(self) -> MarketInMemory:
        await self.start_broker()
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self._agents):
            await self.stop_agent(name)
        await self.stop_broker()

    def identity(self, name: str) -> Identity:
        """The identity of a party: "broker", or an agent's name."""
        return Identity.load_or_create(private_folder(self.folder / name) / "identity.key")

    @property
    def running(self) -> RunningBroker:
        """The broker that runs now."""
        assert self._running is not None
        return self._running

    async def start_broker(self) -> RunningBroker:
        """Starts the broker on what its folder holds and announces it."""
        folder = private_folder(self.folder / "broker")
        identity = self.identity("broker")
        transport = self.network.join(identity.peer_id)
        ledger = LedgerThread(lambda: Ledger.open(folder / "ledger.sqlite", identity, self.terms.name, self._clock))
        await ledger.open()
        broker = Broker(
            transport=transport,
            identity=identity,
            keyring=Keyring.open(folder / "keys", identity, self._clock),
            terms=self.terms,
            ledger=ledger,
            appraiser=self._appraiser,
            directory=folder,
            clock=self._clock,
        )
        await broker.start()
        statement = statement_for("simulated", self.terms, identity, await transport.addresses(), self._clock)
        await announce_once(transport, statement, clock=self._clock)
        self._running = RunningBroker(broker, ledger, transport, identity.peer_id)
        return self._running

    async def stop_broker(self) -> None:
        """Stops the broker without a word to anyone; its folder stays."""
        if self._running is None:
            return
        running, self._running = self._running, None
        await running.transport.close()
        await running.broker.close()
        await running.ledger.close()

    async def start_agent(
        self, name: str, strategy: Strategy | None = None, *, codec: str = "none", timeout_seconds: float = 60.0
    ) -> AsyncAgent:
        """Starts an agent on what its folder holds."""
        folder = private_folder(self.folder / name)
        identity = self.identity(name)
        transport = self.network.join(identity.peer_id)
        book = OwnThread("peer-book", lambda: PeerBook(folder / "peers.sqlite"))
        await book.open()

        async def find() -> Sequence[BrokerStatement]:
            return await find_brokers(transport, self.terms.name, book, clock=self._clock)

        async def welcomed(keys: KeyStatement) -> None:
            await note_welcome(book, self.terms.name, keys, clock=self._clock)

        agent = await AsyncAgent.over(
            transport,
            market=self.terms.name,
            identity=identity,
            find=find,
            welcomed=welcomed,
            folder=folder,
            strategy=strategy,
            codec=codec,
            timeout_seconds=timeout_seconds,
            clock=self._clock,
        )
        self._agents[name] = RunningAgent(agent, book, transport)
        return agent

    async def stop_agent(self, name: str) -> None:
        """Stops an agent without a word to the broker; its folder stays."""
        running = self._agents.pop(name)
        await running.transport.close()
        await running.agent.close()
        await running.book.close()

    def agent(self, name: str) -> AsyncAgent:
        """The agent of that name that runs now."""
        return self._agents[name].agent

    async def balances(self) -> dict[str, int]:
        """Micro-credits by peer id, as the broker's ledger has them."""
        accounts = await self.running.ledger.run(Ledger.accounts)
        return {account.peer: account.balance for account in accounts}

    async def problems(self) -> Sequence[str]:
        """What the ledger's own check finds wrong; empty when all is well."""
        return (await self.running.ledger.run(Ledger.verify)).problems
