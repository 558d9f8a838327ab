"""One party of a crash test as a process: the broker, the buyer or the seller on its folder, told what to do by lines.

Knows: how to build the real `Broker` and `AsyncAgent` on a `SocketTransport`, and the words of the harness's pipe, one
JSON object a line. Refuses to know: when anybody dies. A party whose harness is gone ends.

To it     {"do": "visit", "deal": {...}} | {"do": "arm", "orders": "..."} | {"do": "places"}
From it   {"event": "begun", "pid": 1} | {"event": "ready"} | {"event": "visited", "bought": 1, "problem": ""}
          | {"event": "armed"} | {"event": "places", "names": [...]}: those reached since it was asked last

In these markets a broker dies every other second. A link that heard of it would wait longer each time, up to 10 s, as
it should; here every session counts as a steady one, so that each kill is met as the first of its day.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import crash_broken
import crash_market
import torch
from crash_transport import SocketTransport

from p2pmarket import failpoints
from p2pmarket.broker_node.broker import Broker
from p2pmarket.broker_node.ledger_thread import LedgerThread
from p2pmarket.broker_node.service import statement_for
from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.keys import Identity
from p2pmarket.files import private_folder
from p2pmarket.ledger.journal import Ledger
from p2pmarket.messages import BrokerStatement, KeyStatement
from p2pmarket.network.directory import PeerBook, announce_once, find_brokers, note_welcome
from p2pmarket.node import link
from p2pmarket.node.agent import AsyncAgent
from p2pmarket.threads import OwnThread
from p2pmarket.units import now_ms

VISIT_SECONDS = 20.0
Request = Mapping[str, Any]

log = logging.getLogger(__name__)


def prepare() -> None:
    """What is done once, before the forks."""
    torch.set_num_threads(1)
    for size in crash_market.SIZES:
        crash_market.appraiser(size)


def live(request: Request, pipe: socket.socket) -> None:
    """A party's whole life, in its own process."""
    folder = private_folder(Path(request["folder"]) / request["party"])
    logging.basicConfig(filename=folder / "log", level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    random.seed()
    try:
        if request["broken"]:
            crash_broken.BUILDS[request["broken"]].apply()
        link.STEADY_SECONDS = 0.0
        arm(request["orders"])
        asyncio.run(Party(request, pipe, folder).run())
    except BaseException:
        log.error("the party failed: %s", traceback.format_exc())
        os._exit(1)


def arm(orders: str) -> None:
    """Sets this process's fail points and forgets what was reached before."""
    follow = failpoints.POINTS.follow
    failpoints.POINTS = failpoints.FailPoints(failpoints.read_orders(orders))
    failpoints.POINTS.follow = follow


class Party:
    """One process's side of the pipe."""

    def __init__(self, request: Request, pipe: socket.socket, folder: Path) -> None:
        self._request = request
        self._pipe = pipe
        self._folder = folder
        self._terms = crash_market.terms(request["size"])
        self._told = crash_market.Told()
        self._agent: AsyncAgent | None = None
        self._visit: asyncio.Task[None] | None = None
        self._places: dict[str, None] = {}

    async def run(self) -> None:
        """Until the harness is gone."""
        reader, self._writer = await asyncio.open_connection(sock=self._pipe)
        self._tell(event="begun", pid=os.getpid())
        if self._request["follow"]:
            failpoints.POINTS.follow = self._places.setdefault
        await (self._start_broker() if self._request["party"] == "broker" else self._start_agent())
        self._tell(event="ready")
        while line := await reader.readline():
            self._obey(json.loads(line))
        os._exit(0)

    def _obey(self, word: Request) -> None:
        if word["do"] == "visit":
            self._told.deal = crash_market.Deal(**word["deal"])
            self._visit = asyncio.create_task(self._go())
        elif word["do"] == "arm":
            arm(word["orders"])
            self._tell(event="armed")
        elif word["do"] == "places":
            self._tell(event="places", names=list(self._places))
            self._places.clear()

    def _tell(self, **words: object) -> None:
        self._writer.write(json.dumps(words).encode() + b"\n")

    async def _go(self) -> None:
        assert self._agent is not None
        try:
            model = crash_market.model(self._request["size"], random.getrandbits(32))
            result = await self._agent.trade(model)
        except Exception as error:
            log.exception("the visit failed")
            self._tell(event="visited", bought=0, problem=repr(error))
            return
        self._tell(event="visited", bought=len(result.bought), problem=result.problem)

    async def _start_broker(self) -> None:
        identity = self._identity()
        transport = SocketTransport(self._folder.parent, identity.peer_id)
        ledger = LedgerThread(lambda: Ledger.open(self._folder / "ledger.sqlite", identity, self._terms.name))
        await ledger.open()
        self._broker = Broker(
            transport=transport,
            identity=identity,
            keyring=Keyring.open(self._folder / "keys", identity, now_ms),
            terms=self._terms,
            ledger=ledger,
            appraiser=crash_market.appraiser(self._request["size"]),
            directory=self._folder,
            clock=now_ms,
        )
        await self._broker.start()
        statement = statement_for("crashing", self._terms, identity, await transport.addresses(), now_ms)
        await announce_once(transport, statement)

    async def _start_agent(self) -> None:
        identity = self._identity()
        transport = SocketTransport(self._folder.parent, identity.peer_id)
        book = OwnThread("peer-book", lambda: PeerBook(self._folder / "peers.sqlite"))
        await book.open()

        async def find() -> Sequence[BrokerStatement]:
            return await find_brokers(transport, self._terms.name, book)

        async def welcomed(keys: KeyStatement) -> None:
            await note_welcome(book, self._terms.name, keys)

        buys = self._request["party"] == "buyer"
        self._agent = await AsyncAgent.over(
            transport,
            market=self._terms.name,
            identity=identity,
            find=find,
            welcomed=welcomed,
            folder=self._folder,
            strategy=crash_market.Obedient(buy=buys, sell=not buys, told=self._told),
            timeout_seconds=VISIT_SECONDS,
        )

    def _identity(self) -> Identity:
        return Identity.load_or_create(self._folder / "identity.key")
