"""An agent's link to its broker: one session kept open, requests that survive its breaks, parcels beside it.

Knows: how to find the broker, greet it, ask again with the same bytes after a break, and resume a parcel.
Refuses to know: what is traded (agent, buyer, seller). A request that cannot be answered in its time raises
`ConnectionLost`; what the broker refuses raises `Refused` with its code and sentence.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from typing import TypeVar

from p2pmarket import limits
from p2pmarket.crypto.keys import Identity, Keyring
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import ConnectionLost, MarketError, PeerUnreachable, Refused
from p2pmarket.market import MarketTerms
from p2pmarket.messages import (
    PROTOCOL_VERSION,
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
from p2pmarket.parcel import Schema
from p2pmarket.units import Clock
from p2pmarket.wire import Frame, Kind

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

RETRY_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Waits between attempts to reach the broker; the last one repeats."""

FINAL_CODES = frozenset({"wrong-version", "unknown-market", "market-full", "old-keys", "bad-signature"})
"""Refusals of a Hello that trying again does not mend."""


class Joined:
    """What a broker's Welcome said, verified."""

    def __init__(self, welcome: Welcome, broker: str) -> None:
        self.broker = broker
        self.terms: MarketTerms = verify(welcome.terms, MarketTerms, signer=broker)
        self.schema: Schema = verify(welcome.schema, Schema, signer=broker)
        self.keys: KeyStatement = verify(welcome.keys, KeyStatement, signer=broker)
        self.balance = welcome.balance
        self.broker_ms = welcome.broker_ms


class BrokerLink:
    """Start with `start()`, stop with `close()`; between them it stays connected as well as it can."""

    def __init__(
        self,
        *,
        transport: Transport,
        identity: Identity,
        keyring: Keyring,
        market: str,
        find: Callable[[], Awaitable[BrokerStatement]],
        last_mail: Callable[[str], Awaitable[int]],
        on_mail: Callable[[str, int, bytes], Awaitable[None]],
        clock: Clock,
    ) -> None:
        """
        :param find: the broker to join; raises MarketNotFound
        :param last_mail: number of the last mail kept from a broker
        :param on_mail: keeps one mail (broker, number, bytes); returns when it is durable
        """
        self._transport = transport
        self._identity = identity
        self._keyring = keyring
        self._market = market
        self._find = find
        self._last_mail = last_mail
        self._on_mail = on_mail
        self._clock = clock
        self._session: Session | None = None
        self._statement: BrokerStatement | None = None
        self._changed = asyncio.Event()
        self._failure: MarketError | None = None
        self._task: asyncio.Task[None] | None = None
        self.joined: Joined | None = None
        """The market as the broker last described it; None before the first Welcome."""

    async def start(self) -> None:
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

    async def request(self, message: Message, kind: type[M], timeout_seconds: float = 120.0) -> M:
        """The broker's reply to a message, asked again with the same bytes after every break.

        :raises Refused: the broker refused it
        :raises ConnectionLost: no reply within the timeout
        """
        reply = await self.exchange(sign(self._identity, message), timeout_seconds)
        assert self.joined is not None
        return verify(reply, kind, signer=self.joined.broker)

    async def exchange(self, data: bytes, timeout_seconds: float = 120.0) -> bytes:
        """The broker's signed reply to signed bytes.

        :raises Refused, ConnectionLost: as `request` says
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            session = await self._open_session(deadline - loop.time())
            try:
                reply = await session.request(data, max(0.01, deadline - loop.time()))
            except ConnectionLost:
                if loop.time() >= deadline:
                    raise
                self._drop(session)
                continue
            self._raise_refusal(reply, session.peer_id)
            return reply

    async def parcel_stream(self, opening: Upload | Fetch) -> Stream:
        """A stream on which the broker is ready to take or send the parcel that `opening` names.

        :raises Refused: the broker will not
        :raises NetworkFault: it cannot be reached
        """
        assert self.joined is not None and self._statement is not None
        broker = self.joined.broker
        stream = await self._transport.open(broker, PARCELS, self._statement.addresses)
        try:
            await write_frame(stream, Frame(Kind.REQUEST, 1, sign(self._identity, opening)))
            reply = await asyncio.wait_for(read_frame(stream), limits.REQUEST_TIMEOUT_SECONDS)
            self._raise_refusal(reply.body, broker)
            return stream
        except asyncio.TimeoutError:
            await stream.close()
            raise ConnectionLost(f"{broker} did not take the parcel stream up") from None
        except BaseException:
            await stream.close()
            raise

    async def close(self) -> None:
        """Ends the session; what waits for it raises ConnectionLost."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _open_session(self, timeout_seconds: float) -> Session:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while self._session is None:
            if self._failure is not None and getattr(self._failure, "code", "") in FINAL_CODES:
                raise self._failure
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, deadline - loop.time()))
            except asyncio.TimeoutError:
                why = self._failure or ConnectionLost("the broker is not reached yet")
                raise why from None
        return self._session

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            try:
                session = await self._connect()
                attempt = 0
                await session.run()
            except MarketError as error:
                log.info("session with the broker: %s", error)
                self._failure = error
            except Exception as error:  # the link must outlive a bug in one mail, and say so
                log.exception("the session failed")
                self._failure = ConnectionLost(f"the session failed: {error}")
            self._session = None
            self._changed.set()
            pause = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
            attempt += 1
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))

    async def _connect(self) -> Session:
        statement = await self._find()
        broker = statement.broker
        stream = await self._transport.open(broker, SESSIONS, statement.addresses)
        try:
            last_mail = await self._last_mail(broker)
            hello = Hello(
                message_id=secrets.token_bytes(16),
                version=PROTOCOL_VERSION,
                market=self._market,
                keys=self._keyring.statement,
                issued_ms=self._clock(),
                last_mail=last_mail,
            )
            await write_frame(stream, Frame(Kind.REQUEST, 1, sign(self._identity, hello)))
            reply = await asyncio.wait_for(read_frame(stream), limits.REQUEST_TIMEOUT_SECONDS)
            self._raise_refusal(reply.body, broker)
            joined = Joined(verify(reply.body, Welcome, signer=broker), broker)
        except asyncio.TimeoutError:
            await stream.close()
            raise PeerUnreachable(f"the broker {broker} did not answer Hello") from None
        except BaseException:
            await stream.close()
            raise
        session = Session(stream, on_mail=lambda number, body: self._take_mail(session, number, body))
        self.joined, self._statement, self._session, self._failure = joined, statement, session, None
        self._changed.set()
        return session

    async def _take_mail(self, session: Session, number: int, body: bytes) -> None:
        await self._on_mail(session.peer_id, number, body)
        await session.acknowledge(number)

    def _drop(self, session: Session) -> None:
        if self._session is session:
            self._session = None

    def _raise_refusal(self, reply: bytes, broker: str) -> None:
        if type_of(reply) == Refusal.TYPE:
            refusal = verify(reply, Refusal, signer=broker)
            raise Refused(f"the broker refused: {refusal.sentence}", code=refusal.code)
