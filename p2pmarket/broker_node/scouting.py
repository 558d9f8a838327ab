"""Which sellers a buyer is appraised with, where there are more than the terms allow: the most promising.

Knows: submissions, where their parcels lie, one `Scout` for each task. Refuses to know: how promise is measured
(appraisal/ranking). Runs in an appraiser's thread. A snapshot that cannot be ranked comes last, in the order of the
book; nothing here fails a round.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from p2pmarket.appraisal.plan import Progress
from p2pmarket.appraisal.ranking import Scout
from p2pmarket.broker_node.book import Submission
from p2pmarket.errors import MachineFault, MarketError
from p2pmarket.parameters.packing import unpack
from p2pmarket.parcel import Schema

log = logging.getLogger(__name__)

PathOf = Callable[[bytes], Path]
"""Submission -> its snapshot, packed."""

KEPT_BYTES = 2**30
"""Snapshots kept in memory while a round is ranked; at least the two of one pair are."""


class Scouting:
    """Ranks the sellers of one task's buyers."""

    def __init__(self, scout: Scout, schema: Schema) -> None:
        self._scout = scout
        self._schema = schema
        self._lock = threading.Lock()

    def shortlist(
        self,
        wanted: Mapping[Submission, Sequence[Submission]],
        path_of: PathOf,
        limit: int,
        progress: Progress = lambda doing, done: None,
    ) -> dict[Submission, tuple[Submission, ...]]:
        """For every buyer at most `limit` of its sellers, the most promising first.

        :param wanted: buyers of this task -> all sellers each may buy from
        :param progress: told what is being done and the finished part of it, 0 ... 1; may raise to stop
        :raises MachineFault: this machine cannot read what it wrote
        """
        members = {one.snapshot: one for buyer, sellers in wanted.items() for one in (buyer, *sellers)}
        size = max((one.plain_bytes for one in members.values()), default=1)

        @functools.lru_cache(maxsize=max(2, KEPT_BYTES // size))
        def load(snapshot: bytes) -> Mapping[str, Tensor]:
            return unpack(path_of(members[snapshot].id), schema=self._schema)

        with self._lock:
            self._scout.keep(members.keys())
            known = set()
            for place, snapshot in enumerate(members):
                progress("measuring", place / len(members))
                if self._measured(snapshot, load):
                    known.add(snapshot)
            for snapshot, error in self._scout.settle(load, progress).items():
                _log_unranked(snapshot, error)
                known.discard(snapshot)
            pairs = self._scout.pairs(
                {
                    buyer.snapshot: [seller.snapshot for seller in sellers if seller.snapshot in known]
                    for buyer, sellers in wanted.items()
                    if buyer.snapshot in known
                },
                load,
                budget=limit * len(wanted),
                progress=progress,
            )
        return {buyer: _first(buyer, sellers, pairs, known, limit) for buyer, sellers in wanted.items()}

    def _measured(self, snapshot: bytes, load: Callable[[bytes], Mapping[str, Tensor]]) -> bool:
        try:
            self._scout.measure(snapshot, load(snapshot))
            return True
        except MachineFault:
            raise
        except MarketError as error:  # another task's model, or parameters that give no number
            _log_unranked(snapshot, error)
            return False


def _log_unranked(snapshot: bytes, error: MarketError) -> None:
    log.info("snapshot %s is not ranked: %s", snapshot.hex()[:8], error)


def _first(
    buyer: Submission,
    sellers: Sequence[Submission],
    pairs: Sequence[tuple[bytes, bytes]],
    known: set[bytes],
    limit: int,
) -> tuple[Submission, ...]:
    """The ranked ones of this buyer, then those that could not be ranked, in the order given."""
    by_snapshot = {seller.snapshot: seller for seller in sellers}
    ranked = [by_snapshot[seller] for own, seller in pairs if own == buyer.snapshot and seller in by_snapshot]
    unranked = [seller for seller in sellers if buyer.snapshot not in known or seller.snapshot not in known]
    return tuple([*ranked, *unranked][:limit])
