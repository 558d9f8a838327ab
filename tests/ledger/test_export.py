"""Exports: exact amounts, books that balance, and texts from strangers that do nothing."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest
from audit_examples import SignedBench

from p2pmarket.ledger.agent_schema import AgentTrade
from p2pmarket.ledger.balances import HistoryRow
from p2pmarket.ledger.export import credits, journal_beancount, journal_csv, ledger_beancount, ledger_csv
from p2pmarket.units import CREDIT

NASTY = [
    '=cmd|" /C calc"!A0', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", 'quote " and \\ backslash',
    "two\nlines\r\nmore", "a,b;c", "option \"title\" \"x\"\n2020-01-01 open Assets:Mine", "\x00\x1b[31m", "ä€😀", "",
]  # fmt: skip

POSTING = re.compile(r"  ([A-Z][A-Za-z0-9-]*(?::[A-Z0-9][A-Za-z0-9-]*)+)  (-?\d+\.\d{6}) CREDIT")
STRING = r'"(?:[^"\\\n]|\\["\\])*"'
LINE = re.compile(
    rf"; .*|option {STRING} {STRING}|\d{{4}}-\d\d-\d\d commodity CREDIT|  [a-z]+: {STRING}"
    rf"|\d{{4}}-\d\d-\d\d \* {STRING} {STRING}"
)
OPEN = re.compile(r"(\d{4}-\d\d-\d\d) open ([A-Z][A-Za-z0-9:-]*) CREDIT")
BALANCE = re.compile(r"(\d{4}-\d\d-\d\d) balance ([A-Z][A-Za-z0-9:-]*)  (-?\d+\.\d{6}) CREDIT")


def balances_of(text: str) -> dict[str, Decimal]:
    """Reads beancount as beancount would, as far as this needs it: every line is known, every transaction sums to
    zero, every account is opened before its use, every assertion holds. The balances at the end."""
    opened: dict[str, str] = {}
    balances: defaultdict[str, Decimal] = defaultdict(Decimal)
    pending, day = Decimal(), ""
    for line in text.splitlines():
        if match := POSTING.fullmatch(line):
            account, amount = match[1], Decimal(match[2])
            assert opened[account] <= day
            pending += amount
            balances[account] += amount
            continue
        assert pending == 0, f"the transaction before {line!r} does not balance"
        if match := OPEN.fullmatch(line):
            assert match[2] not in opened and match[2].split(":")[0] in {
                "Assets",
                "Liabilities",
                "Equity",
                "Income",
                "Expenses",
            }
            opened[match[2]] = match[1]
        elif match := BALANCE.fullmatch(line):
            assert match[1] > day and balances[match[2]] == Decimal(match[3])
        elif line:
            assert LINE.fullmatch(line), line
            day = line[:10] if " * " in line[:14] else day
    assert pending == 0
    return balances


@pytest.fixture
def rows(tmp_path: Path) -> tuple[SignedBench, list[HistoryRow]]:
    bench = SignedBench(tmp_path / "ledger.sqlite", 4)
    bench.every_state()
    bench.grow(60)
    for memo in NASTY:
        bench.ledger.grant(bench.third.peer_id, 1, memo, bench.id())
    bench.ledger.grant(bench.broker.peer_id, 3 * CREDIT, "to cover a refund", bench.id())
    found = bench.ledger.history()
    accounts = bench.ledger.accounts()
    bench.ledger.close()
    bench.balances = {row.peer: row.balance for row in accounts}  # type: ignore[attr-defined]
    return bench, found


def test_csv_of_a_ledger_has_every_movement_exactly(rows: tuple[SignedBench, list[HistoryRow]]) -> None:
    bench, found = rows
    lines = list(csv.DictReader(io.StringIO(ledger_csv(found), newline="")))
    assert len(lines) == len(found)
    totals: defaultdict[str, Decimal] = defaultdict(Decimal)
    for line, row in zip(lines, found, strict=True):
        totals[line["account"]] += Decimal(line["change"])
        assert (Decimal(line["change"]) * CREDIT, int(line["leaf"])) == (row.change, row.index)
        assert line["memo"].removeprefix("'") == row.memo
        assert totals[line["account"]] == Decimal(line["balance"])
    assert {peer: total * CREDIT for peer, total in totals.items()} == bench.balances  # type: ignore[attr-defined]


def test_no_cell_of_a_strangers_text_is_a_formula(rows: tuple[SignedBench, list[HistoryRow]]) -> None:
    for line in csv.reader(io.StringIO(ledger_csv(rows[1]), newline="")):
        for cell in line:
            if cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r")):
                Decimal(cell)
    memos = {line["memo"] for line in csv.DictReader(io.StringIO(ledger_csv(rows[1]), newline=""))}
    assert {'\'=cmd|" /C calc"!A0', "'@SUM(A1)", "'  =1", "'+1", "a,b;c"} <= memos


def test_beancount_of_a_ledger_balances(rows: tuple[SignedBench, list[HistoryRow]]) -> None:
    bench, found = rows
    text = ledger_beancount(found, bench.broker.peer_id, "digits")
    books = balances_of(text)
    expected = dict(bench.balances)  # type: ignore[attr-defined]
    assert -books.pop("Income:Fees") * CREDIT == expected.pop(bench.broker.peer_id)
    assert books.pop("Equity:Issued") * CREDIT == sum(bench.balances.values())  # type: ignore[attr-defined]
    assert {name.split(":")[-1]: -amount * CREDIT for name, amount in books.items()} == expected
    assert "Assets:Mine" not in books
    assert len(re.findall(r"^\S+ open ", text, re.MULTILINE)) == 1 + 1 + len(expected), "no memo opens an account"


def test_the_parser_of_this_test_sees_books_that_do_not_balance(rows: tuple[SignedBench, list[HistoryRow]]) -> None:
    """Control."""
    bench, found = rows
    found[5] = dataclasses.replace(found[5], change=found[5].change + 1)
    with pytest.raises(AssertionError):
        balances_of(ledger_beancount(found, bench.broker.peer_id, "digits"))


def agent_trade(role: str, **changes: object) -> AgentTrade:
    trade = AgentTrade(
        broker="12D3KooWBroker", trade=b"t" * 16, role=role, partner="12D3KooWPartner", snapshot=None, gain=None,
        report=None, bid=None, bid_amount=0, bid_expires_ms=0, ask=None, price=5_000_001, fee=10, receipt=b"r",
        noted_ms=5,
        settled_ms=10**12, learnt_ms=10**12, fetched_ms=None, loaded_ms=None, refund=None, refunded_ms=None, reason="",
    )  # fmt: skip
    return dataclasses.replace(trade, **changes)  # type: ignore[arg-type]


TRADES = [
    agent_trade("seller"),
    agent_trade("buyer", settled_ms=10**11),
    agent_trade("buyer", refunded_ms=2 * 10**12, reason="=not-fetched"),
    agent_trade("buyer", receipt=None, reason="no-overlap"),
    agent_trade("seller", broker="12D3KooWOther", partner=""),
]


def test_csv_of_a_journal() -> None:
    lines = list(csv.DictReader(io.StringIO(journal_csv(TRADES), newline="")))
    changes = [(line["role"], line["change"], line["stage"], line["reason"]) for line in lines]
    assert changes == [
        ("buyer", "-5.000001", "bought", ""),
        ("seller", "4.999991", "sold", ""),
        ("buyer", "-5.000001", "refunded", "'=not-fetched"),
        ("seller", "4.999991", "sold", ""),
    ]


def test_beancount_of_a_journal_balances() -> None:
    books = balances_of(journal_beancount(TRADES, "12D3KooWMe"))
    assert books["Assets:Credits:12D3KooWBroker"] == Decimal("-0.000010")
    assert books["Assets:Credits:12D3KooWOther"] == Decimal("4.999991")
    assert books["Expenses:Parameters"] == Decimal("5.000001") and books["Income:Parameters"] == Decimal("-10.000002")


def test_nothing_to_export() -> None:
    assert balances_of(ledger_beancount([], "b", "m")) == {}
    assert balances_of(journal_beancount([], "p")) == {}
    assert len(ledger_csv([]).splitlines()) == len(journal_csv([]).splitlines()) == 1


def test_amounts_are_exact() -> None:
    assert [credits(micro) for micro in (0, 1, -1, 10**6, 2**53 - 1)] == [
        "0.000000", "0.000001", "-0.000001", "1.000000", "9007199254.740991",
    ]  # fmt: skip
