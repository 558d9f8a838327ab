"""A ledger or an agent's journal as other programs read it: CSV for spreadsheets, beancount for double-entry books.

Knows: rows that were read from a file, and the two formats. Refuses to know: where rows come from and where the text
goes. Pure functions that do not fail on any row.

Amounts are credits with all six decimals, so nothing is rounded. Texts from strangers are escaped: in CSV a cell that a
spreadsheet would take for a formula gets an apostrophe before it (OWASP, "CSV Injection"); in beancount quotes and
backslashes are escaped and what is no printable character becomes a space. Beancount's signs are those of double-entry
bookkeeping: what a broker owes its agents is a liability and negative.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from itertools import groupby

from p2pmarket.ledger.agent_schema import AgentTrade
from p2pmarket.ledger.balances import HistoryRow
from p2pmarket.ledger.leaves import Granted, Opened
from p2pmarket.units import CREDIT

COMMODITY = "CREDIT"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Posting = tuple[str, int]
"""An account of beancount and micro-credits."""


def ledger_csv(rows: Iterable[HistoryRow]) -> str:
    """A broker's ledger: one line for each movement on one account, oldest first."""
    header = ("time", "leaf", "kind", "trade", "account", "change", "balance", "memo")
    return _csv(
        header,
        (
            (
                _time(row.at_ms), str(row.index), row.kind, row.trade.hex() if row.trade else "", row.peer,
                credits(row.change), credits(row.balance), _safe(row.memo),
            )
            for row in rows
        ),
    )  # fmt: skip


def ledger_beancount(rows: Sequence[HistoryRow], broker: str, market: str) -> str:
    """A broker's ledger: one transaction for each leaf that moved money, and every balance asserted at the end.

    Agents' balances are liabilities, issued credit is the operator's equity, fees are income.
    """

    def account(peer: str) -> str:
        return "Income:Fees" if peer == broker else f"Liabilities:Agents:{peer}"

    entries: list[_Entry] = []
    balances: dict[str, int] = {}
    for _, group in groupby(rows, key=lambda row: row.index):
        lines = list(group)
        first = lines[0]
        postings = [(account(row.peer), -row.change) for row in lines]
        if first.kind in (Opened.KIND, Granted.KIND):
            postings.append(("Equity:Issued", first.change))
        balances |= {account(row.peer): -row.balance for row in lines}
        entries.append(_Entry(first.at_ms, first.kind, first.memo, first.trade, f"leaf {first.index}", postings))
    return _beancount(f"the ledger of broker {broker}, market {market}", entries, balances)


def journal_csv(trades: Iterable[AgentTrade]) -> str:
    """An agent's settled trades, oldest first; `change` is what each did to its balance when it was settled."""
    header = ("time", "broker", "trade", "role", "partner", "price", "fee", "change", "stage", "reason")
    return _csv(
        header,
        (
            (
                _time(trade.settled_ms or trade.noted_ms), trade.broker, trade.trade.hex(), trade.role, trade.partner,
                credits(trade.price), credits(trade.fee), credits(_change(trade)), trade.stage, _safe(trade.reason),
            )
            for trade in _settled(trades)
        ),
    )  # fmt: skip


def journal_beancount(trades: Iterable[AgentTrade], peer: str) -> str:
    """An agent's purchases and sales, and the refunds it was told of.

    Credit that the agent was issued is not in its journal, so the assets need an opening entry of their own.
    """
    entries = []
    for trade in _settled(trades):
        assets = f"Assets:Credits:{trade.broker}"
        if trade.role == "buyer":
            kind, postings = "bought", [(assets, -trade.price), ("Expenses:Parameters", trade.price)]
        else:
            postings = [(assets, trade.price - trade.fee), ("Expenses:Fees", trade.fee)]
            kind, postings = "sold", [*postings, ("Income:Parameters", -trade.price)]
        about = f"partner {trade.partner}"
        entries.append(_Entry(trade.settled_ms or trade.noted_ms, kind, "", trade.trade, about, postings))
        if trade.refunded_ms is not None:
            back = [(account, -amount) for account, amount in postings]
            entries.append(_Entry(trade.refunded_ms, "refunded", trade.reason, trade.trade, about, back))
    return _beancount(f"the journal of agent {peer}", sorted(entries, key=lambda entry: entry.at_ms), {})


def credits(micro: int) -> str:
    """Micro-credits as exact credits: an optional minus, digits, a point, six digits."""
    whole, fraction = divmod(abs(micro), CREDIT)
    return f"{'-' if micro < 0 else ''}{whole}.{fraction:06d}"


class _Entry:
    """One transaction of beancount."""

    def __init__(
        self, at_ms: int, kind: str, memo: str, trade: bytes | None, about: str, postings: list[Posting]
    ) -> None:
        self.at_ms = at_ms
        words = [_quoted(kind), _quoted(memo or about)]
        lines = [f"{_day(at_ms)} * {' '.join(words)}", f"  time: {_quoted(_time(at_ms))}"]
        lines += [f"  about: {_quoted(about)}"] + ([f"  trade: {_quoted(trade.hex())}"] if trade else [])
        lines += [f"  {account}  {credits(amount)} {COMMODITY}" for account, amount in postings]
        self.accounts = [account for account, _ in postings]
        self.text = "\n".join(lines)


def _beancount(title: str, entries: Sequence[_Entry], balances: dict[str, int]) -> str:
    """Accounts opened on the day before their first use, transactions, and balances asserted on the day after all."""
    lines = [f"; {' '.join(title.split())}", 'option "title" ' + _quoted(title), ""]
    if entries:
        first = min(entry.at_ms for entry in entries)
        lines += [f"{_day(first)} commodity {COMMODITY}"]
        used = sorted({account for entry in entries for account in entry.accounts})
        lines += [f"{_day(first)} open {account} {COMMODITY}" for account in used] + [""]
        lines += [entry.text + "\n" for entry in entries]
        after = max(entry.at_ms for entry in entries) + 24 * 3600 * 1000
        lines += [
            f"{_day(after)} balance {account}  {credits(amount)} {COMMODITY}" for account, amount in balances.items()
        ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _safe(text: str) -> str:
    """A stranger's text as a cell that no spreadsheet runs."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _quoted(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _settled(trades: Iterable[AgentTrade]) -> list[AgentTrade]:
    settled = [trade for trade in trades if trade.receipt is not None]
    return sorted(settled, key=lambda trade: trade.settled_ms or trade.noted_ms)


def _change(trade: AgentTrade) -> int:
    return -trade.price if trade.role == "buyer" else trade.price - trade.fee


def _time(at_ms: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=at_ms)).isoformat(
        timespec="milliseconds"
    )


def _day(at_ms: int) -> str:
    return _time(at_ms)[:10]
