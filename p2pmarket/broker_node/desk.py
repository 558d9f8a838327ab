"""The broker's desk: one signed request in, one signed reply out.

Knows: which message asks for what, and that a request with an effect is answered once: the reply is stored in the
transaction of its effect, and the same request gets the same bytes again. Refuses to know: streams (broker), tensors
(appraiser), how a price comes about (clearing). What it refuses goes back as Refusal with a code and a sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Mapping

from p2pmarket import limits
from p2pmarket.broker_node.book import Book
from p2pmarket.broker_node.clearing import Clearing
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.broker_node.publishing import statistics_for
from p2pmarket.broker_node.witness import Witness, proof_since, prove
from p2pmarket.crypto.keyring import Keyring, verify_statement
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import check_fresh, sign, type_of, verify
from p2pmarket.errors import (
    ConnectionLost,
    MachineFault,
    MarketError,
    PeerFault,
    RuleBroken,
    TermsError,
    TooLarge,
    WrongVersion,
)
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.market import MarketTerms
from p2pmarket.messages import (
    PROTOCOL_VERSION,
    Accepted,
    Ask,
    Balance,
    BalanceRequest,
    Bid,
    ConsistencyRequest,
    Decline,
    Delivered,
    Done,
    Hello,
    Message,
    Offers,
    OffersRequest,
    Refusal,
    StatisticsRequest,
    Status,
    StatusRequest,
    Submit,
    TradeStatus,
    Welcome,
)
from p2pmarket.network.session import write_frame
from p2pmarket.network.transport import Stream
from p2pmarket.parcel import Schema
from p2pmarket.tasks import end_tasks
from p2pmarket.units import Clock
from p2pmarket.wire import Frame, Kind

log = logging.getLogger(__name__)

MAX_STATUS = 64
"""Trades in one Status."""
STATISTICS_MS = 30 * 24 * 3600 * 1000
"""How far back published prices go."""
Effect = Callable[[Ledger, sqlite3.Connection], tuple[Message, bool]]
"""What a request does: its reply, and whether anything changed."""


GOODBYE_SECONDS = 5.0
"""How long a refused peer has to read why and hang up."""


def level_of(error: MarketError) -> int:
    """How loud an operator is told: what is wrong with this machine must be seen, what peers get wrong is usual."""
    return logging.ERROR if isinstance(error, MachineFault) else logging.INFO


def refusal(identity: Identity, error: MarketError) -> bytes:
    """The signed Refusal that tells a peer why; of faults of this machine only the code, as sentences name paths."""
    sentence = str(error)[: limits.MAX_TEXT_CHARACTERS]
    if not isinstance(error, PeerFault):
        sentence = "the broker cannot do this now; try again later"
    return sign(identity, Refusal(code=error.code[:64], sentence=sentence))


async def last_word(stream: Stream, identity: Identity, error: MarketError) -> None:
    """Sends a refusal and waits until the other end hung up: closing at once would lose the bytes."""
    with contextlib.suppress(ConnectionLost):
        await write_frame(stream, Frame(Kind.REPLY, 1, refusal(identity, error)))
        reading = asyncio.create_task(stream.read_exactly(1))
        try:
            await asyncio.wait({reading}, timeout=GOODBYE_SECONDS)
        finally:
            await end_tasks({reading})


class Desk:
    """Answers requests of agents that said Hello."""

    def __init__(
        self,
        *,
        identity: Identity,
        keyring: Keyring,
        terms: MarketTerms,
        schemas: Mapping[str, Schema],
        data: Mapping[str, bytes],
        ledger: LedgerThread,
        book: Book,
        clearing: Clearing,
        witness: Witness,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._witness = witness
        self._keyring = keyring
        self._terms = terms
        self._signed_terms = sign(identity, terms)
        self._ledger = ledger
        self._book = book
        self._clearing = clearing
        self._clock = clock
        self._handlers: dict[str, Callable[[str, bytes], Awaitable[bytes]]] = {
            Submit.TYPE: self._submit,
            Bid.TYPE: self._bid,
            Ask.TYPE: self._ask,
            Decline.TYPE: self._decline,
            Delivered.TYPE: self._delivered,
            StatusRequest.TYPE: self._status,
            BalanceRequest.TYPE: self._balance,
            OffersRequest.TYPE: self._offers,
            ConsistencyRequest.TYPE: self._consistency,
            StatisticsRequest.TYPE: self._statistics,
        }
        self._data = tuple(data[task.name] for task in terms.tasks)
        self._sign_schemas(schemas)

    async def answer(self, peer: str, data: bytes) -> bytes:
        """The signed reply to a signed request of `peer`; a Refusal where a rule is broken."""
        try:
            kind = type_of(data)
            handler = self._handlers.get(kind)
            if handler is None:
                raise RuleBroken(f"a broker takes no {kind!r} here", code="unknown-message")
            return await handler(peer, data)
        except MarketError as error:
            log.log(level_of(error), "refused %s: %s (%s)", peer, error, error.code)
            return refusal(self._identity, error)

    async def welcome(self, peer: str, data: bytes) -> tuple[Hello, bytes]:
        """Opens an agent's session: its Hello and the signed Welcome.

        :raises WrongVersion: another protocol version
        :raises BadSignature, MalformedMessage: the head that it shows is not this broker's
        :raises RuleBroken: another market, no account left, or outdated keys; rolled-back, where this ledger does not
            continue the head that it shows
        """
        hello = verify(data, Hello, signer=peer)
        if hello.version != PROTOCOL_VERSION:
            raise WrongVersion(
                f"this broker speaks version {PROTOCOL_VERSION} of the protocol, you speak {hello.version}; "
                f"upgrade the older one"
            )
        if hello.market != self._terms.name:
            raise RuleBroken(
                f"this broker runs the market {self._terms.name!r}, not {hello.market!r}", code="unknown-market"
            )
        now = self._clock()
        keys = verify_statement(hello.keys, peer=peer, now_ms=now)

        def join(ledger: Ledger) -> bytes:
            shown = self._witness.check(ledger, hello.checkpoint)
            with ledger.transaction("hello") as db:
                self._book.remember_member(db, peer, keys.epoch, hello.keys, self._terms.max_agents, now)
                acknowledged = ledger.acknowledged(peer)
                if ledger.catch_up_mail(peer, hello.last_mail):
                    log.warning("%s has seen more mail than this ledger sent: was a backup restored?", peer)
                ledger.drop_mail(peer, hello.last_mail)
                balance = ledger.open_account(peer, self._terms.opening_credit)
            return self._welcome(balance, now, *proof_since(ledger, shown), acknowledged)

        return hello, await self._ledger.run(join)

    def _sign_schemas(self, schemas: Mapping[str, Schema]) -> None:
        """Keeps the distinct schemas, signed, and which of them each task has.

        :raises TermsError: no agent could be told these models' tensors in one message
        """
        distinct = list(dict.fromkeys(schemas[task.name] for task in self._terms.tasks))
        try:
            self._schemas = tuple(sign(self._identity, schema) for schema in distinct)
            self._schema_of_task = tuple(distinct.index(schemas[task.name]) for task in self._terms.tasks)
            self._welcome(limits.MAX_AMOUNT, self._clock(), bytes(512), (bytes(32),) * 64)
        except TooLarge:
            raise TermsError(
                f"the market's models have {sum(len(schema.tensors) for schema in distinct)} tensors, whose names and "
                f"shapes do not fit a message of {limits.MAX_RECORD_BYTES} bytes; trade a model with fewer tensors or "
                f"shorter names"
            ) from None

    def _welcome(
        self, balance: int, now_ms: int, checkpoint: bytes, consistency: tuple[bytes, ...] = (), acknowledged: int = 0
    ) -> bytes:
        return sign(
            self._identity,
            Welcome(
                terms=self._signed_terms,
                schemas=self._schemas,
                schema_of_task=self._schema_of_task,
                data_of_task=self._data,
                keys=self._keyring.statement,
                balance=balance,
                broker_ms=now_ms,
                checkpoint=checkpoint,
                consistency=consistency,
                acknowledged=acknowledged,
            ),
        )

    async def _once(self, peer: str, message_id: bytes, effect: Effect) -> bytes:
        """Carries out `effect` and stores its reply in one transaction, or returns the reply stored before.

        Where nothing changed nothing is stored: a peer that repeats itself under fresh ids fills no disk.
        """

        def run(ledger: Ledger) -> bytes:
            with ledger.transaction() as db:
                stored = ledger.seen_reply(peer, message_id)
                if stored is not None:
                    return stored
                message, changed = effect(ledger, db)
                reply = sign(self._identity, message)
                if changed:
                    ledger.remember(peer, message_id, reply)
                return reply

        return await self._ledger.run(run)

    async def _submit(self, peer: str, data: bytes) -> bytes:
        submit = verify(data, Submit, signer=peer)
        terms, now = self._terms, self._clock()
        self._check_market(submit.market)
        check_fresh(submit.issued_ms, submit.issued_ms + limits.MAX_MESSAGE_AGE_SECONDS * 1000, now, what="submission")
        self._check_task(submit.task)
        unknown = {*submit.buy_groups, *submit.sell_groups} - {group.name for group in terms.groups}
        if unknown:
            names = ", ".join(group.name for group in terms.groups) or "none"
            raise RuleBroken(
                f"this market has no parameter group {min(unknown)!r}; it has {names}", code="unknown-group"
            )
        if submit.plain_bytes > terms.max_parcel_bytes:
            raise RuleBroken(
                f"a parcel of {submit.plain_bytes} bytes is above this market's {terms.max_parcel_bytes}; "
                f"use a smaller codec or a market with a higher limit",
                code="too-large",
            )

        def effect(ledger: Ledger, db: sqlite3.Connection) -> tuple[Message, bool]:
            self._book.accept(db, submit, data, peer, terms, now)
            return Accepted(submission=submit.submission, upload_before_ms=now + terms.upload_ms), True

        return await self._once(peer, submit.message_id, effect)

    async def _bid(self, peer: str, data: bytes) -> bytes:
        bid = verify(data, Bid, signer=peer)
        self._check_addressed(bid.market, bid.broker)
        return await self._clearing.bid(peer, bid, data)

    async def _ask(self, peer: str, data: bytes) -> bytes:
        ask = verify(data, Ask, signer=peer)
        self._check_addressed(ask.market, ask.broker)
        await self._clearing.ask(peer, ask, data)
        return sign(self._identity, Done())

    async def _decline(self, peer: str, data: bytes) -> bytes:
        decline = verify(data, Decline, signer=peer)

        def effect(ledger: Ledger, db: sqlite3.Connection) -> tuple[Message, bool]:
            return Done(), bool(ledger.decline(decline.trades, peer))

        reply = await self._once(peer, decline.message_id, effect)
        await self._clearing.forget(decline.trades)
        return reply

    async def _delivered(self, peer: str, data: bytes) -> bytes:
        delivered = verify(data, Delivered, signer=peer)

        def effect(ledger: Ledger, db: sqlite3.Connection) -> tuple[Message, bool]:
            before = ledger.trade(delivered.trade)
            return Done(), ledger.acknowledge_delivery(delivered.trade, peer, delivered.delivery) != before

        reply = await self._once(peer, delivered.message_id, effect)
        await self._clearing.forget((delivered.trade,))
        return reply

    async def _status(self, peer: str, data: bytes) -> bytes:
        request = verify(data, StatusRequest, signer=peer)

        def read(ledger: Ledger) -> tuple[TradeStatus, ...]:
            if request.after is not None:
                rows = ledger.settled_after(peer, request.after, MAX_STATUS)
            elif request.trades:
                rows = [ledger.trade(trade) for trade in request.trades]
            else:
                rows = ledger.open_trades(peer, MAX_STATUS)
            return tuple(_status_for(peer, row) for row in rows if peer in (row.buyer, row.seller))[:MAX_STATUS]

        return sign(self._identity, Status(trades=await self._ledger.run(read)))

    async def _balance(self, peer: str, data: bytes) -> bytes:
        verify(data, BalanceRequest, signer=peer)

        def read(ledger: Ledger) -> Balance:
            return Balance(balance=ledger.balance(peer), held=ledger.held(peer))

        return sign(self._identity, await self._ledger.run(read))

    async def _offers(self, peer: str, data: bytes) -> bytes:
        verify(data, OffersRequest, signer=peer)
        return sign(self._identity, Offers(offers=await self._ledger.inside(self._book.offers)))

    async def _consistency(self, peer: str, data: bytes) -> bytes:
        request = verify(data, ConsistencyRequest, signer=peer)
        return sign(self._identity, await self._ledger.run(prove, request))

    async def _statistics(self, peer: str, data: bytes) -> bytes:
        task = verify(data, StatisticsRequest, signer=peer).task
        if not self._terms.publish_prices:
            raise RuleBroken("the terms of this market do not publish prices", code="not-published")
        self._check_task(task)
        bids = await self._ledger.run(Ledger.bids_since, max(0, self._clock() - STATISTICS_MS), task)
        return sign(self._identity, statistics_for(peer, task, bids))

    def _check_task(self, task: str) -> None:
        if self._terms.task(task) is None:
            names = ", ".join(each.name for each in self._terms.tasks)
            raise RuleBroken(f"this market has no task {task!r}; it has {names}", code="unknown-task")

    def _check_market(self, market: str) -> None:
        if market != self._terms.name:
            raise RuleBroken(f"this broker runs the market {self._terms.name!r}, not {market!r}", code="unknown-market")

    def _check_addressed(self, market: str, broker: str) -> None:
        self._check_market(market)
        if broker != self._identity.peer_id:
            raise RuleBroken("this message binds its sender to another broker", code="wrong-broker")


def _status_for(peer: str, row: TradeRow) -> TradeStatus:
    """A trade as one of its sides is told of it, with what that side itself signed."""
    word = row.bid if peer == row.buyer else row.ask
    return TradeStatus(row.trade, row.state, row.price, row.receipt, word)
