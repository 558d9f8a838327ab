"""From settings to a member of a market over libp2p: transport, peer book, agent, in this order and back.

Knows: what must be there before an agent can trade. Refuses to know: training. Raises what could not be started.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import SettingsError
from p2pmarket.files import private_folder
from p2pmarket.messages import BrokerStatement, KeyStatement
from p2pmarket.network.directory import PeerBook, find_brokers, note_welcome
from p2pmarket.network.libp2p import Libp2pTransport
from p2pmarket.node.agent import AsyncAgent
from p2pmarket.node.strategy import Strategy
from p2pmarket.settings import MarketAccess
from p2pmarket.threads import OwnThread


@contextlib.asynccontextmanager
async def joined(access: MarketAccess, strategy: Strategy) -> AsyncIterator[AsyncAgent]:
    """An agent that has been welcomed by a broker; leaves the market and the network at the end.

    :raises SettingsError: no market or no peer named
    :raises NetworkFault, MachineFault, Refused: the network, the market or the broker cannot be joined
    """
    if not access.market:
        raise SettingsError("which market? give --market NAME (`p2pmarket offers --peers ...` lists them)")
    if not access.initial_peers:
        raise SettingsError("through whom? give --peers with the address that any peer of the network printed")
    folder = private_folder(access.folder)
    identity = Identity.load_or_create(access.identity_file)
    async with contextlib.AsyncExitStack() as stack:
        transport = await Libp2pTransport.create(access.network())
        stack.push_async_callback(transport.close)
        book = OwnThread("peer-book", lambda: PeerBook(folder / "peers.sqlite"))
        await book.open()
        stack.push_async_callback(book.close)

        async def find() -> Sequence[BrokerStatement]:
            return await find_brokers(transport, access.market, book, broker=access.broker or None)

        async def welcomed(keys: KeyStatement) -> None:
            await note_welcome(book, access.market, keys)

        agent = await AsyncAgent.over(
            transport,
            market=access.market,
            identity=identity,
            find=find,
            welcomed=welcomed,
            folder=folder,
            strategy=strategy,
            codec=access.compression,
            zstd=access.zstd,
            timeout_seconds=access.trade_timeout_seconds,
        )
        stack.push_async_callback(agent.close)
        await asyncio.wait_for(agent.ready(), access.trade_timeout_seconds)
        yield agent
