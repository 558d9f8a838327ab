"""An agent: joins a market and trades a model's parameters, as one call in a training loop.

Knows: the order of a visit to the market: submit, hear what the broker measured, buy, load, keep receipts. Refuses to
know: how to train, what to bid (strategy), how bytes travel (link, network/). A visit that the network, a peer, this
machine or a strategy's own code spoils ends with a `TradeResult` that says so, and training goes on; what was agreed
before is taken up at the next one. Wrong input of the caller's (a model that does not match the market) is raised.

An `AsyncAgent` lives in the caller's event loop; `Agent` (node/training_loop) is the same for ordinary code.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from p2pmarket import limits
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import (
    ConnectionLost,
    MachineFault,
    MarketError,
    ModelError,
    NetworkFault,
    PeerFault,
    Refused,
    StrategyFault,
    UserFault,
)
from p2pmarket.files import private_folder, remove_tree
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.market import MarketTerms
from p2pmarket.messages import (
    Accepted,
    Appraisal,
    Offer,
    Offers,
    OffersRequest,
    Statistics,
    StatisticsRequest,
    Submit,
    Upload,
)
from p2pmarket.network.spool import Outgoing
from p2pmarket.network.transfer import send_parcel
from p2pmarket.network.transport import Transport
from p2pmarket.node.buyer import Buyer
from p2pmarket.node.gossip import Gossip
from p2pmarket.node.link import BrokerLink, FindBrokers, Welcomed, again
from p2pmarket.node.recovery import Recovery
from p2pmarket.node.results import Purchase, TradeResult
from p2pmarket.node.seller import Seller
from p2pmarket.node.strategy import Strategy
from p2pmarket.node.welcome import Joined
from p2pmarket.parameters.packing import digest_of, pack
from p2pmarket.parameters.snapshot import check_against, check_finite, load_in_place, take_snapshot
from p2pmarket.tasks import end_tasks
from p2pmarket.threads import OwnThread
from p2pmarket.units import Clock, now_ms

log = logging.getLogger(__name__)

BALANCE_SECONDS = 10.0
"""How long a visit that is over waits to hear the balance."""

Tradable = nn.Module | Mapping[str, Tensor]
"""A model, loaded in place when something is bought; or tensors by name, which are left as they are."""


class AsyncAgent:
    """A member of one market. Make it with `join`, or over any transport with `over`; close it when done."""

    def __init__(
        self,
        *,
        identity: Identity,
        keyring: Keyring,
        link: BrokerLink,
        journal: OwnThread[AgentJournal],
        buyer: Buyer,
        seller: Seller,
        recovery: Recovery,
        gossip: Gossip,
        folder: Path,
        strategy: Strategy,
        codec: str,
        zstd: bool,
        timeout_seconds: float,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._keyring = keyring
        self._link = link
        self._journal = journal
        self._buyer = buyer
        self._seller = seller
        self._recovery = recovery
        self._gossip = gossip
        self._outbox = private_folder(folder / "outbox")
        self._strategy = strategy
        self._codec = codec
        self._zstd = zstd
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._visiting = asyncio.Lock()
        self._visits = 0
        self._visit_task: asyncio.Task[TradeResult] | None = None
        self._bought: tuple[Purchase, ...] = ()
        self._closed = False
        self._transport_to_close: Transport | None = None

    @classmethod
    async def over(
        cls,
        transport: Transport,
        *,
        market: str,
        identity: Identity,
        find: FindBrokers,
        welcomed: Welcomed | None = None,
        folder: Path,
        strategy: Strategy | None = None,
        codec: str = "none",
        zstd: bool = False,
        timeout_seconds: float = 300.0,
        clock: Clock = now_ms,
    ) -> AsyncAgent:
        """An agent on a transport that is up; connects in the background, `ready` waits for it.

        :param find: brokers of the market, the best first
        :param welcomed: told of each broker that welcomed this agent, so that `find` names it first
        :param folder: journal, keys and parcels; one agent a folder
        :param codec: of the snapshots it submits (parcel.CODECS)
        :param timeout_seconds: for one visit to the market
        :raises MachineFault, IdentityError: the folder's files cannot be used
        """
        strategy = strategy or Strategy()
        private_folder(folder)
        await asyncio.to_thread(remove_tree, folder / "outbox")  # of visits that an earlier process did not end
        keyring = Keyring.open(folder / "keys", identity, clock)
        journal = OwnThread("journal", lambda: AgentJournal.open(folder / "journal.sqlite", identity.peer_id, clock))
        await journal.open()
        try:
            link = BrokerLink(
                transport=transport, identity=identity, keyring=keyring, market=market, find=find, journal=journal,
                welcomed=welcomed, clock=clock,
            )  # fmt: skip
            buyer = Buyer(identity, keyring, link, journal, strategy, private_folder(folder / "deliveries"), clock)
            seller = Seller(identity, link, journal, strategy, clock)
            link.take_mail(Appraisal, buyer.hear)
            for kind, hear in seller.mail.items():
                link.take_mail(kind, hear)
            agent = cls(
                identity=identity, keyring=keyring, link=link, journal=journal, buyer=buyer, seller=seller,
                recovery=Recovery(link, journal, clock),
                gossip=Gossip(transport, identity, market, link, journal, clock),
                folder=folder, strategy=strategy, codec=codec, zstd=zstd, timeout_seconds=timeout_seconds, clock=clock,
            )  # fmt: skip
            link.start()
            agent._gossip.start()
        except BaseException:
            await journal.close()
            raise
        return agent

    @property
    def peer_id(self) -> str:
        """This agent's id and account."""
        return self._identity.peer_id

    async def ready(self) -> MarketTerms:
        """The market's terms, once the broker has welcomed this agent.

        :raises MarketNotFound, NetworkFault: no broker within the timeout
        :raises Refused: the broker will not have this agent
        """
        return (await self._link.ready(self._timeout_seconds)).terms

    @property
    def broker(self) -> str:
        """Peer id of the broker this agent joined; empty before."""
        return self._link.joined.broker if self._link.joined else ""

    async def addresses(self) -> tuple[str, ...]:
        """Where others may dial this peer to join the network through it; none where they cannot."""
        return await self._link.addresses()

    async def waits_for(self, broker: str) -> bool:
        """Whether an answer of that broker, or any delivery that was paid, is still to come: a visit takes it up."""
        unanswered = await self._journal.run(AgentJournal.unanswered, broker)
        owed = await self._journal.run(AgentJournal.owed)
        return bool(unanswered) or any(row.stage == "bought" for row in owed)

    @property
    def clock_skew_seconds(self) -> float:
        """How far the broker's clock was ahead of ours at its Welcome, travel time included; 0 before."""
        return self._link.joined.ahead_ms / 1000 if self._link.joined else 0.0

    async def trade(self, model: Tradable, *, task: str = "", step: int | None = None) -> TradeResult:
        """One visit to the market: submits the model's parameters, buys what the strategy wants, loads it in place.

        The optimiser is left alone: bought values are copied into the parameters it already holds, and its state
        stays with them. For tensors by name nothing is loaded; see `TradeResult.bought[i].parameters` and `loaded`.
        A model is copied at once and loaded at the end, both in the event loop's thread, where no other coroutine can
        train it meanwhile; `Agent` does so in its caller's thread.

        :param task: the market's task this model is for (default: its first)
        :param step: counts up; shown to others (default: the number of visits)
        :raises ModelError: the model does not match the market
        """
        snapshot = take_snapshot(model) if isinstance(model, nn.Module) else dict(model)
        async with self._visiting:
            self._visits += 1
            try:
                await self._note_loaded()
                result = await self._in_time(self._visit(snapshot, task, self._visits if step is None else step))
            except StrategyFault as error:
                return self._seller.report(TradeResult(problem=str(error)))
            except UserFault:
                raise
            except MarketError as error:
                if error.code == "contradiction":  # it is kept as evidence: not one word more to this broker
                    log.error("%s", error)
                    await self._link.leave(self.broker)
                return self._seller.report(TradeResult(problem=str(error)))
            finally:
                self._gossip.news()
            if isinstance(model, nn.Module):
                for purchase in result.bought:
                    load_in_place(model, purchase.parameters)
                result = await self.loaded(result)
                await self._hear_balance()
            else:
                await self._hear_balance()
                self._bought = result.bought
            return self._seller.report(result)

    async def loaded(self, result: TradeResult) -> TradeResult:
        """Notes that what a visit with tensors bought is where it belongs; the result, with a problem if there is one.

        Until then the parcel is kept, and a process that starts anew gets it again. The next visit notes what this was
        not called for, or could not note.
        """
        self._bought = result.bought
        try:
            await self._note_loaded()
        except MachineFault as error:
            return dataclasses.replace(result, problem=str(error))
        return result

    async def balance(self) -> int:
        """Micro-credits on this agent's account.

        :raises NetworkFault: the broker cannot be reached
        """
        return await self._link.balance()

    async def offers(self) -> tuple[Offer, ...]:
        """What is for sale in the market.

        :raises NetworkFault: the broker cannot be reached
        """
        return (await self._link.request(OffersRequest(secrets.token_bytes(16)), Offers)).offers

    async def statistics(self, task: str = "") -> Statistics:
        """What others bid and paid for one task of the market (default: its first), so that nobody can be told.

        :raises Refused: the market's terms do not publish prices
        :raises NetworkFault: the broker cannot be reached
        """
        task = task or (await self.ready()).tasks[0].name
        return await self._link.request(StatisticsRequest(secrets.token_bytes(16), task), Statistics)

    async def close(self) -> None:
        """Leaves the market; everything that is owed stays owed and is taken up by the next `join`."""
        self._closed = True
        if self._visit_task is not None:
            await end_tasks({self._visit_task})
        await self._gossip.close()
        await self._link.close()
        await self._seller.close()
        await self._journal.close()
        if self._transport_to_close is not None:
            await self._transport_to_close.close()

    # ---- one visit ------------------------------------------------------------------------------------------

    async def _note_loaded(self) -> None:
        await self._buyer.loaded(self._bought)
        self._bought = ()

    async def _in_time(self, visit: Coroutine[Any, Any, TradeResult]) -> TradeResult:
        """The visit's outcome.

        :raises ConnectionLost: it took longer than it may, or this agent was closed meanwhile
        """
        self._visit_task = task = asyncio.create_task(visit)
        try:
            await asyncio.wait({task}, timeout=self._timeout_seconds)
        finally:
            await end_tasks({task})
        if not task.cancelled():
            return task.result()
        if self._closed:
            raise ConnectionLost("this agent has left the market; join again")
        raise ConnectionLost(f"the market gave no answer within {self._timeout_seconds:.0f} s")

    async def _hear_balance(self) -> None:
        """Hears the balance of this moment, where the broker answers."""
        try:
            await self._link.balance(BALANCE_SECONDS)
        except (NetworkFault, PeerFault, Refused) as error:
            log.info("the balance after this visit is not known: %s", error)

    async def _visit(self, snapshot: Mapping[str, Tensor], task: str, step: int) -> TradeResult:
        joined = await self._link.ready(self._timeout_seconds)
        await self._recovery.learn(joined)
        await self._buyer.settle_open(joined)
        await self._recovery.clear_up(joined)
        task = task or joined.terms.tasks[0].name
        await asyncio.to_thread(_check_own, joined, snapshot, task)
        submission = secrets.token_bytes(16)
        appraisal = self._buyer.expect(submission)
        try:
            await self._submit(joined, submission, snapshot, task, step)
            if not self._strategy.buy:
                return TradeResult(note="this strategy does not buy")
            return await self._buyer.decide(joined, await appraisal)
        finally:
            self._buyer.forget(submission)
            await asyncio.to_thread(remove_tree, self._outbox / submission.hex())

    async def _submit(
        self, joined: Joined, submission: bytes, snapshot: Mapping[str, Tensor], task: str, step: int
    ) -> None:
        folder = self._outbox / submission.hex()
        outgoing = await asyncio.to_thread(self._seal, joined, folder, submission, snapshot, task, step)
        context = outgoing.context
        submit = sign(
            self._identity,
            Submit(
                message_id=secrets.token_bytes(16),
                market=joined.terms.name,
                submission=submission,
                task=task,
                step=step,
                snapshot=context.manifest_digest,
                plain_bytes=context.plain_bytes,
                buy=self._strategy.buy,
                ask=await self._seller.standing_ask(joined, task),
                sell=self._strategy.sell,
                buy_groups=self._strategy.buy_groups,
                sell_groups=self._strategy.sell_groups,
                issued_ms=self._clock(),
            ),
        )
        await self._journal.run(AgentJournal.keep_ask, joined.broker, submit)
        verify(await self._link.exchange(submit, joined.broker), Accepted, signer=joined.broker)

        async def upload() -> None:
            stream = await self._link.parcel_stream(Upload(secrets.token_bytes(16), submission), joined.broker)
            await send_parcel(stream, outgoing)

        try:
            await again(upload)
        except Refused as error:
            if error.code != "already-here":  # its acknowledgement was lost, the parcel was not
                raise

    def _seal(
        self, joined: Joined, folder: Path, submission: bytes, snapshot: Mapping[str, Tensor], task: str, step: int
    ) -> Outgoing:
        plain = private_folder(folder) / "snapshot"
        manifest = pack(
            snapshot, plain, market=joined.terms.name, task=task, step=step, codec=self._codec, zstd=self._zstd,
            salt=secrets.token_bytes(16),
        )  # fmt: skip
        now = self._clock()
        return Outgoing.create(
            folder / "sealed", plain, identity=self._identity, receiver=joined.keys, market=joined.terms.name,
            broker=joined.broker, purpose="offer", trade=submission, manifest_digest=digest_of(manifest),
            issued_ms=now, expires_ms=now + min(joined.terms.upload_ms, limits.MAX_PARCEL_AGE_SECONDS * 1000),
        )  # fmt: skip


def _check_own(joined: Joined, snapshot: Mapping[str, Tensor], task: str) -> None:
    """:raises ModelError: the first tensor that does not match the market's model, or is not finite"""
    check_against(joined.schema(task), snapshot)
    try:
        check_finite(snapshot)
    except MarketError as error:
        raise ModelError(f"your model cannot be traded: {error}; did training diverge?") from None
