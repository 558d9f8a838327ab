"""What an agent concludes from the heads of a broker's log: pure rules, without a network or a clock.

Knows: when two signed heads agree, contradict each other, or need a proof, and what an answer proves. Refuses to know:
where heads come from (link, gossip) and where they are kept (ledger/agent_book). What contradicts is a sentence, empty
where nothing does; a record that is no head of this log is passed over, since strangers write the table.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence

from p2pmarket.crypto.signing import signer_of
from p2pmarket.errors import PeerFault
from p2pmarket.ledger.heads import Head, continues, contradict, head_of
from p2pmarket.messages import Consistency

MAX_VERIFIED = 64
"""Signatures that are checked of one lookup, some 10 ms; the rest may come with the next one."""
MAX_ASKED = 8
"""Proofs that are asked for after one lookup."""

TWO_HISTORIES = "it signed two histories of its ledger"
NO_PROOF = "it signed a proof that does not hold: its ledger is not what it showed before"
SMALLER = "it shows an older ledger than it signed before"


class Verdict(enum.Enum):
    """What two heads of one log say of each other."""

    AGREE = "agree"
    ASK = "ask for a proof"
    CONTRADICT = "contradict"


def compare(one: Head, other: Head) -> Verdict:
    """Two genuine heads of one broker's log."""
    if contradict(one, other):
        return Verdict.CONTRADICT
    return Verdict.AGREE if one.size == other.size else Verdict.ASK


def of_welcome(shown: Head | None, found: Head, proof: Sequence[bytes]) -> str:
    """What a Welcome with the head `found` contradicts, where `shown` was shown in the Hello."""
    if shown is None or shown.size == 0:
        return ""
    if contradict(shown, found):
        return TWO_HISTORIES
    if found.size < shown.size:
        return SMALLER
    return "" if continues(shown, found, proof) else NO_PROOF


def of_answer(one: Head, other: Head, answer: Consistency) -> str:
    """What a signed answer to the question about two heads contradicts.

    An answer about other sizes is no answer: it must be refused before.
    """
    if contradict(one, other):
        return TWO_HISTORIES
    return "" if continues(one, other, answer.proof) else NO_PROOF


def heads_among(values: Iterable[bytes], broker: str, market: str, known: Collection[bytes]) -> list[Head]:
    """The genuine checkpoints among what a table shows, the largest first, one for each size and root; those whose
    roots are `known` are left out. At most MAX_VERIFIED signatures are checked, in the order of the values."""
    found: dict[tuple[int, bytes], Head] = {}
    checked = 0
    for value in dict.fromkeys(values):
        if checked == MAX_VERIFIED:
            break
        try:
            if signer_of(value) != broker:
                continue
            checked += 1
            head = head_of(value, broker, market)
        except PeerFault:
            continue
        if head.shareable and head.root not in known:
            found.setdefault((head.size, head.root), head)
    return sorted(found.values(), key=lambda head: -head.size)
