"""A whole market in one process: the same broker and agents as over the internet, on the in-memory transport.

Knows: how to set the roles up, break them off without notice, and start them again from their folders. Refuses to know:
what the market decides. Parties that vanish are data (`network.memory.Fault`), so a run can be repeated exactly.

In a `VirtualLoop` each party runs in a `Life` of its own and `crash` ends it at once, wherever it is; in any other loop
a party can only be stopped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from p2pmarket import limits
from p2pmarket.broker_node.appraiser import Appraiser
from p2pmarket.broker_node.broker import Broker
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.broker_node.service import build_appraiser, statement_for
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.datasets import Dataset
from p2pmarket.errors import DiskFull
from p2pmarket.files import private_folder
from p2pmarket.ledger.journal import Ledger
from p2pmarket.market import MarketTerms
from p2pmarket.messages import BrokerStatement, KeyStatement
from p2pmarket.network.directory import PeerBook, announce_once, find_brokers, note_welcome
from p2pmarket.network.memory import Fault, MemoryNetwork, MemoryTransport
from p2pmarket.node.agent import AsyncAgent, Tradable
from p2pmarket.node.results import TradeResult
from p2pmarket.node.strategy import Strategy
from p2pmarket.simulation.ledgers import ToldLedger
from p2pmarket.simulation.lives import Ended, Life, Watch
from p2pmarket.tasks import end_tasks
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock, now_ms


@dataclasses.dataclass(frozen=True)
class RunningBroker:
    """A broker and what it stands on."""

    broker: Broker
    ledger: LedgerThread
    transport: MemoryTransport
    peer_id: str
    life: Life
    announcing: asyncio.Task[None]


@dataclasses.dataclass(frozen=True)
class RunningAgent:
    """An agent and what it stands on."""

    agent: AsyncAgent
    book: OwnThread[PeerBook]
    transport: MemoryTransport
    life: Life


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
        appraiser: Appraiser | None = None,
        network: MemoryNetwork | None = None,
        skews_ms: Mapping[str, int] | None = None,
        watch: Watch = lambda life, what: None,
    ) -> None:
        """
        :param validation: the broker's data for each task of the terms; not needed with an `appraiser`
        :param network: to share with others, or one that has weather; then `faults` are its own
        :param skews_ms: how far each party's clock is ahead of `clock`, by name
        :param watch: told each step of each party's process (lives.Life)
        """
        self.terms = terms
        self.folder = folder
        self.network = network or MemoryNetwork(clock, faults)
        self._clock = clock
        self._skews_ms = dict(skews_ms or {})
        self._watch = watch
        self._appraiser = appraiser or build_appraiser(terms, validation, device="cpu", seed=seed)
        self._running: RunningBroker | None = None
        self.disk_full: DiskFull | None = None
        """The first time that the broker's ledger had no room; what happens in the market then is no market's doing."""
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

    def clock_of(self, name: str) -> Clock:
        """A party's own clock."""
        ahead_ms = self._skews_ms.get(name, 0)
        return lambda: self._clock() + ahead_ms

    async def start_broker(self) -> RunningBroker:
        """Starts the broker on what its folder holds and announces it.

        :raises Ended: it crashed while it started
        """
        folder, clock = private_folder(self.folder / "broker"), self.clock_of("broker")
        identity = self.identity("broker")
        draw = secrets.token_bytes  # that of this moment: chance.seeded may have replaced it
        ledger = ToldLedger(
            lambda: Ledger.open(folder / "ledger.sqlite", identity, self.terms.name, clock, token_bytes=draw),
            self._note_full,
        )
        transport, life = self._join("broker", identity)

        async def start() -> RunningBroker:
            await ledger.open()
            broker = Broker(
                transport=transport,
                identity=identity,
                keyring=Keyring.open(folder / "keys", identity, clock),
                terms=self.terms,
                ledger=ledger,
                appraiser=self._appraiser,
                directory=folder,
                clock=clock,
            )
            await broker.start()
            await self._announce(transport, identity, clock)
            announcing = asyncio.ensure_future(self._keep_announcing(transport, identity, clock))
            return RunningBroker(broker, ledger, transport, identity.peer_id, life, announcing)

        try:
            self._running = await life.within(start())
        except Ended:
            await life.buried()
            await ledger.close()
            raise
        return self._running

    async def stop_broker(self) -> None:
        """Stops the broker without a word to anyone; its folder stays."""
        if self._running is None:
            return
        running, self._running = self._running, None
        await running.transport.close()
        await end_tasks({running.announcing})
        await running.broker.close()
        await running.ledger.close()

    async def start_agent(
        self, name: str, strategy: Strategy | None = None, *, codec: str = "none", timeout_seconds: float = 60.0
    ) -> AsyncAgent:
        """Starts an agent on what its folder holds."""
        folder, clock = private_folder(self.folder / name), self.clock_of(name)
        identity = self.identity(name)
        transport, life = self._join(name, identity)

        async def start() -> RunningAgent:
            book = OwnThread("peer-book", lambda: PeerBook(folder / "peers.sqlite"))
            await book.open()

            async def find() -> Sequence[BrokerStatement]:
                return await find_brokers(transport, self.terms.name, book, clock=clock)

            async def welcomed(keys: KeyStatement) -> None:
                await note_welcome(book, self.terms.name, keys, clock=clock)

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
                clock=clock,
            )
            return RunningAgent(agent, book, transport, life)

        self._agents[name] = await life.within(start())
        return self._agents[name].agent

    async def visit(self, name: str, model: Tradable, *, task: str = "", step: int | None = None) -> TradeResult:
        """One visit of an agent, in its own process.

        :raises Ended: it crashed meanwhile
        """
        running = self._agents[name]
        return await running.life.within(running.agent.trade(model, task=task, step=step))

    async def loaded(self, name: str, result: TradeResult) -> TradeResult:
        """Notes, in the agent's own process, that what a visit with tensors bought is loaded.

        :raises Ended: it crashed meanwhile
        """
        running = self._agents[name]
        return await running.life.within(running.agent.loaded(result))

    def is_running(self, name: str) -> bool:
        """Whether an agent of that name was started and not stopped since."""
        return name in self._agents

    async def stop_agent(self, name: str) -> None:
        """Stops an agent without a word to the broker; its folder stays."""
        running = self._agents.pop(name)
        await running.transport.close()
        await running.agent.close()
        await running.book.close()

    async def crash(self, name: str) -> None:
        """Ends a party's process where it is, as a kill does: the broker's, or an agent's. One that has ended is fine.

        Afterwards the party can be started again from its folder. Needs a VirtualLoop.
        """
        life = self.life(name)
        life.end()
        await life.buried()
        if name == "broker":
            await self.stop_broker()
        else:
            await self.stop_agent(name)

    def life(self, name: str) -> Life:
        """A party's process."""
        return self.running.life if name == "broker" else self._agents[name].life

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

    def _note_full(self, error: DiskFull) -> None:
        self.disk_full = self.disk_full or error

    def _join(self, name: str, identity: Identity) -> tuple[MemoryTransport, Life]:
        """A party's presence on the network and its new process."""
        life = Life(name, self._watch)
        life.on_end.append(lambda: self.network.vanish(identity.peer_id))
        return self.network.join(identity.peer_id), life

    async def _announce(self, transport: MemoryTransport, identity: Identity, clock: Clock) -> None:
        statement = statement_for("simulated", self.terms, identity, await transport.addresses(), clock)
        await announce_once(transport, statement, clock=clock)

    async def _keep_announcing(self, transport: MemoryTransport, identity: Identity, clock: Clock) -> None:
        while True:
            await asyncio.sleep(limits.ANNOUNCE_EVERY_SECONDS)
            await self._announce(transport, identity, clock)
