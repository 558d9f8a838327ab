"""Every message of the market, one frozen record each, documented field by field.

Knows: what is said. Refuses to know: how it is framed (wire), signed (crypto/signing) or acted on (the roles).
A message's `TYPE` is bound into its signature, so bytes signed as one type never pass as another.

Agent to broker: Hello, Submit, Bid, Ask, Decline, Delivered, StatusRequest, BalanceRequest, OffersRequest,
ConsistencyRequest, StatisticsRequest.
Broker to agent, as replies: Welcome, Accepted, Deal, Unmatched, NoDeal, Status, Balance, Offers, Consistency,
Statistics, Done, Refusal. As mail (kept until acknowledged): Appraisal, AskRequest, Sold, Refund.
Parcels, on streams of their own: Upload, Fetch. To everyone: KeyStatement, BrokerStatement, Checkpoint.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

from p2pmarket import limits
from p2pmarket.records import Amount, Bound, Count, Digest, Id, Millis, Name, OneOf, PeerId, Record, Signed, Text

PROTOCOL_VERSION = 1

ALIGNMENTS = ("identity", "weights", "activations")
GRANULARITIES = ("none", "model", "tensor", "row")
Confidence = Annotated[float, Bound(0.5, 0.9999)]
Fraction = Annotated[float, Bound(-10.0, 10.0)]


class Message(Record):
    """A record with a name for the wire."""

    TYPE: ClassVar[str]


# ---- statements: signed once, shown to anyone -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class KeyStatement(Message):
    """A peer's encryption keys for sealed parcels; the highest epoch wins (docs/protocol.md, "Identity")."""

    TYPE: ClassVar[str] = "key-statement"
    peer: PeerId
    epoch: Count
    """Grows with every new pair of keys: the creation time in milliseconds."""
    x25519: Annotated[bytes, Bound(32, 32)]
    mlkem768_x25519: Annotated[bytes, Bound(0, 1216)]
    """Empty where this machine's cryptography lacks ML-KEM."""
    not_before_ms: Millis
    not_after_ms: Millis


@dataclasses.dataclass(frozen=True)
class BrokerStatement(Message):
    """What a broker announces on the DHT: a hint where its market can be joined."""

    TYPE: ClassVar[str] = "broker-statement"
    market: Name
    broker: PeerId
    version: Annotated[int, Bound(1, 2**16)]
    public_name: Annotated[str, Bound(0, limits.MAX_NAME_CHARACTERS)]
    addresses: Annotated[tuple[Annotated[str, Bound(1, 160)], ...], Bound(0, 4)]
    issued_ms: Millis
    expires_ms: Millis


@dataclasses.dataclass(frozen=True)
class Checkpoint(Message):
    """The broker's signed word on its whole log; two that contradict each other prove that it cheats."""

    TYPE: ClassVar[str] = "checkpoint"
    market: Name
    broker: PeerId
    size: Count
    root: Digest
    at_ms: Millis


# ---- opening a session ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Hello(Message):
    """Opens a session. The broker answers Welcome, or Refusal `wrong-version` or `unknown-market`."""

    TYPE: ClassVar[str] = "hello"
    message_id: Id
    version: Annotated[int, Bound(1, 2**16)]
    market: Name
    keys: Signed
    """The agent's signed KeyStatement."""
    issued_ms: Millis
    """Lets the broker measure clock skew."""
    last_mail: Count
    """Highest mail number already kept; the broker forgets mail up to it and sends the rest."""
    checkpoint: Signed | None = None
    """The largest head of this broker's log that the agent has kept: a Checkpoint, or a Receipt, which names one. A
    broker whose log is not its continuation has lost or forged part of it, and refuses everybody: `rolled-back`."""


