"""An agent's link to its broker: one session kept open, requests that survive its breaks, parcels beside it.

Knows: how to find the broker, greet it, ask again with the same bytes after a break, and resume a parcel.
Refuses to know: what is traded (agent, buyer, seller). A request that cannot be answered in its time raises
`ConnectionLost`; what the broker refuses raises `Refused` with its code and sentence. What was begun with one broker is
never sent to another that the link joined since: `BrokerChanged`. A broker whose log does not continue what it showed
before is left for another one, and stays left (`accuse`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import (
    BrokerChanged,
    ConnectionLost,
    MarketError,
    MarketNotFound,
    NetworkFault,
    PeerFault,
    Refused,
    RuleBroken,
)
from p2pmarket.ledger.agent_book import distrust_sentence
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.heads import Head, head_of
from p2pmarket.messages import (
    PROTOCOL_VERSION,
    Balance,
    BalanceRequest,
    BrokerStatement,
    Fetch,
    Hello,
    KeyStatement,
    Message,
    Refusal,
    Upload,
    Welcome,
)
from p2pmarket.network.names import PARCELS, SESSIONS
from p2pmarket.network.session import Session, read_frame, write_frame
from p2pmarket.network.transport import Stream, Transport
from p2pmarket.node import witness
from p2pmarket.node.welcome import Joined
from p2pmarket.tasks import end_tasks, happens
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock
from p2pmarket.wire import Frame, Kind

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)
T = TypeVar("T")

FindBrokers = Callable[[], Awaitable[Sequence[BrokerStatement]]]
"""Brokers of the market, the best first; raises MarketNotFound."""
Welcomed = Callable[[KeyStatement], Awaitable[None]]
"""Told the keys of a broker that welcomed this agent; raises a PeerFault to have nothing to do with it."""
HearMail = Callable[[str, bytes], Awaitable[None]]
"""Acts on one mail (broker, signed bytes) so that doing it twice is the same as once."""

RETRY_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Waits between attempts to reach the broker; the last one repeats."""

LOOKUPS = 3
"""A market that was just announced is not known everywhere at once: it is looked up this often before we say so."""
STEADY_SECONDS = 10.0
"""A session that lasted this long was no failed attempt."""

FINAL_CODES = frozenset(
    {
        "wrong-version",
        "unknown-market",
        "market-full",
        "old-keys",
        "bad-signature",
        "rolled-back",
        "contradiction",
        "distrusted",
    }
)
"""Why there is no session, where trying again at once does not mend it."""


