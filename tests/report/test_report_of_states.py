"""The pages of real state folders: a broker's ledger and an agent's journal, in use and damaged."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from market_folders import CREDIT, untraded

from p2pmarket.crypto.keys import Identity
from p2pmarket.ledger.agent_journal import AgentJournal
from p2pmarket.ledger.journal import Ledger
from p2pmarket.report.find import story_of
from p2pmarket.report.page import write_page
from p2pmarket.report.story import Chart, Story, Table, Words
from p2pmarket.report.words import credits, short_names


def tables(story: Story) -> dict[str, Table]:
    return {part.title: part for one in story.sections for part in one.parts if isinstance(part, Table)}


def charts(story: Story) -> dict[str, Chart]:
    return {part.title: part for one in story.sections for part in one.parts if isinstance(part, Chart)}


def test_a_brokers_page_is_what_its_ledger_says(market: Path) -> None:
    story, identity = story_of(market / "broker"), Identity.load(market / "broker" / "identity.key")
    with Ledger.open(market / "broker" / "ledger.sqlite", identity, None) as ledger:
        rows, accounts = ledger.trades(), ledger.accounts()
    paid = [row for row in rows if row.receipt]
    assert len(paid) >= 2
    moved = credits(sum(row.price for row in paid))
    assert story.title == "Market spirals"
    assert story.headline == (
        f"2 agents with an account: {len(paid)} of {len(rows)} appraised trades settled, {moved} credits moved; "
        "the ledger verifies."
    )
    assert [row[1] for row in tables(story)["Accounts"].rows] == [credits(account.balance) for account in accounts]
    assert all(not drawn.empty for drawn in charts(story).values())
    last = {line.label: line.y[-1] for line in charts(story)["Balances over time"].marks}  # type: ignore[union-attr]
    assert last["the broker"] == pytest.approx(sum(row.fee for row in paid) / CREDIT)


def test_an_agents_page_is_what_its_journal_says(market: Path) -> None:
    story, identity = story_of(market / "left"), Identity.load(market / "left" / "identity.key")
    with AgentJournal.open(market / "left" / "journal.sqlite", identity.peer_id) as journal:
        settled = [row for row in journal.trades() if row.receipt]
    bought = [row for row in settled if row.role == "buyer"]
    sold = [row for row in settled if row.role == "seller"]
    assert bought and sold
    spent, earned = sum(row.price for row in bought), sum(row.price - row.fee for row in sold)
    assert [tile.value for tile in story.tiles[:3]] == [f"{len(bought)}", f"{len(sold)}", credits(earned - spent)]
    (partner,) = tables(story)["Partners"].rows
    assert (partner[1], partner[2], partner[4], partner[5]) == (
        f"{len(bought)}", credits(spent), f"{len(sold)}", credits(earned),
    )  # fmt: skip
    money = {line.label: line.y[-1] for line in charts(story)["Paid and earned"].marks}  # type: ignore[union-attr]
    assert money["paid"] == pytest.approx(spent / CREDIT)
    assert all(row[6] == "0.10" for row in tables(story)["The largest trades"].rows if row[2] == "this agent")


def test_an_agents_page_is_named_as_its_folder_and_as_others_name_the_agent(market: Path) -> None:
    peers = {name: Identity.load(market / name / "identity.key").peer_id for name in ("left", "right")}
    names = {name: f"…{peer[-8:]}" for name, peer in peers.items()}
    story = story_of(market / "left")
    assert story.title == f"left (agent {names['left']})"
    assert [row[0] for row in tables(story)["Partners"].rows] == [names["right"]]
    assert {*names.values()} < {row[0] for row in tables(story_of(market / "broker"))["Accounts"].rows}


def test_two_peers_that_end_alike_are_told_apart() -> None:
    names = short_names(["a" * 30 + "b" * 8, "c" * 30 + "b" * 8])
    assert sorted(names.values(), key=len) == ["…" + "b" * 8, "c" * 30 + "b" * 8]


def test_promises_are_compared_with_the_next_visit(market: Path) -> None:
    drawn = charts(story_of(market / "broker"))["Promised, and what came of it with the training until the next visit"]
    (dots,) = drawn.marks
    assert "dots above it do not show that too little was promised" in drawn.caption
    assert drawn.diagonal and len(dots.x) >= 1 and all(promised > 0 for promised in dots.x)


def test_a_page_can_be_made_while_the_files_are_in_use(market: Path) -> None:
    identity = Identity.load(market / "left" / "identity.key")
    with AgentJournal.open(market / "left" / "journal.sqlite", identity.peer_id) as journal:
        assert story_of(market / "left").tiles
        assert journal.trades()


def test_reading_changes_nothing(market: Path) -> None:
    files = [market / "left" / "journal.sqlite", market / "broker" / "ledger.sqlite"]
    before = [file.read_bytes() for file in files]
    names = sorted(path.name for path in (market / "left").iterdir())
    story_of(market / "left"), story_of(market / "broker")
    assert [file.read_bytes() for file in files] == before
    assert sorted(path.name for path in (market / "left").iterdir()) == names


def test_an_empty_market_has_pages_too(tmp_path: Path) -> None:
    untraded(tmp_path)
    broker, agent = story_of(tmp_path / "broker"), story_of(tmp_path / "left")
    assert broker.headline == "1 agent with an account: no trades; the ledger verifies."
    assert agent.headline == "No trades yet: the journal is empty."
    assert write_page(broker, "") and write_page(agent, "")


def test_a_ledger_that_does_not_verify_is_told_first(market: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    shutil.copytree(market / "broker", folder)
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        connection.execute("UPDATE accounts SET balance = balance + 1 WHERE balance > 1000000")
    story = story_of(folder)
    assert "THE LEDGER DOES NOT VERIFY" in story.headline
    assert story.warnings and story.warnings[0].startswith("The ledger does not verify: ")
    assert story.tiles[-1].tone == "bad"


def test_a_broker_that_is_not_trusted_any_more_is_told_first(market: Path, tmp_path: Path) -> None:
    folder = tmp_path / "left"
    shutil.copytree(market / "left", folder)
    with AgentJournal.open(folder / "journal.sqlite", Identity.load(folder / "identity.key").peer_id) as journal:
        journal.accuse("broker<b>", "it signed two histories of its ledger", b"one", b"two")
    story = story_of(folder)
    assert len(story.warnings) == 1 and "signed two histories" in story.warnings[0]
    (told,) = story.sections[-1].parts
    assert isinstance(told, Words) and told.tone == "bad"
    assert "broker&lt;b&gt;" in write_page(story, "")
