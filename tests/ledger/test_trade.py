"""Every (state, event) pair is decided by the table, and the table has no dead corner."""

from __future__ import annotations

import itertools

import pytest

from p2pmarket.errors import RuleBroken
from p2pmarket.ledger import trade
from p2pmarket.ledger.trade import ENDS, EVENTS, PAID, START, STATES, TRANSITIONS, advance, diagram


@pytest.mark.parametrize("state, event", list(itertools.product(STATES, EVENTS)))
def test_every_pair(state: str, event: str) -> None:
    if (state, event) in TRANSITIONS:
        assert advance(state, event) == TRANSITIONS[state, event]
        return
    with pytest.raises(RuleBroken, match=f"{state} takes no {event}") as refused:
        advance(state, event)
    assert refused.value.code == "wrong-state"


def test_unknown_words_are_refused() -> None:
    for state, event in (("settled", "steal"), ("nowhere", "bid"), ("", "")):
        with pytest.raises(RuleBroken):
            advance(state, event)


def _reachable(start: str) -> set[str]:
    found = {start}
    while True:
        more = {after for (state, _), after in TRANSITIONS.items() if state in found} - found
        if not more:
            return found
        found |= more


def test_every_state_is_reached_and_reaches_an_end() -> None:
    assert _reachable(START) == set(STATES)
    for state in STATES:
        assert _reachable(state) & ENDS


def test_the_ends_are_the_named_ones() -> None:
    assert ENDS == {
        trade.DELIVERED,
        trade.DECLINED,
        trade.NO_DEAL,
        trade.EXPIRED,
        trade.VOID,
        trade.LAPSED,
        trade.REFUNDED,
    }


def test_delivery_and_refund_only_after_payment() -> None:
    """No way to DELIVERED or REFUNDED that does not pass SETTLED, and none back from SETTLED to an unpaid end."""
    without_payment = {pair: after for pair, after in TRANSITIONS.items() if after != trade.SETTLED}
    found = {START}
    for _ in STATES:
        found |= {after for (state, _), after in without_payment.items() if state in found}
    assert not found & (PAID | {trade.REFUNDED})
    assert _reachable(trade.SETTLED) == {trade.SETTLED, trade.DELIVERED, trade.LAPSED, trade.REFUNDED}


def test_diagram_draws_the_table_and_nothing_else() -> None:
    arrows = [line for line in diagram().splitlines() if "-->" in line]
    assert len(arrows) == 1 + len(TRANSITIONS) + len(ENDS)
    assert "    QUOTED --> NO_DEAL: no-deal" in arrows and "    [*] --> SUBMITTED" in arrows
