"""A clean process that starts the parties of crash tests in milliseconds: torch is imported once, before the forks.

`python crash_fork_server.py SOCKET` reads requests from that inherited socket, one JSON object a message with one end
of a socket pair attached, and forks a child for each, which talks through its end. Knows: forks. Refuses to know: what
children do (crash_parties). It has one thread, or it refuses to start: a fork of several threads may hang. When the
other end of SOCKET is gone, whoever holds it, all children are killed; each also ends when its own pair breaks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

MAX_REQUEST_BYTES = 64 * 1024


def main() -> None:
    import crash_parties  # here: the parent imports this file for its path alone

    control = socket.socket(fileno=int(sys.argv[1]))
    crash_parties.prepare()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise SystemExit(f"the fork server has {threads} threads and must have one")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    control.sendall(b"ready")
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 1)
        if not request:
            os.killpg(0, signal.SIGKILL)  # this process began a session of its own
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            control.close()
            crash_parties.live(json.loads(request), socket.socket(fileno=descriptors[0]))
            os._exit(0)
        os.close(descriptors[0])


if __name__ == "__main__":
    main()