@dataclasses.dataclass(frozen=True)
class Welcome(Message):
    """The market an agent just joined."""

    TYPE: ClassVar[str] = "welcome"
    terms: Signed
    """The broker's signed MarketTerms."""
    schemas: Annotated[tuple[Signed, ...], Bound(1, 64)]
    """The broker's signed Schemas, of every model that a task has."""
    schema_of_task: Annotated[tuple[Annotated[int, Bound(0, 63)], ...], Bound(1, 64)]
    """For each task of the terms, in their order: which of `schemas` its snapshots have."""
    data_of_task: Annotated[tuple[Digest, ...], Bound(1, 64)]
    """For each task: SHA-256 of the validation data as split into SELECT and REPORT. Binds the broker to them."""
    keys: Signed
    """The broker's signed KeyStatement."""
    balance: Amount
    broker_ms: Millis
    checkpoint: Signed
    """The Checkpoint over the log as it is now."""
    consistency: Annotated[tuple[Digest, ...], Bound(0, 64)]
    """Proof that the log continues that of `hello.checkpoint` (RFC 6962, section 2.1.2); empty where none was shown."""
    acknowledged: Count
    """Highest mail number that this agent ever said it kept: an agent that knows less has an old journal."""


# ---- a trade, in order ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Submit(Message):
    """Announces a snapshot before its parcel is uploaded, so that what would be refused is refused early."""

    TYPE: ClassVar[str] = "submit"
    message_id: Id
    market: Name
    submission: Id
    task: Name
    step: Count
    snapshot: Digest
    """SHA-256 of the manifest."""
    plain_bytes: Annotated[int, Bound(1, limits.MAX_PARCEL_BYTES)]
    buy: bool
    """Whether to appraise the book's sellers for this agent."""
    ask: Amount | None
    """Standing ask for this snapshot: sells at this price or above without being asked again. None: ask me."""
    sell: bool
    """Whether this snapshot may be sold."""
    buy_groups: Annotated[tuple[Name, ...], Bound(0, limits.MAX_GROUPS)]
    """Parameter groups of the terms that a purchase may change; none named: all that is tradable."""
    sell_groups: Annotated[tuple[Name, ...], Bound(0, limits.MAX_GROUPS)]
    """Parameter groups that may be bought of this snapshot; none named: all that is tradable."""
    issued_ms: Millis


@dataclasses.dataclass(frozen=True)
class Accepted(Message):
    """The broker waits for the parcel of this submission."""

    TYPE: ClassVar[str] = "accepted"
    submission: Id
    upload_before_ms: Millis


@dataclasses.dataclass(frozen=True)
class ClassChange(Record):
    """What a purchase changes for one class of the task."""

    label: Count
    samples: Count
    """Of this class in REPORT."""
    gain: float
    """Loss before minus loss after."""
    metric_before: float
    metric_after: float


@dataclasses.dataclass(frozen=True)
class TaskChange(Record):
    """What a purchase changes on another of the market's tasks."""

    task: Name
    gain: float
    gain_low: float
    gain_high: float


@dataclasses.dataclass(frozen=True)
class GroupChange(Record):
    """What one parameter group adds to a purchase."""

    group: Name
    gain: float
    """On SELECT: the gain of the whole delivery minus that without this group."""


@dataclasses.dataclass(frozen=True)
class GainReport(Message):
    """What one purchase would bring the buyer. Private to the buyer; binds the broker to what it would deliver."""

    TYPE: ClassVar[str] = "gain-report"
    trade: Id
    market: Name
    buyer: PeerId
    seller: PeerId
    task: Name
    buyer_snapshot: Digest
    seller_snapshot: Digest
    delivery: Digest
    """Digest of the manifest that would be delivered: the very parameters that were measured."""
    loss_before: float
    """Mean loss of the buyer's own snapshot on REPORT."""
    loss_after: float
    gain: float
    """loss_before - loss_after: the paper's gain-from-trade in its absolute form (section 3.3)."""
    gain_low: float
    gain_high: float
    """Two-sided interval of the mean paired difference at `confidence`."""
    merit: float
    """What of the gain is the seller's: the loss reached with a seller who knows nothing minus loss_after."""
    merit_low: float
    merit_high: float
    confidence: Confidence
    metric_before: float
    metric_after: float
    samples: Count
    """Samples in REPORT."""
    data: Digest
    """Of the validation data, as in the broker's Welcome."""
    weight: Fraction
    """Purchased weight alpha, the seller's portion in the merge: where there are many coefficients their mean over all
    numbers bought, held within 0.001 ... 1. 0: nothing would be delivered."""
    granularity: Annotated[str, OneOf(GRANULARITIES)]
    """One coefficient for the model, for each tensor, for each output row; none: nothing would be delivered."""
    alignment: Annotated[str, OneOf(ALIGNMENTS)]
    """Which alignment won on SELECT."""
    after: Id | None
    """The gain is upon this purchase, which must be settled first. Deliveries of a chain are loaded one after the
    other: each is measured on the buyer with those before it, and need not hold what they hold."""
    left_out: Annotated[tuple[Text, ...], Bound(0, 16)]
    """Names of tensors that are not part of the purchase (the first 16)."""
    reason: Text
    """Why nothing would be delivered, in words; else empty."""
    classes: Annotated[tuple[ClassChange, ...], Bound(0, 64)]
    """Where the terms say so: the classes that change most on REPORT."""
    groups: Annotated[tuple[GroupChange, ...], Bound(0, limits.MAX_GROUPS)]
    """Where the terms have groups: what each adds, of those that would be delivered."""
    tasks: Annotated[tuple[TaskChange, ...], Bound(0, 16)]
    """Where the terms say so: what the same delivery does on the market's other tasks."""
    expires_ms: Millis
    """Bids are taken until then."""

    @property
    def relative_gain(self) -> float:
        """gain / loss_before: the paper's gain-from-trade, section 3.3; 0 where no loss was left."""
        return self.gain / self.loss_before if self.loss_before > 0 else 0.0


