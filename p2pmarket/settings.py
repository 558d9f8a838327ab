"""What a person sets to run a peer: frozen records whose fields are flags, variables and configuration keys (options).

Knows: names, defaults, units and help texts. Refuses to know: how a value is found (options) and what carries it out.
Whoever uses a setting says in a `SettingsError` what is wrong with it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from p2pmarket.options import (
    credits_option,
    flag,
    option,
    parse_count,
    parse_fraction,
    parse_number,
    parse_positive,
    parse_whole,
)
from p2pmarket.parcel import CODECS
from p2pmarket.units import CREDIT

NETWORK, MARKET, TRAINING, SIDECAR, STRATEGY = "network", "market", "training", "sidecar", "strategy"
"""Groups of flags, as the help shows them."""


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


@dataclasses.dataclass(frozen=True)
class PeerSettings:
    """What every peer has: a folder, an identity, a place on the network."""

    state: Path = option(
        Path("~/.p2pmarket/peer"), "folder for identity, keys, journal and parcels", parse=Path, metavar="FOLDER"
    )
    identity_path: Path | None = option(
        None,
        "identity file; losing it loses the account (default: identity.key in the state folder)",
        parse=Path,
        metavar="FILE",
    )
    json: bool = flag(False, "write events as JSON lines to stdout")
    stop_on_eof: bool = flag(False, "stop when standard input closes: for programs that start this one")
    initial_peers: tuple[str, ...] = option(
        (),
        "addresses of any peers of the network, as printed at their start",
        many=True,
        aliases=("peers",),
        metavar="ADDRESS",
        group=NETWORK,
    )
    host_maddrs: tuple[str, ...] = option(
        ("/ip4/127.0.0.1/tcp/0",),
        "addresses to listen on; /ip4/0.0.0.0/tcp/PORT to be reached from outside",
        many=True,
        metavar="ADDRESS",
        group=NETWORK,
    )
    announce_maddrs: tuple[str, ...] = option(
        (), "addresses to tell others, behind a router or proxy", many=True, metavar="ADDRESS", group=NETWORK
    )
    client_mode: bool = flag(
        False, "keep nothing for others in the DHT: for peers others cannot dial (NAT)", group=NETWORK
    )
    use_relay: bool = flag(False, "reach peers through relays, and relay for others", group=NETWORK)
    use_auto_relay: bool = flag(False, "look for a relay when others cannot dial this peer (NAT)", group=NETWORK)
    nat_port_map: bool = flag(False, "ask the router by UPnP to open a port", group=NETWORK)
    auto_nat: bool = flag(False, "find out by asking others whether they can dial this peer", group=NETWORK)
    startup_timeout_seconds: float = option(
        60.0, "how long to try to start and reach a peer", parse=parse_positive, metavar="SECONDS", group=NETWORK
    )

    @property
    def folder(self) -> Path:
        """The state folder with ~ resolved."""
        return self.state.expanduser()

    @property
    def identity_file(self) -> Path:
        """Where the identity is."""
        return self.identity_path.expanduser() if self.identity_path else self.folder / "identity.key"

    def network(self) -> NetworkSettings:
        """The part that the network needs."""
        shared = {field.name for field in dataclasses.fields(NetworkSettings)} - {"identity_path"}
        values = {name: getattr(self, name) for name in shared}
        return NetworkSettings(identity_path=self.identity_file, **values)


@dataclasses.dataclass(frozen=True)
class MarketAccess(PeerSettings):
    """How an agent finds its market and what travels."""

    state: Path = option(
        Path("~/.p2pmarket/node"), "folder for identity, keys, journal and parcels", parse=Path, metavar="FOLDER"
    )
    market: str = option("", "name of the market to join", metavar="NAME", group=MARKET)
    broker: str = option(
        "", "peer id of the broker to trade with (default: the first that answers)", metavar="PEER", group=MARKET
    )
    model: str = option(
        "",
        "your own factory package.module:factory, where the market's model is not built in",
        metavar="FACTORY",
        group=MARKET,
    )
    task: str = option("", "task of the market to train for (default: its first)", metavar="NAME", group=MARKET)
    compression: str = option("none", "codec of your snapshots", choices=CODECS, group=MARKET)
    zstd: bool = flag(False, "compress snapshots with zstd where it saves something", group=MARKET)
    trade_timeout_seconds: float = option(
        300.0, "give up waiting for a trade after this time", parse=parse_positive, metavar="SECONDS", group=MARKET
    )


@dataclasses.dataclass(frozen=True)
class NodeSettings(MarketAccess):
    """An agent's whole configuration."""

    data: str = option(
        "",
        "training data: file.npz, file.npz#train, file.safetensors or package.module:function",
        metavar="SOURCE",
        group=TRAINING,
    )
    test_data: str = option(
        "",
        "data to show accuracy on; never trained on, never sent",
        aliases=("test",),
        metavar="SOURCE",
        group=TRAINING,
    )
    epochs: int = option(20, "passes over the training data", parse=parse_count, metavar="N", group=TRAINING)
    trade_from: int = option(2, "first epoch after which to trade", parse=parse_count, metavar="EPOCH", group=TRAINING)
    trade_every: int = option(1, "trade after every so many epochs", parse=parse_count, metavar="N", group=TRAINING)
    batch_size: int = option(64, "samples in a step", parse=parse_count, metavar="N", group=TRAINING)
    learning_rate: float = option(
        0.1, "step size of the optimiser", parse=parse_positive, metavar="RATE", group=TRAINING
    )
    momentum: float = option(0.0, "momentum of sgd", parse=parse_number, metavar="M", group=TRAINING)
    optimizer: str = option("sgd", "the built-in trainer's optimiser", choices=("sgd", "adam"), group=TRAINING)
    seed: int = option(0, "of weights and batches", parse=parse_whole, metavar="N", group=TRAINING)
    compare_alone: bool = flag(
        False, "also train a twin that never trades, with the same seed, to compare", group=TRAINING
    )
    save: Path | None = option(
        None,
        "write the trained parameters to this .safetensors file",
        parse=Path,
        metavar="FILE",
        group=TRAINING,
    )
    watch: Path | None = option(
        None,
        "trade whenever this .safetensors checkpoint changes, instead of training",
        parse=Path,
        metavar="FILE",
        group=SIDECAR,
    )
    out: Path | None = option(
        None, "write checkpoint plus purchases to this .safetensors file", parse=Path, metavar="FILE", group=SIDECAR
    )
    once: bool = flag(False, "stop after one trade", group=SIDECAR)
    strategy: str = option(
        "default",
        "default, collaborative, competitive, budgeted, or a class of your own, package.module:Class",
        metavar="NAME",
        group=STRATEGY,
    )
    buy: bool = flag(True, "buy parameters", group=STRATEGY)
    sell: bool = flag(True, "offer parameters for sale", group=STRATEGY)
    minimum_gain: float = option(
        0.0,
        "buy when the lower end of the gain's interval is above this",
        parse=parse_number,
        metavar="GAIN",
        group=STRATEGY,
    )
    credits_per_gain: int = credits_option(
        10 * CREDIT, "bid so many credits for a gain of 1 in the loss", group=STRATEGY
    )
    budget: int | None = credits_option(None, "spend at most this in all (default: the balance)", group=STRATEGY)
    reserve: int = credits_option(0, "sell at this price or above", group=STRATEGY)
    visits: int = option(
        20, "budgeted: the budget must last for so many visits", parse=parse_count, metavar="N", group=STRATEGY
    )
    budget_per_day: int | None = credits_option(
        None, "budgeted: spend at most this in 24 hours (default: no limit)", group=STRATEGY
    )
    harm: int = credits_option(0, "competitive: what a copy in another's hands costs you", group=STRATEGY)
    highest_value: int = credits_option(
        10 * CREDIT, "competitive: the most a buyer may pay, as you believe before any is seen", group=STRATEGY
    )
    buy_groups: tuple[str, ...] = option(
        (), "buy only these parameter groups of the market's terms", many=True, metavar="GROUP", group=STRATEGY
    )
    sell_groups: tuple[str, ...] = option(
        (), "sell only these parameter groups", many=True, metavar="GROUP", group=STRATEGY
    )


@dataclasses.dataclass(frozen=True)
class BrokerSettings(PeerSettings):
    """A broker's whole configuration."""

    state: Path = option(
        Path("~/.p2pmarket/broker"), "folder for identity, keys, ledger and parcels", parse=Path, metavar="FOLDER"
    )
    market: Path | None = option(None, "the market's terms", parse=Path, metavar="TERMS.toml", group=MARKET)
    validation: tuple[str, ...] = option(
        (),
        "validation data, [TASK=]file.npz, .safetensors or package.module:function; one for each task",
        many=True,
        metavar="SOURCE",
        group=MARKET,
    )
    public_name: str = option("", "a name for people; proves nothing", metavar="NAME", group=MARKET)
    device: str = option(
        "auto", "appraise on cpu, cuda, or auto: a GPU where there is one", metavar="DEVICE", group=MARKET
    )
    seed: int = option(0, "of the SELECT/REPORT split and of alignment", parse=parse_whole, metavar="N", group=MARKET)
    select_fraction: float = option(
        0.5,
        "part of the validation data on which merges are chosen",
        parse=parse_fraction,
        metavar="PART",
        group=MARKET,
    )
