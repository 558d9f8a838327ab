"""One trade between a real ledger and two real journals, in every order of events with a bounded number of faults.

Each party is its file, one flag for a file beside it, and a few words that a crash forgets; what it does at an event is
written here without asyncio, in the steps of clearing, desk, parcels, buyer and seller. A step is run once for each
state of its party and remembered, so that the walk through all states of the whole is arithmetic.

A state of the whole: the three parties, the clock's stage, the messages under way, the faults left. The network loses,
repeats and reorders whatever it likes; only mail comes in its order, as sessions see to. A process may end between any
two transactions; what was on its way to it is gone then, and every file stays as the last commit left it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ledger_examples import MARKET, START_MS, HandClock
from peers import identity_of

from p2pmarket import failpoints
from p2pmarket.broker_node import negotiation
from p2pmarket.broker_node.book import Book
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import MarketError, PeerFault
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.agent_schema import AgentTrade
from p2pmarket.ledger.database import Database
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.trade import ENDS, PAID, QUOTED, REFUNDED, SETTLED, UNMATCHED
from p2pmarket.ledger.trades import TradeRow
from p2pmarket.market import MarketTerms
from p2pmarket.messages import (
    Ask,
    AskRequest,
    Bid,
    Deal,
    Delivered,
    Done,
    GainReport,
    NoDeal,
    Refund,
    Sold,
    Status,
    Submit,
    TradeStatus,
    Unmatched,
)
from p2pmarket.node.recovery import MONEYLESS_ENDS
from p2pmarket.simulation.invariants import own_trade_problems
from p2pmarket.units import CREDIT

BROKER, BUYER, SELLER = 0, 1, 2
PARTIES = ("broker", "buyer", "seller")
IDENTITIES = tuple(identity_of(f"exploration {name}") for name in PARTIES)
BROKER_ID, BUYER_ID, SELLER_ID = (identity.peer_id for identity in IDENTITIES)
OPENING = 10 * CREDIT
STAGE_MS = (0, 120_000, 1_200_000)
"""Since the start: everything runs; bids and reports have run out; deliveries too."""
BID_UNTIL = START_MS + 60_000
DELIVERY_MS = 600_000
DELIVERY = hashlib.sha256(b"delivery").digest()
SNAPSHOT = hashlib.sha256(b"snapshot").digest()
TRADE = hashlib.sha256(b"trade").digest()[:16]
FINAL = {"expired", "malformed", "nothing-to-buy", "not-yours", "out-of-order", "unknown-trade", "wrong-delivery"}
FINAL |= {"wrong-state", "lower-bid"}
LOST = {"expired", "lost-delivery", "not-yours", "unknown-trade", "wrong-state"}


class Message(NamedTuple):
    """On its way to a party."""

    to: int
    kind: str
    body: bytes = b""
    number: int = 0


class Local(NamedTuple):
    """A party's state: its database, whether the delivery's file is here, what a crash forgets."""

    rows: int
    """Number of the database's content."""
    file: bool = False
    words: tuple[Any, ...] = ()


class World(NamedTuple):
    """A state of the whole."""

    parties: tuple[int, int, int]
    """Numbers of the local states."""
    stage: int
    net: tuple[int, ...]
    """Numbers of the messages under way, sorted; one twice is there twice."""
    faults: tuple[int, int, tuple[int, int, int]]
    """Left: losses, repetitions, crashes of each party."""


class Cut(BaseException):
    """The process ends after a transaction."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is traded and what may go wrong."""

    bids: tuple[int, ...] = (3 * CREDIT,)
    asks: tuple[int, ...] = (1 * CREDIT,)
    standing: int | None = None
    """The ask that came with the snapshot."""
    losses: int = 2
    repetitions: int = 1
    crashes: tuple[int, int, int] = (1, 1, 1)


@dataclasses.dataclass(frozen=True)
class BrokerView:
    """What the checks look at of a broker's state."""

    row: TradeRow
    problems: list[str]


@dataclasses.dataclass(frozen=True)
class AgentView:
    """What the checks look at of an agent's state."""

    mine: AgentTrade | None
    distrusts: dict[str, str]
    unanswered: int
    file: bool


