"""libp2p through hivemind's daemon: the only file that imports hivemind.

Knows: one p2pd child process, its control socket, hivemind's DHT node, and how they die. Refuses to know: what streams
carry and what announcements mean. Uses `P2P` and `DHTNode` in this process and loop; `hivemind.DHT` forks, and a fork
must not cross CUDA, threads or SQLite.

A watchdog asks the daemon for a sign of life; when it is dead, streams break with `ConnectionLost`, calls fail with
`PeerUnreachable` until a new daemon runs on the same port with the same handlers, then `restarted` is set. Every wait
has a timeout, since hivemind's own calls hang for ever on a dead daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import math
import random
import shutil
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hivemind.dht.node import DHTID, DHTNode
from hivemind.dht.storage import DHTLocalStorage, DictionaryDHTValue
from hivemind.p2p import P2P, PeerID, p2p_daemon
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, raise_if_failed, read_pbmsg_safe, write_pbmsg
from hivemind.proto import p2pd_pb2
from hivemind.utils import MSGPackSerializer
from hivemind.utils.multiaddr import Multiaddr

from p2pmarket import limits
from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import (
    BootstrapUnreachable,
    DaemonFailed,
    IdentityInUse,
    MarketError,
    PeerUnreachable,
    PortInUse,
    SettingsError,
)
from p2pmarket.network.announcement import BROKER_KEYS
from p2pmarket.network.asyncio_stream import BUFFER_BYTES, AsyncioStream
from p2pmarket.network.dht_guards import AnnouncementValidator, install_decoder_guards
from p2pmarket.network.startup import (
    IdentityLock,
    check_ports,
    diagnose,
    private_directory,
    start_in_new_sessions,
    with_port,
)
from p2pmarket.network.streams import StreamCaps, serve_stream
from p2pmarket.network.transport import StreamHandler
from p2pmarket.settings import NetworkSettings
from p2pmarket.tasks import end_tasks
from p2pmarket.units import Clock, now_ms

logger = logging.getLogger(__name__)

DIAL_SECONDS = 15.0
TABLE_SECONDS = 15.0
PING_SECONDS = 5.0
PING_EVERY_SECONDS = 10.0
STOP_SECONDS = 3.0
LINGER_SECONDS = 3.0
"""A killed process's daemon holds its port and identity for up to 2 s longer; a start waits this long for them."""
MAX_REMEMBERED_PEERS = 32
MAX_HINTS = 8
CONNECT_SECONDS = 5.0

_GONE = (OSError, EOFError, P2PDaemonError, asyncio.TimeoutError)
"""What talking to a dead or dying daemon, or a stream through it, may raise."""

T = TypeVar("T")


