"""Locks on files, for one process at a time; they end with the process that holds them.

Knows: that a shared place may hold anything under a lock's name: no link is followed, nothing waits for a pipe's other
end, and only a regular file of this user is taken. Refuses to know: what is locked. Fails with `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, *, create: bool = False) -> Iterator[None]:
    """Holds the lock inside.

    :raises BlockingIOError: another process, or another part of this one, holds it
    :raises OSError: it cannot be opened, or is no regular file of this user
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(errno.EPERM, f"{path.name} in it is no regular file of this user")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
