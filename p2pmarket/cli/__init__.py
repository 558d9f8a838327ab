"""One entry point, `p2pmarket`: parse, then import what the command needs, then run it.

Parsing imports neither torch nor hivemind, so `--help` is instant. Every error the package raises on purpose ends here,
as one sentence on stderr and an exit code:

    0 done   1 an error, or a check found a problem   2 your input   3 this machine   4 the network
    5 a peer broke a rule   6 a peer refused   130 interrupted
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence

from p2pmarket.cli.parser import build_parser, load_command
from p2pmarket.cli.show import printable
from p2pmarket.errors import MarketError

__all__ = ["main"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the process's exit code."""
    try:
        try:
            return _run(arguments)
        finally:
            # What is still in a buffer is an answer that was not given; later nobody could say so.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _drop_output()
        print(f"p2pmarket: the output cannot be written ({error.strerror}); send it elsewhere", file=sys.stderr)
        return 3


def _run(arguments: Sequence[str] | None) -> int:
    given = build_parser().parse_args(arguments)
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=getattr(logging, (given.log_level or "warning").upper()), handlers=[handler])
    signal.signal(signal.SIGTERM, _stop)
    try:
        return load_command(given)(given)
    except MarketError as error:
        if getattr(given, "json", None) in (True, "yes"):
            print(json.dumps({"event": "error", "code": error.code, "sentence": str(error)}), flush=True)
        print(f"p2pmarket: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _stop(*_: object) -> None:
    """A program that is still starting when it is asked to stop unwinds as at Ctrl-C; one that runs has its own way.

    Where Ctrl-C is ignored, as a shell has it in what a script starts in the background, SIGTERM still ends it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)


class _PrintableFormatter(logging.Formatter):
    """A log's lines without characters that steer a terminal: they quote what peers said."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def _drop_output() -> None:
    """Lets the end of the process find nothing to write: it would complain once more."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    empty = os.open(os.devnull, os.O_WRONLY)
    os.dup2(empty, descriptor)
    os.close(empty)
