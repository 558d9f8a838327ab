"""A client that speaks the protocol by hand, so that a test can say what an honest agent never would."""

from __future__ import annotations

import asyncio
import secrets
import unittest.mock
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import torch
from market_examples import CREDIT, left, right
from peers import identity_of
from torch import Tensor

from p2pmarket.crypto.keyring import Keyring
from p2pmarket.crypto.signing import sign, type_of, verify
from p2pmarket.errors import ConnectionLost, Refused
from p2pmarket.messages import (
    MESSAGE_TYPES,
    PROTOCOL_VERSION,
    Appraisal,
    Bid,
    Fetch,
    GainReport,
    Hello,
    KeyStatement,
    Message,
    Refusal,
    Submit,
    Upload,
    Welcome,
)
from p2pmarket.network.names import PARCELS, SESSIONS
from p2pmarket.network.session import read_frame, write_frame
from p2pmarket.network.spool import Outgoing
from p2pmarket.network.transfer import send_parcel
from p2pmarket.network.transport import Stream
from p2pmarket.parameters.packing import digest_of, pack
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.units import now_ms
from p2pmarket.wire import Frame, Kind

NEW = secrets.token_bytes


class Client:
    """One peer that holds frames in its own hands."""

    def __init__(self, market: MarketInMemory, name: str, folder: Path) -> None:
        self.market = market
        self.identity = identity_of(name)
        self.folder = folder / name
        self.transport = market.network.join(self.identity.peer_id)
        self.keyring = Keyring.open(self.folder / "keys", self.identity, now_ms)
        self.broker = market.running.peer_id
        self.mail: list[Message] = []
        self.acknowledges = True
        self._stream: Stream | None = None
        self._number = 0

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    @property
    def session(self) -> Stream:
        assert self._stream is not None
        return self._stream

    async def hello(self, **changes: Any) -> Message:
        """Opens a session; the broker's Welcome or Refusal."""
        fields = {
            "message_id": secrets.token_bytes(16), "version": PROTOCOL_VERSION, "market": self.market.terms.name,
            "keys": self.keyring.statement, "issued_ms": now_ms(), "last_mail": 0, **changes,
        }  # fmt: skip
        self._stream = await self.transport.open(self.broker, SESSIONS)
        await write_frame(self._stream, Frame(Kind.REQUEST, 1, sign(self.identity, Hello(**fields))))
        reply = self.opened((await read_frame(self._stream)).body)
        if isinstance(reply, Welcome):
            self.broker_keys = verify(reply.keys, KeyStatement, signer=self.broker)
        return reply

    async def ask(self, message: Message) -> Message:
        """The reply to a message in the session."""
        return self.opened(await self.ask_bytes(sign(self.identity, message)))

    async def ask_bytes(self, data: bytes) -> bytes:
        """The reply to these bytes; mail that comes first is kept."""
        self._number += 1
        await write_frame(self.session, Frame(Kind.REQUEST, self._number, data))
        while True:
            frame = await read_frame(self.session)
            if frame.kind is Kind.REPLY:
                return frame.body
            await self._take(frame)

    async def next_mail(self) -> Message:
        """The next mail."""
        while True:
            if await self._take(await read_frame(self.session)):
                return self.mail[-1]

    async def _take(self, frame: Frame) -> bool:
        if frame.kind is not Kind.MAIL:
            return False
        self.mail.append(self.opened(frame.body))
        if self.acknowledges:
            await write_frame(self.session, Frame(Kind.MAIL_ACK, frame.number))
        return True

    def opened(self, data: bytes) -> Message:
        return verify(data, MESSAGE_TYPES[type_of(data)], signer=self.broker)

    def submit_of(self, digest: bytes, plain_bytes: int, **changes: Any) -> Submit:
        fields = {
            "message_id": secrets.token_bytes(16), "market": self.market.terms.name,
            "submission": secrets.token_bytes(16), "task": "blobs", "step": 1, "snapshot": digest,
            "plain_bytes": plain_bytes, "buy": True, "ask": 0, "sell": True, "buy_groups": (), "sell_groups": (),
            "issued_ms": now_ms(), **changes,
        }  # fmt: skip
        return Submit(**fields)

    def packed(self, tensors: dict[str, Tensor], codec: str = "none", **changes: Any) -> tuple[Path, bytes]:
        """A parcel of these tensors, whatever they are, and its manifest's digest."""
        path = self.folder / secrets.token_hex(4)
        names = {"market": self.market.terms.name, "task": "blobs", "step": 1, **changes}
        with unittest.mock.patch("torch.isfinite", torch.ones_like):  # an honest agent's own gate
            manifest = pack(tensors, path, codec=codec, zstd=False, salt=bytes(16), **names)
        return path, digest_of(manifest)

    async def submitted(self, tensors: dict[str, Tensor], **changes: Any) -> Submit:
        """Submits and uploads tensors.

        :raises Refused: with the broker's code
        """
        path, digest = self.packed(tensors)
        submit = self.submit_of(digest, path.stat().st_size, **changes)
        await self.asked(submit)
        await self.upload(submit.submission, path, digest)
        return submit

    async def asked(self, message: Message) -> Message:
        """:raises Refused: with the broker's code"""
        reply = await self.ask(message)
        if isinstance(reply, Refusal):
            raise Refused(reply.sentence, code=reply.code)
        return reply

    async def parcel_stream(self, opening: Upload | Fetch) -> Stream:
        """:raises Refused: with the broker's code"""
        stream = await self.transport.open(self.broker, PARCELS)
        await write_frame(stream, Frame(Kind.REQUEST, 1, sign(self.identity, opening)))
        reply = self.opened((await read_frame(stream)).body)
        if isinstance(reply, Refusal):
            await stream.close()
            raise Refused(reply.sentence, code=reply.code)
        return stream

    async def upload(self, submission: bytes, path: Path, digest: bytes) -> None:
        """:raises Refused: with the broker's code"""
        stream = await self.parcel_stream(Upload(secrets.token_bytes(16), submission))
        outgoing = Outgoing.create(
            self.folder / secrets.token_hex(4), path, identity=self.identity, receiver=self.broker_keys,
            market=self.market.terms.name, broker=self.broker, purpose="offer", trade=submission,
            manifest_digest=digest, issued_ms=now_ms(), expires_ms=now_ms() + 60_000,
        )  # fmt: skip
        await send_parcel(stream, outgoing)

    async def close(self) -> None:
        await self.transport.close()


