"""Where a simulated market's parties keep their files while it runs: in memory where there is room, else on disk.

Knows: how much room a market may need, and that nothing of it is to survive. Refuses to know: what the files are. A
simulated end of a process loses nothing that was committed, wherever the files lie; a power cut is not simulated. Each
commit still asks for its write to be durable: in memory that costs next to nothing, on a disk it is waited for. A
folder is locked while it is used; those that a killed process of the same user left are nobody's, and the next run
removes them. The place is open to all users: what others put there is never waited for. Fails with `DiskFull` or
`MachineFault` where there is no room at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from p2pmarket.errors import DiskFull
from p2pmarket.experiments.locks import locked
from p2pmarket.files import disk_errors, remove_tree
from p2pmarket.market import MarketTerms

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of ours is made in it
"""A file system in memory, where Linux has one; TMPDIR names another place, and then that is used."""
PREFIX = "p2pmarket-simulated-"
LOCK = "lock"
PARTIES = "parties"
"""Beside the lock, as a party may have any name."""
PARTY_BYTES = 200_000
"""Of one party's books before its first round."""
ROUND_BYTES, PAIR_BYTES = 10_000, 6_000
"""What one agent's round, and each pair appraised in it, adds to its own books and the broker's."""
PART = max(4, os.cpu_count() or 1)
"""Of what is free, one run takes at most this part: on every core another may begin at the same time."""


@contextlib.contextmanager
def room_for(terms: MarketTerms, snapshots: Sequence[Mapping[str, Tensor]], rounds: int) -> Iterator[Path]:
    """A folder for one market's parties, which is removed at the end, also of a run that was broken off.

    :param snapshots: one of each agent, of the size that it will have
    :raises DiskFull: none can be made, or what is inside met the end of its room: space, a quota or a limit of files'
        sizes, which SQLite cannot tell from a disk that fails
    :raises MachineFault: none can be made for another reason
    """
    place = MEMORY if "TMPDIR" not in os.environ and bytes_for(terms, snapshots, rounds) <= _free() // PART else None
    place = place or Path(tempfile.gettempdir())
    with contextlib.ExitStack() as stack:
        with disk_errors("a simulated market", place):
            remove_left_behind(place)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX, dir=place)))
            stack.enter_context(locked(folder / "new-lock", create=True))
            (folder / "new-lock").rename(folder / LOCK)  # no other process sees it before it is locked
            (folder / PARTIES).mkdir()
        try:
            yield folder / PARTIES
        except DiskFull as error:
            raise DiskFull(
                f"no room for a simulated market's files in {place}; free space there, raise the quota or the limit of "
                "a file's size (ulimit -f), or name another folder with TMPDIR"
            ) from error


def remove_left_behind(place: Path) -> None:
    """Removes the folders of this user's processes that ended without a chance to do so."""
    for lock in place.glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError):
            folder = lock.parent.lstat()
            if stat.S_ISDIR(folder.st_mode) and folder.st_uid == os.getuid():
                with locked(lock):
                    remove_tree(lock.parent)


def bytes_for(terms: MarketTerms, snapshots: Sequence[Mapping[str, Tensor]], rounds: int) -> int:
    """At most so much is kept at a time: what is submitted and was before, and for each appraised pair the delivery."""
    pairs = terms.max_sellers + terms.max_chain
    models = sum(tensor.numel() * tensor.element_size() for one in snapshots for tensor in one.values())
    return (4 + 2 * pairs) * models + len(snapshots) * (PARTY_BYTES + rounds * (ROUND_BYTES + pairs * PAIR_BYTES))


def _free() -> int:
    """Bytes that MEMORY could take without the machine running short; 0 where it is not there."""
    try:
        if not os.access(MEMORY, os.W_OK | os.X_OK):
            return 0
        return min(shutil.disk_usage(MEMORY).free, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return 0