@dataclasses.dataclass(frozen=True)
class Appraisal(Message):
    """Mail: all gain reports for one submission; empty when there is nothing to buy yet, and why."""

    TYPE: ClassVar[str] = "appraisal"
    submission: Id
    round: Count
    reports: Annotated[tuple[Signed, ...], Bound(0, 64)]
    """Signed GainReports: each seller alone, the greatest `gain` first, equal ones by trade; then those `after`
    another, in the order of their chain. The worst are left out where one mail cannot hold them all."""
    note: Text


@dataclasses.dataclass(frozen=True)
class Bid(Message):
    """The buyer's binding offer: settle at any price up to `amount`, for exactly the delivery it was told of.

    Answered by Deal, Unmatched or NoDeal. The same bytes sent again get the same answer. The amount is held on the
    buyer's account until the answer.
    """

    TYPE: ClassVar[str] = "bid"
    message_id: Id
    market: Name
    broker: PeerId
    trade: Id
    delivery: Digest
    amount: Amount
    expires_ms: Millis
    revision: Count = 0
    """How many bids on this trade went before. A revision is above the one before it."""


@dataclasses.dataclass(frozen=True)
class Unmatched(Message):
    """The bid is below the ask and binds no longer; the buyer may raise it, or Decline."""

    TYPE: ClassVar[str] = "unmatched"
    trade: Id
    revision: Count
    """Of the bid that this answers."""
    revisions_left: Count
    """Bids that are still taken."""
    until_ms: Millis
    """The trade expires then."""


@dataclasses.dataclass(frozen=True)
class Decline(Message):
    """The buyer does not want these trades."""

    TYPE: ClassVar[str] = "decline"
    message_id: Id
    trades: Annotated[tuple[Id, ...], Bound(1, 64)]


@dataclasses.dataclass(frozen=True)
class AskRequest(Message):
    """Mail: a buyer bids for a snapshot without a standing ask, or raised a bid below the ask; answer with Ask before
    `expires_ms`. Where a revision gets no answer, the ask that was made before it stands."""

    TYPE: ClassVar[str] = "ask-request"
    market: Name
    trade: Id
    buyer: Id
    """A pseudonym: the same for all bids of a buyer to one seller at this broker; no two sellers are told the same."""
    snapshot: Digest
    """The seller's snapshot."""
    expires_ms: Millis
    revision: Count = 0
    """Of the bid. A revised ask is not above the one before it."""
    weight: Fraction | None = None
    """Where the terms disclose as the paper does (section 4): the buyer's purchased weight, beta."""
    own_weight: Fraction | None = None
    """And where the seller's own purchase from this buyer was appraised and helps: its purchased weight, alpha."""
    own_ratio: float | None = None
    """With `own_weight`: the seller's loss before over after that purchase, Delta_a (equation 3, of losses)."""


