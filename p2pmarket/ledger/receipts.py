"""Receipts: the broker's signed proof that a trade was settled and is in its log.

Knows: what a receipt must contain to hold. Refuses to know: where it is kept.
A receipt that does not hold raises the PeerFault that says why.
"""

from __future__ import annotations

from p2pmarket.crypto.signing import verify
from p2pmarket.errors import BadSignature
from p2pmarket.ledger.leaves import pack, settlement_of
from p2pmarket.ledger.log import includes, leaf_hash
from p2pmarket.messages import Receipt


def verify_receipt(data: bytes, broker: str) -> Receipt:
    """The receipt in `data`, after checking that `broker` signed it, wrote it, and has its settlement in its log.

    Whether it is this trade's and names this buyer or seller is the caller's to compare.

    :raises BadSignature: not signed by `broker`, issued under another broker's name, or its proof does not hold
    :raises MalformedMessage: not a receipt
    """
    receipt = verify(data, Receipt, signer=broker)
    if receipt.broker != broker:
        raise BadSignature(f"this receipt names broker {receipt.broker} but {broker} signed it; do not trust either")
    if receipt.leaf != leaf_hash(pack(settlement_of(receipt))):
        raise BadSignature("this receipt's leaf is not the settlement it states; keep it as evidence")
    if not includes(receipt.root, receipt.log_size, receipt.leaf, receipt.index, receipt.proof):
        raise BadSignature("this receipt's settlement is not in the log it names; keep it as evidence")
    return receipt