class Parties:
    """Runs the steps on the real files and remembers what they came to."""

    def __init__(self, folder: Path, scenario: Scenario, terms: MarketTerms, ledger: type[Ledger] = Ledger) -> None:
        self.scenario = scenario
        self.terms = terms
        self.clock = HandClock(START_MS)
        self.book = Book(folder)
        self.ledger = ledger.open(
            folder / "ledger.sqlite", IDENTITIES[BROKER], MARKET, self.clock, token_bytes=lambda n: bytes(n)
        )
        self.journals = [
            AgentJournal.open(folder / f"{PARTIES[party]}.sqlite", IDENTITIES[party].peer_id, self.clock)
            for party in (BUYER, SELLER)
        ]
        self._databases: list[Database] = [self.ledger._database, *(j._database for j in self.journals)]
        for database in self._databases:
            database.connection.execute("PRAGMA synchronous = OFF")
        self._saved: list[sqlite3.Connection] = []
        self._numbers: dict[bytes, int] = {}
        self.locals: list[tuple[int, Local]] = []
        self._local_numbers: dict[tuple[int, Local], int] = {}
        self.messages: list[Message] = []
        self._message_numbers: dict[Message, int] = {}
        self._steps: dict[Any, tuple[int, tuple[int, ...]] | None] = {}
        self.cuts: dict[Any, int] = {}
        self._here = [-1, -1, -1]
        self._views: dict[int, BrokerView | AgentView] = {}
        self._broker_views: dict[int, BrokerView] = {}
        self.runs = 0

    # ---- states and messages by number ------------------------------------------------------------------------------

    def close(self) -> None:
        self.ledger.close()
        for journal in self.journals:
            journal.close()
        for saved in self._saved:
            saved.close()

    def number(self, message: Message) -> int:
        if message not in self._message_numbers:
            self._message_numbers[message] = len(self.messages)
            self.messages.append(message)
        return self._message_numbers[message]

    def local(self, party: int, state: Local) -> int:
        key = (party, state)
        if key not in self._local_numbers:
            self._local_numbers[key] = len(self.locals)
            self.locals.append(key)
        return self._local_numbers[key]

    def save(self, party: int) -> int:
        """The number of the database's content as it is now."""
        connection = self._databases[party].connection
        digest = hashlib.sha256(bytes([party]))
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"):
            digest.update(table.encode())
            for row in sorted(map(repr, connection.execute(f"SELECT * FROM {table}"))):
                digest.update(row.encode())
        key = digest.digest()
        if key not in self._numbers:
            copy = sqlite3.connect(":memory:")
            connection.backup(copy)
            self._numbers[key] = len(self._saved)
            self._saved.append(copy)
        self._here[party] = self._numbers[key]
        return self._numbers[key]

    def restore(self, party: int, rows: int) -> None:
        if self._here[party] != rows:
            self._saved[rows].backup(self._databases[party].connection)
            self._here[party] = rows

    def at(self, number: int) -> tuple[int, Local]:
        """The party and its state; its database holds it now."""
        party, state = self.locals[number]
        self.restore(party, state.rows)
        return party, state

    def begin(self) -> World:
        """A report is with the buyer; nobody bid."""
        report = GainReport(
            trade=TRADE, market=MARKET, buyer=BUYER_ID, seller=SELLER_ID, task="digits", buyer_snapshot=bytes(32),
            seller_snapshot=SNAPSHOT, delivery=DELIVERY, loss_before=1.0, loss_after=0.5, gain=0.5, gain_low=0.4,
            gain_high=0.6, merit=0.5, merit_low=0.4, merit_high=0.6, confidence=0.95, metric_before=0.5,
            metric_after=0.7, samples=100, data=bytes(32), weight=0.5, granularity="model", alignment="identity",
            after=None, left_out=(), reason="", classes=(), groups=(), tasks=(), expires_ms=BID_UNTIL,
        )  # fmt: skip
        signed = sign(IDENTITIES[BROKER], report)
        with self.ledger.transaction() as connection:
            self.book.create_tables(connection)
            submit = Submit(
                bytes(16), MARKET, bytes(16), "digits", 1, SNAPSHOT, 100, False, self.scenario.standing, True, (), (),
                START_MS,
            )  # fmt: skip
            signed_submit = sign(IDENTITIES[SELLER], submit)
            self.book.accept(connection, submit, signed_submit, SELLER_ID, self.terms, START_MS)
            self.book.book(connection, submit.submission)
        self.journals[1].keep_ask(BROKER_ID, signed_submit)
        for peer in (BUYER_ID, SELLER_ID):
            self.ledger.open_account(peer, OPENING)
        self.ledger.create_trade(TRADE, BUYER_ID, SELLER_ID, bytes(32), SNAPSHOT, bytes(16), task="digits")
        self.ledger.record_report(TRADE, signed, DELIVERY, BID_UNTIL)
        self.journals[0].keep_report(BROKER_ID, signed)
        words = ((), ("bid", 0), ())
        states = tuple(self.local(party, Local(self.save(party), words=words[party])) for party in range(3))
        faults = (self.scenario.losses, self.scenario.repetitions, self.scenario.crashes)
        return World(states, 0, (), faults)  # type: ignore[arg-type]

    # ---- what is looked at --------------------------------------------------------------------------------------

    def view(self, local: int) -> Any:
        """A BrokerView or AgentView of a local state."""
        if local not in self._views:
            party, state = self.at(local)
            self._views[local] = self._look(party, state)
        return self._views[local]

    def _look(self, party: int, state: Local) -> BrokerView | AgentView:
        if party != BROKER:
            journal = self.journals[party - 1]
            mine, waits = journal.trade(BROKER_ID, TRADE), len(journal.unanswered(BROKER_ID))
            return AgentView(mine, journal.distrusted(), waits, state.file)
        if state.rows not in self._broker_views:
            row = self.ledger.trade(TRADE)
            self._broker_views[state.rows] = BrokerView(row, [*self.ledger.verify().problems, *self._money_wrong(row)])
        return self._broker_views[state.rows]

    def _money_wrong(self, row: TradeRow) -> Iterator[str]:
        """Every balance and hold is what the trade's state makes it."""
        proceeds, paid, waits = row.price - row.fee, row.state in PAID, row.state == SETTLED
        right = {
            BUYER_ID: (OPENING - row.price * paid, row.bid_amount * (row.state == QUOTED)),
            SELLER_ID: (OPENING + proceeds * paid, proceeds * waits),
            BROKER_ID: (row.fee * paid, row.fee * waits),
        }
        for peer, money in right.items():
            found = self.ledger.balance(peer), self.ledger.held(peer)
            if found != money:
                yield f"a trade that is {row.state} left the balance and hold {found} in place of {money}"

    # ---- one step -----------------------------------------------------------------------------------------------

    def step(self, local: int, stage: int, event: Any, cut: int = 0) -> tuple[int, tuple[int, ...]] | None:
        """The state after an event and the messages it sends; None where the event does nothing in this state.

        :param event: the number of a message, or the name of what the party does by itself
        :param cut: 0, or the transaction after which the process ends
        """
        key = (local, stage, event, cut)
        if key not in self._steps:
            self._steps[key] = self._run(local, stage, event, cut)
        return self._steps[key]

    def _run(self, local: int, stage: int, event: Any, cut: int) -> tuple[int, tuple[int, ...]] | None:
        self.runs += 1
        party, state = self.at(local)
        self.clock.ms = START_MS + STAGE_MS[stage]
        step = _Step(self, party, state)
        commits = 0

        def follow(place: str) -> None:
            nonlocal commits
            if place.endswith(".after"):
                commits += 1
                if commits == cut:
                    raise Cut

        before, failpoints.POINTS.follow = failpoints.POINTS.follow, follow
        try:
            done = step.do(event)
        except Cut:
            step.words, step.out, done = (), [], True
        finally:
            failpoints.POINTS.follow = before
            self._here[party] = -1
        if not cut:
            self.cuts[local, stage, event] = commits
        after = Local(self.save(party), step.file, step.words)
        if not done or (after == state and not step.out):
            return None
        return self.local(party, after), tuple(self.number(message) for message in step.out)


