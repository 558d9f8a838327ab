"""Peers with identities that are the same in every run, and statements they sign; shared by the tests of all rooms."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

from p2pmarket.crypto.keys import Identity
from p2pmarket.crypto.signing import sign
from p2pmarket.messages import BrokerStatement
from p2pmarket.units import now_ms

QUARTER_HOUR_MS = 15 * 60 * 1000


def identity_of(name: str) -> Identity:
    """The identity of a test's peer, from its name."""
    return Identity(hashlib.sha256(name.encode()).digest())


def statement_of(
    identity: Identity,
    market: str = "digits",
    *,
    issued_ms: int | None = None,
    lives_ms: int = QUARTER_HOUR_MS,
    broker: str | None = None,
    addresses: tuple[str, ...] = (),
) -> bytes:
    """A signed BrokerStatement, honest unless `broker` names another peer."""
    issued_ms = now_ms() if issued_ms is None else issued_ms
    return sign(
        identity,
        BrokerStatement(
            market, broker or identity.peer_id, 1, "a test's broker", addresses, issued_ms, issued_ms + lives_ms
        ),
    )


async def eventually(
    holds: Callable[[], Awaitable[bool]], within_seconds: float = 20.0, *, every_seconds: float = 0.02
) -> None:
    """Waits for what another process brings about; fails when it does not."""

    async def ask() -> None:
        while not await holds():  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(every_seconds)

    await asyncio.wait_for(ask(), within_seconds)
