"""Whether this ledger is still the one that was shown to agents: what they hold of it is held against it.

Knows: what a head that this broker signed says of its log, and what is done where the log does not continue it: the
ledger was rolled back or copied, and what it signed next would make two histories. Refuses to know: streams, trades.
What was found is kept in a file of the broker's folder before anybody is told, and stands until a ledger is there that
continues what was shown; meanwhile nothing is done with the ledger and everybody is refused, `rolled-back`.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import MarketError, RuleBroken
from p2pmarket.files import disk_errors, write_whole
from p2pmarket.ledger.heads import Head, head_of
from p2pmarket.ledger.journal import Ledger
from p2pmarket.messages import Consistency, ConsistencyRequest
from p2pmarket.units import Clock

log = logging.getLogger(__name__)

FILE = "rolled-back.json"
"""In the broker's folder: the head that an agent showed, and the one this ledger had then."""
REFUSAL = (
    "this broker's ledger is older than what it signed before, or a copy; its operator must restore the newer one, "
    "until then nothing is traded here"
)


class Witness:
    """What agents showed of this ledger's past. Its methods run in the ledger's thread."""

    def __init__(self, identity: Identity, market: str, thread: LedgerThread, folder: Path, clock: Clock) -> None:
        self._identity = identity
        self._market = market
        self._thread = thread
        self._path = folder / FILE
        self._clock = clock
        self.rolled_back = False
        """Whether this broker has stopped."""

    def look_back(self, ledger: Ledger) -> None:
        """At the start: whether what was found before still holds. A ledger that continues it is the right one."""
        if not self._path.exists():
            return
        try:
            kept = json.loads(self._path.read_text())
            shown = head_of(bytes.fromhex(kept["shown"]), self._identity.peer_id, self._market)
            mended = _continues(ledger, shown)
        except (OSError, ValueError, KeyError, TypeError, MarketError) as error:
            log.error("%s cannot be read (%s) and counts as it is", self._path, error)
            mended = False
        if mended:
            with disk_errors("the evidence", self._path):
                self._path.replace(self._path.with_name(f"rolled-back.{self._clock()}.json"))
            log.warning("this ledger continues what agents were shown; the market goes on")
            return
        self._halt()

    def check(self, ledger: Ledger, data: bytes | None) -> Head | None:
        """The head that an agent shows in its Hello, where this log continues it; None where it shows none.

        :raises BadSignature, MalformedMessage, RuleBroken: not this broker's word on this market's log
        :raises RuleBroken: code rolled-back, where this log is not its continuation; that is durable first
        """
        if data is None:
            return None
        shown = head_of(data, self._identity.peer_id, self._market)
        if not _continues(ledger, shown):
            evidence = {
                "sentence": f"this broker signed a log of {shown.size} leaves that its ledger does not continue",
                "market": self._market,
                "broker": self._identity.peer_id,
                "shown_size": shown.size,
                "shown": data.hex(),
                "ledger_size": ledger.size(),
                "ledger": ledger.checkpoint().hex(),
                "at_ms": self._clock(),
            }
            write_whole(self._path, json.dumps(evidence, indent=1).encode() + b"\n", "the evidence")
            raise self._halt()
        return shown

    def _halt(self) -> RuleBroken:
        """From here on this process does nothing with the ledger, whatever is still under way; what everybody hears."""
        error = RuleBroken(REFUSAL, code="rolled-back")
        self.rolled_back = True
        self._thread.stop(error)
        log.error(
            "this ledger is older than what this broker signed before, or a copy: everybody is refused (%s). Stop the "
            "broker and put the newer ledger.sqlite back; where that is lost, begin a new market with the balances "
            "that `p2pmarket ledger salvage` works out from the agents' receipts",
            self._path,
        )
        return error


def proof_since(ledger: Ledger, shown: Head | None) -> tuple[bytes, tuple[bytes, ...]]:
    """The newest signed Checkpoint, and the proof that it continues a head that was shown and checked."""
    checkpoint, size = ledger.checkpoint(), ledger.size()
    return checkpoint, ledger.consistency(shown.size, size) if shown is not None and shown.size else ()


def prove(ledger: Ledger, request: ConsistencyRequest) -> Consistency:
    """The answer to a question about this log's past.

    :raises RuleBroken: code beyond-log, where it never had, or has not yet, that many leaves
    """
    checkpoint, second = ledger.checkpoint(), request.second or ledger.size()
    return Consistency(request.first, second, ledger.consistency(request.first, second), checkpoint)


def _continues(ledger: Ledger, shown: Head) -> bool:
    return shown.size <= ledger.size() and ledger.root_at(shown.size) == shown.root