Join = Callable[[str], Awaitable[Client]]


async def refused(client: Client, message: Message) -> str:
    """The code of the refusal that this message gets; its sentence must be one."""
    reply = await client.ask(message)
    assert isinstance(reply, Refusal), reply
    assert len(reply.sentence) > 15 and "/" not in reply.sentence
    return reply.code


async def refused_upload(client: Client, tensors: dict[str, Tensor], **changes: Any) -> tuple[str, str]:
    """Code and sentence of the refusal that a parcel of these tensors gets."""
    try:
        await client.submitted(tensors, **changes)
    except Refused as error:
        return error.code, str(error)
    raise AssertionError("the broker took it")


async def gone(stream: Stream) -> bool:
    """Whether the other end hangs up, whatever it sends before."""
    try:
        while True:
            await asyncio.wait_for(stream.read_exactly(1), 10)
    except ConnectionLost:
        return True


def tensors_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


async def a_report(join: Join, ask: int | None = 0) -> tuple[Client, Client, GainReport, Submit]:
    """Buyer, seller (with this standing ask) and the report on which the buyer may bid."""
    seller, buyer = await join("seller"), await join("buyer")
    await seller.submitted(tensors_of(right()), ask=ask)
    await appraisal_of(seller)
    submit = await buyer.submitted(tensors_of(left()))
    (report,) = await appraisal_of(buyer)
    return buyer, seller, report, submit


async def appraisal_of(client: Client) -> list[GainReport]:
    while not isinstance(mail := await client.next_mail(), Appraisal):
        pass
    return [verify(data, GainReport, signer=client.broker) for data in mail.reports]


def bid_on(buyer: Client, report: GainReport, **changes: Any) -> Bid:
    fields = {
        "message_id": NEW(16), "market": report.market, "broker": buyer.broker, "trade": report.trade,
        "delivery": report.delivery, "amount": CREDIT, "expires_ms": now_ms() + 60_000, **changes,
    }  # fmt: skip
    return Bid(**fields)
