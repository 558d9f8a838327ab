"""`ledger`: a broker's accounts, read from (and, for grants and limits, written to) its folder, also while it runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from p2pmarket.cli.show import print_rows, short
from p2pmarket.crypto.keys import Identity, public_key_of
from p2pmarket.errors import DataError, MalformedMessage, SettingsError
from p2pmarket.files import write_whole
from p2pmarket.ledger.audit import audit_file, salvage_file
from p2pmarket.ledger.export import ledger_beancount, ledger_csv
from p2pmarket.ledger.journal import Ledger
from p2pmarket.limits import MAX_RECORD_BYTES
from p2pmarket.units import format_credits, parse_credits


def balances(given: argparse.Namespace) -> int:
    """Every account: its balance, what of it is held, and what it may spend in a day."""
    with open_ledger(given.state) as ledger:
        rows = [
            {
                "account": row.peer,
                "balance": format_credits(row.balance),
                "held": format_credits(row.held),
                "day limit": None if row.day_limit is None else format_credits(row.day_limit),
                "micro_credits": row.balance,
            }
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


def limit(given: argparse.Namespace) -> int:
    """Sets what an account may spend in 24 hours; works beside a running broker."""
    try:
        amount = None if given.credits == "none" else parse_credits(given.credits)
        public_key_of(given.peer)
    except (ValueError, MalformedMessage) as error:
        raise SettingsError(str(error)) from None
    with open_ledger(given.state) as ledger:
        ledger.set_day_limit(given.peer, amount)
    if given.json:
        print(json.dumps({"account": given.peer, "day_limit": amount}))
    else:
        said = "as the terms say" if amount is None else f"at most {format_credits(amount)} credits in 24 hours"
        print(f"{given.peer} may spend {said}")
    return 0


def audit(given: argparse.Namespace) -> int:
    """Re-derives everything from the file alone; exit code 1 where something differs."""
    path, broker, whose = _file_and_owner(given)
    shown = read_files([given.receipts], (".receipt", ".checkpoint")) if given.receipts else []
    report = audit_file(path, broker, shown)
    problems = [{"kind": problem.kind, "sentence": problem.sentence} for problem in report.found]
    if given.json:
        print(
            json.dumps(
                {
                    "verified": report.ok, "leaves": report.leaves, "accounts": report.accounts,
                    "trades": report.trades, "issued": report.minted, "root": report.root.hex(),
                    "market": report.market, "broker": report.broker, "broker_from": whose, "shown": len(shown),
                    "problems": problems, "notes": list(report.notes),
                }
            )
        )  # fmt: skip
        return 0 if report.ok else 1
    for problem in report.found:
        print(f"{problem.kind}: {problem.sentence}")
    for note in report.notes:
        print(f"note: {note}")
    print(f"market {report.market}, broker {report.broker} ({_WHOSE[whose]})")
    print(f"root {report.root.hex()}")
    counted = (
        f"{report.leaves} leaves, {report.trades} trades, {report.accounts} accounts, {len(shown)} shown from outside"
    )
    print(f"{counted}: " + ("all is well" if report.ok else f"{len(problems)} problems"))
    return 0 if report.ok else 1


def export(given: argparse.Namespace) -> int:
    """The ledger's movements for other programs."""
    with open_ledger(given.state) as ledger:
        rows, market = ledger.history(), ledger.market
    if given.format == "csv":
        text = ledger_csv(rows)
    else:
        text = ledger_beancount(rows, Identity.load(given.state.expanduser() / "identity.key").peer_id, market)
    write_text(text, given.out)
    return 0


def salvage(given: argparse.Namespace) -> int:
    """What agents' receipts tell that this ledger has forgotten; writes nothing."""
    path, broker, _ = _file_and_owner(given)
    shown = read_files(given.receipts, (".receipt",))
    found, report = salvage_file(path, broker, shown)
    missing = [
        {
            "trade": receipt.trade.hex(),
            "time": moment(receipt.settled_ms),
            "buyer": receipt.buyer,
            "seller": receipt.seller,
            "price": format_credits(receipt.price),
            "fee": format_credits(receipt.fee),
        }
        for receipt in found.missing
    ]
    accounts = [
        {"account": peer, "in this ledger": format_credits(now), "with them": format_credits(then)}
        for peer, (now, then) in sorted(found.balances.items())
    ]
    if given.json:
        print(
            json.dumps(
                {
                    "missing": missing,
                    "balances": {peer: {"now": now, "then": then} for peer, (now, then) in found.balances.items()},
                    "notes": list(report.notes),
                    "verified": report.ok,
                }
            )
        )
        return 0
    for note in report.notes:
        print(f"note: {note}")
    print_rows(missing, as_json=False, title="settlements that are not in this ledger", empty="nothing is missing")
    if missing:
        print_rows(accounts, as_json=False, title="balances", empty="")
        print("Grants, refunds and deliveries after the copy are in no receipt: ask the agents for their refunds.")
        print("Begin a new market and grant these balances there; this log must not go on (docs/settlement.md).")
    return 0


def read_files(paths: Sequence[Path], endings: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """Names and bytes of files, and of those with these endings in folders.

    :raises DataError: one cannot be read
    """
    found = []
    try:
        for path in paths:
            given = path.expanduser()
            inside = sorted(given.iterdir()) if given.is_dir() else [given]
            for file in inside:
                if file == given or file.suffix in endings:
                    found.append((file.name, read_signed(file)))
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    return found


def read_signed(path: Path) -> bytes:
    """A signed record's bytes; no more of a longer file than shows that it is none.

    :raises OSError: it cannot be read
    """
    with path.open("rb") as file:
        return file.read(MAX_RECORD_BYTES + 1)


def write_text(text: str, out: Path | None) -> None:
    """Text to a file, readable by its owner alone, or to stdout.

    :raises DiskFull, MachineFault: the file cannot be written
    """
    if out is None:
        sys.stdout.write(text)
    else:
        write_whole(out.expanduser(), text.encode(), "the export")


_WHOSE = {"given": "as you named it", "identity": "by the identity file beside it", "file": "as the file itself claims"}


def _file_and_owner(given: argparse.Namespace) -> tuple[Path, str | None, str]:
    """A ledger's file, the peer id of its broker where something but the file says it, and what does."""
    folder: Path = given.state.expanduser()
    path = given.file.expanduser() if given.file else folder / "ledger.sqlite"
    if not given.file and not path.exists():
        raise SettingsError(f"{folder} holds no broker's ledger; name the broker's folder with --state")
    if given.broker:
        try:
            public_key_of(given.broker)
        except MalformedMessage as error:
            raise SettingsError(str(error)) from None
        return path, given.broker, "given"
    key = folder / "identity.key"
    if not given.file and key.exists():
        return path, Identity.load(key).peer_id, "identity"
    return path, None, "file"


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
