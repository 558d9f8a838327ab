"""What is settled around the libp2p daemon's start, and words for what goes wrong there.

Knows: ports, the identity's lock, a private place for sockets, a session apart from this process's, and which of the
daemon's last words mean what. Refuses to know: hivemind (libp2p). Each failure is one error class and one sentence
with the remedy.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO

from p2pmarket.errors import (
    BootstrapUnreachable,
    DaemonFailed,
    IdentityError,
    IdentityInUse,
    MarketError,
    PortInUse,
    SettingsError,
)
from p2pmarket.settings import NetworkSettings

SOCKETS_PREFIX = "p2pmarket-"
"""Directories of daemon sockets in the temporary directory begin with this."""

_LISTEN = re.compile(r"/(ip4|ip6)/([^/]+)/(tcp|udp)/(\d+)(/|$)")


class IdentityLock:
    """Held while a peer runs; the kernel frees it when the process ends, however it ends."""

    def __init__(self, identity_path: Path) -> None:
        """
        :raises IdentityInUse: another process on this machine holds it
        :raises IdentityError: the lock file cannot be made
        """
        path = identity_path.with_name(identity_path.name + ".lock")
        try:
            self._file: IO[bytes] = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "wb")
        except OSError as error:
            raise IdentityError(f"{path} cannot be written ({error.strerror}); check its directory's owner") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise IdentityInUse(
                f"another process runs with the identity {identity_path}; stop it, or give this one its own identity"
            ) from None

    def release(self) -> None:
        """May be called twice."""
        self._file.close()


def private_directory(identity_path: Path) -> Path:
    """A new directory, mode 0700, for the daemon's sockets, which hivemind would put where every user may reach them.

    What a killed process left behind goes. The name stands for the identity's file, whose lock the caller holds, and
    not for the peer id: a copy of the file has a lock of its own, and its user must not remove what another one uses.
    """
    name = hashlib.sha256(os.fsencode(identity_path.resolve())).hexdigest()[:12]
    prefix = f"{SOCKETS_PREFIX}{name}-"
    for left in Path(tempfile.gettempdir()).glob(prefix + "*"):
        with contextlib.suppress(OSError):
            if left.lstat().st_uid == os.getuid():
                shutil.rmtree(left)
    return Path(tempfile.mkdtemp(prefix=prefix))


def start_in_new_sessions(module: ModuleType) -> None:
    """Children that `module` starts by `asyncio.subprocess.create_subprocess_exec` get a session of their own.

    Ctrl-C and a service manager's signal reach a whole process group: a daemon that dies before this process has said
    goodbye through it looks like one that crashed. Nothing but `module` is changed; may be called twice.
    """
    if module.__dict__.get("asyncio") is asyncio:
        start = functools.partial(asyncio.subprocess.create_subprocess_exec, start_new_session=True)
        subprocesses = SimpleNamespace(**{**vars(asyncio.subprocess), "create_subprocess_exec": start})
        module.__dict__["asyncio"] = SimpleNamespace(**{**vars(asyncio), "subprocess": subprocesses})


def check_ports(host_maddrs: tuple[str, ...]) -> None:
    """Whether each address with a fixed port is free.

    The daemon listens with SO_REUSEPORT: two on one port both start, and each gets half of the other's connections.

    :raises PortInUse: something listens there
    """
    for maddr in host_maddrs:
        match = _LISTEN.match(maddr)
        if match is None or match[4] == "0":
            continue
        family = socket.AF_INET if match[1] == "ip4" else socket.AF_INET6
        with socket.socket(family, socket.SOCK_STREAM if match[3] == "tcp" else socket.SOCK_DGRAM) as trial:
            if match[3] == "tcp":
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((match[2], int(match[4])))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortInUse(_port_in_use(maddr)) from None
                # Anything else the daemon says better.


def with_port(host_maddrs: tuple[str, ...], visible: tuple[str, ...]) -> tuple[str, ...]:
    """`host_maddrs` with port 0 replaced by the port that is seen in use, so that a restart keeps the address.

    >>> with_port(("/ip4/0.0.0.0/tcp/0",), ("/ip4/127.0.0.1/tcp/7", "/ip4/10.0.0.2/tcp/7"))
    ('/ip4/0.0.0.0/tcp/7',)
    """
    ports = {match[4] for maddr in visible if (match := _LISTEN.match(maddr)) and match[3] == "tcp"}
    if len(host_maddrs) != 1 or len(ports) != 1:
        return host_maddrs
    return (re.sub(r"/tcp/0(?=/|$)", f"/tcp/{ports.pop()}", host_maddrs[0]),)


def diagnose(words: str, settings: NetworkSettings) -> MarketError:
    """The error that the last words of a daemon or a DHT that did not start stand for."""
    listen = ", ".join(settings.host_maddrs)
    peers = ", ".join(settings.initial_peers)
    if "bootstrap" in words:
        return BootstrapUnreachable(
            f"none of the initial peers answered; check that one of them runs and that its address is right: {peers}"
        )
    if "address already in use" in words:
        return PortInUse(_port_in_use(listen))
    if "cannot assign requested address" in words:
        return SettingsError(f"host_maddrs names an address that this machine does not have: {listen}")
    if "multiaddr" in words:
        return SettingsError(f"an address is not a multiaddr such as /ip4/127.0.0.1/tcp/31330/p2p/12D3Koo...: {words}")
    if "can't access this node" in words:
        return SettingsError(
            "the initial peers cannot dial this one back; open its port and announce its public address,"
            " or set client_mode (behind NAT also use_relay and use_auto_relay)"
        )
    if "local time" in words:
        return DaemonFailed("this machine's clock and the initial peers' differ by more than 3 s; set the clock")
    if "failed to start in" in words:
        return DaemonFailed(
            f"the libp2p daemon did not start within {settings.startup_timeout_seconds:.0f} s;"
            " this machine is busy or slow, so raise startup_timeout_seconds"
        )
    return DaemonFailed(f"the libp2p daemon did not start; its last words: {words[:200]}")


def _port_in_use(maddr: str) -> str:
    return f"another program listens on {maddr}; stop it, or choose another port in host_maddrs"
