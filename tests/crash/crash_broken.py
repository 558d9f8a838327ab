"""Builds that are broken on purpose: what the harness must find, or it finds nothing.

Knows: how to patch a party's process into one of them, and at which kill it shows. Each is a mistake that somebody
could make, not a caricature: without a kill all of them trade well, and some kills are mended by what an agent asks the
broker when it starts, so that the moment matters. A last-chunk flag is not among them: how many
chunks a parcel has is in its signed header, so a cut parcel is never taken for a whole one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from p2pmarket import failpoints
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.crypto.signing import verify
from p2pmarket.ledger import balances, journal, mailbox
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.ledger.leaves import Settled
from p2pmarket.messages import Bid, Receipt
from p2pmarket.node.buyer import Buyer

COMMIT_SECONDS = 0.05


@dataclasses.dataclass(frozen=True)
class Broken:
    """One such build."""

    apply: Callable[[], None]
    """Patches the modules of a party's process."""
    party: str
    """Whom to kill to see it."""
    place: str
    """Where."""
    deal: str = "standing"


def split_settlement() -> None:
    """The buyer's debit is committed before the seller's credit."""
    append = balances.append

    def halves(connection: sqlite3.Connection, leaf: Any, changes: Sequence[balances.Change] = ()) -> balances.Entry:
        if not isinstance(leaf, Settled):
            return append(connection, leaf, changes)
        entry = append(connection, leaf, changes[:1])
        connection.execute("COMMIT")
        failpoints.reach("broken.half.after")
        connection.execute("BEGIN IMMEDIATE")
        for change in changes[1:]:
            balances._move(connection, entry.index, change)
        return entry

    _patch(journal, append=halves)


def no_replies() -> None:
    """The broker keeps no replies: what comes again is treated as new."""
    _patch(mailbox, remember=lambda *_: None, seen_reply=lambda *_: None)


def early_answers() -> None:
    """The broker goes on with the result of a transaction while it is still being committed."""
    run = LedgerThread.run

    async def early(thread: Any, work: Any, *args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        known: asyncio.Future[Any] = loop.create_future()

        def call(ledger: Ledger) -> None:
            with ledger.transaction() as connection:
                before = connection.total_changes
                result = work(ledger, *args, **kwargs)
                loop.call_soon_threadsafe(known.set_result, result)
                if connection.total_changes != before:
                    time.sleep(COMMIT_SECONDS)

        committing = asyncio.ensure_future(run(thread, call))
        await asyncio.wait({known, committing}, return_when=asyncio.FIRST_COMPLETED)
        if not known.done():
            await committing  # it raised, and nothing was promised
        return await known

    _patch(LedgerThread, run=early)


def no_intent() -> None:
    """The buyer writes its bid down when it has the answer, not before it sends it."""
    keep_bid, keep_receipt = AgentJournal.keep_bid, AgentJournal.keep_receipt
    bids: dict[bytes, bytes] = {}

    def remember(kept: Any, data: bytes) -> Bid:
        bid = verify(data, Bid, signer=kept.peer)
        bids[bid.trade] = data
        return bid

    def keep(kept: Any, broker: str, data: bytes, *more: Any) -> Receipt:
        trade = verify(data, Receipt, signer=broker).trade
        if trade in bids:
            keep_bid(kept, bids.pop(trade))
        return keep_receipt(kept, broker, data, *more)

    _patch(AgentJournal, keep_bid=remember, keep_receipt=keep)


def fetched_first() -> None:
    """The buyer notes that a delivery is here before it is."""
    fetch = Buyer._fetch

    async def noted(buyer: Buyer, joined: Any, row: Any) -> None:
        await buyer._journal.run(AgentJournal.fetched, joined.broker, row.trade)
        await fetch(buyer, joined, row)

    _patch(Buyer, _fetch=noted)


def _patch(place: object, **parts: object) -> None:
    for name, part in parts.items():
        assert hasattr(place, name), f"{name} is called something else now; this build breaks nothing"
        setattr(place, name, part)


BUILDS: Mapping[str, Broken] = {
    "split-settlement": Broken(split_settlement, "broker", "broken.half.after"),
    "no-replies": Broken(no_replies, "broker", "send.deal.before"),
    "early-answers": Broken(early_answers, "broker", "send.deal.after"),
    "no-intent": Broken(no_intent, "buyer", "send.bid.after", "slow"),
    "fetched-first": Broken(fetched_first, "buyer", "send.fetch.before"),
}
