"""A session's frames: requests and replies, mail, heartbeats, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from peers import identity_of

from p2pmarket import limits
from p2pmarket.errors import ConnectionLost, MalformedMessage, TooLarge
from p2pmarket.network.memory import MemoryNetwork
from p2pmarket.network.session import Session, read_frame, write_frame
from p2pmarket.network.transport import Stream
from p2pmarket.wire import Frame, Kind


@pytest.fixture
async def pair(memory_network: MemoryNetwork) -> AsyncIterator[tuple[Stream, Stream]]:
    """Both ends of a stream."""
    arrived: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def hold(stream: Stream) -> None:
        arrived.set_result(stream)
        await over.wait()

    one, other = (memory_network.join(identity_of(name).peer_id) for name in ("one", "other"))
    await other.serve("session", hold)
    stream = await one.open(other.peer_id, "session")
    yield stream, await arrived
    over.set()
    await one.close()
    await other.close()


async def echo(body: bytes) -> bytes:
    return body[::-1]


async def ended(session: Session) -> BaseException:
    with pytest.raises((ConnectionLost, MalformedMessage, TooLarge)) as error:
        await session.run()
    return error.value


async def test_requests_are_answered_in_any_order(pair: tuple[Stream, Stream]) -> None:
    turn = asyncio.Event()

    async def slow_first(body: bytes) -> bytes:
        if body == b"first":
            await turn.wait()
        else:
            turn.set()
        return body

    asking, answering = Session(pair[0]), Session(pair[1], on_request=slow_first)
    running = [asyncio.create_task(ended(session)) for session in (asking, answering)]
    replies = await asyncio.gather(asking.request(b"first"), asking.request(b"second"))
    assert replies == [b"first", b"second"]
    await asking.close()
    assert all(isinstance(error, ConnectionLost) for error in await asyncio.gather(*running))


async def test_a_session_that_ends_fails_what_waits_for_it(pair: tuple[Stream, Stream]) -> None:
    asking = Session(pair[0])
    running = asyncio.create_task(ended(asking))
    waiting = [asyncio.create_task(asking.request(b"x", 20)) for _ in range(3)]
    assert (await read_frame(pair[1])).body == b"x"
    await pair[1].close()
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, ConnectionLost)
    await running
    with pytest.raises(ConnectionLost):
        await asking.request(b"too late")
    with pytest.raises(ConnectionLost):
        await asking.send_mail(1, b"too late")


async def test_closing_while_a_request_is_written_loses_no_exception(pair: tuple[Stream, Stream]) -> None:
    """The other end reads nothing, so the request waits to be written when the session ends."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    asking = Session(pair[0])
    big = [asyncio.create_task(asking.request(bytes(limits.MAX_RECORD_BYTES), 20)) for _ in range(8)]
    while len(asking._waiting) < 8:  # noqa: ASYNC110 - the tasks have begun after a step or two
        await asyncio.sleep(0)
    await asking.close()
    outcomes = await asyncio.gather(*big, return_exceptions=True)
    assert all(isinstance(outcome, ConnectionLost) for outcome in outcomes)
    del outcomes, big
    import gc

    gc.collect()
    assert not complaints


async def test_no_reply_in_time(pair: tuple[Stream, Stream]) -> None:
    asking = Session(pair[0])
    with pytest.raises(ConnectionLost, match="did not answer"):
        await asking.request(b"x", 0.01)
    assert asking._waiting == {}


async def test_mail_is_heard_in_order_and_acknowledged(pair: tuple[Stream, Stream]) -> None:
    heard: list[tuple[int, bytes]] = []
    acknowledged: asyncio.Queue[int] = asyncio.Queue()

    async def hear(number: int, body: bytes) -> None:
        heard.append((number, body))
        await agent.acknowledge(number)

    agent = Session(pair[0], on_mail=hear)
    broker = Session(pair[1], on_request=echo, on_ack=acknowledged.put)
    running = [asyncio.create_task(ended(session)) for session in (agent, broker)]
    for number in (4, 7):
        await broker.send_mail(number, b"mail")
    assert [await acknowledged.get(), await acknowledged.get()] == [4, 7]
    assert heard == [(4, b"mail"), (7, b"mail")] and broker.mailed == 7
    await broker.close()
    await asyncio.gather(*running)


@pytest.mark.parametrize(
    "frame",
    [Frame(Kind.REQUEST, 1, b"x"), Frame(Kind.MAIL, 1, b"x"), Frame(Kind.MAIL_ACK, 1)],
    ids=["request", "mail", "acknowledgement"],
)
async def test_what_an_end_does_not_take_ends_the_session(pair: tuple[Stream, Stream], frame: Frame) -> None:
    async def never(number: int) -> None:
        raise AssertionError("nothing was sent that could be acknowledged")

    session = Session(pair[0], on_ack=never)
    await write_frame(pair[1], frame)
    assert isinstance(await ended(session), MalformedMessage)


async def test_too_many_requests_at_once_end_the_session(pair: tuple[Stream, Stream]) -> None:
    async def never(body: bytes) -> bytes:
        await asyncio.get_running_loop().create_future()
        return body

    session = Session(pair[0], on_request=never)
    for number in range(limits.MAX_SESSION_REQUESTS_IN_FLIGHT + 1):
        await write_frame(pair[1], Frame(Kind.REQUEST, number, b"x"))
    assert isinstance(await ended(session), TooLarge)
    assert not session._answering


async def test_a_handler_that_fails_ends_its_session_only(
    pair: tuple[Stream, Stream], caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(body: bytes) -> bytes:
        raise ZeroDivisionError

    session = Session(pair[0], on_request=broken)
    await write_frame(pair[1], Frame(Kind.REQUEST, 1, b"x"))
    assert isinstance(await ended(session), ConnectionLost)
    assert "a request of" in caplog.text


async def test_heartbeats_and_their_answers(pair: tuple[Stream, Stream]) -> None:
    session = Session(pair[0], heartbeat_seconds=0.01)
    running = asyncio.create_task(ended(session))
    assert (await read_frame(pair[1])).kind is Kind.PING
    await write_frame(pair[1], Frame(Kind.PING))
    while (await read_frame(pair[1])).kind is not Kind.PONG:
        pass
    await session.close()
    await running


async def test_a_silent_end_is_given_up() -> None:
    network = MemoryNetwork(stall_seconds=0.02)
    one, other = (network.join(identity_of(name).peer_id) for name in ("one", "other"))

    async def silent(stream: Stream) -> None:
        await asyncio.get_running_loop().create_future()

    await other.serve("session", silent)
    error = await ended(Session(await one.open(other.peer_id, "session")))
    assert "sent nothing" in str(error)
    await one.close()
    await other.close()