class _Step:
    """What a party does at one event: changes its file, `file`, `words`, and sends `out`."""

    def __init__(self, parties: Parties, party: int, state: Local) -> None:
        self.parties = parties
        self.party = party
        self.file = state.file
        self.words = state.words
        self.out: list[Message] = []

    def do(self, event: Any) -> bool:
        """Whether anything was done."""
        if isinstance(event, int):
            message = self.parties.messages[event]
            handler = getattr(self, f"{PARTIES[self.party]}_hears_{message.kind.replace('-', '_')}")
            return handler(message) is not False
        return getattr(self, f"{PARTIES[self.party]}_{event}")() is not False

    def send(self, to: int, kind: str, body: bytes = b"", number: int = 0) -> None:
        self.out.append(Message(to, kind, body, number))

    # ---- the broker: clearing, desk, parcels, post ----------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        return self.parties.ledger

    def broker_hears_bid(self, message: Message) -> None:
        bid = verify(message.body, Bid, signer=BUYER_ID)
        parties = self.parties
        try:
            outcome = negotiation.place_bid(
                self.ledger, parties.book, parties.terms, BUYER_ID, bid, message.body, parties.clock()
            )
        except MarketError as error:
            self.send(BUYER, "refusal", bid.message_id + error.code.encode())
            return
        if outcome is not None:
            self.send(BUYER, "reply", outcome.reply)
        elif self.words == ():
            self.words = ("clearing", message.body, "begun")

    def broker_clear(self) -> bool:
        """Asks the seller, where what it asked before does not decide."""
        if self.words[:1] != ("clearing",) or self.words[2] != "begun":
            return False
        bid = verify(self.words[1], Bid, signer=BUYER_ID)
        trade = self.ledger.trade(TRADE)
        ask = negotiation.standing_ask(trade, self.parties.clock())
        if ask is not None and negotiation.decides(bid, ask):
            self.words = (*self.words[:2], "heard")
            return True
        request = AskRequest(MARKET, TRADE, bytes(16), trade.seller_snapshot, bid.expires_ms, bid.revision)
        self.ledger.queue_mail(SELLER_ID, sign(IDENTITIES[BROKER], request))
        self.words = (*self.words[:2], "asked")
        return True

    def broker_hears_ask(self, message: Message) -> bool:
        ask = verify(message.body, Ask, signer=SELLER_ID)
        try:
            negotiation.take_ask(self.ledger, SELLER_ID, ask, message.body)
        except MarketError:
            return False
        if self.words[:1] == ("clearing",):
            self.words = (*self.words[:2], "heard")
        return True

    def broker_conclude(self) -> bool:
        """Whether or not the seller was heard: its time may be up."""
        if self.words[:1] != ("clearing",) or self.words[2] == "begun":
            return False
        bid = verify(self.words[1], Bid, signer=BUYER_ID)
        self.words = ()
        try:
            outcome = negotiation.conclude(self.ledger, self.parties.terms, bid, self.parties.clock())
        except MarketError as error:
            self.send(BUYER, "refusal", bid.message_id + error.code.encode())
            return True
        self.send(BUYER, "reply", outcome.reply)
        return True

    def broker_hears_fetch(self, message: Message) -> None:
        trade = self.ledger.trade(TRADE)
        if trade.state != SETTLED:
            self.send(BUYER, "no-parcel", b"wrong-state")
        elif trade.fetch_before_ms is not None and trade.fetch_before_ms <= self.parties.clock():
            self.send(BUYER, "no-parcel", b"expired")
        else:
            self.ledger.mark_served(TRADE)
            self.send(BUYER, "parcel", DELIVERY)

    def broker_hears_status(self, message: Message) -> None:
        trade = self.ledger.trade(TRADE)
        told = TradeStatus(TRADE, trade.state, trade.price, trade.receipt, trade.bid)
        self.send(BUYER, "status", sign(IDENTITIES[BROKER], Status((told,))))

    def broker_hears_delivered(self, message: Message) -> None:
        word = verify(message.body, Delivered, signer=BUYER_ID)
        try:
            with self.ledger.transaction():
                stored = self.ledger.seen_reply(BUYER_ID, word.message_id)
                if stored is None:
                    self.ledger.acknowledge_delivery(TRADE, BUYER_ID, word.delivery)
                    stored = sign(IDENTITIES[BROKER], Done())
                    self.ledger.remember(BUYER_ID, word.message_id, stored)
        except MarketError as error:
            self.send(BUYER, "refusal", word.message_id + error.code.encode())
            return
        self.send(BUYER, "acknowledged", word.message_id)

    def broker_expire(self) -> bool:
        return bool(self.ledger.expire())

    def _post(self, to: int) -> bool:
        """The oldest mail that a peer has not acknowledged."""
        waits = self.ledger.mail_after((BROKER_ID, BUYER_ID, SELLER_ID)[to], 0)
        for number, body in waits[:1]:
            self.send(to, "mail", body, number)
        return bool(waits)

    def broker_post_buyer(self) -> bool:
        return self._post(BUYER)

    def broker_post_seller(self) -> bool:
        return self._post(SELLER)

    def broker_hears_ack(self, message: Message) -> None:
        self.ledger.drop_mail(message.body.decode(), message.number)

    # ---- the buyer ------------------------------------------------------------------------------------------------

    @property
    def journal(self) -> AgentJournal:
        return self.parties.journals[self.party - 1]

    def buyer_bid(self) -> bool:
        """The first bid, or the one above a bid that was unmatched."""
        if self.words[:1] != ("bid",) or self.parties.clock() >= BID_UNTIL:
            return False
        revision = self.words[1]
        number = hashlib.sha256(b"bid %d" % revision).digest()[:16]
        amount = self.parties.scenario.bids[revision]
        data = sign(IDENTITIES[BUYER], Bid(number, MARKET, BROKER_ID, TRADE, DELIVERY, amount, BID_UNTIL, revision))
        self.words = ()
        self.journal.keep_bid(data)
        self.send(BROKER, "bid", data)
        return True

    def buyer_resend(self) -> bool:
        """What has no answer, and what was paid and is not here."""
        for intent in self.journal.unanswered(BROKER_ID):
            self.send(BROKER, "bid" if type_of(intent.body) == Bid.TYPE else "delivered", intent.body)
        for row in self.journal.owed():
            if row.stage == "bought" and not self.file:
                self.send(BROKER, "fetch")
            elif row.stage == "bought":
                self._keep_delivery()
        if self.journal.unclear(BROKER_ID) or self.journal.is_lost(BROKER_ID):
            self.send(BROKER, "status")
        return bool(self.out)

    def buyer_hears_reply(self, message: Message) -> None:
        kind = type_of(message.body)
        asked = {verify(i.body, Bid, signer=None).revision: i.message_id for i in self._open_bids()}
        if kind == Deal.TYPE:
            deal = verify(message.body, Deal, signer=BROKER_ID)
            try:
                self.journal.keep_receipt(BROKER_ID, deal.receipt)
            except PeerFault:
                return  # it keeps the evidence
            for number in asked.values():
                self.journal.answered(number, message.body)
        elif kind == Unmatched.TYPE:
            unmatched = verify(message.body, Unmatched, signer=BROKER_ID)
            if unmatched.revision not in asked:
                return  # a reply that nobody waits for any more
            self.journal.end(BROKER_ID, TRADE, "unmatched")
            self.journal.answered(asked[unmatched.revision], message.body)
            if unmatched.revision + 1 < len(self.parties.scenario.bids):
                self.words = ("bid", unmatched.revision + 1)
        else:
            refusal = verify(message.body, NoDeal, signer=BROKER_ID)
            if asked:
                self.journal.end(BROKER_ID, TRADE, refusal.reason)
                self.journal.answered(asked[max(asked)], message.body)

    def buyer_hears_status(self, message: Message) -> None:
        (told,) = verify(message.body, Status, signer=BROKER_ID).trades
        if not self.journal.unclear(BROKER_ID) and not self.journal.is_lost(BROKER_ID):
            return
        if told.receipt is not None:
            self.journal.keep_status(BROKER_ID, told)
            self.journal.rebuilt(BROKER_ID)
        elif told.state in {*MONEYLESS_ENDS, UNMATCHED}:
            self.journal.end(BROKER_ID, TRADE, told.state)

    def _open_bids(self) -> list[Any]:
        return [i for i in self.journal.unanswered(BROKER_ID) if type_of(i.body) == Bid.TYPE]

    def buyer_hears_refusal(self, message: Message) -> bool:
        number, code = message.body[:16], message.body[16:].decode()
        intents = {intent.message_id: intent for intent in self.journal.unanswered(BROKER_ID)}
        if number not in intents or code not in FINAL:
            return False
        self.journal.answered(number, code.encode())
        if type_of(intents[number].body) == Bid.TYPE:
            self.journal.end(BROKER_ID, TRADE, code)
        return True

    def buyer_hears_parcel(self, message: Message) -> bool:
        if self.file or not any(row.stage == "bought" for row in self.journal.owed()):
            return False
        self.file = True
        self._keep_delivery()
        return True

    def _keep_delivery(self) -> None:
        number = hashlib.sha256(b"delivered").digest()[:16]
        data = sign(IDENTITIES[BUYER], Delivered(number, TRADE, DELIVERY))
        with self.journal.transaction():
            self.journal.fetched(BROKER_ID, TRADE)
            self.journal.intend(BROKER_ID, number, data)
        self.send(BROKER, "delivered", data)

    def buyer_hears_no_parcel(self, message: Message) -> bool:
        owed = [row for row in self.journal.owed() if row.stage == "bought"]
        if self.file or not owed or message.body.decode() not in LOST:
            return False
        self.journal.give_up(BROKER_ID, TRADE, message.body.decode())
        return True

    def buyer_hears_acknowledged(self, message: Message) -> None:
        self.journal.answered(message.body, b"done")

    def buyer_hears_mail(self, message: Message) -> None:
        self._hear_mail(message, {Refund.TYPE: self.journal.keep_refund})

    # ---- the seller -----------------------------------------------------------------------------------------------

    def seller_hears_mail(self, message: Message) -> None:
        kinds = {Refund.TYPE: self.journal.keep_refund, Sold.TYPE: self.journal.keep_sale, AskRequest.TYPE: self._ask}
        self._hear_mail(message, kinds)

    def _hear_mail(self, message: Message, kinds: dict[str, Callable[[str, bytes], Any]]) -> None:
        if message.number > self.journal.last_mail(BROKER_ID):
            with contextlib.suppress(PeerFault):  # passed over, as the link does
                kinds[type_of(message.body)](BROKER_ID, message.body)
            self.journal.keep_mail(BROKER_ID, message.number)
        self.send(BROKER, "ack", IDENTITIES[self.party].peer_id.encode(), message.number)

    def _ask(self, broker: str, body: bytes) -> None:
        request = verify(body, AskRequest, signer=broker)
        if request.expires_ms <= self.parties.clock():
            return
        number = hashlib.sha256(b"ask %d" % request.revision).digest()[:16]
        amount = self.parties.scenario.asks[request.revision]
        until = request.expires_ms + 60_000
        data = sign(
            IDENTITIES[SELLER], Ask(number, MARKET, BROKER_ID, TRADE, SNAPSHOT, amount, until, request.revision)
        )
        self.journal.keep_ask(BROKER_ID, data)
        self.send(BROKER, "ask", data)