@dataclasses.dataclass(frozen=True)
class Ask(Message):
    """The seller's binding answer: settle at any price from `amount` up."""

    TYPE: ClassVar[str] = "ask"
    message_id: Id
    market: Name
    broker: PeerId
    trade: Id
    snapshot: Digest
    amount: Amount
    expires_ms: Millis
    revision: Count = 0
    """Of the request that it answers."""


@dataclasses.dataclass(frozen=True)
class Receipt(Message):
    """The broker's signed proof that a trade was settled: leaf `index` of its log, provable under `root`."""

    TYPE: ClassVar[str] = "receipt"
    market: Name
    broker: PeerId
    trade: Id
    buyer: PeerId
    seller: PeerId
    price: Amount
    """What the buyer paid."""
    fee: Amount
    """The broker's part of the price; the seller got price - fee."""
    delivery: Digest
    settled_ms: Millis
    leaf: Digest
    """Leaf hash of the settlement in the broker's log (RFC 6962, section 2.1)."""
    index: Count
    log_size: Count
    root: Digest
    """Merkle tree head over the first `log_size` leaves."""
    proof: Annotated[tuple[Digest, ...], Bound(0, 64)]
    """Audit path of the leaf (RFC 6962, section 2.1.1)."""


@dataclasses.dataclass(frozen=True)
class Deal(Message):
    """The trade is settled; the delivery waits to be fetched until `fetch_before_ms`."""

    TYPE: ClassVar[str] = "deal"
    trade: Id
    price: Amount
    receipt: Signed
    balance: Amount
    """The buyer's balance after paying."""
    fetch_before_ms: Millis


@dataclasses.dataclass(frozen=True)
class NoDeal(Message):
    """The trade ends without a settlement; nothing moved."""

    TYPE: ClassVar[str] = "no-deal"
    trade: Id
    reason: Name
    """Code: no-overlap, no-ask, out-of-order, insufficient-balance, expired."""
    sentence: Text


@dataclasses.dataclass(frozen=True)
class Sold(Message):
    """Mail to the seller: its parameters were bought."""

    TYPE: ClassVar[str] = "sold"
    trade: Id
    snapshot: Digest
    price: Amount
    fee: Amount
    balance: Amount
    """The seller's balance after being paid; the proceeds are held until the delivery's fate is known."""
    receipt: Signed


@dataclasses.dataclass(frozen=True)
class Refund(Message):
    """Mail to both sides: what was settled could not be delivered, and the buyer has its price back."""

    TYPE: ClassVar[str] = "refund"
    market: Name
    broker: PeerId
    trade: Id
    buyer: PeerId
    seller: PeerId
    price: Amount
    """What the buyer got back."""
    proceeds: Amount
    """What of it was taken back from the seller; the rest was the fee."""
    reason: Name
    """lost-delivery: the broker lost it; not-fetched: nothing of it was served within its term."""
    refunded_ms: Millis


@dataclasses.dataclass(frozen=True)
class Delivered(Message):
    """The buyer has fetched, verified and kept the delivery; the broker may forget it."""

    TYPE: ClassVar[str] = "delivered"
    message_id: Id
    trade: Id
    delivery: Digest


# ---- questions ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StatusRequest(Message):
    """Where do my trades stand? Empty `trades`: all that are open."""

    TYPE: ClassVar[str] = "status-request"
    message_id: Id
    trades: Annotated[tuple[Id, ...], Bound(0, 64)]
    after: Id | None = None
    """Instead: all that were ever settled and are newer than this one, the oldest 64 first; 16 zero bytes: from the
    first. An agent whose journal is lost learns from them what it bought and sold."""


@dataclasses.dataclass(frozen=True)
class TradeStatus(Record):
    """One trade as the broker's ledger has it."""

    trade: Id
    state: Name
    price: Amount
    receipt: Signed | None
    word: Signed | None = None
    """What the one who asks signed for it: the buyer its last Bid, the seller its Ask, or its Submit with one."""


@dataclasses.dataclass(frozen=True)
class Status(Message):
    """The states of the trades that were asked for."""

    TYPE: ClassVar[str] = "status"
    trades: Annotated[tuple[TradeStatus, ...], Bound(0, 64)]


