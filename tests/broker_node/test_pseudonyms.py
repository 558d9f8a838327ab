"""What a seller is told in place of who bids."""

from __future__ import annotations

import itertools
from pathlib import Path

from peers import identity_of

from p2pmarket.broker_node.pseudonyms import PSEUDONYM_BYTES, pseudonym
from p2pmarket.crypto.keys import Identity

BROKER = identity_of("broker")
NAMES = [identity_of(name).peer_id for name in ("one", "two", "three")]


def test_no_two_sellers_buyers_markets_or_brokers_share_one() -> None:
    brokers = (BROKER, identity_of("another broker"))
    told = [pseudonym(*said) for said in itertools.product(brokers, ("digits", "digits2"), NAMES, NAMES)]
    assert len(set(told)) == len(told) == 36
    assert {len(name) for name in told} == {PSEUDONYM_BYTES}


def test_it_stays_when_the_broker_is_started_anew(tmp_path: Path) -> None:
    BROKER.save(tmp_path / "identity")
    first = pseudonym(BROKER, "digits", *NAMES[:2])
    assert pseudonym(Identity.load(tmp_path / "identity"), "digits", *NAMES[:2]) == first


def test_a_key_is_for_one_use_and_no_signature_or_seed() -> None:
    one, other = BROKER.derived_key(b"one"), BROKER.derived_key(b"other")
    assert one != other and len(one) == len(other) == 32
    assert one == identity_of("broker").derived_key(b"one")
