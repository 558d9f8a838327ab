"""`ledger`: a broker's accounts, read from (and, for grants and limits, written to) its folder, also while it runs."""

from __future__ import annotations

import argparse
import json
import secrets
from typing import Any

from p2pmarket.cli.books import (
    brief,
    check_peer_id,
    moment,
    open_ledger,
    refuse_rolled_back,
    warn_rolled_back,
    write_text,
)
from p2pmarket.cli.show import print_rows, short
from p2pmarket.crypto.curve import is_public_key
from p2pmarket.crypto.keys import Identity
from p2pmarket.errors import PeerFault, SettingsError
from p2pmarket.ledger.export import ledger_beancount, ledger_csv
from p2pmarket.ledger.journal import Ledger
from p2pmarket.limits import MAX_TEXT_CHARACTERS
from p2pmarket.units import format_credits, parse_credits


def balances(given: argparse.Namespace) -> int:
    """Every account: its balance, what of it is held, and what it may spend in a day."""
    with open_ledger(given.state) as ledger:
        rows = [
            {"account": row.peer, "balance": row.balance, "held": row.held, "day_limit": row.day_limit}
            for row in ledger.accounts()
        ]
    amounts = ("balance", "held", "day_limit")
    print_rows(rows, as_json=given.json, title="balances", empty="no accounts yet", amounts=amounts)
    warn_rolled_back(given.state)
    return 0


def history(given: argparse.Namespace) -> int:
    """Every movement of money."""
    if given.peer:
        check_peer_id(given.peer)
    with open_ledger(given.state) as ledger:
        if given.peer:
            _check_account(ledger, given.peer)
        found = ledger.history(given.peer)
    rows: list[dict[str, Any]] = [
        {
            "leaf": row.index,
            "time": moment(row.at_ms),
            "kind": row.kind,
            "account": row.peer,
            "change": row.change,
            "balance": row.balance,
            "trade": row.trade.hex() if row.trade else None,
            "memo": row.memo,
        }
        for row in found
    ]
    if not given.json:
        for line, row in zip(rows, found, strict=True):
            line |= {"time": brief(moment(row.at_ms)), "account": short(row.peer)}
            del line["trade"]
    amounts = ("change", "balance")
    print_rows(rows, as_json=given.json, title="history", empty="no money has moved yet", amounts=amounts)
    warn_rolled_back(given.state)
    return 0


def grant(given: argparse.Namespace) -> int:
    """Issues credit; works beside a running broker."""
    amount = _credits(given.amount)
    if not amount:
        raise SettingsError("a grant of nothing would change nothing; give an amount above 0")
    if not is_public_key(check_peer_id(given.peer)):
        raise SettingsError(f"{given.peer} is spelled as a peer id, but its key is none: nobody can ever spend there")
    _check_memo(given.memo)
    refuse_rolled_back(given.state)
    with open_ledger(given.state) as ledger:
        try:
            with ledger.transaction():
                new = all(row.peer != given.peer for row in ledger.accounts())
                balance = ledger.grant(given.peer, amount, given.memo, secrets.token_bytes(16))
        except PeerFault as error:  # here the operator is the one who asks too much
            raise SettingsError(str(error), code=error.code) from None
    if given.json:
        print(json.dumps({"account": given.peer, "granted": amount, "balance": balance, "new_account": new}))
    else:
        whose = f"{given.peer}, a new account" if new else given.peer
        print(f"granted {format_credits(amount)} to {whose}; it has {format_credits(balance)}")
    return 0


def limit(given: argparse.Namespace) -> int:
    """Sets what an account may spend in 24 hours; works beside a running broker."""
    amount = None if given.credits == "none" else _credits(given.credits)
    check_peer_id(given.peer)
    refuse_rolled_back(given.state)
    with open_ledger(given.state) as ledger, ledger.transaction():
        _check_account(ledger, given.peer)
        ledger.set_day_limit(given.peer, amount)
    if given.json:
        print(json.dumps({"account": given.peer, "day_limit": amount}))
    else:
        said = "as the terms say" if amount is None else f"at most {format_credits(amount)} credits in 24 hours"
        print(f"{given.peer} may spend {said}")
    return 0


def export(given: argparse.Namespace) -> int:
    """The ledger's movements for other programs."""
    with open_ledger(given.state) as ledger:
        rows, market = ledger.history(), ledger.market
    if given.format == "csv":
        text = ledger_csv(rows)
    else:
        text = ledger_beancount(rows, Identity.load(given.state.expanduser() / "identity.key").peer_id, market)
    write_text(text, given.out)
    warn_rolled_back(given.state)
    return 0


def _credits(text: str) -> int:
    try:
        return parse_credits(text)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _check_account(ledger: Ledger, peer: str) -> None:
    """:raises SettingsError: the ledger has no such account"""
    if all(row.peer != peer for row in ledger.accounts()):
        raise SettingsError(
            f"there is no account of {peer} in this ledger; an account begins when its agent joins or is granted credit"
        )


def _check_memo(memo: str) -> None:
    """:raises SettingsError: the log cannot hold it"""
    if len(memo) > MAX_TEXT_CHARACTERS:
        raise SettingsError(f"the --memo has {len(memo)} characters; at most {MAX_TEXT_CHARACTERS} are kept")
    try:
        memo.encode()
    except UnicodeEncodeError:
        raise SettingsError("the --memo is not text in UTF-8; write it in other characters") from None
