"""The life of a trade as one table: (state, event) -> state.

Knows: which event is allowed when. Refuses to know: money, clocks, who sent what (journal.py checks those).
An event that the table does not allow raises RuleBroken `wrong-state`, with what would have been allowed.

Money moves when a trade becomes SETTLED; DELIVERED and LAPSED keep it moved, REFUNDED moves it back. VOID, NO_DEAL,
EXPIRED and DECLINED end a trade in which none moved. UNMATCHED is one whose bid was below the ask and may be raised.
PRICED lives only inside the transaction that settles: a journal at rest never shows it.
"""

from __future__ import annotations

from p2pmarket.errors import RuleBroken

SUBMITTED, APPRAISED, QUOTED, UNMATCHED, PRICED, SETTLED, DELIVERED = (
    "submitted", "appraised", "quoted", "unmatched", "priced", "settled", "delivered",
)  # fmt: skip
DECLINED, NO_DEAL, EXPIRED, VOID, LAPSED, REFUNDED = "declined", "no-deal", "expired", "void", "lapsed", "refunded"

STATES = (
    SUBMITTED, APPRAISED, QUOTED, UNMATCHED, PRICED, SETTLED, DELIVERED,
    DECLINED, NO_DEAL, EXPIRED, VOID, LAPSED, REFUNDED,
)  # fmt: skip
"""Every state, in the order of a trade that goes well and then its other ends."""

TRANSITIONS: dict[tuple[str, str], str] = {
    (SUBMITTED, "report"): APPRAISED,
    (SUBMITTED, "expire"): EXPIRED,
    (SUBMITTED, "fail"): VOID,
    (APPRAISED, "bid"): QUOTED,
    (APPRAISED, "decline"): DECLINED,
    (APPRAISED, "expire"): EXPIRED,
    (APPRAISED, "fail"): VOID,
    (QUOTED, "ask"): QUOTED,
    (QUOTED, "no-overlap"): UNMATCHED,
    (QUOTED, "price"): PRICED,
    (QUOTED, "no-deal"): NO_DEAL,
    (QUOTED, "expire"): EXPIRED,
    (QUOTED, "fail"): VOID,
    (UNMATCHED, "bid"): QUOTED,
    (UNMATCHED, "decline"): DECLINED,
    (UNMATCHED, "expire"): EXPIRED,
    (UNMATCHED, "fail"): VOID,
    (PRICED, "settle"): SETTLED,
    (SETTLED, "serve"): SETTLED,
    (SETTLED, "acknowledge"): DELIVERED,
    (SETTLED, "lapse"): LAPSED,
    (SETTLED, "refund"): REFUNDED,
}
"""What may happen to a trade. A bid binds: a quoted trade cannot be declined. A delivery that was served and is not
acknowledged within its term lapses: the buyer may have it, so the price stays paid. One never served is refunded."""

EVENTS = tuple(dict.fromkeys(event for _, event in TRANSITIONS))
START = SUBMITTED
ENDS = frozenset(STATES) - {state for state, _ in TRANSITIONS}
"""States that nothing leaves."""
PAID = frozenset({SETTLED, DELIVERED, LAPSED})
"""States in which the buyer has paid and the seller was paid."""


def advance(state: str, event: str) -> str:
    """The state after `event`.

    :raises RuleBroken: code wrong-state, when the table has no such step
    """
    after = TRANSITIONS.get((state, event))
    if after is None:
        allowed = [known for known in EVENTS if (state, known) in TRANSITIONS]
        hint = f"what it takes now is {', '.join(allowed)}" if allowed else "it has ended and takes nothing more"
        raise RuleBroken(f"a trade that is {state} takes no {event}; {hint}", code="wrong-state")
    return after


def diagram() -> str:
    """The table as a Mermaid state diagram (docs/protocol.md embeds it; a test keeps them equal)."""
    lines = ["stateDiagram-v2", f"    [*] --> {_node(START)}"]
    lines += [f"    {_node(state)} --> {_node(after)}: {event}" for (state, event), after in TRANSITIONS.items()]
    lines += [f"    {_node(state)} --> [*]" for state in STATES if state in ENDS]
    return "\n".join(lines) + "\n"


def _node(state: str) -> str:
    """A state's name in a diagram: Mermaid takes no hyphens."""
    return state.replace("-", "_").upper()
