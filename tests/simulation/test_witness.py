"""Pasts that change: rolled-back and copied ledgers and journals, two histories, forged heads; and honest ones."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from market_examples import CREDIT, OpenMarket, blobs, left, right, terms
from peers import eventually, identity_of

from p2pmarket.broker_node import desk, witness
from p2pmarket.crypto.signing import sign, verify
from p2pmarket.errors import Refused, RuleBroken
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.heads import Head, head_of
from p2pmarket.ledger.journal import Ledger
from p2pmarket.messages import Bid, Checkpoint, Consistency, Welcome
from p2pmarket.network.table import head_key
from p2pmarket.node import recovery
from p2pmarket.node import witness as rules
from p2pmarket.node.agent import AsyncAgent
from p2pmarket.node.gossip import Gossip
from p2pmarket.node.strategy import Strategy
from p2pmarket.simulation.market import MarketInMemory
from p2pmarket.units import now_ms

SELL, BUY = Strategy(buy=False), Strategy(sell=False)


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are exchanged when a test says so."""
    monkeypatch.setattr(Gossip, "start", lambda self: None)


async def exchange(agent: AsyncAgent) -> None:
    """One exchange of an agent that is no newcomer: it hears of the broker's newest head first."""
    agent._gossip._fresh = agent._link.joined
    await agent._gossip.exchange()


async def distrusted(agent: AsyncAgent) -> dict[str, str]:
    return await agent._journal.run(AgentJournal.distrusted)


def contradiction() -> Any:
    return pytest.raises(RuleBroken, check=lambda error: error.code == "contradiction")


async def joins(market: MarketInMemory, name: str, strategy: Strategy | None = None) -> AsyncAgent:
    agent = await market.start_agent(name, strategy, timeout_seconds=20)
    await agent.ready()
    return agent


async def copied(open_market: OpenMarket, market: MarketInMemory, *agents: str) -> MarketInMemory:
    """A second world on a copy of the broker's folder, with some of the agents; both worlds share the table."""
    for name in agents:
        await market.stop_agent(name)
    await market.stop_broker()
    world = open_market("copy", rounds="continuous")
    for name in ("broker", *agents):
        shutil.copytree(market.folder / name, world.folder / name)
    world.network._table = market.network._table
    await market.start_broker()
    return world


# ---- brokers that show two pasts ------------------------------------------------------------------------------------


