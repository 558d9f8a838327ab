"""`ledger audit` and `ledger salvage`: a file checked, alone and against what others hold; nothing is written."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from p2pmarket.cli.books import check_peer_id, check_readable, ledger_in, moment, read_files, warn_rolled_back
from p2pmarket.cli.show import print_rows, printable
from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import DataError, SettingsError
from p2pmarket.ledger.audit import audit_file, salvage_file
from p2pmarket.ledger.outside import read_outside
from p2pmarket.units import counted

_WHOSE = {"given": "as you named it", "identity": "by the identity file beside it", "file": "as the file itself claims"}


def audit(given: argparse.Namespace) -> int:
    """Re-derives everything from the file alone; exit code 1 where something differs."""
    path, broker, whose = _file_and_owner(given)
    shown = read_files([given.receipts], (".receipt", ".checkpoint")) if given.receipts else []
    if given.receipts and not shown:
        raise DataError(f"{given.receipts} holds no *.receipt and no *.checkpoint; name the folder where they are")
    report = audit_file(path, broker, shown)
    if shown and report.ok and not read_outside(shown, report.broker, report.market)[0]:
        raise DataError(
            f"{given.receipts} holds no receipt and no checkpoint of broker {report.broker} for market "
            f"{report.market}, so nothing was compared; by itself the ledger verifies"
        )
    problems = [{"kind": problem.kind, "sentence": problem.sentence} for problem in report.found]
    if given.json:
        print(
            json.dumps(
                {
                    "verified": report.ok, **report.figures, "market": report.market or None,
                    "broker": report.broker or None, "broker_from": whose, "shown": len(shown),
                    "problems": problems, "notes": list(report.notes),
                }
            )
        )  # fmt: skip
        warn_rolled_back(path.parent)
        return 0 if report.ok else 1
    for problem in report.found:
        print(printable(f"{problem.kind}: {problem.sentence}"))
    for note in report.notes:
        print(printable(f"note: {note}"))
    found = counted(len(problems), "problem")
    if not report.examined:
        print(f"nothing further was examined: {found}")
        return 1
    print(printable(f"market {report.market}, broker {report.broker} ({_WHOSE[whose]})"))
    print(f"root {report.root.hex()}")
    sizes = (
        f"{counted(report.leaves, 'leaf', 'leaves')}, {counted(report.trades, 'trade')}, "
        f"{counted(report.accounts, 'account')}, {len(shown)} shown from outside"
    )
    print(f"{sizes}: " + ("all is well" if report.ok else found))
    warn_rolled_back(path.parent)
    return 0 if report.ok else 1


def salvage(given: argparse.Namespace) -> int:
    """What agents' receipts tell that this ledger has forgotten; writes nothing."""
    path, broker, _ = _file_and_owner(given)
    shown = read_files(given.receipts, (".receipt",))
    found, report = salvage_file(path, broker, shown)
    if "owner" in {problem.kind for problem in report.found}:
        raise SettingsError(f"{path} is not the ledger of broker {report.broker}; name its own file, or its own broker")
    if not any(held.receipt for held in read_outside(shown, report.broker, report.market)[0]):
        named = ", ".join(map(str, given.receipts))
        raise DataError(
            f"there is no receipt of broker {report.broker} for market {report.market} in {named}; "
            "ask its agents for what `p2pmarket trades --receipts` writes"
        )
    missing = [
        {
            "trade": receipt.trade.hex(),
            "time": moment(receipt.settled_ms),
            "buyer": receipt.buyer,
            "seller": receipt.seller,
            "price": receipt.price,
            "fee": receipt.fee,
        }
        for receipt in found.missing
    ]
    accounts = [
        {"account": peer, "in_this_ledger": now, "with_them": then}
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
        print(printable(f"note: {note}"))
    title, amounts = "settlements that are not in this ledger", ("price", "fee")
    print_rows(missing, as_json=False, title=title, empty="nothing is missing", amounts=amounts)
    if missing:
        print_rows(accounts, as_json=False, title="balances", empty="", amounts=("in_this_ledger", "with_them"))
        print("Grants, refunds and deliveries after the copy are in no receipt: ask the agents for their refunds.")
        print("Begin a new market and grant these balances there; this log must not go on (docs/settlement.md).")
    return 0


def _file_and_owner(given: argparse.Namespace) -> tuple[Path, str | None, str]:
    """A ledger's file, the peer id of its broker where something but the file says it, and what does."""
    path = given.file.expanduser() if given.file else ledger_in(given.state)
    if given.file and path.is_file():
        check_readable(path)
    if given.broker:
        check_peer_id(given.broker)
        return path, given.broker, "given"
    key = path.parent / "identity.key"
    if not given.file and key.exists():
        return path, Identity.load(key).peer_id, "identity"
    return path, None, "file"
