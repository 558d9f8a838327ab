"""Which records may stand in the shared table: brokers' announcements, and heads of their logs.

Knows: the two families of keys and the rule for a head, as pure functions; that for an announcement is in
`announcement`. Refuses to know: which transport keeps the table. A record that breaks a rule raises a `PeerFault`; the
node that would store it and the reader that finds it drop it.

A head is published by any agent under its own peer id, and signed by the broker it speaks of: what stands under the key
of a broker was said by that broker. Who stores it cannot be held to be who published it, so a head may be replaced by
another genuine one; the table is a hint here as well.
"""

from __future__ import annotations

import math

from p2pmarket import limits
from p2pmarket.crypto.signing import signer_of, verify
from p2pmarket.errors import Expired, MalformedMessage, TooLarge
from p2pmarket.messages import Checkpoint
from p2pmarket.network.announcement import check_announcement

HEADS = "p2pmarket/v1/heads/"
"""Keys of heads begin so; the broker's peer id and the market's name follow."""


def head_key(market: str, broker: str) -> str:
    """The key under which agents publish the heads of a broker's log."""
    return f"{HEADS}{broker}/{market}"


def check_record(key: str, peer_id: str, value: bytes, expires_ms: float, now_ms: int) -> None:
    """Whether `peer_id` may publish `value` under `key` until `expires_ms` (UTC).

    :raises PeerFault: as `check_announcement` and `check_head`
    """
    if key.startswith(HEADS):
        check_head(key, value, expires_ms, now_ms)
    else:
        check_announcement(key, peer_id, value, expires_ms, now_ms)


def check_head(key: str, value: bytes, expires_ms: float, now_ms: int) -> Checkpoint:
    """The checkpoint in `value`, published under `key`.

    :raises TooLarge: more than MAX_DHT_VALUE_BYTES
    :raises BadSignature: not signed by the broker that it names
    :raises MalformedMessage: not a checkpoint, or under another log's key
    :raises Expired: lives longer than MAX_DHT_EXPIRY_SECONDS from now
    """
    if len(value) > limits.MAX_DHT_VALUE_BYTES:
        raise TooLarge(f"a head of {len(value)} bytes is above {limits.MAX_DHT_VALUE_BYTES}")
    if not math.isfinite(expires_ms):
        raise MalformedMessage("a head's expiry is not a finite number")
    checkpoint = verify(value, Checkpoint, signer=signer_of(value))
    if checkpoint.broker != signer_of(value) or key != head_key(checkpoint.market, checkpoint.broker):
        raise MalformedMessage(f"a head of the log of {checkpoint.broker} stands under another one's key or name")
    if expires_ms > now_ms + limits.MAX_DHT_EXPIRY_SECONDS * 1000:
        raise Expired("a published head claims to live too long; set the clocks of both machines")
    return checkpoint


def key_of_head(value: bytes) -> str:
    """The key under which a signed Checkpoint may stand, where a table tells only a hash of it; not verified yet.

    :raises MalformedMessage, BadSignature, TooLarge: it is none
    """
    if len(value) > limits.MAX_DHT_VALUE_BYTES:
        raise TooLarge(f"a head of {len(value)} bytes is above {limits.MAX_DHT_VALUE_BYTES}")
    checkpoint = verify(value, Checkpoint, signer=None)
    return head_key(checkpoint.market, checkpoint.broker)
