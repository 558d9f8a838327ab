"""A peer that trades nothing: it keeps the shared table and, where asked to, relays for others."""

from __future__ import annotations

from p2pmarket.crypto.keys import Identity
from p2pmarket.events import Emit, stop_asked
from p2pmarket.files import private_folder
from p2pmarket.network.libp2p import Libp2pTransport
from p2pmarket.settings import PeerSettings


async def run_peer(settings: PeerSettings, emit: Emit) -> None:
    """Runs until SIGINT or SIGTERM.

    :raises MarketError: the network could not be started or joined
    """
    private_folder(settings.folder)
    identity = Identity.load_or_create(settings.identity_file)
    transport = await Libp2pTransport.create(settings.network())
    try:
        addresses = list(await transport.addresses())
        with stop_asked(on_eof=settings.stop_on_eof) as asked:
            emit({"event": "ready", "role": "peer", "market": "", "peer_id": identity.peer_id, "addresses": addresses})
            await asked.wait()
            emit({"event": "stopping"})
    finally:
        await transport.close()
