"""What others hold of a log, receipts and checkpoints, against the log itself.

Knows: which of them are this broker's word, and what they must find in its log. Refuses to know: files and tables.
What proves nothing, such as another broker's receipt, is a note and no problem: nobody may make a ledger look wrong by
showing rubbish.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from p2pmarket.crypto.signing import type_of, verify
from p2pmarket.errors import PeerFault
from p2pmarket.ledger.fold import Fold, Problem
from p2pmarket.messages import Checkpoint, Receipt
from p2pmarket.units import counted


class Outside(NamedTuple):
    """A signed head of a log that somebody holds, with the settlement under it where it is a receipt."""

    name: str
    size: int
    root: bytes
    receipt: Receipt | None


@dataclasses.dataclass(frozen=True)
class Salvage:
    """What receipts tell that a ledger has forgotten."""

    missing: tuple[Receipt, ...]
    """Settlements that are not in the log, oldest first."""
    balances: dict[str, tuple[int, int]]
    """Of every account they touch: micro-credits now, and with them. The second may be negative: a grant is missing."""


def read_outside(
    shown: Iterable[tuple[str, bytes]], broker: str, market: str | None
) -> tuple[list[Outside], list[str]]:
    """The receipts and checkpoints that `broker` signed for `market`, and a sentence for each of the others."""
    found, notes = [], []
    for name, data in shown:
        try:
            held = _read(name, data, broker, market)
        except PeerFault as error:
            notes.append(f"{name} proves nothing: {error}")
            continue
        if held is None:
            notes.append(f"{name} proves nothing: it is of another market")
        else:
            found.append(held)
    return found, notes


def _read(name: str, data: bytes, broker: str, market: str | None) -> Outside | None:
    if type_of(data) == Checkpoint.TYPE:
        checkpoint = verify(data, Checkpoint, signer=broker)
        return Outside(name, checkpoint.size, checkpoint.root, None) if checkpoint.market == market else None
    receipt = verify(data, Receipt, signer=broker)
    return Outside(name, receipt.log_size, receipt.root, receipt) if receipt.market == market else None


def compare(fold: Fold, outside: Sequence[Outside]) -> list[Problem]:
    """What of it the log does not have. The fold must have kept the roots and hashes of these sizes and leaves."""
    problems = []
    seen: dict[int, Outside] = {}
    for held in outside:
        other = seen.setdefault(held.size, held)
        if other.root != held.root:
            problems.append(
                Problem("two-logs", f"{other.name} and {held.name} are two logs of {_leaves(held.size)}, both signed")
            )
        if held.size > fold.size:
            problems.append(
                Problem(
                    "cut",
                    f"the broker signed a log of {_leaves(held.size)} ({held.name}) and this one has {fold.size}: it "
                    "was cut, or is an older copy",
                )
            )
        elif fold.roots.get(held.size) != held.root:
            problems.append(
                Problem(
                    "rewritten",
                    f"the broker signed a log of {_leaves(held.size)} ({held.name}) that this one does not continue: "
                    "it was rewritten",
                )
            )
        elif held.receipt is not None and not _has(fold, held.receipt):
            problems.append(
                Problem("rewritten", f"the broker signed a settlement ({held.name}) that is not in its log")
            )
    return problems


def _leaves(count: int) -> str:
    return counted(count, "leaf", "leaves")


def _has(fold: Fold, receipt: Receipt) -> bool:
    paid = fold.settled.get(receipt.trade)
    if paid is None or fold.hashes.get(receipt.index) != receipt.leaf:
        return False
    said = (
        receipt.index, receipt.leaf, receipt.buyer, receipt.seller, receipt.price, receipt.fee, receipt.delivery,
        receipt.settled_ms,
    )  # fmt: skip
    return said == (
        paid.number, paid.hashed, paid.buyer, paid.seller, paid.price, paid.fee, paid.delivery, paid.at_ms,
    )  # fmt: skip


def salvage(fold: Fold, receipts: Iterable[Receipt]) -> Salvage:
    """The settlements of `receipts` that the log lacks, each once, and what balances would be with them."""
    missing = {receipt.trade: receipt for receipt in receipts if receipt.trade not in fold.settled}
    balances: dict[str, tuple[int, int]] = {}
    for receipt in missing.values():
        changes = (
            (receipt.buyer, -receipt.price),
            (receipt.seller, receipt.price - receipt.fee),
            (receipt.broker, receipt.fee),
        )
        for peer, change in changes:
            now, then = balances.get(peer, (fold.balances.get(peer, 0),) * 2)
            balances[peer] = (now, then + change)
    return Salvage(tuple(sorted(missing.values(), key=lambda receipt: (receipt.index, receipt.trade))), balances)
