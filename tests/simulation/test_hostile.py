"""What an honest agent never says: each gets its code and a sentence, nothing moves, and the broker goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import (
    NEW,
    Client,
    Join,
    a_report,
    appraisal_of,
    bid_on,
    gone,
    refused,
    refused_upload,
    tensors_of,
)
from market_examples import CREDIT, OpenMarket, left, right
from peers import eventually, identity_of

from p2pmarket import limits
from p2pmarket.crypto.header import Expectation
from p2pmarket.crypto.signing import sign, type_of
from p2pmarket.errors import Refused
from p2pmarket.files import remove_tree
from p2pmarket.ledger.journal import Ledger
from p2pmarket.messages import (
    Accepted,
    Balance,
    BalanceRequest,
    Deal,
    Decline,
    Delivered,
    Done,
    Fetch,
    GainReport,
    Refusal,
    Status,
    StatusRequest,
    Upload,
    Welcome,
)
from p2pmarket.network.names import PARCELS, SESSIONS
from p2pmarket.network.session import write_frame
from p2pmarket.network.spool import Incoming, Outgoing
from p2pmarket.network.transfer import receive_parcel
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.units import now_ms
from p2pmarket.wire import Frame, Kind


@pytest.fixture
async def market(open_market: OpenMarket) -> AsyncIterator[MarketInMemory]:
    """A continuous market; at the end its books are in order."""
    async with open_market(rounds="continuous", opening_credit="10") as opened:
        yield opened
        assert await opened.problems() == ()
        balances = await opened.balances()
        assert sum(balances.values()) == 10 * CREDIT * sum(peer != opened.running.peer_id for peer in balances)


@pytest.fixture
async def join(market: MarketInMemory, tmp_path: Path) -> AsyncIterator[Join]:
    """`await join("name")`: a client that the broker welcomed."""
    clients: list[Client] = []

    async def make(name: str) -> Client:
        clients.append(Client(market, name, tmp_path))
        assert isinstance(await clients[-1].hello(), Welcome)
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


async def goes_on(client: Client) -> bool:
    return isinstance(await client.ask(BalanceRequest(NEW(16))), Balance)


# ---- Hello ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 99}, "wrong-version"),
        ({"market": "cifar"}, "unknown-market"),
        ({"keys": b"no keys"}, "malformed"),
    ],
)
async def test_a_hello_that_does_not_fit(
    market: MarketInMemory, join: Join, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    client = Client(market, "odd", tmp_path)
    reply = await client.hello(**changes)
    assert isinstance(reply, Refusal) and reply.code == code and len(reply.sentence) > 15
    await client.close()
    assert await goes_on(await join("another"))


async def test_a_hello_with_someone_elses_keys_or_signature(market: MarketInMemory, join: Join, tmp_path: Path) -> None:
    victim = await join("victim")
    client = Client(market, "thief", tmp_path)
    reply = await client.hello(keys=victim.keyring.statement)
    assert isinstance(reply, Refusal) and reply.code == "bad-signature"
    client.identity = victim.identity
    reply = await client.hello()
    assert isinstance(reply, Refusal) and reply.code == "bad-signature"
    client.identity = identity_of("thief")
    await client.close()
    assert await goes_on(victim)


async def test_a_full_market(open_market: OpenMarket, tmp_path: Path) -> None:
    async with open_market(max_agents=2) as market:
        clients = [Client(market, name, tmp_path) for name in ("one", "two", "three")]
        replies = [await client.hello() for client in clients]
        assert [type(reply) for reply in replies] == [Welcome, Welcome, Refusal]
        assert isinstance(replies[2], Refusal) and replies[2].code == "market-full"
        assert isinstance(await clients[0].hello(), Welcome)  # a member comes back
        for client in clients:
            await client.close()


# ---- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\0\0\0\1x", b"\0\0\0\x09" + bytes(9), b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 300],
    ids=["2^32 bytes", "short", "unknown kind", "http", "noise"],
)
@pytest.mark.parametrize("protocol", [SESSIONS, PARCELS])
async def test_garbage_ends_only_its_stream(
    market: MarketInMemory, join: Join, tmp_path: Path, garbage: bytes, protocol: str
) -> None:
    honest = await join("honest")
    stranger = Client(market, "stranger", tmp_path)
    stream = await stranger.transport.open(stranger.broker, protocol)
    await stream.write(garbage)
    if protocol == SESSIONS and garbage == b"\xff\xff\xff\xff":
        assert b"too-large" in await stream.read_exactly(150)
    assert await gone(stream)
    await stranger.close()
    assert await goes_on(honest)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\0\0\0\x09" + b"\x63" * 9])
async def test_garbage_inside_a_session_ends_it(market: MarketInMemory, join: Join, garbage: bytes) -> None:
    client, honest = await join("client"), await join("honest")
    await client.session.write(garbage)
    assert await gone(client.session)
    assert await goes_on(honest)
    assert isinstance(await client.hello(), Welcome)


async def test_acknowledging_mail_that_was_never_sent_ends_the_session(market: MarketInMemory, join: Join) -> None:
    client, honest = await join("client"), await join("honest")
    await write_frame(client.session, Frame(Kind.MAIL_ACK, 2**64 - 1))
    assert await gone(client.session)
    assert await goes_on(honest)


async def test_messages_that_a_broker_does_not_take(market: MarketInMemory, join: Join) -> None:
    client = await join("client")
    assert await refused(client, Done()) == "unknown-message"
    for data in (b"", b"\x03bid", secrets.token_bytes(300)):
        reply = client.opened(await client.ask_bytes(data))
        assert isinstance(reply, Refusal) and reply.code in ("malformed", "unknown-message", "bad-signature")
    forged = sign(identity_of("somebody"), BalanceRequest(NEW(16)))
    reply = client.opened(await client.ask_bytes(forged))
    assert isinstance(reply, Refusal) and reply.code == "bad-signature"
    assert await goes_on(client)


# ---- submissions and parcels ----------------------------------------------------------------------------------------


async def test_submissions_that_break_the_terms(market: MarketInMemory, join: Join) -> None:
    client = await join("client")
    digest = bytes(32)
    assert await refused(client, client.submit_of(digest, 1000, task="chess")) == "unknown-task"
    assert await refused(client, client.submit_of(digest, 1000, market="cifar")) == "unknown-market"
    assert await refused(client, client.submit_of(digest, 2**20 + 1)) == "too-large"
    old = now_ms() - (limits.MAX_MESSAGE_AGE_SECONDS + 1) * 1000
    assert await refused(client, client.submit_of(digest, 1000, issued_ms=old)) == "expired"
    assert await refused(client, client.submit_of(digest, 1000, issued_ms=now_ms() + 60_000)) == "expired"
    first = client.submit_of(digest, 1000)
    assert isinstance(await client.ask(first), Accepted)
    assert await refused(client, dataclasses.replace(first, message_id=NEW(16))) == "duplicate-submission"


async def test_submissions_per_hour(open_market: OpenMarket, tmp_path: Path) -> None:
    async with open_market(submissions_per_hour=2) as market:
        client = Client(market, "eager", tmp_path)
        await client.hello()
        submit = client.submit_of(bytes(32), 1000)
        data = sign(client.identity, submit)
        first = await client.ask_bytes(data)
        assert isinstance(await client.ask(client.submit_of(bytes(32), 1000)), Accepted)
        assert await refused(client, client.submit_of(bytes(32), 1000)) == "too-often"
        assert await client.ask_bytes(data) == first, "the same bytes, the same reply: it is not another submission"
        await client.close()


def changed(name: str, value: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors = tensors_of(left())
    tensors.pop(name, None)
    if value is not None:
        tensors[name] = value
    return tensors


@pytest.mark.parametrize(
    ("tensors", "word"),
    [
        (changed("layers.0.bias", torch.full((16,), float("nan"))), "layers.0.bias"),
        (changed("layers.0.bias", torch.full((16,), float("inf"))), "layers.0.bias"),
        (changed("layers.0.bias", torch.zeros(17)), "layers.0.bias"),
        (changed("layers.0.bias", torch.zeros(16, dtype=torch.float64)), "layers.0.bias"),
        (changed("layers.0.bias", None), "layers.0.bias"),
        (changed("extra", torch.zeros(3)), "extra"),
    ],
    ids=["nan", "inf", "shape", "dtype", "missing", "extra"],
)
async def test_a_snapshot_that_is_not_the_markets_model(
    market: MarketInMemory, join: Join, tensors: dict[str, torch.Tensor], word: str
) -> None:
    client, honest = await join("client"), await join("honest")
    code, sentence = await refused_upload(client, tensors)
    assert code == "bad-snapshot" and word in sentence
    await honest.submitted(tensors_of(right()))
    assert await appraisal_of(honest) == [], "what was refused is not in the book"


async def test_a_parcel_that_was_refused_is_awaited_no_longer(market: MarketInMemory, join: Join) -> None:
    client = await join("client")
    path, digest = client.packed(changed("extra", torch.zeros(3)))
    submit = client.submit_of(digest, path.stat().st_size)
    await client.asked(submit)
    copy = path.with_name("again")
    copy.write_bytes(path.read_bytes())
    with pytest.raises(Refused) as first:
        await client.upload(submit.submission, path, digest)
    with pytest.raises(Refused) as second:
        await client.upload(submit.submission, copy, digest)
    assert (first.value.code, second.value.code) == ("bad-snapshot", "unknown-submission")


async def test_a_codec_that_the_market_does_not_take(open_market: OpenMarket, tmp_path: Path) -> None:
    async with open_market(offer_codecs=["float16"]) as market:
        client = Client(market, "client", tmp_path)
        await client.hello()
        path, digest = client.packed(tensors_of(left()), codec="int8")
        submit = client.submit_of(digest, path.stat().st_size)
        await client.asked(submit)
        with pytest.raises(Refused, match="int8") as refusal:
            await client.upload(submit.submission, path, digest)
        assert refusal.value.code == "bad-snapshot"
        await client.close()


async def test_a_parcel_other_than_announced(market: MarketInMemory, join: Join) -> None:
    client = await join("client")
    path, digest = client.packed(tensors_of(left()))
    small = client.submit_of(digest, path.stat().st_size - 1)
    await client.asked(small)
    with pytest.raises(Refused) as refusal:
        await client.upload(small.submission, path, digest)
    assert refusal.value.code in ("too-large", "bad-seal")
    path, _ = client.packed(tensors_of(left()))
    other = client.submit_of(bytes(32), path.stat().st_size)
    await client.asked(other)
    with pytest.raises(Refused) as refusal:
        await client.upload(other.submission, path, bytes(32))  # the seal agrees with the submission, the bytes do not
    assert refusal.value.code == "bad-snapshot"
    path, digest = client.packed(tensors_of(left()), step=7)
    later = client.submit_of(digest, path.stat().st_size, step=8)
    await client.asked(later)
    with pytest.raises(Refused, match="step") as refusal:
        await client.upload(later.submission, path, digest)
    assert refusal.value.code == "bad-snapshot"
    assert await goes_on(client)


async def test_a_stranger_uploads(market: MarketInMemory, join: Join, tmp_path: Path) -> None:
    member = await join("member")
    submit = member.submit_of(bytes(32), 1000)
    await member.asked(submit)
    stranger = Client(market, "stranger", tmp_path)
    for submission in (submit.submission, NEW(16)):
        with pytest.raises(Refused) as refusal:
            await stranger.parcel_stream(Upload(NEW(16), submission))
        assert refusal.value.code == "unknown-submission"
    await stranger.close()
    assert len(market.running.broker._parcels._locks) == 0, "ids of strangers do not pile up"


async def test_a_parcel_that_has_arrived_is_not_taken_again(market: MarketInMemory, join: Join) -> None:
    client = await join("client")
    submit = await client.submitted(tensors_of(left()))
    await appraisal_of(client)
    with pytest.raises(Refused) as refusal:
        await client.parcel_stream(Upload(NEW(16), submit.submission))
    assert refusal.value.code == "already-here"


# ---- bids -----------------------------------------------------------------------------------------------------------


async def test_bids_that_are_refused_move_nothing(market: MarketInMemory, join: Join) -> None:
    buyer, seller, report, _ = await a_report(join)
    assert await refused(buyer, bid_on(buyer, report, delivery=bytes(31) + b"1")) == "wrong-delivery"
    assert await refused(buyer, bid_on(buyer, report, delivery=bytes(32))) == "nothing-to-buy"
    assert await refused(buyer, bid_on(buyer, report, trade=NEW(16))) == "unknown-trade"
    assert await refused(buyer, bid_on(buyer, report, market="cifar")) == "unknown-market"
    assert await refused(buyer, bid_on(buyer, report, broker=seller.peer_id)) == "wrong-broker"
    assert await refused(buyer, bid_on(buyer, report, expires_ms=now_ms() - 1)) == "expired"
    assert await refused(seller, bid_on(seller, report)) == "not-yours"
    assert await refused(seller, Decline(NEW(16), (report.trade,))) == "not-yours"
    forged = sign(seller.identity, bid_on(buyer, report))
    reply = buyer.opened(await buyer.ask_bytes(forged))
    assert isinstance(reply, Refusal) and reply.code == "bad-signature"
    assert set((await market.balances()).values()) <= {0, 10 * CREDIT}
    assert isinstance(await buyer.ask(bid_on(buyer, report)), Deal)


async def test_the_same_bid_again_gets_the_same_bytes_and_pays_once(market: MarketInMemory, join: Join) -> None:
    buyer, _, report, _ = await a_report(join)
    data = sign(buyer.identity, bid_on(buyer, report))
    first = await buyer.ask_bytes(data)
    balances = await market.balances()
    assert type_of(first) == Deal.TYPE
    assert await buyer.ask_bytes(data) == first
    assert await refused(buyer, bid_on(buyer, report)) == "wrong-state", "another bid on a trade that is settled"
    assert await market.balances() == balances
    await market.stop_broker()
    await market.start_broker()
    await buyer.hello()
    assert await buyer.ask_bytes(data) == first, "also from another process"
    assert await market.balances() == balances


async def test_one_bid_sent_many_times_at_once_pays_once(market: MarketInMemory, join: Join) -> None:
    buyer, _, report, _ = await a_report(join)
    data = sign(buyer.identity, bid_on(buyer, report))
    for number in range(2, 12):
        await write_frame(buyer.session, Frame(Kind.REQUEST, number + 100, data))
    first = await buyer.ask_bytes(data)
    assert all([await buyer.ask_bytes(data) == first for _ in range(3)])
    (trade,) = await market.running.ledger.run(Ledger.trades, buyer.peer_id, "settled")
    assert (await market.balances())[buyer.peer_id] == 10 * CREDIT - trade.price


async def test_a_bid_without_the_money(open_market: OpenMarket, tmp_path: Path) -> None:
    async with open_market(rounds="continuous", opening_credit="0") as market:
        clients: list[Client] = []

        async def join_poor(name: str) -> Client:
            clients.append(Client(market, name, tmp_path))
            await clients[-1].hello()
            return clients[-1]

        buyer, _, report, _ = await a_report(join_poor)
        assert await refused(buyer, bid_on(buyer, report)) == "insufficient-balance"
        for client in clients:
            await client.close()
        assert set((await market.balances()).values()) == {0}


# ---- deliveries -----------------------------------------------------------------------------------------------------


async def fetched(client: Client, report: GainReport, folder: Path) -> Path:
    stream = await client.parcel_stream(Fetch(NEW(16), report.trade))
    incoming = Incoming.open(folder)
    expected = Expectation(
        market=report.market, broker=client.broker, purpose="delivery", trade=report.trade, sender=client.broker,
        receiver=client.peer_id, manifest_digest=report.delivery, max_plain_bytes=2**20,
    )  # fmt: skip
    await receive_parcel(stream, incoming, expected, client.keyring, now_ms)
    await stream.close()
    return incoming.plain_path


async def fetch_code(client: Client, trade: bytes) -> str:
    with pytest.raises(Refused) as refusal:
        await client.parcel_stream(Fetch(NEW(16), trade))
    return refusal.value.code


async def test_a_delivery_is_its_buyers_and_only_after_it_was_paid(
    market: MarketInMemory, join: Join, tmp_path: Path
) -> None:
    buyer, seller, report, _ = await a_report(join)
    assert await fetch_code(buyer, report.trade) == "wrong-state"
    assert isinstance(await buyer.ask(bid_on(buyer, report)), Deal)
    assert await fetch_code(seller, report.trade) == "not-yours"
    assert await fetch_code(buyer, NEW(16)) == "unknown-trade"
    one, other = await fetched(buyer, report, tmp_path / "one"), await fetched(buyer, report, tmp_path / "two")
    assert one.read_bytes() == other.read_bytes()
    assert await refused(buyer, Delivered(NEW(16), report.trade, bytes(32))) == "wrong-delivery"
    assert await refused(seller, Delivered(NEW(16), report.trade, report.delivery)) == "not-yours"
    assert isinstance(await buyer.ask(Delivered(NEW(16), report.trade, report.delivery)), Done)
    assert await fetch_code(buyer, report.trade) == "wrong-state"


@pytest.mark.parametrize("by", ["buyer", "seller"])
@pytest.mark.parametrize("message", [Decline, Delivered])
async def test_a_used_message_id_does_not_remove_a_delivery(
    market: MarketInMemory, join: Join, tmp_path: Path, by: str, message: type
) -> None:
    """A reply that was stored for another message must bring no effect of this one: a buyer whose delivery is "lost"
    gets its money back."""
    buyer, seller, report, submit = await a_report(join)
    assert isinstance(await buyer.ask(bid_on(buyer, report)), Deal)
    client, used = (buyer, submit.message_id) if by == "buyer" else (seller, NEW(16))
    if by == "seller":
        await client.asked(client.submit_of(bytes(32), 1000, message_id=used))
    trick = Decline(used, (report.trade,)) if message is Decline else Delivered(used, report.trade, report.delivery)
    assert isinstance(await client.ask(trick), Accepted)
    balances = await market.balances()
    assert (await fetched(buyer, report, tmp_path / "one")).exists()
    assert await market.balances() == balances


async def test_a_delivery_is_kept_as_long_as_the_terms_say(open_market: OpenMarket, tmp_path: Path) -> None:
    """After that it is not sent and not kept; what nobody ever fetched any of is paid back."""
    ahead = [0]
    clients: list[Client] = []
    async with open_market(rounds="continuous", delivery_hours=0.01, clock=lambda: now_ms() + ahead[0]) as market:

        async def join_here(name: str) -> Client:
            clients.append(Client(market, name, tmp_path))
            await clients[-1].hello()
            return clients[-1]

        buyer, seller, report, _ = await a_report(join_here)
        assert isinstance(await buyer.ask(bid_on(buyer, report)), Deal)
        ahead[0] = 40_000
        assert await fetch_code(buyer, report.trade) == "expired"

        async def repaid() -> bool:
            return (await market.running.ledger.run(Ledger.trade, report.trade)).state == "refunded"

        await eventually(repaid)
        balances = await market.balances()
        assert balances[buyer.peer_id] == balances[seller.peer_id] == 10 * CREDIT
        assert await fetch_code(buyer, report.trade) == "expired"
        for client in clients:
            await client.close()


async def test_a_delivery_of_the_longest_term_is_not_sealed_for_a_moment_more(
    open_market: OpenMarket, tmp_path: Path
) -> None:
    """Every look at this clock is a millisecond later than the one before."""
    looks = itertools.count(now_ms())
    async with open_market(rounds="continuous", delivery_hours=168, clock=lambda: next(looks)) as market:
        buyer, seller = Client(market, "buyer", tmp_path), Client(market, "seller", tmp_path)
        clients = {"buyer": buyer, "seller": seller}

        async def join_here(name: str) -> Client:
            await clients[name].hello()
            return clients[name]

        _, _, report, _ = await a_report(join_here)
        assert isinstance(await buyer.ask(bid_on(buyer, report)), Deal)
        await (await buyer.parcel_stream(Fetch(secrets.token_bytes(16), report.trade))).close()
        sealed = Outgoing.load(
            tmp_path / "market" / "broker" / "deliveries" / report.trade.hex() / "sealed", market.identity("broker")
        )
        week_ms = limits.MAX_PARCEL_AGE_SECONDS * 1000
        assert sealed.context.expires_ms - sealed.context.issued_ms == week_ms
        for client in clients.values():
            await client.close()


async def test_a_fetch_that_waits_for_another_until_the_time_is_over_gets_no_refund(
    open_market: OpenMarket, tmp_path: Path
) -> None:
    """The buyer, which may have everything already, keeps one fetch open so that the next finds the folder gone."""
    ahead = [0]
    clients: list[Client] = []
    async with open_market(rounds="continuous", delivery_hours=0.01, clock=lambda: now_ms() + ahead[0]) as market:

        async def join_here(name: str) -> Client:
            clients.append(Client(market, name, tmp_path))
            await clients[-1].hello()
            return clients[-1]

        buyer, _, report, _ = await a_report(join_here)
        assert isinstance(await buyer.ask(bid_on(buyer, report)), Deal)
        balances = await market.balances()
        first = await buyer.parcel_stream(Fetch(secrets.token_bytes(16), report.trade))
        second = asyncio.create_task(fetch_code(buyer, report.trade))
        lock = market.running.broker._parcels._lock(report.trade)

        async def queued() -> bool:
            return bool(lock._waiters)

        await eventually(queued)
        ahead[0] = 40_000
        remove_tree(tmp_path / "market" / "broker" / "deliveries" / report.trade.hex())
        await first.close()
        assert await second == "expired"
        assert await market.balances() == balances
        for client in clients:
            await client.close()


async def test_a_delivery_that_the_broker_lost_is_refunded(market: MarketInMemory, join: Join, tmp_path: Path) -> None:
    buyer, _, report, _ = await a_report(join)
    before = {**await market.balances(), market.running.peer_id: 0}
    assert isinstance(await buyer.ask(bid_on(buyer, report)), Deal)
    remove_tree(tmp_path / "market" / "broker" / "deliveries" / report.trade.hex())
    assert await fetch_code(buyer, report.trade) == "lost-delivery"
    assert await market.balances() == before
    assert await fetch_code(buyer, report.trade) == "wrong-state"


# ---- mail and status ------------------------------------------------------------------------------------------------


async def test_mail_comes_again_until_it_is_acknowledged(market: MarketInMemory, join: Join) -> None:
    client = await join("client")
    client.acknowledges = False
    await client.submitted(tensors_of(left()))
    await appraisal_of(client)
    first = client.mail[-1]
    await client.hello()
    assert await client.next_mail() == first
    client.acknowledges = True
    await client.hello()
    assert await client.next_mail() == first
    assert await goes_on(client)
    await client.hello(last_mail=1)
    assert await market.running.ledger.run(Ledger.mail_after, client.peer_id, 0) == []


async def test_the_second_session_of_an_agent_ends_the_first(market: MarketInMemory, join: Join) -> None:
    client = await join("client")
    first = client.session
    await client.hello()
    assert await gone(first)
    assert await goes_on(client)
    assert market.running.broker.agents == 1


async def test_status_tells_only_ones_own_trades(market: MarketInMemory, join: Join) -> None:
    buyer, seller, report, _ = await a_report(join)
    stranger = await join("stranger")
    for client, count in ((buyer, 1), (seller, 1), (stranger, 0)):
        reply = await client.ask(StatusRequest(NEW(16), ()))
        assert isinstance(reply, Status) and len(reply.trades) == count
    reply = await stranger.ask(StatusRequest(NEW(16), (report.trade,)))
    assert isinstance(reply, Status) and reply.trades == ()


async def test_reports_run_out(open_market: OpenMarket, tmp_path: Path) -> None:
    clients: list[Client] = []
    ahead = [0]
    async with open_market(rounds="continuous", bid_seconds=30, clock=lambda: now_ms() + ahead[0]) as market:

        async def join_here(name: str) -> Client:
            clients.append(Client(market, name, tmp_path))
            await clients[-1].hello()
            return clients[-1]

        buyer, _, report, _ = await a_report(join_here)
        ahead[0] = 31_000
        assert await refused(buyer, bid_on(buyer, report)) in ("expired", "wrong-state")
        folder = tmp_path / "market" / "broker" / "deliveries" / report.trade.hex()

        async def over() -> bool:
            trades = await market.running.ledger.run(Ledger.trades, buyer.peer_id)
            return [trade.state for trade in trades] == ["expired"] and not folder.exists()

        await eventually(over)
        for client in clients:
            await client.close()