@dataclasses.dataclass(frozen=True)
class BalanceRequest(Message):
    """What do I own?"""

    TYPE: ClassVar[str] = "balance-request"
    message_id: Id


@dataclasses.dataclass(frozen=True)
class Balance(Message):
    """An account's balance."""

    TYPE: ClassVar[str] = "balance"
    balance: Amount
    held: Amount
    """What of it cannot be spent now: bids without an answer, proceeds of what is not delivered yet."""


@dataclasses.dataclass(frozen=True)
class OffersRequest(Message):
    """Who has a snapshot for sale?"""

    TYPE: ClassVar[str] = "offers-request"
    message_id: Id


@dataclasses.dataclass(frozen=True)
class Offer(Record):
    """One row of the book. The ask stays between seller and broker."""

    seller: PeerId
    task: Name
    step: Count
    submitted_ms: Millis


@dataclasses.dataclass(frozen=True)
class Offers(Message):
    """The book's rows that are for sale."""

    TYPE: ClassVar[str] = "offers"
    offers: Annotated[tuple[Offer, ...], Bound(0, 1024)]


@dataclasses.dataclass(frozen=True)
class ConsistencyRequest(Message):
    """Is the log of `second` leaves the continuation of that of `first`? (0 < first <= second <= the log's size)

    `second` 0 asks for the log as it is now.
    """

    TYPE: ClassVar[str] = "consistency-request"
    message_id: Id
    first: Count
    second: Count


@dataclasses.dataclass(frozen=True)
class Consistency(Message):
    """The proof (RFC 6962, section 2.1.2)."""

    TYPE: ClassVar[str] = "consistency"
    first: Count
    second: Count
    proof: Annotated[tuple[Digest, ...], Bound(0, 64)]
    checkpoint: Signed
    """The Checkpoint over the log as it is now."""


@dataclasses.dataclass(frozen=True)
class StatisticsRequest(Message):
    """What is paid in this market? Answered where the terms publish prices."""

    TYPE: ClassVar[str] = "statistics-request"
    message_id: Id
    task: Name


@dataclasses.dataclass(frozen=True)
class Statistics(Message):
    """What other agents bid and paid for one task, so that nobody can be told from it (pricing.history)."""

    TYPE: ClassVar[str] = "statistics"
    task: Name
    bids: Count
    """Trades with a bid, those of the one who asks left out."""
    trades: Count
    """Of them, settled."""
    buyers: Count
    bid_quantiles: Annotated[tuple[Amount, ...], Bound(0, 64)]
    """Evenly spaced, the extremes left out; empty where too few buyers bid."""
    price_quantiles: Annotated[tuple[Amount, ...], Bound(0, 64)]


@dataclasses.dataclass(frozen=True)
class Done(Message):
    """A request without a result of its own was carried out."""

    TYPE: ClassVar[str] = "done"


@dataclasses.dataclass(frozen=True)
class Refusal(Message):
    """A request was refused; `code` is one of p2pmarket.errors, `sentence` says why and what to do."""

    TYPE: ClassVar[str] = "refusal"
    code: Name
    sentence: Text


# ---- parcels, each on a stream of its own ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Upload(Message):
    """Opens a parcel stream on which the agent sends the parcel of an accepted submission."""

    TYPE: ClassVar[str] = "upload"
    message_id: Id
    submission: Id


@dataclasses.dataclass(frozen=True)
class Fetch(Message):
    """Opens a parcel stream on which the broker sends the delivery of a settled trade."""

    TYPE: ClassVar[str] = "fetch"
    message_id: Id
    trade: Id


MESSAGE_TYPES: dict[str, type[Message]] = {
    kind.TYPE: kind
    for kind in (
        KeyStatement, BrokerStatement, Checkpoint, Hello, Welcome, Submit, Accepted, GainReport, Appraisal, Bid,
        Unmatched, Decline, AskRequest, Ask, Receipt, Deal, NoDeal, Sold, Refund, Delivered, StatusRequest, Status,
        BalanceRequest, Balance, OffersRequest, Offers, ConsistencyRequest, Consistency, StatisticsRequest, Statistics,
        Done, Refusal, Upload, Fetch,
    )
}  # fmt: skip
