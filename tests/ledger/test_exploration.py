"""Every order of deliveries, losses, repetitions, crashes and deadlines of one trade, with a bounded number of faults.

exploration.py says what a state is and what must hold in it. The walks here are complete within their bounds; those
with more faults at once are marked slow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exploration import DELIVERY_MS, MARKET, Explorer, Scenario, explore

from p2pmarket.ledger import agent_journal
from p2pmarket.ledger.journal import Ledger, Settlement
from p2pmarket.market import MarketTerms, parse_terms
from p2pmarket.units import CREDIT

ONE = Scenario()
STANDING = Scenario(standing=1 * CREDIT)
REVISED = Scenario(bids=(1 * CREDIT, 3 * CREDIT), asks=(2 * CREDIT, 2 * CREDIT))
TOO_LOW = Scenario(bids=(1 * CREDIT,), asks=(2 * CREDIT,))


def with_faults(scenario: Scenario, losses: int, repetitions: int, *crashes: int) -> Scenario:
    return dataclasses.replace(scenario, losses=losses, repetitions=repetitions, crashes=crashes)


def terms_for(scenario: Scenario) -> MarketTerms:
    terms = parse_terms(
        {
            "market": {"name": MARKET},
            "model": {"name": "mlp", "arguments": {"inputs": 8, "hidden": [16], "outputs": 4}},
            "task": [{"name": "digits", "loss": "cross_entropy", "metric": "accuracy"}],
            "pricing": {"fee_percent": "2", "max_revisions": len(scenario.bids) - 1},
        }
    )
    return dataclasses.replace(terms, delivery_ms=DELIVERY_MS)


def walk(scenario: Scenario, ledger: type[Ledger] = Ledger) -> Explorer:
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        return explore(Path(folder), scenario, terms_for(scenario), ledger=ledger)


def show(explorer: Explorer) -> str:
    """What a walk saw, for the test's output (`pytest -rP`)."""
    return (
        f"{len(explorer.worlds)} states, {explorer.edges} steps, {explorer.rests} states of rest, "
        f"{len(explorer.parties.locals)} states of single parties; rests by the trade's state: {explorer.ends}"
    )


def assert_right(explorer: Explorer) -> None:
    print(show(explorer))  # noqa: T201 - the numbers are what this test is about
    assert not explorer.problems, "\n".join(explorer.problems[:10])


QUICK = {
    "one trade, nothing lost": with_faults(ONE, 0, 0, 0, 0, 0),
    "one trade, two losses": with_faults(ONE, 2, 0, 0, 0, 0),
    "one trade, a repetition and a crash of the broker": with_faults(ONE, 0, 1, 1, 0, 0),
    "a standing ask, a crash of each": with_faults(STANDING, 0, 0, 1, 1, 1),
    "a raised bid, a loss": with_faults(REVISED, 1, 0, 0, 0, 0),
    "a raised bid, the broker crashes": with_faults(REVISED, 0, 0, 1, 0, 0),
    "a raised bid, the buyer crashes": with_faults(REVISED, 0, 0, 0, 1, 0),
    "a bid below the ask, a loss and a crash": with_faults(TOO_LOW, 1, 0, 1, 1, 0),
}
SLOW = {
    "one trade, a loss, a repetition, a crash of each": with_faults(ONE, 1, 1, 1, 1, 1),
    "one trade, a repetition and a crash of each": with_faults(ONE, 0, 1, 1, 1, 1),
    "a standing ask, a loss and a crash of each": with_faults(STANDING, 1, 0, 1, 1, 1),
    "a raised bid, broker and buyer crash": with_faults(REVISED, 0, 0, 1, 1, 0),
    "one trade, two crashes of each": with_faults(ONE, 0, 0, 2, 2, 2),
    "a raised bid, a loss and a crash of each": with_faults(REVISED, 1, 0, 1, 1, 1),
}


@pytest.mark.parametrize("scenario", QUICK.values(), ids=QUICK.keys())
def test_every_order_comes_out_right(scenario: Scenario) -> None:
    assert_right(walk(scenario))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scenario", SLOW.values(), ids=SLOW.keys())
def test_every_order_comes_out_right_with_more_faults(scenario: Scenario) -> None:
    assert_right(walk(scenario))


# ---- negative controls ----------------------------------------------------------------------------------------------


class InTwoTransactions(Ledger):
    """Pays in one transaction, and keeps the reply and the seller's mail in another."""

    def settle(self, trade_id: bytes, price: int, fee: int, *, fetch_before_ms: int) -> Settlement:
        with self.transaction("pay") as connection:
            done = super().settle(trade_id, price, fee, fetch_before_ms=fetch_before_ms)
            seller = self.trade(trade_id).seller
            replies = connection.execute("SELECT * FROM replies WHERE reply = ?", (done.reply,)).fetchall()
            mail = connection.execute("SELECT * FROM mail WHERE peer = ?", (seller,)).fetchall()
            connection.execute("DELETE FROM replies WHERE reply = ?", (done.reply,))
            connection.execute("DELETE FROM mail WHERE peer = ?", (seller,))
        with self.transaction("give") as connection:
            connection.executemany("INSERT INTO replies VALUES (?, ?, ?, ?)", replies)
            connection.executemany("INSERT INTO mail VALUES (?, ?, ?)", mail)
        return done


class WithoutReplies(Ledger):
    """Forgets what it answered."""

    def seen_reply(self, sender: str, message_id: bytes) -> bytes | None:
        return None


class RefundsWhatWasServed(Ledger):
    """Forgets that a delivery was served."""

    def mark_served(self, trade_id: bytes) -> Any:
        return self.trade(trade_id)


class DropsMailEarly(Ledger):
    """Takes mail for delivered when it is sent."""

    def mail_after(self, peer: str, number: int) -> list[tuple[int, bytes]]:
        mail = super().mail_after(peer, number)
        self.drop_mail(peer, number + 1 if not mail else mail[0][0])
        return mail


@pytest.mark.parametrize(
    ("ledger", "scenario"),
    [
        (InTwoTransactions, with_faults(ONE, 0, 0, 1, 0, 0)),
        (WithoutReplies, with_faults(ONE, 1, 0, 0, 0, 0)),
        (RefundsWhatWasServed, with_faults(ONE, 1, 0, 0, 0, 0)),
        (DropsMailEarly, with_faults(ONE, 1, 0, 0, 0, 0)),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_broken_ledger_is_found_out(ledger: type[Ledger], scenario: Scenario) -> None:
    explorer = walk(scenario, ledger)
    assert explorer.problems


@contextlib.contextmanager
def no_intents() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        keep = agent_journal.AgentJournal.keep_bid

        def forgetful(self: Any, data: bytes) -> Any:
            bid = keep(self, data)
            with self.transaction("forget") as connection:
                connection.execute("UPDATE trades SET bid = NULL, bid_amount = 0")
                connection.execute("DELETE FROM intents")
            return bid

        patch.setattr(agent_journal.AgentJournal, "keep_bid", forgetful)
        yield


def test_a_journal_without_intents_is_found_out() -> None:
    with no_intents():
        with contextlib.suppress(sqlite3.Error):
            assert walk(with_faults(ONE, 0, 0, 0, 0, 0)).problems
