"""What a person sets to run a peer, as frozen records with defaults.

Knows: names, defaults and units of settings. Refuses to know: flags, environment and files (cli), and what carries
them out. The records check nothing; whoever uses a setting says in a `SettingsError` what is wrong with it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """How this peer is on the network. Names are those of hivemind's flags."""

    identity_path: Path
    """The Ed25519 identity file (crypto/keys); it must exist. `<identity_path>.lock` is held while the peer runs."""
    initial_peers: tuple[str, ...] = ()
    """Addresses of peers to join through, each ending in /p2p/<peer id>; none: this peer begins a network."""
    host_maddrs: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    """Addresses to listen on; port 0 is any free port. The default is reached from this machine only."""
    announce_maddrs: tuple[str, ...] = ()
    """Addresses to tell others instead of `host_maddrs`, where a router or proxy stands between."""
    client_mode: bool = False
    """Keep nothing for others in the shared table: for peers that others cannot dial, such as those behind NAT."""
    use_relay: bool = False
    """Reach, and be reached by, peers through relays; makes this peer a relay for others too."""
    use_auto_relay: bool = False
    """Look for a relay when others cannot dial this peer."""
    nat_port_map: bool = False
    """Ask the router by UPnP to open a port."""
    auto_nat: bool = False
    """Find out by asking other peers whether they can dial this one."""
    startup_timeout_seconds: float = 60.0
    """How long to try to start and to reach an initial peer."""