BY_ITSELF = (
    (BROKER, "clear"), (BROKER, "conclude"), (BROKER, "expire"), (BROKER, "post_buyer"), (BROKER, "post_seller"),
    (BUYER, "bid"), (BUYER, "resend"),
)  # fmt: skip
"""What parties do without a message; in this order where nothing goes wrong."""
SENDS_AGAIN = {"resend", "post_buyer", "post_seller"}


class Explorer:
    """Walks through all states."""

    def __init__(self, parties: Parties) -> None:
        self.parties = parties
        self.seen: dict[World, int] = {}
        self.worlds: list[World] = []
        self.calm: list[int] = []
        """For each state the next one where nothing goes wrong; itself at rest."""
        self.edges = 0
        self.problems: list[str] = []
        self.ends: dict[str, int] = {}
        self.rests = 0
        self.whole = False
        self._checked: dict[tuple[int, int, int], list[str]] = {}

    def explore(self, most_states: int = 10**9) -> bool:
        """Breadth first; whether all was seen."""
        first = self.parties.begin()
        self.seen[first] = 0
        self.worlds.append(first)
        queue = deque([0])
        whole = True
        while queue:
            here = queue.popleft()
            world = self.worlds[here]
            calm = None
            for is_calm, after in self._after(world):
                self.edges += 1
                number = self.seen.get(after)
                if number is None:
                    if len(self.worlds) >= most_states and not is_calm:
                        whole = False
                        continue
                    number = self.seen[after] = len(self.worlds)
                    self.worlds.append(after)
                    queue.append(number)
                if is_calm and calm is None:
                    calm = number
            self.calm.append(here if calm is None else calm)
            self._check(world)
        self._check_ends()
        return whole

    def _after(self, world: World) -> Iterator[tuple[bool, World]]:
        """Every state after this one, and whether nothing went wrong on the way; the first calm one is what happens."""
        parties, stage, net, (losses, repetitions, crashes) = world
        for place, message in enumerate(net):
            if place and net[place - 1] == message:
                continue
            rest = net[:place] + net[place + 1 :]
            to = self.parties.messages[message].to
            yield True, self._do(world, to, message, rest) or world._replace(net=rest)
            if losses:
                yield False, World(parties, stage, rest, (losses - 1, repetitions, crashes))
            if repetitions:
                after = self._do(world, to, message, net)
                if after is not None:
                    yield False, after._replace(faults=(losses, repetitions - 1, crashes))
            yield from self._cut(world, to, message)
        kinds = {self.parties.messages[message].kind for message in net}
        for party, event in BY_ITSELF:
            if event in SENDS_AGAIN and self._under_way(party, event, kinds, net):
                continue
            after = self._do(world, party, event, net)
            if after is not None:
                yield True, after
                yield from self._cut(world, party, event)
        for party in range(3):
            yield from self._crash(world, party)
        if stage + 1 < len(STAGE_MS):
            yield True, world._replace(stage=stage + 1)

    def _under_way(self, party: int, event: str, kinds: set[str], net: tuple[int, ...]) -> bool:
        """Whether what would be sent again, or its answer, is still on its way: a copy would be a repetition."""
        if event == "resend":
            return bool(kinds - {"mail", "ack", "ask"})
        to = BUYER if event == "post_buyer" else SELLER
        messages = [self.parties.messages[message] for message in net]
        peer = IDENTITIES[to].peer_id.encode()
        return any((m.kind == "mail" and m.to == to) or (m.kind == "ack" and m.body == peer) for m in messages)

    def _do(self, world: World, party: int, event: Any, net: tuple[int, ...], cut: int = 0) -> World | None:
        step = self.parties.step(world.parties[party], world.stage, event, cut)
        if step is None:
            return None
        local, out = step
        states = list(world.parties)
        states[party] = local
        return world._replace(parties=tuple(states), net=tuple(sorted(net + out)))

    def _cut(self, world: World, party: int, event: Any) -> Iterator[tuple[bool, World]]:
        """The party crashes in the middle of a step of several transactions."""
        if not world.faults[2][party]:
            return
        for cut in range(1, self.parties.cuts.get((world.parties[party], world.stage, event), 0) + 1):
            after = self._do(world, party, event, world.net, cut)
            if after is not None:
                yield False, self._ended(after, party)

    def _crash(self, world: World, party: int) -> Iterator[tuple[bool, World]]:
        """The party ends where it stands, where that changes anything."""
        _, state = self.parties.locals[world.parties[party]]
        on_its_way = any(self.parties.messages[message].to == party for message in world.net)
        if world.faults[2][party] and (state.words or on_its_way):
            yield False, self._ended(world, party)

    def _ended(self, world: World, party: int) -> World:
        """Without what the party had only in its mind, and without what was on its way to it."""
        losses, repetitions, crashes = world.faults
        _, state = self.parties.locals[world.parties[party]]
        net = tuple(message for message in world.net if self.parties.messages[message].to != party)
        left = tuple(count - (number == party) for number, count in enumerate(crashes))
        states = list(world.parties)
        states[party] = self.parties.local(party, state._replace(words=()))
        return World(tuple(states), world.stage, net, (losses, repetitions, left))  # type: ignore[arg-type]

    # ---- what must hold -------------------------------------------------------------------------------------------

    def _check(self, world: World) -> None:
        if world.parties not in self._checked:
            self._checked[world.parties] = found = [*self._wrong(world.parties)]
            self.problems += found[: max(0, 20 - len(self.problems))]

    def _wrong(self, states: tuple[int, int, int]) -> Iterator[str]:
        """In every state: the ledger verifies, and nobody has what another's file does not explain."""
        broker, buyer, seller = (self.parties.view(local) for local in states)
        row, mine = broker.row, buyer.mine
        yield from broker.problems
        for view, name in ((buyer, "buyer"), (seller, "seller")):
            if view.distrusts:
                yield f"the {name} distrusts an honest broker: {view.distrusts}"
            if view.mine is None:
                continue
            if view.mine.receipt is not None and view.mine.receipt != row.receipt:
                yield f"the {name} has a receipt of a trade that is {row.state}"
            if view.mine.refunded_ms and row.state != REFUNDED:
                yield f"the {name} counts a trade as refunded that is {row.state}"
        if buyer.file and (row.state not in PAID or row.served_ms is None):
            yield f"the buyer has the delivery of a trade that is {row.state}"
        if row.bid is not None and (mine is None or mine.bid is None):
            yield "the broker has a bid that its buyer does not know of"
        if row.state == "delivered" and not buyer.file:
            yield "what is delivered is not here"

    def _check_ends(self) -> None:
        """From every state, where nothing more goes wrong, the market comes to a proper rest."""
        rest: list[int] = [-1] * len(self.worlds)
        judged: dict[int, list[str]] = {}
        for start in range(len(self.worlds)):
            path, here = [], start
            while rest[here] < 0 and self.calm[here] != here:
                path.append(here)
                rest[here] = start + len(self.worlds)  # on this path: again means a circle
                here = self.calm[here]
                if rest[here] == start + len(self.worlds):
                    self.problems.append(f"the market goes round in circles: {self.describe(self.worlds[here])}")
                    return
            end = here if rest[here] < 0 else rest[here]
            for place in [*path, here]:
                rest[place] = end
            if end not in judged:
                self.rests += 1
                judged[end] = [*self._wrong_at_rest(self.worlds[end])]
                self.problems += judged[end][: max(0, 20 - len(self.problems))]

    def _wrong_at_rest(self, world: World) -> Iterator[str]:
        broker, buyer, seller = (self.parties.view(local) for local in world.parties)
        row = broker.row
        self.ends[row.state] = self.ends.get(row.state, 0) + 1
        if row.state not in ENDS or world.net:
            yield f"at rest the trade is {row.state} and {len(world.net)} messages are under way"
        for view, name in ((buyer, "buyer"), (seller, "seller")):
            if view.unanswered:
                yield f"the {name} still waits for an answer to a trade that is {row.state}"
            if view.mine is not None:
                wrong = own_trade_problems(view.mine, row, BROKER_ID)
                yield from (f"the {name}'s trade that is {row.state}: {sentence}" for sentence in wrong)
            if row.receipt is not None and (view.mine is None or view.mine.receipt is None):
                yield f"the {name} does not know that the trade is {row.state}"

    def describe(self, world: World) -> str:
        """A state in words."""
        broker, buyer, _ = (self.parties.view(local) for local in world.parties)
        row, mine = broker.row, buyer.mine
        net = [f"{self.parties.messages[m].kind}>{PARTIES[self.parties.messages[m].to]}" for m in world.net]
        words = [self.parties.locals[local][1].words[:1] for local in world.parties]
        return f"{row.state}, buyer {mine.stage if mine else '-'}, stage {world.stage}, {net}, {words}"


def explore(
    folder: Path, scenario: Scenario, terms: MarketTerms, most_states: int = 10**9, ledger: type[Ledger] = Ledger
) -> Explorer:
    parties = Parties(folder, scenario, terms, ledger)
    try:
        explorer = Explorer(parties)
        explorer.whole = explorer.explore(most_states)
        return explorer
    finally:
        parties.close()
