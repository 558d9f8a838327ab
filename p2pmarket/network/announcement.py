"""Which announcements may stand in the shared table: fixed keys, signed values, short lives.

Knows: the table's keys and the rule for one record, as a pure function. Refuses to know: which transport keeps the
table. The table is a hint that strangers write (docs/protocol.md, "The DHT is a hint"): a record that breaks the rule
raises a `PeerFault`, and both the node that would store it and the reader that finds it drop it.

A market's announcements live under one of 16 keys, chosen by its name, so that no single node holds them all and one
can still list every market with 16 lookups.
"""

from __future__ import annotations

import hashlib
import math

from p2pmarket import limits
from p2pmarket.crypto.signing import verify
from p2pmarket.errors import Expired, MalformedMessage, TooLarge
from p2pmarket.messages import BrokerStatement

SHARDS = 16
BROKER_KEYS = tuple(f"p2pmarket/v1/brokers/{shard}" for shard in range(SHARDS))
"""Every key under which brokers announce themselves."""


def broker_key(market: str) -> str:
    """The key under which brokers of this market announce themselves."""
    return BROKER_KEYS[hashlib.sha256(market.encode()).digest()[0] % SHARDS]


def check_announcement(key: str, peer_id: str, value: bytes, expires_ms: float, now_ms: int) -> BrokerStatement:
    """The statement in `value`, published by `peer_id` under `key` until `expires_ms` (UTC).

    A record never outlives its statement, so an old one that someone publishes again cannot replace a newer one. One
    that has run out already passes here: nobody stores it, and a reader asks for fresh ones (`directory`).

    :raises TooLarge: more than MAX_DHT_VALUE_BYTES
    :raises BadSignature: not signed by `peer_id`
    :raises MalformedMessage: an unknown key, another market's key, or not a broker's statement about itself
    :raises Expired: lives longer than MAX_DHT_EXPIRY_SECONDS from now, or than its statement
    """
    if len(value) > limits.MAX_DHT_VALUE_BYTES:
        raise TooLarge(f"an announcement of {len(value)} bytes is above {limits.MAX_DHT_VALUE_BYTES}; announce less")
    if key not in BROKER_KEYS:
        raise MalformedMessage(f"nothing is published under {key[:64]!r}")
    if not math.isfinite(expires_ms):
        raise MalformedMessage("an announcement's expiry is not a finite number")
    statement = verify(value, BrokerStatement, signer=peer_id)
    if statement.broker != peer_id:
        raise MalformedMessage(f"{peer_id} announces another broker, {statement.broker}")
    if key != broker_key(statement.market):
        raise MalformedMessage(f"market {statement.market} is not announced under {key}")
    latest_ms = now_ms + limits.MAX_DHT_EXPIRY_SECONDS * 1000
    if max(expires_ms, statement.expires_ms) > latest_ms or expires_ms > statement.expires_ms + 1:
        raise Expired(f"the announcement of {peer_id} claims to live too long; set the clocks of both machines")
    return statement
