"""Agents show each other what a broker showed them: its heads go to the shared table, and those of others are read.

Knows: when to publish and to look, how much work a lookup may cost, which question to ask the broker. Refuses to know:
what heads prove (witness), trades. Two heads that contradict each other, or a proof that does not hold, are kept as
evidence and end the session with that broker. A broker that gives no proof is suspected and told of in the log; the
head that it did not explain is shown to it at the next Hello, where an honest one stops by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Callable

from p2pmarket import limits
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import MalformedMessage, MarketError, NetworkFault, PeerFault, Refused
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.heads import Head, head_of
from p2pmarket.messages import Consistency, ConsistencyRequest
from p2pmarket.network.table import head_key
from p2pmarket.network.transport import Transport
from p2pmarket.node import witness
from p2pmarket.node.link import BrokerLink
from p2pmarket.node.welcome import Joined
from p2pmarket.tasks import end_tasks, happens
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock

log = logging.getLogger(__name__)

EVERY_SECONDS = limits.ANNOUNCE_EVERY_SECONDS
AT_LEAST_SECONDS = 60.0
"""Between two exchanges, whatever happens."""
ANSWER_SECONDS = 30.0
"""How long a broker has for a proof."""
MAX_LOGS = 8
"""Brokers' logs whose heads one agent publishes and looks up: those it heard of last."""
MAX_KNOWN = 1024
"""Heads that are remembered as proven, so that they are not asked for again."""


class Gossip:
    """Runs beside one agent's link: `start()`, later `close()`."""

    def __init__(
        self,
        transport: Transport,
        identity: Identity,
        market: str,
        link: BrokerLink,
        journal: OwnThread[AgentJournal],
        clock: Clock,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self._transport = transport
        self._identity = identity
        self._market = market
        self._link = link
        self._journal = journal
        self._clock = clock
        self._fraction = fraction
        self._news = asyncio.Event()
        self._known: dict[bytes, None] = {}
        self._unexplained: set[bytes] = set()
        self._fresh: Joined | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to exchange heads, at a slow pace."""
        self._task = asyncio.create_task(self._run())

    def news(self) -> None:
        """The broker's log has grown by something of this agent's: the next exchange comes sooner."""
        self._news.set()

    async def close(self) -> None:
        """Ends it."""
        if self._task is not None:
            await end_tasks({self._task})

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(MarketError):
                await self._link.ready(EVERY_SECONDS)
            self._news.clear()
            try:
                await self.exchange()
            except MarketError as error:
                log.log(logging.ERROR if error.code == "contradiction" else logging.DEBUG, "gossip: %s", error)
            except Exception:  # the agent trades on, and whoever runs it hears of the bug
                log.exception("heads of the broker's log were not exchanged")
            await asyncio.sleep(AT_LEAST_SECONDS)
            await happens(self._news, EVERY_SECONDS * (0.9 + 0.2 * self._fraction()) - AT_LEAST_SECONDS)

    async def exchange(self) -> None:
        """One exchange: brings this agent's own heads up to date, publishes them, and looks what others were shown.

        :raises RuleBroken: code contradiction, where a broker's words contradict each other (kept as evidence)
        """
        joined = self._link.joined
        broker = joined.broker if joined is not None and self._link.connected else ""
        if broker:
            await self._settle(broker, renew=joined is self._fresh)
            self._fresh = joined
        logs, distrusted = await self._journal.run(
            lambda journal: (journal.shareable_heads(self._market, MAX_LOGS), journal.distrusted())
        )
        for of, head in logs:
            key = head_key(self._market, of)
            expires_ms = self._clock() + limits.ANNOUNCE_EXPIRY_SECONDS * 1000
            found = list((await self._transport.lookup(key)).values())
            await self._transport.publish(key, head.body, expires_ms)
            if of in distrusted:  # others shall see what it showed here; there is nothing more to learn about it
                continue
            random.shuffle(found)
            others = witness.heads_among(found, of, self._market, {*self._known, head.root})
            await self._compare(of, head, others, asking=of == broker)

    async def _compare(self, broker: str, ours: Head, others: list[Head], *, asking: bool) -> None:
        for other in others:
            if witness.compare(ours, other) is witness.Verdict.CONTRADICT:
                raise await self._link.accuse(broker, witness.TWO_HISTORIES, ours.body, other.body)
        for other in others[: witness.MAX_ASKED * asking]:
            if not await self._prove(broker, ours, other):
                await self._suspect(broker, ours, other)
                return
            self._remember(other)
            if other.size > ours.size:
                await self._journal.run(AgentJournal.keep_proof, broker, self._market, ours, other)
                ours = other

    async def _settle(self, broker: str, *, renew: bool) -> None:
        """Has this agent's own heads proven to be of one log; with `renew`, or if there were any, keeps the newest."""
        market = self._market
        proven, heads = await self._journal.run(
            lambda journal: (journal.proven_head(broker, market), journal.heads(broker, market))
        )
        waiting = [head for head in heads if head != proven]
        if proven is None or not (renew or waiting):
            return
        for head in waiting:
            if not await self._prove(broker, proven, head):
                return
            await self._journal.run(AgentJournal.keep_proof, broker, market, proven, head)
            proven = max(proven, head, key=lambda each: each.size)
        await self._prove(broker, proven, None)

    async def _prove(self, broker: str, one: Head, other: Head | None) -> bool:
        """Whether the broker proves that one of two heads continues the other, or (None) that its log of now does; the
        head of that is then kept. False where it gives no proof.

        :raises RuleBroken: code contradiction, where what it signed cannot be true (kept as evidence)
        """
        first, second = (one, other) if other is None or one.size <= other.size else (other, one)
        if first.size == 0:
            return True
        request = ConsistencyRequest(secrets.token_bytes(16), first.size, second.size if second is not None else 0)
        try:
            reply = await self._link.exchange(sign(self._identity, request), broker, ANSWER_SECONDS)
            answer = verify(reply, Consistency, signer=broker)
            newest = head_of(answer.checkpoint, broker, self._market)
            second = newest if second is None else second
            if (answer.first, answer.second) != (first.size, second.size):
                raise MalformedMessage("the broker answered another question than it was asked")
        except (Refused, PeerFault, NetworkFault) as error:
            log.warning("the broker %s gave no proof that its ledger is what it showed before: %s", broker, error)
            return False
        problem = witness.of_answer(first, second, answer)
        if problem:
            raise await self._link.accuse(broker, problem, first.body, second.body, reply)
        if other is None:
            await self._journal.run(AgentJournal.keep_proof, broker, self._market, first, newest)
        return True

    async def _suspect(self, broker: str, ours: Head, other: Head) -> None:
        """The broker did not explain a head that it signed for somebody else. Once for each head it is shown that."""
        if other.root in self._unexplained or other.size <= ours.size:
            return
        self._unexplained.add(other.root)
        log.warning(
            "the broker %s is suspected: it signed a larger ledger for others than it proves here; it is asked again",
            broker,
        )
        await self._journal.run(AgentJournal.keep_head, broker, self._market, other)
        await self._link.leave(broker)

    def _remember(self, head: Head) -> None:
        self._known[head.root] = None
        if len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
