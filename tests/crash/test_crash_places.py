"""SIGKILL at named places and at random times: whatever dies, every book is right afterwards.

A sample; `python -m benchmarks.crash` kills a thousand times. The negative controls are in test_broken_builds.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from crash_campaign import Campaign, kills
from crash_places import Reached, table
from crash_world import ForkServer, Kill

PAGE = Path(__file__).parents[2] / "docs" / "settlement.md"
IMPORTANT = {
    "broker": (
        "ledger.bid.before", "ledger.bid.after", "ledger.settle.before", "ledger.settle.after", "ledger.serve.after",
        "ledger.acknowledge.before", "ledger.acknowledge.after", "ledger.refund.before", "ledger.refund.after",
        "ledger.unmatched.after", "send.appraisal.before", "send.deal.before", "send.deal.after", "send.sold.before",
        "send.parcel-chunk.after", "send.parcel-trailer.before",
    ),
    "buyer": (
        "journal.bid.before", "journal.bid.after", "send.bid.before", "send.bid.after", "journal.receipt.before",
        "journal.receipt.after", "send.fetch.after", "journal.fetched.before", "journal.fetched.after",
        "send.delivered.after", "journal.loaded.before",
    ),
    "seller": ("journal.receipt.before", "journal.receipt.after", "send.ask.after", "send.mail-ack.before"),
}  # fmt: skip
"""Where money, or the knowledge of it, changes hands."""
SAMPLE = 40


def test_the_page_lists_every_place_and_no_other(places: Sequence[Reached]) -> None:
    told = {
        line for line in PAGE.read_text().splitlines() if line.startswith(("| `journal.", "| `ledger.", "| `send."))
    }
    there = {line for line in table(places).splitlines() if "`" in line}
    assert told == there, "`python -m benchmarks.crash --places` prints what the page must hold"


def test_every_commit_and_message_has_a_place_before_and_after(places: Sequence[Reached]) -> None:
    found = {(reached.party, reached.place) for reached in places}
    names = {(party, place.rpartition(".")[0]) for party, place in found}
    assert found == {(party, f"{name}.{moment}") for party, name in names for moment in ("before", "after")}


def important(places: Sequence[Reached]) -> list[Kill]:
    """One kill at each important place."""
    known = {(reached.party, reached.place): reached for reached in places}
    return [known[party, place].kill() for party, names in IMPORTANT.items() for place in names]


def test_nothing_is_lost_or_doubled_when_somebody_dies(
    fork_server: ForkServer, places: Sequence[Reached], tmp_path: Path
) -> None:
    first = important(places)
    tally = Campaign(fork_server, tmp_path, itertools.chain(first, kills((), seed=1)), enough=SAMPLE).run()
    assert tally.problems == []
    assert tally.kills >= SAMPLE
    assert {(kill.party, kill.place) for kill in first} <= tally.hits.keys()


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_at_any_place(
    fork_server: ForkServer, places: Sequence[Reached], tmp_path: Path
) -> None:
    order = itertools.chain([reached.kill() for reached in places], kills(places, seed=2))
    tally = Campaign(fork_server, tmp_path, order, enough=len(places)).run()
    assert tally.problems == []
    assert len({key for key in tally.hits if "." in key[1]}) >= 0.98 * len(places)
