"""What commands on accounts and trades share: where a ledger is, files that are read and written, times."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path

from p2pmarket.cli.show import printable
from p2pmarket.crypto.keys import Identity, public_key_of, write_private
from p2pmarket.errors import DataError, MachineFault, MalformedMessage, SettingsError
from p2pmarket.ledger.journal import Ledger
from p2pmarket.limits import MAX_RECORD_BYTES
from p2pmarket.units import counted


@contextlib.contextmanager
def open_ledger(state: Path, *, check: bool = True) -> Iterator[Ledger]:
    """The ledger in a broker's state folder.

    :raises SettingsError: the folder holds none
    :raises MachineFault: it cannot be read
    """
    path = ledger_in(state)
    with Ledger.open(path, Identity.load(path.parent / "identity.key"), None, check=check) as ledger:
        yield ledger


def ledger_in(state: Path) -> Path:
    folder = state.expanduser()
    path = folder / "ledger.sqlite"
    try:
        there = path.exists()
    except PermissionError as error:
        raise MachineFault(f"{folder} cannot be read ({error.strerror}); check its owner and mode") from None
    if not there:
        raise SettingsError(f"{folder} holds no broker's ledger; name the broker's folder with --state")
    check_readable(path)
    return path


def check_readable(path: Path) -> None:
    """SQLite would say of a file without the right to read it that it cannot be opened, and not why."""
    if not os.access(path, os.R_OK):
        raise MachineFault(f"{path} cannot be read ({os.strerror(errno.EACCES)}); check its owner and mode")


def refuse_rolled_back(state: Path) -> None:
    """Before something is written: every leaf more makes a second history of a log that was shown to agents.

    :raises SettingsError: a broker's folder holds what stopped it
    """
    from p2pmarket.broker_node.witness import FILE

    path = state.expanduser() / FILE
    if path.exists():
        raise SettingsError(
            f"{path} says that this ledger is older than what its broker signed before, or a copy, and must not go on; "
            "put the newer one back and start the broker, or begin a new market: docs/settlement.md#recovery",
            code="rolled-back",
        )


def warn_rolled_back(state: Path) -> None:
    """Says on stderr where a broker's folder holds what stopped it: the figures above are of an older ledger."""
    from p2pmarket.broker_node.witness import FILE

    path = state.expanduser() / FILE
    if path.exists():
        print(
            printable(
                f"warning: {path} says that this ledger is older than what its broker signed before, or a copy: "
                "do not count on it before the newer one is back (docs/settlement.md, Recovery)"
            ),
            file=sys.stderr,
        )


def read_files(paths: Sequence[Path], endings: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """Names and bytes of files, and of those with these endings in folders.

    :raises DataError: one cannot be read
    """
    found = []
    try:
        for path in paths:
            given = path.expanduser()
            inside = sorted(given.iterdir()) if given.is_dir() else [given]
            for file in inside:
                if file == given or file.suffix in endings:
                    found.append((file.name, read_signed(file)))
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    return found


def read_signed(path: Path) -> bytes:
    """A signed record's bytes; no more of a longer file than shows that it is none.

    :raises OSError: it cannot be read
    """
    with path.open("rb") as file:
        return file.read(MAX_RECORD_BYTES + 1)


def write_text(text: str, out: Path | None) -> None:
    """Text to a new file, readable by its owner alone, which is said on stderr; or to stdout.

    :raises SettingsError: something has that name already, or there is no such folder
    :raises DiskFull: the file cannot be written
    """
    if out is None:
        sys.stdout.write(text)
        return
    path = out.expanduser()
    if not path.parent.is_dir():
        raise SettingsError(f"there is no folder {path.parent}; make it, or name another place")
    if os.path.lexists(path):
        raise SettingsError(f"{out} exists and is left as it is; name a file that does not")
    try:
        write_private(path, text.encode(), replace=False)
    except FileExistsError:
        raise SettingsError(f"{out} exists and is left as it is; name a file that does not") from None
    print(f"wrote {counted(len(text.splitlines()), 'line')} to {printable(str(out))}", file=sys.stderr)


def check_peer_id(text: str) -> bytes:
    """The public key in a peer id that somebody typed.

    :raises SettingsError: it is none
    """
    try:
        return public_key_of(text)
    except MalformedMessage as error:
        raise SettingsError(str(error)) from None


def moment(at_ms: int) -> str:
    """UTC to the millisecond, as people and spreadsheets read it."""
    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).isoformat(timespec="milliseconds")


def brief(time: str) -> str:
    """A `moment` for a table: month, day and time, UTC."""
    return time[5:19].replace("T", " ")
