"""Proofs from the stored subtrees are those of the whole log, under every head, and read few rows."""

from __future__ import annotations

import sqlite3

import pytest
from ledger_examples import Bench

from p2pmarket.crypto.signing import verify
from p2pmarket.errors import JournalDamaged, RuleBroken
from p2pmarket.ledger import proofs
from p2pmarket.ledger.log import EMPTY_ROOT, consistency_proof, inclusion_proof, is_consistent, leaf_hash, root_of
from p2pmarket.messages import Checkpoint


def grow_to(bench: Bench, size: int) -> list[bytes]:
    """Grants until the log has `size` leaves; their hashes."""
    with bench.ledger.transaction() as connection:
        for _ in range(size - bench.ledger.size()):
            bench.ledger.grant(bench.buyer.peer_id, 1, "", bench.id())
    return [leaf_hash(data) for (data,) in connection.execute("SELECT data FROM leaves ORDER BY number")]


def test_every_head_and_proof_is_that_of_the_leaves(bench: Bench) -> None:
    ledger, hashes = bench.ledger, grow_to(bench, 33)
    assert ledger.size() == 33 and ledger.root_at(0) == EMPTY_ROOT
    for second in range(34):
        assert ledger.root_at(second) == root_of(hashes[:second])
        for first in range(second + 1):
            assert ledger.consistency(first, second) == consistency_proof(hashes, first, second)
            if first < second:
                assert ledger.inclusion(first, second) == inclusion_proof(hashes[:second], first)


def test_the_checkpoints_of_a_growing_log_are_consistent(bench: Bench) -> None:
    signed = []
    for _ in range(3):
        bench.fund(1000)
        bench.ledger.refund(bench.settled(5), "lost-delivery")
        signed.append(verify(bench.ledger.checkpoint(), Checkpoint, signer=bench.broker.peer_id))
    bench.reopen()
    for first in signed:
        assert bench.ledger.root_at(first.size) == first.root
        for second in signed:
            if first.size <= second.size:
                proof = bench.ledger.consistency(first.size, second.size)
                assert is_consistent(first.size, first.root, second.size, second.root, proof)


def test_what_the_log_does_not_have_is_refused(bench: Bench) -> None:
    grow_to(bench, 3)
    ledger = bench.ledger
    for ask in (
        lambda: ledger.root_at(4),
        lambda: ledger.root_at(-1),
        lambda: ledger.consistency(2, 4),
        lambda: ledger.consistency(3, 2),
        lambda: ledger.consistency(-1, 2),
        lambda: ledger.inclusion(3, 3),
        lambda: ledger.inclusion(-2, 3),
        lambda: ledger.inclusion(0, 4),
    ):
        with pytest.raises(RuleBroken) as refused:
            ask()
        assert refused.value.code == "beyond-log"


def test_a_proof_reads_few_rows(bench: Bench) -> None:
    grow_to(bench, 1000)
    statements: list[str] = []
    with bench.ledger.transaction() as connection:
        connection.set_trace_callback(statements.append)
        proofs.consistency(connection, 611, 999)
        proofs.root_at(connection, 999)
        proofs.inclusion(connection, 611, 999)
        connection.set_trace_callback(None)
    assert len(statements) < 3 * 2 * 10 + 3, "at most two rows for each level of the tree, and the size"


def test_a_missing_subtree_is_said(bench: Bench) -> None:
    grow_to(bench, 8)
    connection = sqlite3.connect(bench.path, isolation_level=None)
    connection.execute("DELETE FROM nodes WHERE level = 2")
    connection.close()
    with pytest.raises(JournalDamaged, match="lacks subtree 0 on level 2"):
        bench.ledger.root_at(4)


def test_a_checkpoint_taken_inside_a_transaction_is_of_what_is_in_it(bench: Bench) -> None:
    with bench.ledger.transaction():
        bench.fund()
        inside = verify(bench.ledger.checkpoint(), Checkpoint, signer=bench.broker.peer_id)
        assert inside.size == 3 and bench.ledger.verify().problems == ()
    assert verify(bench.ledger.checkpoint(), Checkpoint, signer=bench.broker.peer_id).root == inside.root