class Libp2pTransport:
    """A peer on the internet or on loopback; made by `create`."""

    def __init__(self, settings: NetworkSettings, peer_id: str, lock: IdentityLock, clock: Clock) -> None:
        self.restarted = asyncio.Event()
        """Set whenever a new daemon took over; who announces clears it and announces again."""
        self._settings = settings
        self._peer_id = peer_id
        self._lock = lock
        self._clock = clock
        self._storage = _Storage()
        self._handlers: dict[str, StreamHandler] = {}
        self._caps = StreamCaps()
        self._serving: set[asyncio.Task[Any]] = set()
        self._streams: set[AsyncioStream] = set()
        self._neighbours: list[str] = []
        self._daemon: _Daemon | None = None
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def create(
        cls, settings: NetworkSettings, *, clock: Clock = now_ms, ping_every_seconds: float = PING_EVERY_SECONDS
    ) -> Libp2pTransport:
        """Joins the network through `settings.initial_peers`, or begins one.

        :raises IdentityError: the identity file is missing or not an Ed25519 key
        :raises IdentityInUse: another peer runs with this identity, here or on the network
        :raises PortInUse: the address to listen on is taken
        :raises BootstrapUnreachable: no initial peer answered within `startup_timeout_seconds`
        :raises SettingsError: an address cannot be used
        :raises DaemonFailed: the daemon does not start on this machine
        """
        install_decoder_guards(MSGPackSerializer)
        start_in_new_sessions(p2p_daemon)
        identity = await asyncio.to_thread(Identity.load, settings.identity_path)
        settings = _checked(settings, identity.peer_id)
        self = cls(settings, identity.peer_id, IdentityLock(settings.identity_path), clock)
        try:
            self._daemon = await _start_patiently(self._first_start, settings.startup_timeout_seconds)
        except BaseException:
            self._lock.release()
            raise
        self._watching = asyncio.create_task(self._watch(ping_every_seconds))
        return self

    @property
    def peer_id(self) -> str:
        return self._peer_id

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler
        if self._daemon is not None:
            with contextlib.suppress(*_GONE):  # the watchdog's next daemon serves it
                await self._daemon.listen(protocol, self._accept)

    async def open(self, peer_id: str, protocol: str, addresses: tuple[str, ...] = ()) -> AsyncioStream:
        daemon = self._daemon
        if daemon is None:
            raise PeerUnreachable("this peer's own libp2p daemon is starting again; try again in a few seconds")
        try:
            reader, writer = await asyncio.wait_for(daemon.dial(peer_id, protocol, addresses), DIAL_SECONDS)
        except (*_GONE, ValueError) as error:
            if "protocols not supported" in str(error):
                raise PeerUnreachable(
                    f"{peer_id} does not serve {protocol}; it is another kind of peer or version"
                ) from None
            logger.debug("dialling %s failed: %r", peer_id, error)
            raise PeerUnreachable(f"{peer_id} cannot be reached; check that it is running, then try again") from None
        return AsyncioStream(peer_id, reader, writer, self._streams)

    async def publish(self, key: str, value: bytes, expires_ms: int) -> bool:
        stored = await self._ask_table(
            lambda node: node.store(
                key, value, expires_ms / 1000, subkey=self._peer_id, exclude_self=self._settings.client_mode
            )
        )
        return bool(stored)

    async def lookup(self, key: str) -> Mapping[str, bytes]:
        # Not-a-number is later than no expiry: unlike hivemind's `latest`, no answer with an infinite one ends the
        # search before honest nodes were asked.
        found = await self._ask_table(lambda node: node.get_many([key], sufficient_expiration_time=math.nan))
        if not found or found[key] is None or not isinstance(found[key].value, dict):
            return {}
        return {peer: item.value for peer, item in found[key].value.items() if isinstance(item.value, bytes)}

    async def addresses(self) -> tuple[str, ...]:
        if self._daemon is None:
            return ()
        try:
            return await self._daemon.visible()
        except _GONE:
            return ()

    async def close(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            await end_tasks([watching])
        await end_tasks(self._serving)
        for stream in list(self._streams):
            await stream.close()
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            await daemon.stop()
        self._lock.release()

    async def _ask_table(self, ask: Callable[[Any], Awaitable[T]]) -> T | None:
        """The DHT's answer; None where it has none in time."""
        if self._daemon is None:
            return None
        try:
            return await asyncio.wait_for(ask(self._daemon.node), TABLE_SECONDS)
        except _GONE as error:
            logger.debug("the DHT does not answer: %r", error)
            return None

    async def _accept(self, info: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer_id = str(info.peer_id)
        stream = AsyncioStream(peer_id, reader, writer, self._streams)
        handler = self._handlers.get(info.proto)
        if handler is None or not self._caps.admit(peer_id):
            await stream.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await serve_stream(stream, info.proto, handler)
        finally:
            self._serving.discard(task)
            self._caps.leave(peer_id)

    # ---- the daemon's lives ---------------------------------------------------------------------------------------

    async def _first_start(self) -> _Daemon:
        await _check_identity_free(self._settings, self._peer_id)
        return await _Daemon.start(self._settings, self._peer_id, self._storage, self._clock)

    async def _watch(self, every_seconds: float) -> None:
        while self._daemon is not None:
            if not await self._daemon.lives(every_seconds):
                await self._restart(self._daemon)
            await self._keep_company(self._daemon)

    async def _keep_company(self, daemon: _Daemon) -> None:
        """Remembers who is connected, and joins again when the DHT has lost everyone."""
        with contextlib.suppress(*_GONE):
            latest_first = [*await daemon.neighbours(), *self._neighbours]
            self._neighbours = list(dict.fromkeys(latest_first))[:MAX_REMEMBERED_PEERS]
            if daemon.alone:
                await daemon.join([*self._settings.initial_peers, *self._neighbours])

    async def _restart(self, dead: _Daemon) -> None:
        logger.error("the libp2p daemon died; starting another")
        self._daemon = None
        for stream in list(self._streams):
            stream.abort()
        settings = dataclasses.replace(
            self._settings, host_maddrs=with_port(self._settings.host_maddrs, dead.first_visible)
        )
        await dead.stop()
        for attempt in itertools.count():
            try:
                daemon = await self._next_start(settings)
                break
            except BootstrapUnreachable:
                # Alone is better than gone: `_keep_company` goes on trying.
                settings = dataclasses.replace(settings, initial_peers=())
            except Exception as error:  # whatever it is, a watchdog does not give up
                logger.error("the libp2p daemon did not come back (%s); trying again", error)
                settings = dataclasses.replace(settings, host_maddrs=self._settings.host_maddrs)
                await asyncio.sleep(_pause_seconds(attempt))
        self._daemon = daemon
        await self._keep_company(daemon)
        self.restarted.set()
        logger.warning("the libp2p daemon runs again")

    async def _next_start(self, settings: NetworkSettings) -> _Daemon:
        daemon = await _Daemon.start(settings, self._peer_id, self._storage, self._clock)
        try:
            served: set[str] = set()
            while missing := self._handlers.keys() - served:  # `serve` may be called meanwhile
                for protocol in missing:
                    await daemon.listen(protocol, self._accept)
                served |= missing
        except BaseException:
            await daemon.stop()
            raise
        return daemon


class _Daemon:
    """One life of p2pd with the DHT node on top."""

    def __init__(self, p2p: Any, directory: Path) -> None:
        self.p2p = p2p
        self.node: Any = None
        self.first_visible: tuple[str, ...] = ()
        self._directory = directory

    @classmethod
    async def launch(cls, settings: NetworkSettings, **options: Any) -> _Daemon:
        """The child process alone.

        :raises MarketError: as `diagnose` says
        """
        check_ports(settings.host_maddrs)
        directory = private_directory(settings.identity_path)
        with_sockets_there = type("PrivateP2P", (P2P,), {"_UNIX_SOCKET_PREFIX": f"/unix{directory}/"})
        options = {
            "initial_peers": settings.initial_peers,
            "host_maddrs": settings.host_maddrs,
            "announce_maddrs": settings.announce_maddrs or None,
            "identity_path": str(settings.identity_path),
            "check_if_identity_free": False,
            "dht_mode": "client" if settings.client_mode else "server",
            "startup_timeout": settings.startup_timeout_seconds,
            "use_relay": settings.use_relay,
            "use_auto_relay": settings.use_auto_relay,
            "nat_port_map": settings.nat_port_map,
            "auto_nat": settings.auto_nat,
            **options,
        }
        try:
            return cls(
                await asyncio.wait_for(
                    with_sockets_there.create(**options),  # type: ignore[attr-defined]
                    settings.startup_timeout_seconds + PING_SECONDS,
                ),
                directory,
            )
        except BaseException as error:
            shutil.rmtree(directory, ignore_errors=True)
            if isinstance(error, (*_GONE, ValueError)):
                raise diagnose(str(error) or "failed to start in time", settings) from None
            raise

    @classmethod
    async def start(cls, settings: NetworkSettings, peer_id: str, storage: DHTLocalStorage, clock: Clock) -> _Daemon:
        """The child process and the DHT node, joined through `settings.initial_peers`.

        :raises MarketError: as `diagnose` says
        """
        self = await cls.launch(settings)
        try:
            self.node = await asyncio.wait_for(
                DHTNode.create(
                    p2p=self.p2p,
                    # The same place in the DHT after a restart, and no place of one's own choice.
                    node_id=DHTID.generate(source=peer_id.encode()),
                    initial_peers=settings.initial_peers,
                    client_mode=settings.client_mode,
                    record_validator=AnnouncementValidator(_KEYS, clock, _hashed),
                    parallel_rpc=32,
                    wait_timeout=3,
                    # Announcements are few and short-lived: an answer from the network beats a stale one.
                    cache_locally=False,
                    cache_nearest=0,
                    cache_on_store=False,
                    reuse_get_requests=False,
                ),
                settings.startup_timeout_seconds,
            )
            self.node.protocol.storage = storage
            self.node.protocol.cache = _Storage()
            self.first_visible = await self.visible()
            await self._probe(settings)
        except BaseException as error:
            await self.stop()
            if isinstance(error, Exception) and not isinstance(error, MarketError):
                raise diagnose(str(error) or "failed to start in time", settings) from error
            raise
        return self

    async def _probe(self, settings: NetworkSettings) -> None:
        """One question to the DHT of the initial peers.

        :raises BootstrapUnreachable: none answers it
        """
        key = DHTID.generate(source=BROKER_KEYS[0])
        for maddr in settings.initial_peers:
            if await self.node.protocol.call_find(PeerID.from_base58(_peer_of(maddr)), [key]) is not None:
                return
        if settings.initial_peers:
            raise BootstrapUnreachable(
                "the initial peers are there but do not answer as a DHT; check that they run this market's or"
                f" another hivemind program: {', '.join(settings.initial_peers)}"
            )

    async def listen(self, protocol: str, accept: Callable[..., Awaitable[None]]) -> None:
        await asyncio.wait_for(self.p2p.add_binary_stream_handler(protocol, accept), PING_SECONDS)

    async def dial(
        self, peer_id: str, protocol: str, addresses: tuple[str, ...]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that carries a stream to a peer."""
        peer = PeerID.from_base58(peer_id)
        await self._connect(peer, addresses)
        wish = p2pd_pb2.StreamOpenRequest(peer=peer.to_bytes(), proto=[protocol])
        _, reader, writer = await self._ask(type=p2pd_pb2.Request.STREAM_OPEN, streamOpen=wish)
        return reader, writer

    async def _ask(self, **request: Any) -> tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]:
        """The daemon's answer to one request, and the connection it came on; as hivemind's own, but with a larger
        buffer, and no connection is left open where it fails."""
        path = self.p2p.daemon_listen_maddr["unix"]
        reader, writer = await asyncio.open_unix_connection(path, limit=BUFFER_BYTES)
        try:
            await write_pbmsg(writer, p2pd_pb2.Request(**request))
            answer = p2pd_pb2.Response()
            await read_pbmsg_safe(reader, answer)
            raise_if_failed(answer)
        except BaseException:
            writer.close()
            raise
        return answer, reader, writer

    async def _ask_once(self, seconds: float, **request: Any) -> Any:
        """The daemon's answer within `seconds`."""
        answer, _, writer = await asyncio.wait_for(self._ask(**request), seconds)
        writer.close()
        return answer

    async def _connect(self, peer: Any, addresses: tuple[str, ...]) -> None:
        """Tells the daemon where a peer may be; whether that helps is seen when it is dialled."""
        maddrs = []
        for address in addresses[:MAX_HINTS]:
            with contextlib.suppress(Exception):  # a stranger's text, and a parser with many ways to fail
                maddrs.append(Multiaddr(address.removesuffix(f"/p2p/{peer}")))
        if maddrs:
            with contextlib.suppress(*_GONE):
                await self.connect(peer, maddrs)

    async def connect(self, peer: Any, maddrs: Iterable[Any]) -> None:
        """Connects to a peer at one of `maddrs`, or wherever the network knows it to be.

        :raises P2PDaemonError: it is nowhere
        """
        wish = p2pd_pb2.ConnectRequest(peer=peer.to_bytes(), addrs=[maddr.to_bytes() for maddr in maddrs])
        await self._ask_once(CONNECT_SECONDS, type=p2pd_pb2.Request.CONNECT, connect=wish)

    async def visible(self) -> tuple[str, ...]:
        """Addresses as others may dial them; none where the daemon listens nowhere."""
        answer = await self._ask_once(PING_SECONDS, type=p2pd_pb2.Request.IDENTIFY)
        return tuple(_dialled(answer.identify.addrs, answer.identify.id))

    async def neighbours(self) -> list[str]:
        """Addresses of the connected peers."""
        answer = await self._ask_once(PING_SECONDS, type=p2pd_pb2.Request.LIST_PEERS)
        return [maddr for peer in answer.peers for maddr in _dialled(peer.addrs, peer.id)]

    @property
    def alone(self) -> bool:
        """Whether the DHT node knows no other."""
        return not self.node.protocol.routing_table.peer_id_to_uid

    async def join(self, maddrs: list[str]) -> None:
        """Finds the way back into the DHT through any of these peers."""

        async def meet(maddr: str) -> None:
            peer = PeerID.from_base58(_peer_of(maddr))
            await self._connect(peer, (maddr,))
            await asyncio.wait_for(self.node.protocol.call_ping(peer), PING_SECONDS)

        await asyncio.gather(*(meet(maddr) for maddr in maddrs), return_exceptions=True)

    async def lives(self, seconds: float) -> bool:
        """Waits `seconds`, less where the child ends; False when it has ended or does not answer twice."""
        ended = asyncio.ensure_future(self.p2p._child.wait())
        done, _ = await asyncio.wait({ended}, timeout=seconds)
        if done:
            return False
        ended.cancel()
        for _ in range(2):
            with contextlib.suppress(*_GONE):
                await self.visible()
                return True
        return False

    async def stop(self) -> None:
        """Ends the child and removes its sockets; never raises, works on a dead child too."""
        child = self.p2p._child
        if self.node is not None:
            self.node.is_alive = False
            if child.returncode is None:
                with contextlib.suppress(*_GONE):
                    await asyncio.wait_for(self.node.shutdown(), STOP_SECONDS)
        try:
            with contextlib.suppress(*_GONE):
                await asyncio.wait_for(self.p2p.shutdown(), STOP_SECONDS)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            child._transport.close()
            shutil.rmtree(self._directory, ignore_errors=True)


class _Storage(DHTLocalStorage):  # type: ignore[misc]
    """What this node keeps for the DHT, bounded: hivemind's grows with every record and every repetition."""

    def store_subkey(self, key: Any, subkey: Any, value: bytes, expiration_time: float) -> bool:
        kept = self.get(key)
        announcements = key.to_bytes() in _KEYS
        if kept is None and not announcements and len(self.data) >= limits.MAX_DHT_LOGS + len(_KEYS):
            return False
        if kept is not None and isinstance(kept.value, DictionaryDHTValue):
            before = kept.value.get(subkey)
            most = limits.MAX_DHT_RECORDS_PER_KEY if announcements else limits.MAX_DHT_HEADS_PER_LOG
            if before is None and len(kept.value) >= most:
                return False
            if before is not None and expiration_time < before.expiration_time + 1.0:
                return bool(expiration_time == before.expiration_time and value == before.value)
        return bool(super().store_subkey(key, subkey, value, expiration_time))


def _hashed(key: str) -> bytes:
    """A key's name as DHT records carry it."""
    return bytes(DHTID.generate(source=key).to_bytes())


_KEYS = {_hashed(key): key for key in BROKER_KEYS}


async def _start_patiently(start: Callable[[], Awaitable[_Daemon]], timeout_seconds: float) -> _Daemon:
    """Tries again, with longer and longer pauses, what time may mend."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for attempt in itertools.count():
        try:
            return await start()
        except (BootstrapUnreachable, DaemonFailed, PortInUse, IdentityInUse) as error:
            taken = isinstance(error, (PortInUse, IdentityInUse))
            patience = min(LINGER_SECONDS, timeout_seconds) if taken else timeout_seconds
            pause = _pause_seconds(attempt)
            if loop.time() + pause > began + patience:
                raise
            # Once is news: the network may take its time. The rest is repetition, and what is taken is told at the end.
            logger.log(logging.INFO if taken or attempt else logging.WARNING, "%s (trying again)", error)
            await asyncio.sleep(pause)
    raise AssertionError("unreachable")


def _pause_seconds(attempt: int) -> float:
    """Grows to 5 s, and differs between peers that lost the same seed."""
    longest: float = min(0.25 * 2**attempt, 5.0)
    return longest * random.uniform(0.5, 1.0)


async def _check_identity_free(settings: NetworkSettings, peer_id: str) -> None:
    """Asks the network, as somebody else, whether this peer is there already.

    :raises IdentityInUse: it is
    """
    if not settings.initial_peers:
        return
    stranger = await _Daemon.launch(
        dataclasses.replace(settings, host_maddrs=(), announce_maddrs=()),
        identity_path=None,
        dht_mode="client",
        no_listen=True,
    )
    try:
        for pause in (0.05, 0.1, 0.2):  # what the initial peers know reaches a newcomer within moments, not at once
            with contextlib.suppress(*_GONE):
                await stranger.connect(PeerID.from_base58(peer_id), ())
                raise IdentityInUse(
                    f"a peer with the identity {settings.identity_path} is on this network already; stop it, or give"
                    " this one its own identity"
                )
            await asyncio.sleep(pause)
    finally:
        await stranger.stop()


def _checked(settings: NetworkSettings, own_peer_id: str) -> NetworkSettings:
    """The settings without this peer itself among the initial peers.

    :raises SettingsError: an initial peer's address is not one
    """
    for maddr in (*settings.initial_peers, *settings.host_maddrs, *settings.announce_maddrs):
        try:
            Multiaddr(maddr)
            if maddr in settings.initial_peers:
                PeerID.from_base58(_peer_of(maddr))
        except Exception:  # the parser has many ways to fail
            raise SettingsError(
                f"{maddr!r} is no address such as /ip4/127.0.0.1/tcp/31330; an initial peer's ends in /p2p/<peer id>"
            ) from None
    others = tuple(maddr for maddr in settings.initial_peers if _peer_of(maddr) != own_peer_id)
    return dataclasses.replace(settings, initial_peers=others)


def _dialled(maddrs: Iterable[bytes], peer_id: bytes) -> Iterator[str]:
    """Addresses as text; those of transports that hivemind's parser does not know are left out."""
    for maddr in maddrs:
        with contextlib.suppress(Exception):
            yield f"{Multiaddr(maddr)}/p2p/{PeerID(peer_id)}"


def _peer_of(maddr: str) -> str:
    """The peer id at the end of an address.

    :raises ValueError: it has none
    """
    _, separator, peer_id = maddr.rpartition("/p2p/")
    if not separator or "/" in peer_id:
        raise ValueError(f"{maddr} does not end in /p2p/<peer id>")
    return peer_id