class BrokerLink:
    """Start with `start()`, stop with `close()`; between them it stays connected as well as it can."""

    def __init__(
        self,
        *,
        transport: Transport,
        identity: Identity,
        keyring: Keyring,
        market: str,
        find: FindBrokers,
        journal: OwnThread[AgentJournal],
        clock: Clock,
        welcomed: Welcomed | None = None,
    ) -> None:
        self._transport = transport
        self._identity = identity
        self._keyring = keyring
        self._market = market
        self._find = find
        self._welcomed = welcomed
        self._journal = journal
        self._hear: dict[str, HearMail] = {}
        self._clock = clock
        self._session: Session | None = None
        self._statement: BrokerStatement | None = None
        self._changed = asyncio.Event()
        self._failure: MarketError | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._rolled_back: set[str] = set()
        self.joined: Joined | None = None
        """The market as the broker last described it; None before the first Welcome."""

    def take_mail(self, kind: type[Message], hear: HearMail) -> None:
        """Has mail of one kind heard by `hear`."""
        self._hear[kind.TYPE] = hear

    def start(self) -> None:
        """Begins to connect; `ready` waits for it."""
        self._task = asyncio.create_task(self._stay_connected())

    async def ready(self, timeout_seconds: float) -> Joined:
        """The market, once a session is open.

        :raises MarketNotFound, NetworkFault: no session within the timeout; says why the last attempt failed
        :raises Refused: the broker will not have this agent
        """
        await self._open_session(timeout_seconds)
        assert self.joined is not None
        return self.joined

    @property
    def connected(self) -> bool:
        """Whether a session is open now."""
        return self._session is not None

    async def addresses(self) -> tuple[str, ...]:
        """Where others may dial this agent's own peer."""
        return await self._transport.addresses()

    async def request(self, message: Message, kind: type[M], timeout_seconds: float = 120.0, *, broker: str = "") -> M:
        """The broker's reply to a message, asked again with the same bytes after every break.

        :param broker: whom it is for; empty for whichever broker is joined
        :raises Refused: the broker refused it
        :raises BrokerChanged: another broker is joined now; nothing was sent to it
        :raises ConnectionLost: no reply within the timeout
        """
        replied, reply = await self._ask(sign(self._identity, message), broker, timeout_seconds)
        return verify(reply, kind, signer=replied)

    async def exchange(self, data: bytes, broker: str, timeout_seconds: float = 120.0) -> bytes:
        """The signed reply of this broker to signed bytes.

        :raises Refused, ConnectionLost: as `request` says
        """
        _, reply = await self._ask(data, broker, timeout_seconds)
        return reply

    async def balance(self, timeout_seconds: float = 120.0, *, broker: str = "") -> int:
        """Micro-credits on this agent's account, asked for and noted.

        :raises Refused, ConnectionLost: as `request` says
        """
        reply = await self.request(BalanceRequest(secrets.token_bytes(16)), Balance, timeout_seconds, broker=broker)
        if self.joined is not None and self.joined.broker == (broker or self.joined.broker):
            self.joined.balance = reply.balance
        return reply.balance

    def note_balance(self, broker: str, balance: int, settled_ms: int) -> None:
        """As `Joined.note_balance`, where this broker is the one joined now."""
        if self.joined is not None and self.joined.broker == broker:
            self.joined.note_balance(balance, settled_ms)

    async def _ask(self, data: bytes, broker: str, timeout_seconds: float) -> tuple[str, bytes]:
        """Who replied, and the reply."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            session = await self._open_session(deadline - loop.time())
            _check_broker(broker, session.peer_id)
            try:
                reply = await session.request(data, max(0.01, deadline - loop.time()))
            except ConnectionLost:
                await self._drop(session)
                if loop.time() >= deadline:
                    raise
                continue
            _raise_refusal(reply, session.peer_id)
            return session.peer_id, reply

    async def parcel_stream(self, opening: Upload | Fetch, broker: str) -> Stream:
        """A stream on which this broker is ready to take or send the parcel that `opening` names.

        :raises Refused: the broker will not
        :raises BrokerChanged: another broker is joined now; nothing was sent to it
        :raises NetworkFault: it cannot be reached
        """
        assert self.joined is not None and self._statement is not None
        _check_broker(broker, self.joined.broker)
        stream = await self._transport.open(broker, PARCELS, self._statement.addresses)
        try:
            await write_frame(stream, Frame(Kind.REQUEST, 1, sign(self._identity, opening)))
            reply = await read_frame(stream)
            _raise_refusal(reply.body, broker)
            return stream
        except BaseException:
            await stream.close()
            raise

    async def accuse(self, broker: str, reason: str, *bodies: bytes) -> RuleBroken:
        """Keeps signed bytes as evidence against a broker and leaves it for good; what to raise."""
        error = await self._journal.run(AgentJournal.accuse, broker, reason, *bodies)
        await self.leave(broker)
        return error

    async def leave(self, broker: str) -> None:
        """Ends the session with this broker, where it is the one joined; the next Hello begins from what is kept."""
        session = self._session
        if session is not None and session.peer_id == broker:
            await self._drop(session)

    async def close(self) -> None:
        """Ends the session; what waits for it raises ConnectionLost."""
        self._closed = True
        self._failure = ConnectionLost("this agent has left the market; join again")
        session, self._session = self._session, None
        self._changed.set()
        if self._task is not None:
            await end_tasks({self._task})
        if session is not None:
            await session.close()

    async def _open_session(self, timeout_seconds: float) -> Session:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while self._session is None:
            if self._failure is not None and (self._closed or self._failure.code in FINAL_CODES):
                raise self._failure
            self._changed.clear()
            if not await happens(self._changed, deadline - loop.time()):
                raise self._failure or ConnectionLost("the broker is not reached yet")
        return self._session

    async def _stay_connected(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while not self._closed:
            began = loop.time()
            try:
                await self._stay_in_session()
            except MarketNotFound as error:
                if attempt >= LOOKUPS - 1:
                    self._fail(error)
            except MarketError as error:
                contradiction = error.code == "contradiction"
                log.log(logging.ERROR if contradiction else logging.INFO, "session with the broker: %s", error)
                self._fail(error)
            except Exception as error:  # the link must outlive a bug in one mail, and say so
                log.exception("the session failed")
                self._fail(ConnectionLost(f"the session failed: {error}"))
            # Two agents of one identity end each other's sessions: at a growing pace, not for ever at the first one.
            attempt = 0 if loop.time() - began > STEADY_SECONDS else attempt
            await asyncio.sleep(pause_before(attempt))
            attempt += 1

    async def _stay_in_session(self) -> None:
        """One session from its Hello to its end, which raises."""
        session = await self._connect()
        try:
            await session.run()
        finally:
            self._session = None

    def _fail(self, error: MarketError) -> None:
        """Tells who waits for a session why there is none; after `close` that reason stands."""
        if not self._closed:
            self._failure = error
        self._changed.set()

    async def _connect(self) -> Session:
        """A session with the first broker that welcomes this agent; with the one it knows once it knows one, unless
        that one's ledger was rolled back or it is not trusted any more.
        """
        statements = await self._find()
        distrusted = await self._journal.run(AgentJournal.distrusted)
        trusted = [each for each in statements if each.broker not in distrusted]
        if statements and not trusted:
            broker = statements[0].broker
            raise RuleBroken(distrust_sentence(broker, distrusted[broker]), code="distrusted")
        if self.joined is not None and self.joined.broker not in self._rolled_back:
            trusted = [each for each in trusted if each.broker == self.joined.broker] or trusted
        failure: MarketError | None = None
        for statement in sorted(trusted, key=lambda each: each.broker in self._rolled_back):
            try:
                session = await self._greet(statement)
            except MarketError as error:
                failure = failure or error
                if error.code == "rolled-back":
                    self._rolled_back.add(statement.broker)
            else:
                self._rolled_back.discard(statement.broker)
                return session
        raise failure or MarketNotFound(f"no broker of the market {self._market!r} was found")

    async def _greet(self, statement: BrokerStatement) -> Session:
        broker = statement.broker
        stream = await self._transport.open(broker, SESSIONS, statement.addresses)
        try:
            last_mail, shown = await self._journal.run(_what_is_kept, broker, self._market)
            hello = Hello(
                message_id=secrets.token_bytes(16),
                version=PROTOCOL_VERSION,
                market=self._market,
                keys=self._keyring.statement,
                issued_ms=self._clock(),
                last_mail=last_mail,
                checkpoint=shown.body if shown is not None else None,
            )
            await write_frame(stream, Frame(Kind.REQUEST, 1, sign(self._identity, hello)))
            reply = await read_frame(stream)
            _raise_refusal(reply.body, broker)
            welcome = verify(reply.body, Welcome, signer=broker)
            joined = Joined(welcome, broker, self._clock())
            await self._check_log(welcome, broker, shown, reply.body)
            if self._welcomed is not None:
                await self._welcomed(joined.keys)
        except BaseException:
            await stream.close()
            raise
        session = Session(stream, on_mail=lambda number, body: self._take(session, number, body))
        self.joined, self._statement, self._session, self._failure = joined, statement, session, None
        self._changed.set()
        return session

    async def _check_log(self, welcome: Welcome, broker: str, shown: Head | None, reply: bytes) -> None:
        """Keeps what a Welcome says of the broker's log, and what it says of this journal.

        :raises PeerFault: it is not the log that was shown before; code contradiction, and then that is kept
        """
        found = head_of(welcome.checkpoint, broker, self._market)
        problem = witness.of_welcome(shown, found, welcome.consistency)
        if problem:
            bodies = (shown.body, welcome.checkpoint, reply) if shown is not None else (welcome.checkpoint, reply)
            raise await self.accuse(broker, problem, *bodies)

        def keep(journal: AgentJournal) -> bool:
            journal.keep_head(broker, self._market, found)
            if shown is not None:
                journal.keep_proof(broker, self._market, shown, found)
            return journal.note_lost(broker, welcome.acknowledged)

        if await self._journal.run(keep):
            log.warning(
                "the broker has sent this agent more than its journal knows: the journal is an old copy, or a new one; "
                "what is missing is asked for"
            )

    async def _take(self, session: Session, number: int, body: bytes) -> None:
        """Hears one mail, then counts it as kept, then tells the broker: in this order nothing is lost."""
        broker = session.peer_id
        try:
            hear = self._hear.get(type_of(body))
            if hear is not None and number > await self._journal.run(AgentJournal.last_mail, broker):
                await hear(broker, body)
        except PeerFault as error:
            if error.code == "contradiction":  # kept as evidence; the session ends with it
                raise
            log.warning("mail %d of the broker breaks a rule and is passed over: %s", number, error)
        await self._journal.run(AgentJournal.keep_mail, broker, number)
        await session.acknowledge(number)

    async def _drop(self, session: Session) -> None:
        """Ends a session that did not answer: the link then opens another."""
        if self._session is session:
            self._session = None
        await session.close()


async def again(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, tried until the network lets it through; the caller bounds the time.

    :raises BrokerChanged: its broker is not joined any more
    """
    for attempt in itertools.count():
        try:
            return await work()
        except BrokerChanged:
            raise
        except NetworkFault as error:
            log.info("trying again: %s", error)
            await asyncio.sleep(pause_before(attempt))
    raise AssertionError("unreachable")


def pause_before(attempt: int) -> float:
    """Seconds to wait before another attempt, a little different for everybody."""
    return RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)] * random.uniform(0.8, 1.2)


def _what_is_kept(journal: AgentJournal, broker: str, market: str) -> tuple[int, Head | None]:
    """The number of the last mail, and the largest head of the broker's log."""
    return journal.last_mail(broker), next(iter(journal.heads(broker, market)), None)


def _check_broker(expected: str, broker: str) -> None:
    """:raises BrokerChanged: what was begun with one broker is not for another"""
    if expected and broker != expected:
        raise BrokerChanged(f"the broker {expected} is out of reach and {broker} was joined; what is open waits for it")


def _raise_refusal(reply: bytes, broker: str) -> None:
    if type_of(reply) == Refusal.TYPE:
        refusal = verify(reply, Refusal, signer=broker)
        raise Refused(f"the broker refused: {refusal.sentence}", code=refusal.code)
