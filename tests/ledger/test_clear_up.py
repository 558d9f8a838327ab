"""What becomes of bids of which the broker says that it does not know them."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_examples import HOUR_MS, Bench
from test_agent_journal import bought, report_on, status_of

from p2pmarket.crypto.signing import verify
from p2pmarket.errors import Refused
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.messages import Bid, Status, StatusRequest
from p2pmarket.node.recovery import MAX_ASKED, Recovery


@pytest.fixture
def journal(bench: Bench, tmp_path: Path) -> Iterator[AgentJournal]:
    bench.fund()
    with AgentJournal.open(tmp_path / "journal.sqlite", bench.buyer.peer_id, bench.clock) as opened:
        yield opened


class Here:
    """A journal in this thread."""

    def __init__(self, journal: AgentJournal) -> None:
        self.journal = journal

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        return work(self.journal, *args)


class Link:
    """A broker that refuses a question about any trade that it does not know."""

    def __init__(self, bench: Bench, known: set[bytes], code: str = "unknown-trade") -> None:
        self.bench, self.known, self.code = bench, known, code
        self.asked: list[int] = []

    async def request(self, request: StatusRequest, kind: type[Status], *, broker: str) -> Status:
        self.asked.append(len(request.trades))
        if not self.known.issuperset(request.trades):
            raise Refused("there is no such trade", code=self.code)
        return Status(
            tuple(status_of(self.bench, trade, self.bench.ledger.trade(trade).bid) for trade in request.trades)
        )


def unanswered_bid(bench: Bench, journal: AgentJournal, amount: int) -> bytes:
    """A bid of which no message is left to be sent again."""
    trade = bench.appraised()
    journal.keep_report(bench.broker.peer_id, report_on(bench, trade))
    bid = verify(journal_bid := bench.bid(trade, amount), Bid, signer=bench.buyer.peer_id)
    journal.keep_bid(journal_bid)
    journal.answered(bid.message_id, b"lost")
    return trade


async def clear_up(bench: Bench, journal: AgentJournal, link: Link) -> None:
    recovery = Recovery(link, Here(journal), bench.clock)  # type: ignore[arg-type]
    await recovery.clear_up(types.SimpleNamespace(broker=bench.broker.peer_id))  # type: ignore[arg-type]


async def test_one_unknown_trade_hides_nothing_of_the_others(bench: Bench, journal: AgentJournal) -> None:
    settled, _ = bought(bench, journal, 10, 7)
    [intent] = journal.unanswered(bench.broker.peer_id)
    journal.answered(intent.message_id, b"lost")
    unanswered_bid(bench, journal, 5)
    assert journal.spent(0) == 15
    link = Link(bench, {settled})
    await clear_up(bench, journal, link)
    assert link.asked == [2, 1, 1]
    assert journal.spent(0) == 7 + 5, "one was paid, the other may bind yet"
    bench.clock.ms += 2 * HOUR_MS
    await clear_up(bench, journal, link)
    assert journal.spent(0) == 7, "its time is over"
    await clear_up(bench, journal, link)
    assert link.asked == [2, 1, 1, 1, 1], "and it is asked for no more"


async def test_other_refusals_end_no_bid_and_questions_are_bounded(bench: Bench, journal: AgentJournal) -> None:
    for _ in range(MAX_ASKED + 3):
        unanswered_bid(bench, journal, 1)
    bench.clock.ms += 2 * HOUR_MS
    link = Link(bench, set(), "rolled-back")
    await clear_up(bench, journal, link)
    assert link.asked == [MAX_ASKED] + [1] * MAX_ASKED and journal.spent(0) == MAX_ASKED + 3
    link = Link(bench, set())
    await clear_up(bench, journal, link)
    assert journal.spent(0) == 3
