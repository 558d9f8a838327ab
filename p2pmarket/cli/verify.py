"""`verify`: a receipt checked offline, by its own bytes alone; nothing is written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from p2pmarket.cli.books import check_peer_id, moment, read_signed
from p2pmarket.cli.show import printable
from p2pmarket.crypto import signing
from p2pmarket.crypto.signing import signer_of, type_of
from p2pmarket.errors import BadSignature, DataError, MarketError, PeerFault, SettingsError
from p2pmarket.ledger.receipts import verify_receipt
from p2pmarket.messages import Checkpoint, Receipt
from p2pmarket.units import counted, format_credits

T = TypeVar("T")

_WORDS = {
    "fits": "the checkpoint is the head that the receipt names",
    "unknown": "the checkpoint is over {size} and the receipt over {log_size}: they do not contradict each "
    "other, and only a consistency proof or an audit shows that one continues the other",
    "contradicts": "TWO LOGS: the broker signed two heads over {size} that differ; whoever holds both files can "
    "prove that it cheats: keep them, and stop trading with it",
}


def verify(given: argparse.Namespace) -> int:
    """Checks one receipt; exit code 1 where it does not hold or a checkpoint proves that the broker signed two logs."""
    if given.broker:
        check_peer_id(given.broker)
    data = _read(given.receipt)
    _check_type(given.receipt, data, Receipt.TYPE)
    broker = given.broker or signer_of(data)
    receipt = _about(given.receipt, lambda signed: verify_receipt(signed, broker), data)
    verdict = "none"
    if given.checkpoint:
        words = _read(given.checkpoint)
        _check_type(given.checkpoint, words, Checkpoint.TYPE)
        checkpoint = _about(given.checkpoint, lambda signed: signing.verify(signed, Checkpoint, signer=broker), words)
        verdict = _compare(given.checkpoint, receipt, checkpoint)
    if given.json:
        print(json.dumps(_as_json(receipt, verdict, named=bool(given.broker))))
    else:
        print("\n".join(printable(line) for line in _in_words(receipt)))
        if not given.broker:
            print("The broker is the one that the receipt names: compare it with yours, or give --broker.")
        if verdict in _WORDS:
            sentence = _WORDS[verdict].format(
                size=counted(checkpoint.size, "leaf", "leaves"), log_size=receipt.log_size
            )
            print(sentence[0].upper() + sentence[1:] + ".")
    return 1 if verdict == "contradicts" else 0


def _compare(path: Path, receipt: Receipt, checkpoint: Checkpoint) -> str:
    """:raises SettingsError: the checkpoint is of another log"""
    if (checkpoint.broker, checkpoint.market) != (receipt.broker, receipt.market):
        raise SettingsError(
            f"{path} is of market {checkpoint.market} and the receipt of {receipt.market}; each has its own log"
        )
    if checkpoint.size != receipt.log_size:
        return "unknown"
    return "fits" if checkpoint.root == receipt.root else "contradicts"


def _in_words(receipt: Receipt) -> tuple[str, ...]:
    price, fee, rest = (format_credits(micro) for micro in (receipt.price, receipt.fee, receipt.price - receipt.fee))
    return (
        "The receipt holds: signed by its broker, and its settlement is in the log that it names.",
        f"{receipt.buyer} paid {price} credits to {receipt.seller}, of which the broker took {fee} and the seller "
        f"got {rest},",
        f"on {moment(receipt.settled_ms)}, for delivery {receipt.delivery.hex()}",
        f"(trade {receipt.trade.hex()}),",
        f"in leaf {receipt.index} of the log of broker {receipt.broker}, market {receipt.market},",
        f"whose root over {counted(receipt.log_size, 'leaf', 'leaves')} is {receipt.root.hex()}.",
    )


def _as_json(receipt: Receipt, verdict: str, *, named: bool) -> dict[str, object]:
    return {
        "holds": True, "broker": receipt.broker, "broker_from": "given" if named else "receipt",
        "market": receipt.market, "trade": receipt.trade.hex(), "buyer": receipt.buyer, "seller": receipt.seller,
        "price": receipt.price, "fee": receipt.fee, "delivery": receipt.delivery.hex(),
        "settled_ms": receipt.settled_ms, "leaf": receipt.index, "log_size": receipt.log_size,
        "root": receipt.root.hex(), "checkpoint": verdict,
    }  # fmt: skip


def _read(path: Path) -> bytes:
    try:
        return read_signed(path.expanduser())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _check_type(path: Path, data: bytes, kind: str) -> None:
    """:raises DataError: the file is not even such a record"""
    where = "`p2pmarket trades --receipts` writes them"
    try:
        found = type_of(data)
    except PeerFault:
        raise DataError(f"{path} is no {kind}: it is empty, cut short or another kind of file; {where}") from None
    if found != kind:
        raise DataError(f"{path} is a {found} and no {kind}; {where}")


def _about(path: Path, check: Callable[[bytes], T], data: bytes) -> T:
    """What a check makes of a file's bytes.

    :raises DataError: it is cut short, or no such record
    :raises MarketError: the check found that it does not hold
    """
    try:
        return check(data)
    except BadSignature as error:
        raise MarketError(f"{path} does not hold: {error}", code=error.code) from None
    except PeerFault as error:
        raise DataError(f"{path} is damaged or cut short: {error}") from None
