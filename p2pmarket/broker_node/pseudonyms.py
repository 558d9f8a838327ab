"""What a seller is told in place of who bids, so that a buyer that comes again is one buyer to it.

Knows: the broker's identity, from which the key comes, so that a restart changes nothing. Refuses to know: trades.
Sellers that compare what they were told learn nothing of whose bids they share; a seller that sells learns its buyer's
peer id from the receipt, and with it which bids before were that buyer's. Does not fail.
"""

from __future__ import annotations

import hashlib
import hmac

from p2pmarket.crypto.keys import Identity

PSEUDONYM_BYTES = 16
_LABEL = b"p2pmarket/1 pseudonyms of buyers"


def pseudonym(identity: Identity, market: str, seller: str, buyer: str) -> bytes:
    """16 bytes that stand for a buyer before one seller: HMAC-SHA256 (RFC 2104) under a key of the broker's own."""
    # Unambiguous: neither a market's name nor a peer id has a byte 0.
    said = "\0".join((market, seller, buyer)).encode()
    return hmac.new(identity.derived_key(_LABEL), said, hashlib.sha256).digest()[:PSEUDONYM_BYTES]
