"""`ledger`: a broker's accounts, read from (and, for grants, written to) its state folder, also while it runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

from p2pmarket.cli.show import print_rows, short
from p2pmarket.crypto.keys import Identity, public_key_of
from p2pmarket.errors import MalformedMessage, SettingsError
from p2pmarket.ledger.journal import Ledger
from p2pmarket.units import format_credits, parse_credits


def balances(given: argparse.Namespace) -> int:
    """Every account and what it holds."""
    with open_ledger(given.state) as ledger:
        rows = [
            {"account": row.peer, "balance": format_credits(row.balance), "micro_credits": row.balance}
            for row in ledger.accounts()
        ]
    print_rows(rows, as_json=given.json, title="balances", empty="no accounts yet")
    return 0


def history(given: argparse.Namespace) -> int:
    """Every movement of money."""
    with open_ledger(given.state) as ledger:
        rows = [
            {
                "leaf": row.index,
                "time": moment(row.at_ms) if given.json else brief(moment(row.at_ms)),
                "kind": row.kind,
                "account": row.peer if given.json else short(row.peer),
                "change": format_credits(row.change),
                "balance": format_credits(row.balance),
                "memo": row.memo,
            }
            for row in ledger.history(given.peer)
        ]
    print_rows(rows, as_json=given.json, title="history", empty="no money has moved yet")
    return 0


def grant(given: argparse.Namespace) -> int:
    """Issues credit; works beside a running broker."""
    try:
        amount = parse_credits(given.amount)
        public_key_of(given.peer)
    except (ValueError, MalformedMessage) as error:
        raise SettingsError(str(error)) from None
    with open_ledger(given.state) as ledger:
        balance = ledger.grant(given.peer, amount, given.memo, secrets.token_bytes(16))
    if given.json:
        print(json.dumps({"account": given.peer, "granted": amount, "balance": balance}))
    else:
        print(f"granted {format_credits(amount)} to {given.peer}; it has {format_credits(balance)}")
    return 0


def verify(given: argparse.Namespace) -> int:
    """Recomputes everything from the log; exit code 1 where something differs."""
    with open_ledger(given.state, check=False) as ledger:
        report = ledger.verify()
    if given.json:
        print(json.dumps({"verified": report.ok, "leaves": report.leaves, "problems": list(report.problems)}))
    else:
        for problem in report.problems:
            print(problem)
        print(f"{report.leaves} leaves: " + ("all is well" if report.ok else f"{len(report.problems)} problems"))
    return 0 if report.ok else 1


@contextlib.contextmanager
def open_ledger(state: Path, *, check: bool = True) -> Iterator[Ledger]:
    """The ledger in a broker's state folder.

    :raises SettingsError: the folder holds none
    """
    folder = state.expanduser()
    path = folder / "ledger.sqlite"
    if not path.exists():
        raise SettingsError(f"{folder} holds no broker's ledger; name the broker's folder with --state")
    with Ledger.open(path, Identity.load(folder / "identity.key"), None, check=check) as ledger:
        yield ledger


def moment(at_ms: int) -> str:
    """UTC as people and spreadsheets read it."""
    from datetime import datetime, timezone

    return datetime.fromtimestamp(at_ms / 1000, timezone.utc).isoformat(timespec="seconds")


def brief(time: str) -> str:
    """A `moment` for a table: month, day and time, UTC."""
    return time[5:19].replace("T", " ")
