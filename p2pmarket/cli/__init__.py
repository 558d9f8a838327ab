"""One entry point, `p2pmarket`: parse, then import what the command needs, then run it.

Parsing imports neither torch nor hivemind, so `--help` is instant. Every error the package raises on purpose ends here,
as one sentence on stderr and an exit code:

    0 done   1 an error, or `doctor` and `verify` found a problem   2 your input   3 this machine   4 the network
    5 a peer broke a rule   6 a peer refused   130 interrupted
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Sequence

from p2pmarket.cli.parser import build_parser, load_command
from p2pmarket.errors import MarketError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the process's exit code."""
    parser = build_parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=getattr(logging, given.log_level.upper()), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # A program that is still starting when it is asked to stop unwinds as at Ctrl-C; one that runs has its own way.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return load_command(given)(given)
    except MarketError as error:
        if getattr(given, "json", None) in (True, "yes"):
            print(json.dumps({"event": "error", "code": error.code, "sentence": str(error)}), flush=True)
        print(f"p2pmarket: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
