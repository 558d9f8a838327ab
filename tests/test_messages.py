"""Every message and every other record that travels: whole again after the wire, refused outside its bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import identity_of
from record_strategies import outside, records

from p2pmarket import messages
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import MalformedMessage
from p2pmarket.market import MarketTerms, Task
from p2pmarket.messages import MESSAGE_TYPES, Message, Offer, TradeStatus
from p2pmarket.parcel import Manifest, ParcelContext, Schema, TensorEntry, TensorSpec
from p2pmarket.records import Record, decode, encode

OTHERS: tuple[type[Record], ...] = (
    MarketTerms, Task, Offer, TradeStatus, Schema, TensorSpec, TensorEntry, Manifest, ParcelContext,
)  # fmt: skip
ALL = (*MESSAGE_TYPES.values(), *OTHERS)
SIGNER = identity_of("signer")


def by_name(kind: type) -> str:
    """Ids of the parametrised tests."""
    return kind.__name__


def test_every_message_of_the_file_is_in_the_table() -> None:
    defined = {
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    }
    assert set(MESSAGE_TYPES.values()) == defined
    assert all(kind.TYPE == name for name, kind in MESSAGE_TYPES.items())


def test_no_two_signed_records_share_a_type() -> None:
    types = [*MESSAGE_TYPES, MarketTerms.TYPE, Schema.TYPE]
    assert len(set(types)) == len(types)


@pytest.mark.parametrize("kind", ALL, ids=by_name)
@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_a_record_comes_back_as_it_was(kind: type[Record], data: st.DataObject) -> None:
    record = data.draw(records(kind))
    assert decode(kind, encode(record)) == record


@pytest.mark.parametrize("kind", MESSAGE_TYPES.values(), ids=by_name)
@settings(max_examples=3, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_a_signed_message_is_of_its_type_only(kind: type[Any], data: st.DataObject) -> None:
    message = data.draw(records(kind))
    signed = sign(SIGNER, message)
    assert type_of(signed) == kind.TYPE
    assert verify(signed, kind, signer=SIGNER.peer_id) == message
    other: type[Any] = messages.Done if kind is not messages.Done else messages.Balance
    with pytest.raises(MalformedMessage, match=f"is a {kind.TYPE}, not a {other.TYPE}"):
        verify(signed, other, signer=None)


@pytest.mark.parametrize("kind", ALL, ids=by_name)
@settings(max_examples=1, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_every_field_refuses_what_is_outside_its_bounds(kind: type[Record], data: st.DataObject) -> None:
    good = vars(data.draw(records(kind)))
    for field, value in outside(kind):
        with pytest.raises(MalformedMessage, match=rf"{kind.__name__}\.{field} "):
            kind(**{**good, field: value})
