"""What an agent concludes from two heads, a proof, and what strangers put into the table."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from peers import identity_of

from p2pmarket.crypto.signing import sign
from p2pmarket.ledger.heads import Head, head_of
from p2pmarket.ledger.log import consistency_proof, leaf_hash, root_of
from p2pmarket.messages import Checkpoint, Consistency
from p2pmarket.node.witness import (
    MAX_VERIFIED,
    NO_PROOF,
    SMALLER,
    TWO_HISTORIES,
    Verdict,
    compare,
    heads_among,
    of_answer,
    of_welcome,
)

BROKER = identity_of("broker")
HONEST = [leaf_hash(bytes([number])) for number in range(20)]
FORKED = [*HONEST[:7], *(leaf_hash(b"fork" + bytes([number])) for number in range(13))]


def head(leaves: list[bytes], size: int) -> Head:
    return Head(size, root_of(leaves[:size]), b"signed")


def test_every_two_heads_of_one_log_agree_with_their_proof() -> None:
    for first, second in itertools.combinations_with_replacement(range(1, 21), 2):
        one, other = head(HONEST, first), head(HONEST, second)
        proof = consistency_proof(HONEST, first, second)
        assert compare(one, other) is (Verdict.AGREE if first == second else Verdict.ASK)
        assert of_welcome(one, other, proof) == ""
        answer = Consistency(first, second, proof, b"checkpoint")
        assert of_answer(one, other, answer) == of_answer(other, one, answer) == ""


def test_no_proof_makes_two_histories_one() -> None:
    for first, second in itertools.product(range(1, 21), range(8, 21)):
        if first > second:
            continue
        one, other = head(FORKED, first), head(HONEST, second)
        same = first <= 7
        for leaves in (HONEST, FORKED):
            proof = consistency_proof(leaves, first, second)
            if same and leaves is HONEST:
                assert of_welcome(one, other, proof) == "", "before the fork it is one log"
            elif first == second:
                assert compare(one, other) is Verdict.CONTRADICT
                assert of_welcome(one, other, proof) == TWO_HISTORIES
                assert of_answer(one, other, Consistency(first, second, proof, b"c")) == TWO_HISTORIES
            else:
                assert of_welcome(one, other, proof) == NO_PROOF
                assert of_answer(one, other, Consistency(first, second, proof, b"c")) == NO_PROOF


def test_a_proof_that_is_changed_in_any_place_does_not_hold() -> None:
    one, other = head(HONEST, 6), head(HONEST, 19)
    proof = consistency_proof(HONEST, 6, 19)
    assert of_welcome(one, other, proof) == ""
    for place in range(len(proof)):
        bent = [*proof[:place], bytes(32), *proof[place + 1 :]]
        for wrong in (bent, proof[:place], [*proof, bytes(32)]):
            assert of_welcome(one, other, wrong) == NO_PROOF


def test_who_showed_nothing_finds_nothing_and_a_smaller_log_is_an_old_one() -> None:
    assert of_welcome(None, head(HONEST, 3), ()) == ""
    assert of_welcome(Head(0, root_of([]), b""), head(HONEST, 3), ()) == ""
    assert of_welcome(head(HONEST, 5), head(HONEST, 3), consistency_proof(HONEST, 3, 5)) == SMALLER


def checkpoint(size: int, **changes: object) -> bytes:
    made = Checkpoint("digits", BROKER.peer_id, size, root_of(HONEST[:size]), 1)
    return sign(BROKER, dataclasses.replace(made, **changes))  # type: ignore[arg-type]


def test_of_a_table_the_brokers_own_checkpoints_are_read_the_largest_first() -> None:
    stranger = identity_of("stranger")
    honest = [checkpoint(size) for size in (3, 9, 5)]
    values = [
        b"", b"junk", checkpoint(4)[:-1], honest[0], honest[0], honest[1], checkpoint(3, at_ms=2), honest[2],
        checkpoint(7, market="letters"),
        sign(stranger, Checkpoint("digits", BROKER.peer_id, 6, bytes(32), 1)),
        sign(stranger, Checkpoint("digits", stranger.peer_id, 6, bytes(32), 1)),
        sign(BROKER, Consistency(1, 2, (), b"x")),
    ]  # fmt: skip
    found = heads_among(values, BROKER.peer_id, "digits", set())
    assert [each.size for each in found] == [9, 5, 3]
    assert [head_of(each.body, BROKER.peer_id, "digits").root for each in found] == [each.root for each in found]
    known = {root_of(HONEST[:9])}
    assert [each.size for each in heads_among(values, BROKER.peer_id, "digits", known)] == [5, 3]


def test_a_flood_costs_a_bounded_number_of_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def counted(body: bytes, broker: str, market: str) -> Head:
        checked.append(body)
        return head_of(body, broker, market)

    monkeypatch.setattr("p2pmarket.node.witness.head_of", counted)
    flood = [checkpoint(3)[:-8] + number.to_bytes(8, "big") for number in range(1000)]
    assert heads_among(flood, BROKER.peer_id, "digits", set()) == [] and len(checked) == MAX_VERIFIED
    strangers = [
        sign(identity_of("stranger"), Checkpoint("digits", BROKER.peer_id, 1, bytes(32), n)) for n in range(99)
    ]
    checked.clear()
    assert len(heads_among([*strangers, checkpoint(3)], BROKER.peer_id, "digits", set())) == 1 and len(checked) == 1
