"""What a ledger's leaves imply, worked out from the first to the last with arithmetic of its own.

Knows: leaves, by the fields that docs/settlement.md gives them, and the tree over them. Refuses to know: the tables
that the running ledger keeps (audit.py compares them), and every function that wrote them: it reads msgpack, hashes,
adds and subtracts by itself. A leaf that breaks a rule is a `Problem`, never an exception.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgpack

from p2pmarket.ledger.trade import DECLINED, DELIVERED, EXPIRED, LAPSED, NO_DEAL, REFUNDED, SETTLED, VOID
from p2pmarket.limits import MAX_AMOUNT, MAX_NAME_CHARACTERS, MAX_TEXT_CHARACTERS

Leaf = dict[str, Any]
"""The fields of one leaf by name, each checked by LEAVES."""


class Problem(NamedTuple):
    """One thing that is wrong: its kind for programs, a sentence for people."""

    kind: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class Paid(NamedTuple):
    """A settlement as the log has it."""

    number: int
    """Of its leaf."""
    hashed: bytes
    path: tuple[bytes, ...]
    """Audit path of the leaf in the log that ends with it."""
    root: bytes
    """Tree head of that log."""
    buyer: str
    seller: str
    price: int
    fee: int
    delivery: bytes
    at_ms: int
    buyer_balance: int
    """After it."""
    seller_balance: int


class End(NamedTuple):
    """How a trade ended, by the log."""

    number: int
    state: str
    reason: str
    at_ms: int


def _whole(highest: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and 0 <= value <= highest


def _bytes(length: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is bytes and len(value) == length


def _text(shortest: int, longest: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and shortest <= len(value) <= longest


_peer, _amount, _id, _millis = _text(40, 64), _whole(MAX_AMOUNT), _bytes(16), _whole(2**48)
_name, _words = _text(1, MAX_NAME_CHARACTERS), _text(0, MAX_TEXT_CHARACTERS)
_UNPAID_ENDS = (DECLINED, NO_DEAL, EXPIRED, VOID)

LEAVES: dict[bytes, dict[str, Callable[[Any], bool]]] = {
    b"opened": {"peer": _peer, "amount": _amount, "salt": _id, "at_ms": _millis},
    b"granted": {"peer": _peer, "amount": _amount, "memo": _words, "message_id": _id, "at_ms": _millis},
    b"settled": {
        "market": _name, "broker": _peer, "trade": _id, "buyer": _peer, "seller": _peer, "price": _amount,
        "fee": _amount, "delivery": _bytes(32), "at_ms": _millis,
    },
    b"refunded": {
        "trade": _id, "buyer": _peer, "seller": _peer, "from_seller": _amount, "from_fees": _amount, "reason": _name,
        "at_ms": _millis,
    },
    b"ended": {
        "trade": _id, "state": lambda value: value in (*_UNPAID_ENDS, DELIVERED, LAPSED), "reason": _words,
        "at_ms": _millis,
    },
}  # fmt: skip
"""Kinds of leaves: each field in order, and what it must be."""


def read_leaf(data: bytes) -> tuple[str, Leaf] | None:
    """The kind and the fields of a leaf; None for bytes that are none."""
    name, _, body = data.partition(b"\0")
    fields = LEAVES.get(name)
    if fields is None:
        return None
    try:
        values = msgpack.unpackb(body, use_list=False, raw=False, max_map_len=0, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        return None
    if type(values) is not tuple or len(values) != len(fields):
        return None
    if not all(fits(value) for fits, value in zip(fields.values(), values, strict=True)):
        return None
    return name.decode(), dict(zip(fields, values, strict=True))


class Fold:
    """What the leaves read so far imply."""

    def __init__(self, broker: str, market: str, *, sizes: Iterable[int] = (), numbers: Iterable[int] = ()) -> None:
        """:param sizes: of logs whose tree heads are to be kept in `roots`
        :param numbers: of leaves whose hashes are to be kept in `hashes`
        """
        self.broker = broker
        self.market = market
        self.problems: list[Problem] = []
        self.size = 0
        self.minted = 0
        self.peaks: list[tuple[int, bytes]] = []
        self.made: list[tuple[int, int, bytes]] = []
        """Full subtrees of two leaves or more that the last leaf completed: (level, place, hash)."""
        self.balances: defaultdict[str, int] = defaultdict(int)
        self.escrow: defaultdict[str, int] = defaultdict(int)
        """What of each balance is not its owner's for good yet: parts of prices whose delivery is not over."""
        self.opened: dict[str, int] = {}
        self.grants: dict[bytes, int] = {}
        self.moved: list[tuple[int, str, int, int]] = []
        """(leaf, peer, change, balance after), in order."""
        self.settled: dict[bytes, Paid] = {}
        self.ended: dict[bytes, End] = {}
        self.roots: dict[int, bytes] = {}
        self.hashes: dict[int, bytes] = {}
        self._sizes = frozenset(sizes)
        self._numbers = frozenset(numbers)
        if 0 in self._sizes:
            self.roots[0] = self.root

    def problem(self, kind: str, sentence: str) -> None:
        """Notes what is wrong."""
        self.problems.append(Problem(kind, sentence))

    def state(self, trade: bytes) -> str | None:
        """What the log makes of a trade; None: it is open, or never was."""
        end = self.ended.get(trade)
        return end.state if end else SETTLED if trade in self.settled else None

    @property
    def root(self) -> bytes:
        """Merkle tree head so far: the subtrees folded from the smallest to the largest (RFC 6962, section 2.1)."""
        if not self.peaks:
            return hashlib.sha256().digest()
        root = self.peaks[-1][1]
        for _, left in self.peaks[-2::-1]:
            root = hashlib.sha256(b"\x01" + left + root).digest()
        return root

    def add(self, number: int, data: bytes) -> None:
        """Hashes one leaf into the tree and applies what it says."""
        path = tuple(hashed for _, hashed in reversed(self.peaks))
        hashed = hashlib.sha256(b"\x00" + data).digest()
        self._grow(number, hashed)
        if number in self._numbers:
            self.hashes[number] = hashed
        if self.size in self._sizes:
            self.roots[self.size] = self.root
        read = read_leaf(data)
        if read is None:
            self.problem("leaf", f"leaf {number} cannot be read")
            return
        kind, leaf = read
        if kind == "settled":
            self._settle(number, leaf, hashed, path)
        elif kind == "refunded":
            self._refund(number, leaf)
        elif kind == "ended":
            self._end(number, leaf)
        else:
            self._issue(number, kind, leaf)

    def _grow(self, number: int, hashed: bytes) -> None:
        level, node = 0, hashed
        self.made = []
        while self.peaks and self.peaks[-1][0] == level:
            node = hashlib.sha256(b"\x01" + self.peaks.pop()[1] + node).digest()
            level += 1
            self.made.append((level, number >> level, node))
        self.peaks.append((level, node))
        self.size += 1

    def _issue(self, number: int, kind: str, leaf: Leaf) -> None:
        peer = leaf["peer"]
        if kind == "granted":
            if leaf["message_id"] in self.grants:
                self.problem("issue", f"leaf {number} repeats a grant to {peer}")
            self.grants[leaf["message_id"]] = number
        else:
            if peer in self.opened:
                self.problem("issue", f"leaf {number} opens the account of {peer} a second time")
            self.opened[peer] = leaf["at_ms"]
        self.minted += leaf["amount"]
        if self.minted > MAX_AMOUNT:
            self.problem("issue", f"leaf {number} issues more credit than a ledger holds")
        self._post(number, [(peer, leaf["amount"])])

    def _settle(self, number: int, leaf: Leaf, hashed: bytes, path: tuple[bytes, ...]) -> None:
        trade, buyer, seller, price, fee = (leaf[name] for name in ("trade", "buyer", "seller", "price", "fee"))
        before = self.state(trade)
        if before is not None:
            self.problem("end", f"leaf {number} settles trade {trade.hex()} after it was {before}")
        if (leaf["broker"], leaf["market"]) != (self.broker, self.market):
            self.problem("settlement", f"leaf {number} is a settlement of another broker or market")
        if fee > price or buyer == seller:
            self.problem("settlement", f"leaf {number} takes a fee above the price, or pays the buyer itself")
        self.escrow[seller] += price - fee
        self.escrow[self.broker] += fee
        self._post(number, [(buyer, -price), (seller, price - fee), (self.broker, fee)])
        self.settled[trade] = Paid(
            number, hashed, path, self.root, buyer, seller, price, fee, leaf["delivery"], leaf["at_ms"],
            self.balances[buyer], self.balances[seller],
        )  # fmt: skip

    def _refund(self, number: int, leaf: Leaf) -> None:
        trade, buyer, seller = leaf["trade"], leaf["buyer"], leaf["seller"]
        from_seller, from_fees = leaf["from_seller"], leaf["from_fees"]
        paid = self.settled.get(trade)
        if paid is None or trade in self.ended:
            self.problem("end", f"leaf {number} refunds trade {trade.hex()}, which was {self.state(trade)}")
        elif (paid.buyer, paid.seller, paid.price - paid.fee, paid.fee) != (buyer, seller, from_seller, from_fees):
            self.problem("refund", f"leaf {number} refunds another amount or peer than trade {trade.hex()} moved")
        self._release(trade)
        self.ended[trade] = End(number, REFUNDED, leaf["reason"], leaf["at_ms"])
        self._post(number, [(seller, -from_seller), (self.broker, -from_fees), (buyer, from_seller + from_fees)])

    def _end(self, number: int, leaf: Leaf) -> None:
        trade, state = leaf["trade"], leaf["state"]
        before = self.state(trade)
        if before != (SETTLED if state in (DELIVERED, LAPSED) else None):
            self.problem("end", f"leaf {number} ends trade {trade.hex()} as {state} after it was {before}")
        self._release(trade)
        self.ended[trade] = End(number, state, leaf["reason"], leaf["at_ms"])

    def _release(self, trade: bytes) -> None:
        """The parts of a price become their owners', or are about to go back."""
        paid = self.settled.get(trade)
        if paid is not None and trade not in self.ended:
            self.escrow[paid.seller] -= paid.price - paid.fee
            self.escrow[self.broker] -= paid.fee

    def _post(self, number: int, changes: list[tuple[str, int]]) -> None:
        for peer, change in changes:
            self.balances[peer] += change
            self.moved.append((number, peer, change, self.balances[peer]))
        for peer, change in changes:
            if change < 0 and self.balances[peer] < self.escrow[peer]:
                self.problem("overdrawn", f"leaf {number} takes from {peer} what it does not have, or what is held")