async def test_two_histories_of_one_length_are_found_by_one_exchange(
    open_market: OpenMarket, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_market(rounds="continuous") as market:
        one, _ = await joins(market, "one"), await joins(market, "two")
        async with await copied(open_market, market, "two") as world:
            two = await joins(world, "two")
            await exchange(one)
            await exchange(two)
            assert await distrusted(one) == await distrusted(two) == {}, "a copy that nobody wrote to is no lie yet"
            await joins(market, "three")
            await joins(world, "three")
            await exchange(one)
            with contradiction():
                await exchange(two)
            broker = market.running.peer_id
            assert list(await distrusted(two)) == [broker]
            (case,) = await two._journal.run(AgentJournal.evidence)
            heads = [verify(body, Checkpoint, signer=broker) for body in case.bodies]
            assert heads[0].size == heads[1].size and heads[0].root != heads[1].root, "a proof for anybody's eyes"
            before = await world.balances()
            result = await two.trade(left())
            assert "stops trading with the broker" in result.problem and "two histories" in result.problem
            await world.stop_agent("two")
            two = await world.start_agent("two", timeout_seconds=5)
            with pytest.raises(RuleBroken, match="two histories"):
                await two.ready()
            assert await world.balances() == before
            await two._journal.run(AgentJournal.trust_again, broker)

            async def trusts() -> bool:
                return two._link.connected

            await eventually(trusts)
            with contradiction():
                await exchange(one)
    caplog.clear()


async def test_a_fork_of_another_length_stops_one_broker_and_convicts_the_other(
    open_market: OpenMarket, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_market(rounds="continuous") as market:
        one, _ = await joins(market, "one"), await joins(market, "two")
        async with await copied(open_market, market, "two") as world:
            two = await joins(world, "two")
            await joins(market, "three")
            for name in ("three", "four"):
                await joins(world, name)
            await exchange(two)
            await exchange(one)  # sees a larger log than its broker has: shows it, and that broker knows that it is old

            async def stopped() -> bool:
                return market.running.broker._witness.rolled_back

            await eventually(stopped)
            assert "suspected" in caplog.text and await distrusted(one) == {}, "no proof is no contradiction"
            assert "older than what it signed before" in (await one.trade(left())).problem
            market.network._table[head_key("blobs", market.running.peer_id)].pop(two.peer_id)
            old = await one._journal.run(AgentJournal.proven_head, market.running.peer_id, "blobs")
            assert old is not None
            market.network.plant(head_key("blobs", one.broker), one.peer_id, old.body, now_ms() + 60_000)
            with contradiction():
                await exchange(two)
            (case,) = await two._journal.run(AgentJournal.evidence)
            assert case.reason == rules.NO_PROOF and len(case.bodies) == 3
            assert verify(case.bodies[2], Consistency, signer=two.broker).first == old.size
    caplog.clear()


async def test_a_broker_that_signs_bad_proofs_is_found_at_its_welcome(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = witness.proof_since

    def lies(kind: str) -> Any:
        def tell(ledger: Ledger, shown: Any) -> tuple[bytes, tuple[bytes, ...]]:
            checkpoint, proof = real(ledger, shown)
            if kind == "no proof":
                return checkpoint, (bytes(32), *proof[1:])
            known = verify(checkpoint, Checkpoint, signer=None)
            changes: Any = {
                "other root": {"size": shown.size, "root": bytes(32)},
                "smaller": {"size": shown.size - 1},
                "other market": {"market": "letters"},
            }
            return sign(ledger._identity, dataclasses.replace(known, **changes[kind])), proof

        return tell

    for kind, sentence in (
        ("no proof", rules.NO_PROOF),
        ("other root", rules.TWO_HISTORIES),
        ("smaller", rules.SMALLER),
        ("other market", ""),
    ):
        async with open_market(kind, rounds="continuous") as market:
            await joins(market, "one")
            await market.stop_agent("one")
            await joins(market, "two")
            with monkeypatch.context() as patch:
                patch.setattr(desk, "proof_since", lies(kind))
                one = await market.start_agent("one", timeout_seconds=1)
                with pytest.raises(RuleBroken, match=sentence or "this head is of broker"):
                    await one.ready()
            assert list((await distrusted(one)).values()) == ([sentence] if sentence else [])
            evidence = await one._journal.run(AgentJournal.evidence)
            assert [verify(case.bodies[-1], Welcome, signer=market.running.peer_id).balance for case in evidence] == [
                10 * CREDIT
            ] * bool(sentence)
    caplog.clear()


async def test_what_strangers_put_under_the_key_is_passed_over(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_market(rounds="continuous") as market:
        one, two = await joins(market, "one"), await joins(market, "two")
        await exchange(two)
        key, stranger = head_key("blobs", one.broker), identity_of("stranger")
        genuine = verify(market.network.values(key)[two.peer_id], Checkpoint, signer=one.broker)
        junk = [
            b"", b"noise" * 50, sign(stranger, dataclasses.replace(genuine, root=bytes(32))),
            sign(stranger, dataclasses.replace(genuine, broker=stranger.peer_id)),
            sign(market.identity("broker"), dataclasses.replace(genuine, market="letters", root=bytes(32))),
            *(sign(stranger, dataclasses.replace(genuine, size=size)) for size in range(300)),
        ]  # fmt: skip
        bent = bytearray(market.network.values(key)[two.peer_id])
        bent[-1] ^= 1
        for number, value in enumerate([*junk, bytes(bent)]):
            market.network.plant(key, f"stranger {number}", value, now_ms() + 60_000)
        await exchange(one)
        verified: list[bytes] = []

        def counted(body: bytes, *about: str) -> Head:
            verified.append(body)
            return head_of(body, *about)

        monkeypatch.setattr(rules, "head_of", counted)
        writes = market.network.writes[one.peer_id]
        await exchange(one)
        assert market.network.writes[one.peer_id] == writes + 1, "its own question about the newest head"
        assert 0 < len(verified) <= rules.MAX_VERIFIED, "what does not claim to be the broker's costs no signature"
        assert await distrusted(one) == {}
        assert await market.network.peer(one.peer_id).publish(key, junk[2], now_ms() + 1000) is False  # type: ignore[union-attr]


async def test_heads_are_exchanged_by_themselves(open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    async with open_market(rounds="continuous") as market:
        one = await joins(market, "one")
        key = head_key("blobs", one.broker)

        async def published() -> bool:
            return one.peer_id in market.network.values(key)

        await eventually(published)


# ---- brokers whose ledger is old ------------------------------------------------------------------------------------


async def test_an_old_ledger_refuses_everybody_until_the_newer_one_is_back(
    open_market: OpenMarket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_market(rounds="continuous") as market:
        ledger = market.folder / "broker" / "ledger.sqlite"
        seller, buyer = await joins(market, "seller", SELL), await joins(market, "buyer", BUY)
        await market.stop_broker()
        shutil.copy(ledger, tmp_path / "backup")
        await market.start_broker()
        assert (await seller.trade(right())).problem == ""
        assert len((await buyer.trade(left())).bought) == 1
        await market.stop_broker()
        shutil.copy(ledger, tmp_path / "newer")
        shutil.copy(tmp_path / "backup", ledger)
        await market.start_broker()

        async def refused() -> bool:
            return market.running.broker._witness.rolled_back

        await eventually(refused)  # the buyer shows its receipt, which is newer than any checkpoint it had
        evidence = json.loads((market.folder / "broker" / "rolled-back.json").read_text())
        assert evidence["shown_size"] > evidence["ledger_size"]
        for again in range(2):
            assert "is older than what it signed before" in (await buyer.trade(left())).problem
            with pytest.raises(Refused, match="must restore the newer one") as caught:
                await (await market.start_agent("newcomer", timeout_seconds=5)).ready()
            assert caught.value.code == "rolled-back"
            await market.stop_agent("newcomer")
            if not again:  # also after a restart
                await market.stop_broker()
                await market.start_broker()
        await market.stop_broker()
        with Ledger.open(ledger, market.identity("broker"), "blobs") as opened, \
                Ledger.open(tmp_path / "backup", market.identity("broker"), "blobs") as backup:  # fmt: skip
            assert opened.size() == backup.size() and opened.accounts() == backup.accounts(), "nothing moved"
        assert "p2pmarket ledger salvage" in caplog.text
        shutil.copy(tmp_path / "newer", ledger)
        await market.start_broker()

        async def back() -> bool:
            return buyer._link.connected

        await eventually(back)
        assert (await buyer.trade(left())).problem == "" and await distrusted(buyer) == await distrusted(seller) == {}
        assert not (market.folder / "broker" / "rolled-back.json").exists()
        assert len(list((market.folder / "broker").glob("rolled-back.*.json"))) == 1, "the evidence is put aside"
    caplog.clear()


async def test_an_older_copy_that_lacks_mail_alone_goes_on(
    open_market: OpenMarket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No leaf is lost, so no history changes; mail is numbered on, else the agent would pass over all of it."""
    async with open_market(rounds="continuous") as market:
        agent, ledger = await joins(market, "agent"), market.folder / "broker" / "ledger.sqlite"
        await market.stop_broker()
        shutil.copy(ledger, tmp_path / "backup")
        await market.start_broker()
        assert (await agent.trade(left())).problem == ""
        await market.stop_broker()
        shutil.copy(tmp_path / "backup", ledger)
        await market.start_broker()
        assert (await agent.trade(left())).problem == "" and await distrusted(agent) == {}
        assert "was a backup restored?" in caplog.text and not market.running.broker._witness.rolled_back


async def test_a_forged_head_stops_nobody_else(open_market: OpenMarket, caplog: pytest.LogCaptureFixture) -> None:
    async with open_market(rounds="continuous") as market:
        honest = await joins(market, "honest")
        broker = market.identity("broker")
        head = Checkpoint("blobs", broker.peer_id, 1000, bytes(32), 0)
        for forged in (
            sign(identity_of("stranger"), head),
            sign(broker, dataclasses.replace(head, market="letters")),
            sign(broker, Bid(bytes(16), "blobs", broker.peer_id, bytes(16), bytes(32), 1, 1)),
            b"no record",
        ):
            await market.start_agent("forger", timeout_seconds=0.5)
            journal = market.agent("forger")._journal
            await market.agent("forger").ready()

            def plant(journal: AgentJournal, forged: bytes = forged) -> None:
                with journal.transaction() as connection:
                    connection.execute("UPDATE heads SET body = ?", (forged,))

            await journal.run(plant)
            await market.stop_agent("forger")
            forger = await market.start_agent("forger", timeout_seconds=0.5)
            with pytest.raises(Refused):
                await forger.ready()
            await market.stop_agent("forger")
            shutil.rmtree(market.folder / "forger" / "journal.sqlite", ignore_errors=True)
            (market.folder / "forger" / "journal.sqlite").unlink()
        assert not market.running.broker._witness.rolled_back
        assert (await honest.trade(left())).problem == ""
        real = market.identity("broker")
        assert real.peer_id == honest.broker

        def show(ledger: Ledger) -> None:
            market.running.broker._witness.check(ledger, sign(real, head))

        with pytest.raises(RuleBroken, match="is older than"):  # the control: its own word does stop it
            await market.running.ledger.run(show)
    caplog.clear()


async def test_an_honest_broker_is_never_accused(open_market: OpenMarket, caplog: pytest.LogCaptureFixture) -> None:
    async with open_market(rounds="continuous") as market:
        seller, buyer = await joins(market, "seller", SELL), await joins(market, "buyer", BUY)
        for number in range(6):
            assert (await seller.trade(right())).problem == ""
            assert (await buyer.trade(left())).problem == ""
            await asyncio.gather(exchange(seller), exchange(buyer))
            await market.stop_broker()
            await market.start_broker()
            if number % 2:
                await market.stop_agent("buyer")
                buyer = await joins(market, "buyer", BUY)
                await market.stop_agent("seller")
                seller = await joins(market, "seller", SELL)
        for agent in (seller, buyer):
            await exchange(agent)
            assert await distrusted(agent) == {} and await agent._journal.run(AgentJournal.evidence) == []
            assert len(await agent._journal.run(AgentJournal.heads, agent.broker, "blobs")) == 1
        assert not list((market.folder / "broker").glob("rolled-back*"))
        assert "did not know all" not in caplog.text and "suspected" not in caplog.text


async def test_another_broker_of_the_market_is_joined(
    open_market: OpenMarket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_market(rounds="continuous") as market:
        other = MarketInMemory(
            terms(rounds="continuous"), {"blobs": blobs(400, 99)}, tmp_path / "other", network=market.network
        )
        async with other:
            agent = await joins(market, "agent")
            first, second = agent.broker, {market.running.peer_id, other.running.peer_id} - {agent.broker}
            await agent._link.accuse(first, "it lies", b"its words")

            async def moved() -> bool:
                return agent._link.connected and {agent.broker} == second

            await eventually(moved)
            assert (await agent.trade(left())).problem == ""
    caplog.clear()


# ---- agents whose journal is old ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backup", ["old", "none", "before the bid"])
async def test_an_old_journal_is_rebuilt_and_nobody_is_accused(
    open_market: OpenMarket,
    tmp_path: Path,
    backup: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recovery, "MAX_ASKED", 2)
    monkeypatch.setattr(desk, "MAX_STATUS", 2)
    async with open_market(rounds="continuous") as market:
        seller, buyer = await joins(market, "seller"), await joins(market, "buyer")
        path = market.folder / "buyer" / "journal.sqlite"

        async def visits(count: int) -> None:
            nonlocal buyer
            for _ in range(count):
                assert (await seller.trade(right())).problem == ""
                assert len((await buyer.trade(left())).bought) == 1

        await visits(1)
        if backup == "before the bid":
            keep_bid = AgentJournal.keep_bid

            def keep(journal: AgentJournal, data: bytes) -> Bid:
                shutil.copy(path, tmp_path / "backup")
                return keep_bid(journal, data)

            monkeypatch.setattr(AgentJournal, "keep_bid", keep)
            await visits(1)
        else:
            await market.stop_agent("buyer")
            shutil.copy(path, tmp_path / "backup")
            buyer = await joins(market, "buyer")
            await visits(3)
        spent = await buyer._journal.run(AgentJournal.spent, 0)
        trades = {row.trade: (row.role, row.price, row.receipt) for row in await buyer._journal.run(AgentJournal.trades)
                  if row.receipt}  # fmt: skip
        await market.stop_agent("buyer")
        path.unlink()
        if backup != "none":
            shutil.copy(tmp_path / "backup", path)
        buyer = await joins(market, "buyer")
        assert await buyer._journal.run(AgentJournal.spent, 0) < spent, "the control: it is an old one"
        await buyer._recovery.learn(await buyer._link.ready(5))
        assert await buyer._journal.run(AgentJournal.spent, 0) == spent
        known = {row.trade: (row.role, row.price, row.receipt) for row in await buyer._journal.run(AgentJournal.trades)
                 if row.receipt}  # fmt: skip
        assert known == trades, "purchases and sales"
        assert await distrusted(buyer) == {}
        assert caplog.text.count("this journal did not know all") == 1
        assert (await buyer.trade(left())).problem == ""
        await exchange(buyer)
        assert await distrusted(buyer) == {} and caplog.text.count("did not know all") == 1


async def test_a_bid_that_an_old_journal_lost_is_answered(
    open_market: OpenMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It binds: it counts as spent from the moment it is known again, and its outcome is asked for."""
    from test_markets import LiveAsk

    async with open_market(rounds="continuous", ask_seconds=3) as market:
        seller = await joins(market, "seller", LiveAsk(price=None))
        assert (await seller.trade(right())).problem == ""
        buyer = await joins(market, "buyer", BUY)
        visit = asyncio.create_task(buyer.trade(left()))

        async def quoted() -> bool:
            return [trade.state for trade in await market.running.ledger.run(Ledger.trades)] == ["quoted"]

        await eventually(quoted)
        (row,) = await market.running.ledger.run(Ledger.trades)
        await market.stop_agent("buyer")
        await visit
        (market.folder / "buyer" / "journal.sqlite").unlink()
        buyer = await joins(market, "buyer", BUY)
        assert await buyer._journal.run(AgentJournal.spent, 0) == 0
        await buyer._recovery.learn(await buyer._link.ready(5))
        assert await buyer._journal.run(AgentJournal.spent, 0) == row.bid_amount > 0
        (intent,) = await buyer._journal.run(AgentJournal.unanswered, buyer.broker)
        assert intent.body == row.bid
        assert (await buyer.trade(left())).problem == ""
        lost = await buyer._journal.run(AgentJournal.trade, buyer.broker, row.trade)
        assert lost is not None and (lost.stage, lost.reason) == ("over", "no-ask")


async def test_two_copies_of_one_journal_take_turns(open_market: OpenMarket, tmp_path: Path) -> None:
    """Each learns at its start what the other did, so that neither spends twice what it may."""
    async with open_market(rounds="continuous") as market:
        seller, buyer = await joins(market, "seller", SELL), await joins(market, "buyer", BUY)
        folder = market.folder / "buyer"
        spent = []
        await market.stop_agent("buyer")
        shutil.copytree(folder, tmp_path / "twin")
        for _ in range(4):
            buyer = await joins(market, "buyer", BUY)
            assert (await seller.trade(right())).problem == ""
            assert len((await buyer.trade(left())).bought) == 1
            spent.append(await buyer._journal.run(AgentJournal.spent, 0))
            assert spent[-1] == 10 * CREDIT - (await market.balances())[buyer.peer_id]
            assert await distrusted(buyer) == {}
            await market.stop_agent("buyer")
            folder.rename(tmp_path / "other")
            (tmp_path / "twin").rename(folder)
            (tmp_path / "other").rename(tmp_path / "twin")
        assert spent == sorted(spent) and spent[0] < spent[-1]
